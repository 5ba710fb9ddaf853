"""Choosing the primitives of a data set: a condition on the catalog, then balance, near-duplicates and the split.

The steps come in that order, and :class:`Chosen` says how many primitives each of them left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from laps.errors import InputError, ModelMismatchError, NotProcessedError
from laps.tables import SEGMENTS
from laps.timegrid import CameraHour, check_camera, format_utc, from_datetime, parse_hour, parse_utc
from resources.models import Release
from resources.settings import store_grid
from resources.store import Store

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from laps.export.items import ExportItem

_NAMED_HOURS = 10


@dataclass(frozen=True)
class Selection:
    """Which primitives go into a data set. Conditions are added up: a primitive must meet all that are given.

    Attributes:
        where: SQL condition on the view `primitives`.
        sql: SQL query whose column `segment_id` names the primitives.
        clusters, cameras: numbers of clusters, names of cameras; empty: all.
        start, stop: times that a primitive's start must lie between, ISO 8601 with a zone; ``stop`` is exclusive.
        min_duration_s, max_duration_s: shortest and longest, both inclusive.
        min_icss: least coherence of the primitive's cluster.
        per_cluster: most primitives of each cluster, drawn at random.
        min_distance: least cosine distance of two primitives' embeddings, in (0, 2]; of nearer ones the first stays.
        split: what is drawn as a whole for validation; None: all primitives are for training.
        validation_share: share of the primitives wanted for validation, in (0, 1).
        guard_s: least time between a training and a validation primitive of a camera.
        seed: of all draws.
    """

    where: str | None = None
    sql: str | None = None
    clusters: tuple[int, ...] = ()
    cameras: tuple[str, ...] = ()
    start: str | None = None
    stop: str | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    min_icss: float | None = None
    per_cluster: int | None = None
    min_distance: float | None = None
    split: Literal["time", "recording"] | None = None
    validation_share: float = 0.1
    guard_s: float = 10.0
    seed: int = 0

    def query(self) -> str:
        """The SQL that selects the primitives, in order of time."""
        conditions = []
        if self.split not in (None, "time", "recording"):
            raise InputError(f"there is no split by {self.split!r}", fix="Split by time or by recording.")
        if self.where is not None and self.sql is not None:
            raise InputError("a condition and a query cannot both select", fix="Put the condition into the query.")
        if self.where is not None:
            conditions.append(f"(\n{_one_statement(self.where)}\n)")  # on lines of its own: it may end in a comment
        if self.sql is not None:
            # Named, so that a query without the column is an error and does not find that of `primitives`.
            query = _one_statement(self.sql)
            conditions.append(f"segment_id IN (SELECT chosen.segment_id FROM (\n{query}\n) AS chosen)")
        if self.clusters:
            conditions.append(f"cluster_id IN ({', '.join(str(int(one)) for one in self.clusters)})")
        if self.cameras:
            conditions.append(f"camera IN ({', '.join(repr(check_camera(one)) for one in self.cameras)})")
        for sign, time in ((">=", self.start), ("<", self.stop)):
            if time is not None:
                conditions.append(f"start_time {sign} TIMESTAMPTZ '{format_utc(parse_utc(time))}'")
        for column, sign, bound in (
            ("duration_s", ">=", self.min_duration_s),
            ("duration_s", "<=", self.max_duration_s),
            ("cluster_icss", ">=", self.min_icss),
        ):
            if bound is not None:
                conditions.append(f"{column} {sign} {float(bound)!r}")
        return (
            f"SELECT {', '.join(_COLUMNS)}\nFROM primitives\n"
            + (f"WHERE {' AND '.join(conditions)}\n" if conditions else "")
            + "ORDER BY start_time, camera, segment_id"
        )

    def options(self) -> dict[str, Any]:
        """What the query does not say, as plain values for the card."""
        chosen: dict[str, Any] = {"seed": self.seed}
        if self.per_cluster is not None:
            chosen["per_cluster"] = self.per_cluster
        if self.min_distance is not None:
            chosen["min_distance"] = self.min_distance
        if self.split is not None:
            chosen |= {"split": self.split, "validation_share": self.validation_share, "guard_s": self.guard_s}
        return chosen


_COLUMNS = (
    "segment_id",
    "camera",
    "date",
    "hour",
    "start_time",
    "end_time",
    "cluster_id",
    "action_name",
    "codes",
    "tokenizer_id",
    "calibration_id",
    "cluster_model_id",
)


@dataclass(frozen=True)
class Chosen:
    """The primitives of a data set.

    Attributes:
        selection: what was asked for.
        items: the primitives, in order of time, with their split.
        query: the SQL that matched them.
        counts: primitives after each step, by its name; steps that were not asked for are absent.
    """

    selection: Selection
    items: list[ExportItem]
    query: str
    counts: dict[str, int]

    @property
    def funnel(self) -> str:
        """The counts in words."""
        return _in_words(self.counts)


def selection_of(options: Mapping[str, Any]) -> Selection:
    """A selection from plain values, as a run's configuration or a command gives them; other keys are passed over."""
    known = {field.name for field in fields(Selection)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items() if name in known
    }
    return Selection(**given)


