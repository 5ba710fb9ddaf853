"""The segment stage follows the observe stage: which hours became due by what was observed, and whose turn it is."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from assets.partitions import multi_partition_key
from laps.tables import LATENT_STREAM
from laps.timegrid import CameraHour, now_ns
from laps_dagster.hour_runs import NIGHT, THEN, hour_of, hours_being_observed, observes
from laps_dagster.jobs import segment
from resources.models import Release
from resources.store import Store

# Observed hours that are older are nobody's business any more; `laps backfill --only missing` is.
LOOK_BACK_S = 2 * 86_400.0
# Instances may show a run's end a little after it was written.
_OVERLAP_S = 60.0


class Follower:
    """The hours whose segment stage is due because they, or the hour before, were observed.

    Attributes:
        after_s: update time of the newest run that was looked at, seconds since the epoch.
        taken: ids of the runs that were looked at and whose update is not older than the overlap.
        waiting: for each hour the tags of its segment run, and the observe run that made it due.
        requested: the runs that are requested now.
        notes: what to say about hours that are not requested.
    """

    def __init__(self, after_s: float, taken: dict[str, float], waiting: dict[str, dict[str, str]]) -> None:
        self.after_s = after_s
        self.taken = taken
        self.waiting = waiting
        self.requested: list[dg.RunRequest] = []
        self.notes: list[str] = []

    @classmethod
    def of(cls, cursor: str | None) -> Follower:
        """As a cursor says; without one the last days are looked at again, and run keys keep runs from coming twice."""
        known: dict[str, Any] = json.loads(cursor or "{}")
        return cls(known.get("after_s", time.time() - LOOK_BACK_S), known.get("taken", {}), known.get("waiting", {}))

    def cursor(self) -> str:
        recent = {run: when for run, when in self.taken.items() if when >= self.after_s - _OVERLAP_S}
        return json.dumps({"after_s": self.after_s, "taken": recent, "waiting": self.waiting})

    def take_in(self, instance: dg.DagsterInstance) -> None:
        """Let the hours wait that observe runs made due which ended well since the last time."""
        # All that ended, and the tag is looked at here: SQLite would read all tags of its years for each of these runs.
        ended = instance.get_run_records(
            dg.RunsFilter(
                statuses=[dg.DagsterRunStatus.SUCCESS],
                updated_after=datetime.fromtimestamp(self.after_s - _OVERLAP_S, UTC),
            ),
            order_by="update_timestamp",
            ascending=True,
        )
        for record in ended:
            run, when = record.dagster_run, record.update_timestamp.timestamp()
            if run.run_id in self.taken:
                continue
            self.taken[run.run_id] = when
            self.after_s = max(self.after_s, when)
            if run.tags.get(THEN) != segment.name or not observes(run):
                continue
            tags = {NIGHT: run.tags[NIGHT]} if NIGHT in run.tags else {}
            hour = hour_of(run)
            for due in (hour, hour.next):
                # A night that waits for an hour goes on waiting, whoever observed it last.
                self.waiting[due.key] = {**self.waiting.get(due.key, {}), **tags, "by": run.run_id}

    def hours(self) -> set[CameraHour]:
        """The hours that wait, or were requested just now."""
        keys = [*self.waiting, *(str(request.partition_key) for request in self.requested)]
        return set(map(CameraHour.parse, keys))

    def of_night(self, run_id: str) -> int:
        """How many hours of a night wait, or were requested just now."""
        tags = [*self.waiting.values(), *(dict(request.tags) for request in self.requested)]
        return sum(one.get(NIGHT) == run_id for one in tags)

    def request(self, instance: dg.DagsterInstance, store: Store, release: Release) -> None:
        """Request the segment runs whose turn it is; they and hours that cannot be cut are taken off the list."""
        if not self.waiting:
            return
        busy = hours_being_observed(instance)
        uncalibrated: set[str] = set()
        for hour in sorted(map(CameraHour.parse, self.waiting)):
            if {hour, hour.previous} & busy:
                continue
            due = self.waiting.pop(hour.key)
            # The hour after the last one: it comes again when it is over and observed itself.
            if hour.stop_ns > now_ns() or not store.has_partition(LATENT_STREAM, hour, release.tokenizer):
                continue
            if hour.camera not in release.calibrations:
                uncalibrated.add(hour.camera)
                continue
            run_key = f"segment {hour.key} after {due.pop('by')}"
            key = multi_partition_key(hour)
            self.requested.append(dg.RunRequest(run_key, job_name=segment.name, partition_key=key, tags=due))
        if uncalibrated:
            self.notes.append(uncalibrated_note(sorted(uncalibrated), release))
        if self.waiting:
            self.notes.append(f"{len(self.waiting)} hours wait for observe runs")


def uncalibrated_note(cameras: list[str], release: Release) -> str:
    """What to do about cameras that are newer than the release: thresholds stay, so a person chooses their hours."""
    return (
        f"release {release.name} has no calibration of {', '.join(cameras)}: their hours are observed and not cut; "
        f"`laps backfill --camera {cameras[0]} --only missing` calibrates a camera and cuts its hours"
    )
