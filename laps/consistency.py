"""Whether the rows of one hour add up: with the time grid, with each other, and with the tables they are made from.

The schema says what a row may hold (:meth:`laps.tables.Table.validate`); this says what the rows of an hour must be
together. It is asked before an hour is published, so that rows that do not add up never are, and again by the asset
checks of what was published.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laps import tables
from laps.tables import Table
from laps.timegrid import CameraHour, SampleGrid, from_datetime

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Partition:
    """One hour of a table, with what is needed to judge it.

    Attributes:
        table: the table.
        hour: the camera hour.
        grid: the sampling grid.
        read: the rows of a table for this hour, by its columns (None: all); of ``table`` those that are judged.
        files: paths of the files in a folder of the store.
    """

    table: Table
    hour: CameraHour
    grid: SampleGrid
    read: Callable[[Table, list[str] | None], pa.Table]
    files: Callable[[str], list[str]]


def problems_of(part: Partition) -> list[str]:
    """What does not add up, a sentence each; empty where all is well."""
    return RULES[part.table](part)


def _raw_video(part: Partition) -> list[str]:
    rows = part.read(part.table, None).to_pylist()
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
    rows = part.read(part.table, ["end_sample", "tracker_id"])
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
    """Samples are the hour's, each has a code or a reason for having none, and each code comes from a window."""
    rows = part.read(part.table, ["sample", "code", "null_reason"])
    first, stop = part.grid.hour_samples(part.hour.hour_ns)
    samples, codes = rows["sample"].to_pylist(), rows["code"].to_pylist()
    problems = []
    if samples != list(range(first, first + len(samples))) or len(samples) > stop - first:
        problems.append("samples are not the hour's, one after the other")
    reasons = rows["null_reason"].to_pylist()
    wrong = sum((code is None) == (reason is None) for code, reason in zip(codes, reasons, strict=True))
    if wrong:
        problems.append(f"{wrong} samples have both a code and a reason for having none, or neither")
    ends = part.read(tables.KEYPOINT_TRACKS, ["end_sample"])["end_sample"].to_pylist()
    owned = {sample for end in ends for sample in range(end - part.grid.stride + 1, end + 1)}
    without = [sample for sample, code in zip(samples, codes, strict=True) if code is not None and sample not in owned]
    if without:
        problems.append(f"{len(without)} codes belong to no window of keypoint_tracks, the first at {without[0]}")
    return problems


def _segments(part: Partition) -> list[str]:
    rows = sorted(part.read(part.table, None).to_pylist(), key=lambda row: row["start_sample"])
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
    rows = part.read(part.table, ["segment_id", *(["clip_path"] if part.table is tables.CLIPS else [])])
    have = set(rows["segment_id"].to_pylist())
    problems = []
    if expected - have:
        problems.append(f"{len(expected - have)} primitives have no row")
    if have - expected:
        problems.append(f"{len(have - expected)} rows belong to no primitive of this hour")
    if part.table is tables.CLIPS:
        paths = rows["clip_path"].drop_null().to_pylist()
        # One listing: in object storage looking for each clip would be a request for each.
        there = {file for folder in {_folder(path) for path in paths} for file in part.files(folder)}
        missing = [path for path in paths if path not in there]
        if missing:
            problems.append(f"{len(missing)} clips are not in the store, the first: {missing[0]}")
    return problems


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


RULES: dict[Table, Callable[[Partition], list[str]]] = {
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