def choose(store: Store, release: Release, selection: Selection) -> Chosen:
    """Choose the primitives of a release.

    Args:
        store: the store.
        release: the release.
        selection: which of its primitives.

    Raises:
        InputError: the SQL is not admitted or wrong, an option is out of range, or nothing is left; the counts of
            the steps say where it went.
        ModelMismatchError: rows of other models than the release's are among the selected ones.
        StoreError: a file is damaged or another table's.
    """
    from laps.export.selection import balance, drop_near_duplicates, split
    from resources.catalog import open_catalog, run_query

    query = selection.query()
    connection = open_catalog(store, release=release.name)
    try:
        rows = run_query(connection, query).to_pylist()
        counts = {"matched": len(rows)}
        if not rows:
            raise _nothing(counts, _what_there_is(connection, release))
        _refuse_other_tables(rows, store, release)
        _refuse_other_models(rows, release)
        clips = _clips(connection, rows)
    finally:
        connection.close()
    items = _items(store, rows, clips)
    counts["with a clip"] = len(items)
    if not items:
        raise _nothing(counts, "Cut the clips of these hours (the asset clips says why one could not be cut).")
    if selection.per_cluster is not None:
        items = balance(items, per_cluster=selection.per_cluster, seed=selection.seed)
        counts["after balance"] = len(items)
    if selection.min_distance is not None:
        hours = {row["segment_id"]: _hour(row) for row in rows}
        vectors = _embeddings(store, release, items, hours)
        items = drop_near_duplicates(items, vectors, min_distance=selection.min_distance).kept
        counts["without near-duplicates"] = len(items)
    if selection.split is not None:
        try:
            parts = split(
                items,
                by=selection.split,
                validation_share=selection.validation_share,
                guard_s=selection.guard_s,
                seed=selection.seed,
            )
        except InputError as error:
            raise InputError(f"{error.what} ({_in_words(counts)})", where=error.where, fix=error.fix) from error
        drawn = {item.segment_id for item in parts.validation}
        kept = drawn | {item.segment_id for item in parts.train}
        items = [
            replace(item, split="validation") if item.segment_id in drawn else item
            for item in items
            if item.segment_id in kept
        ]
        counts["after the split"] = len(items)
    return Chosen(selection, items, query, counts)


def _one_statement(sql: str) -> str:
    return sql.strip().rstrip(";")


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {step}" for step, count in counts.items())


def _nothing(counts: dict[str, int], fix: str) -> InputError:
    return InputError(f"nothing is selected ({_in_words(counts)})", fix=fix)


def _what_there_is(connection: duckdb.DuckDBPyConnection, release: Release) -> str:
    """What could have been selected, for someone whose condition met nothing."""
    count, cameras, clusters, first, last = connection.execute(
        "SELECT count(*), list(DISTINCT camera ORDER BY camera), list(DISTINCT cluster_id ORDER BY cluster_id) FILTER "
        "(cluster_id IS NOT NULL), min(start_time), max(start_time) FROM primitives"
    ).fetchall()[0]
    if not count:
        return f"Release {release.name} has no primitives: process hours with footage first (laps backfill)."
    return (
        f"Release {release.name} has {count} primitives of camera {', '.join(cameras)} in cluster "
        f"{', '.join(map(str, clusters or ['none']))}, from {format_utc(from_datetime(first))} to "
        f"{format_utc(from_datetime(last))}: widen the conditions."
    )


def _hour(row: dict[str, Any]) -> CameraHour:
    return CameraHour(row["camera"], parse_hour(f"{row['date']}-{row['hour']:02}:00"))


def _refuse_other_tables(rows: Iterable[dict[str, Any]], store: Store, release: Release) -> None:
    """Raise StoreError where a primitive has no time: the catalog shows what another table's file lacks as null."""
    for row in rows:
        if row["start_time"] is None or row["tokenizer_id"] is None:
            store.read_partition(SEGMENTS, _hour(row), release.name)


