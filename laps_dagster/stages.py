"""What the tables of an hour are made from, and the jobs that make them.

The asset graph says the same to Dagster; here it serves ``laps backfill --only missing``, which asks of every hour
whether a table is missing or older than something it is made from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from laps import tables
from laps.tables import Table
from laps.timegrid import NS_PER_S, CameraHour
from resources.cameras import BLUR, IGNORE, Cameras
from resources.forgotten import ForgottenTimes
from resources.freshness import Freshness
from resources.models import CALIBRATION, CLUSTER_MODEL, ModelRegistry
from resources.retention import Retention
from resources.store import Store


@dataclass(frozen=True)
class Made:
    """A table and what an hour of it is made from.

    Attributes:
        table: the table.
        this_hour: tables of the same hour.
        both_hours: tables of the same hour and of the one before.
        models: slots of the release.
        regions: kind of the camera's regions that go into it: :data:`~resources.cameras.IGNORE` or ``BLUR``.
    """

    table: Table
    this_hour: tuple[Table, ...] = ()
    both_hours: tuple[Table, ...] = ()
    models: tuple[str, ...] = ()
    regions: str | None = None


@dataclass(frozen=True)
class Stage:
    """A job over hours and the tables that it makes."""

    job: str
    makes: tuple[Made, ...]


_RAW_VIDEO = Made(tables.RAW_VIDEO)
_TRACKS = Made(tables.KEYPOINT_TRACKS, this_hour=(tables.RAW_VIDEO,))
_KEYFRAMES = Made(tables.KEYFRAMES, this_hour=(tables.RAW_VIDEO,), regions=BLUR)
_LATENT = Made(tables.LATENT_STREAM, this_hour=(tables.KEYPOINT_TRACKS,), regions=IGNORE)
_SEGMENTS = Made(tables.SEGMENTS, both_hours=(tables.LATENT_STREAM,), models=(CALIBRATION,))
_CLIPS = Made(tables.CLIPS, this_hour=(tables.SEGMENTS,), both_hours=(tables.RAW_VIDEO,), regions=BLUR)
_EMBEDDINGS = Made(tables.SEGMENT_EMBEDDINGS, this_hour=(tables.SEGMENTS,))
_FEATURES = Made(tables.VISUAL_FEATURES, this_hour=(tables.SEGMENTS,), both_hours=(tables.KEYFRAMES,))
_ASSIGNMENTS = Made(tables.CLUSTER_ASSIGNMENTS, this_hour=(tables.SEGMENT_EMBEDDINGS,), models=(CLUSTER_MODEL,))

TRACK = Stage("track", (_RAW_VIDEO, _TRACKS, _KEYFRAMES))
ENCODE = Stage("encode", (_LATENT,))
OBSERVE = Stage("observe", (*TRACK.makes, _LATENT))
CUT = Stage("cut", (_SEGMENTS, _CLIPS, _EMBEDDINGS, _FEATURES))
ASSIGN = Stage("assign", (_ASSIGNMENTS,))
SEGMENT = Stage("segment", (*CUT.makes, _ASSIGNMENTS))

_MADE = {made.table: made for made in (*OBSERVE.makes, *SEGMENT.makes)}


class OutOfDate:
    """Which hours a stage has still to make, for one release.

    Args:
        store: the store.
        release: name of the release; empty before there is one.
        registered: paths of the register's rows that touch each hour.
        by_day: look at the days of the hours only (:class:`~resources.freshness.Freshness`).
    """

    def __init__(
        self, store: Store, release: str, registered: dict[CameraHour, list[str]], *, by_day: bool = False
    ) -> None:
        self.store = store
        self.registered = registered
        self.forgotten = ForgottenTimes(store)
        self.kept = Retention.of(store)
        self.fresh = Freshness(store, by_day=by_day)
        self.registry = ModelRegistry(store)
        self.release = self.registry.release(release) if release else None

    def hours(self, stage: Stage, hours: Iterable[CameraHour]) -> list[CameraHour]:
        """The hours of which a table is missing, or older than something it is made from.

        A table that is over age, or cannot be made without one that is and was removed, is neither.
        """
        hours = list(hours)
        stale: set[CameraHour] = set()
        for made in stage.makes:
            able = [hour for hour in hours if self.can_be_made(made.table, hour)]
            stale.update(self.fresh.out_of_date(able, self._path_of(made.table), self._inputs_of(made)))
            if made.regions is not None:
                stale.update(self._with_other_regions(able, self._path_of(made.table), made.regions))
        if _RAW_VIDEO in stage.makes:
            stale.update(hour for hour in hours if self._was_running(hour))
        return [hour for hour in hours if hour in stale]

    def can_be_made(self, table: Table, hour: CameraHour) -> bool:
        """Whether an hour of a table is neither over age itself nor needs something that was removed for its age."""
        if not self.kept.days:
            return True
        if self.kept.is_over_age(table, hour):
            return False
        made = _MADE[table]
        needed = [(one, hour) for one in (*made.this_hour, *made.both_hours)]
        if hour.previous in self.registered:  # else there was nothing to remove
            needed += [(one, hour.previous) for one in made.both_hours]
        return all(self.is_there(*one) or self.can_be_made(*one) for one in needed)

    def is_there(self, table: Table, hour: CameraHour) -> bool:
        """Whether an hour of a table was made, for the release."""
        if self.release is None and table.model_level is not None:
            return False
        return self.fresh.written(self._path_of(table)(hour)) is not None

    def _with_other_regions(
        self, hours: Iterable[CameraHour], path_of: Callable[[CameraHour], str], kind: str
    ) -> Iterator[CameraHour]:
        """The hours of which a table was made before its camera's regions of a kind last changed."""
        cameras = Cameras(self.store)
        changed: dict[str, float] = {}
        for hour in hours:
            if hour.camera not in changed:
                set_at = cameras.regions_set_at(hour.camera, kind)
                changed[hour.camera] = set_at.timestamp() if set_at else 0.0
            made = self.fresh.written(path_of(hour))
            if made is not None and made < changed[hour.camera]:
                yield hour

    def _was_running(self, hour: CameraHour) -> bool:
        """Whether an hour that is over was described before it ended."""
        described = self.fresh.written(self._path_of(tables.RAW_VIDEO)(hour))
        end_s = hour.stop_ns / NS_PER_S
        return described is not None and described < end_s <= time.time()

    def _path_of(self, table: Table) -> Callable[[CameraHour], str]:
        model = None if self.release is None else self.release.model_of(table)
        return lambda hour: self.store.partition_path(table, hour, model)

    def _inputs_of(self, made: Made) -> Callable[[CameraHour], Iterator[str]]:
        def paths(hour: CameraHour) -> Iterator[str]:
            if made.table is tables.RAW_VIDEO:
                yield from self.registered.get(hour, [])
                yield from self.forgotten.paths_touching(hour)
            for table in (*made.this_hour, *made.both_hours):
                yield self._path_of(table)(hour)
            for table in made.both_hours:
                yield self._path_of(table)(hour.previous)
            for slot in made.models:
                if self.release is not None:
                    yield self.registry.slot_path(self.release.name, slot, hour.camera)

        return paths
