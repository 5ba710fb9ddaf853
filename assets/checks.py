"""Checks of what was written: one blocking check for each table of a camera hour.

The writer already refuses rows that do not fit a table's schema; these checks read the partition back and ask
whether its rows add up, within the hour and with the tables they were made from.
"""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from assets.partitions import camera_hour, camera_hours
from laps import tables
from laps.tables import Table
from laps.timegrid import CameraHour, SampleGrid, from_datetime
from resources.configured import StoreResource
from resources.models import Release
from resources.release import ReleaseResource
from resources.settings import store_grid
from resources.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Partition:
    """One partition as it was written, with what is needed to judge it."""

    table: Table
    hour: CameraHour
    store: Store
    grid: SampleGrid
    release: Release | None

    def read(self, table: Table, columns: list[str] | None = None) -> "pa.Table":
        model = None if self.release is None else self.release.model_of(table)
        return self.store.read_partition(table, self.hour, model, columns)


def _raw_video(part: Partition) -> list[str]:
    rows = part.read(part.table).to_pylist()
    problems = []
    if not rows:
        problems.append("the hour has no row, not even a gap")
    used = sorted((from_datetime(r["start_time"]), from_datetime(r["end_time"])) for r in rows if r["used"])
    problems += [
        f"used ranges overlap at {before[1]}" for before, after in itertools.pairwise(used) if after[0] < before[1]
    ]
    problems += [
        f"a range ends before it starts: {row['start_time']}" for row in rows if row["end_time"] < row["start_time"]
    ]
    return problems


def _keypoint_tracks(part: Partition) -> list[str]:
    rows = part.read(part.table, ["end_sample", "tracker_id", "visible_share"])
    first, stop = part.grid.hour_samples(part.hour.hour_ns)
    allowed = part.grid.window_ends(first, stop)
    problems = []
    outside = [end for end in rows["end_sample"].to_pylist() if end not in allowed]
    if outside:
        problems.append(f"{len(outside)} windows do not end on the hour's grid, the first at sample {outside[0]}")
    if len(set(rows["tracker_id"].to_pylist())) > 1:
        problems.append("windows of several trackers are mixed")
    return problems


def _keyframes(part: Partition) -> list[str]:
    first, stop = part.grid.hour_samples(part.hour.hour_ns)
    outside = [s for s in part.read(part.table, ["sample"])["sample"].to_pylist() if not first <= s < stop]
    return [f"{len(outside)} keyframes lie outside the hour"] if outside else []


def _latent_stream(part: Partition) -> list[str]:
    rows = part.read(part.table, ["sample", "code", "null_reason"])
    first, stop = part.grid.hour_samples(part.hour.hour_ns)
    samples = rows["sample"].to_pylist()
    problems = []
    if samples != list(range(first, first + len(samples))) or len(samples) > stop - first:
        problems.append("samples are not the hour's, one after the other")
    pairs = zip(rows["code"].to_pylist(), rows["null_reason"].to_pylist(), strict=True)
    wrong = sum((code is None) == (reason is None) for code, reason in pairs)
    if wrong:
        problems.append(f"{wrong} samples have both a code and a reason for having none, or neither")
    return problems


def _segments(part: Partition) -> list[str]:
    rows = sorted(part.read(part.table).to_pylist(), key=lambda row: row["start_sample"])
    first, stop = part.grid.hour_samples(part.hour.hour_ns)
    problems = []
    for row in rows:
        if not first <= row["decided_sample"] < stop:
            problems.append(f"{row['segment_id']} was decided outside this hour")
        if not row["start_sample"] < row["end_sample"]:
            problems.append(f"{row['segment_id']} does not end after its start")
        if not row["codes"]:
            problems.append(f"{row['segment_id']} has no codes")
    problems += [
        f"{after['segment_id']} begins before {before['segment_id']} ends"
        for before, after in itertools.pairwise(rows)
        if after["start_sample"] < before["end_sample"]
    ]
    return problems


def _of_segments(part: Partition) -> list[str]:
    """One row for each primitive of the hour, made in the same release."""
    expected = set(part.read(tables.SEGMENTS, ["segment_id"])["segment_id"].to_pylist())
    rows = part.read(part.table)
    have = set(rows["segment_id"].to_pylist())
    problems = []
    if expected - have:
        problems.append(f"{len(expected - have)} primitives have no row")
    if have - expected:
        problems.append(f"{len(have - expected)} rows belong to no primitive of this hour")
    if part.table is tables.CLIPS:
        paths = rows["clip_path"].drop_null().to_pylist()
        # One listing: in object storage looking for each clip would be a request for each.
        there = set(itertools.chain.from_iterable(part.store.files(folder) for folder in {_folder(p) for p in paths}))
        missing = [path for path in paths if path not in there]
        if missing:
            problems.append(f"{len(missing)} clips are not in the store, the first: {missing[0]}")
    return problems


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


CHECKS: dict[Table, Callable[[Partition], list[str]]] = {
    tables.RAW_VIDEO: _raw_video,
    tables.KEYPOINT_TRACKS: _keypoint_tracks,
    tables.KEYFRAMES: _keyframes,
    tables.LATENT_STREAM: _latent_stream,
    tables.SEGMENTS: _segments,
    tables.CLIPS: _of_segments,
    tables.SEGMENT_EMBEDDINGS: _of_segments,
    tables.VISUAL_FEATURES: _of_segments,
    tables.CLUSTER_ASSIGNMENTS: _of_segments,
}


def _check(table: Table, judge: Callable[[Partition], list[str]]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=table.name,
        name=f"{table.name}_adds_up",
        description=(judge.__doc__ or "The rows of the hour fit the time grid and each other.").strip(),
        partitions_def=camera_hours,
        blocking=True,
    )
    def adds_up(
        context: dg.AssetCheckExecutionContext, store: StoreResource, release: ReleaseResource
    ) -> dg.AssetCheckResult:
        files = store.open()
        chosen = release.read(files) if table.model_level else None
        problems = judge(Partition(table, camera_hour(context), files, store_grid(files), chosen))
        return dg.AssetCheckResult(
            passed=not problems,
            description="; ".join(problems[:20]) or "adds up",
            metadata={"problems": len(problems)},
        )

    return adds_up


with warnings.catch_warnings():
    # Checks with partitions are marked as a preview.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    table_checks = [_check(table, judge) for table, judge in CHECKS.items()]