def _refuse_other_models(rows: Iterable[dict[str, Any]], release: Release) -> None:
    """Raise ModelMismatchError, with the hours to make again, where a row was made by another model."""
    wrong: dict[CameraHour, set[str]] = defaultdict(set)
    for row in rows:
        for column, own in (
            ("tokenizer_id", release.tokenizer),
            ("calibration_id", release.calibrations.get(row["camera"])),
            ("cluster_model_id", release.cluster_model),
        ):
            if row[column] is not None and row[column] != own:
                wrong[_hour(row)].add(f"{column} {row[column]}, not {own}")
    if not wrong:
        return
    hours = sorted(wrong)
    named = ", ".join(hour.key for hour in hours[:_NAMED_HOURS])
    more = f" and {len(hours) - _NAMED_HOURS} more" if len(hours) > _NAMED_HOURS else ""
    raise ModelMismatchError(
        f"the selection mixes models, and equal codes and clusters then mean different things: {len(hours)} of its "
        f"hours have {'; '.join(sorted(set().union(*wrong.values())))}",
        where=f"release {release.name}",
        fix=f"Materialize segments and what follows from them again for {named}{more}{release.in_run}, or leave these "
        "hours out of the selection.",
    )


def _clips(connection: duckdb.DuckDBPyConnection, rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The clips' rows by segment; only the files of the selected cameras and dates are opened."""
    from laps.catalog import quote
    from resources.catalog import run_query

    cameras = ", ".join(quote(camera) for camera in sorted({row["camera"] for row in rows}))
    dates = ", ".join(f"DATE '{date}'" for date in sorted({row["date"] for row in rows}))
    found = run_query(
        connection,
        "SELECT segment_id, clip_path, recording_id, first_frame_time, frame_count, lead_in_s FROM clips "
        f"WHERE status = 'ok' AND camera IN ({cameras}) AND date IN ({dates})",
    )
    return {row["segment_id"]: row for row in found.to_pylist()}


def _items(store: Store, rows: Iterable[dict[str, Any]], clips: dict[str, dict[str, Any]]) -> list[ExportItem]:
    """The rows that have a clip, as the writers take them."""
    from laps.export.items import ExportItem

    rate_hz = store_grid(store).rate_hz
    items = []
    for row in rows:
        clip = clips.get(row["segment_id"])
        if clip is None:
            continue
        items.append(
            ExportItem(
                segment_id=row["segment_id"],
                camera=row["camera"],
                start_ns=from_datetime(row["start_time"]),
                end_ns=from_datetime(row["end_time"]),
                codes=tuple(row["codes"]),
                rate_hz=rate_hz,
                cluster_id=row["cluster_id"],
                open_clip=_opener(store, clip["clip_path"]),
                clip_start_ns=from_datetime(clip["first_frame_time"]),
                lead_in_s=clip["lead_in_s"],
                frame_count=clip["frame_count"],
                text=row["action_name"],
                recording_id=clip["recording_id"],
                tokenizer_id=row["tokenizer_id"],
            )
        )
    return items


def _opener(store: Store, path: str) -> Callable[[], BinaryIO]:
    def open_clip() -> BinaryIO:
        try:
            return store.open(path)
        except NotProcessedError as error:
            raise FileNotFoundError(store.url(path)) from error

    return open_clip


def _embeddings(
    store: Store, release: Release, items: Sequence[ExportItem], hours: dict[str, CameraHour]
) -> np.ndarray:
    """The items' embeddings, float32 [n, d], read hour by hour."""
    import numpy as np

    from resources.embeddings import matrix, read_hour_embeddings

    places: dict[CameraHour, dict[str, int]] = defaultdict(dict)
    for place, item in enumerate(items):
        places[hours[item.segment_id]][item.segment_id] = place
    found: np.ndarray | None = None
    for hour, wanted in sorted(places.items()):
        table = read_hour_embeddings(store, release, hour)
        rows = [row for row, one in enumerate(table["segment_id"].to_pylist()) if one in wanted]
        taken = table.take(rows)
        vectors = matrix(taken["embedding"])
        if found is None:
            found = np.zeros((len(items), vectors.shape[1]), np.float32)
        found[[wanted[one] for one in taken["segment_id"].to_pylist()]] = vectors
    return np.zeros((0, 1), np.float32) if found is None else found
