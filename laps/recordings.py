"""Recordings: when a file was filmed, whether it can be used, and which files cover an hour.

A recording's start comes from the first of these that is there: an option of the person who registers it, a sidecar
JSON file, a UTC stamp in the file's name, the container's creation time. A file that cannot be used is quarantined
with the reason; it never stops its neighbours.

Where recordings of one camera overlap, the one that starts earlier keeps the overlap (then the one registered
earlier, then the one whose uri sorts first). So a file that arrives late changes nothing that was read before,
unless it starts earlier than what it overlaps: then it takes the overlap over, and the hours that it touches have to
be described again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from laps.errors import InputError, LapsError, MediaError
from laps.forgotten import Forgotten
from laps.tables import RAW_VIDEO
from laps.timegrid import (
    NS_PER_S,
    CameraHour,
    SampleGrid,
    check_camera,
    format_utc,
    from_datetime,
    parse_utc,
    stamp_ns,
    to_datetime,
)
from laps.video import FrameScan, Opener, VideoInfo, probe, scan_frames

# A container may claim a little less than it holds.
_CLAIM_SLACK_NS = 5 * NS_PER_S
# A frame interval rounded to nanoseconds is no reason for a gap; no sample lies that close to a range's end.
_ROUNDING_NS = NS_PER_S // 1000
# No camera that anybody watches work with takes longer from one frame to the next.
_LONGEST_INTERVAL_NS = 10 * NS_PER_S
# Longer than any recording.
_FOR_EVER_NS = 366 * 86_400 * NS_PER_S
_PROBED_COLUMNS = (
    "container",
    "codec",
    "pixel_format",
    "width_px",
    "height_px",
    "rotation_deg",
    "nominal_fps",
    "pts_offset_s",
)
_COPIED_COLUMNS = (
    "recording_id",
    "uri",
    "pts_offset_s",
    "codec",
    "width_px",
    "height_px",
    "rotation_deg",
    "size_bytes",
    "etag",
)

_STAMP = re.compile(
    r"(?<!\d)(?P<date>\d{4}-?\d\d-?\d\d)[T_](?P<time>\d\d[-:]?\d\d[-:]?\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
    r"(?P<zone>Z?)(?![A-Za-z0-9])"
)
_FOUR_WAYS = (
    "Give one of: --start 2026-11-21T05:00:00Z; a sidecar file {sidecar} with "
    '{{"start": "2026-11-21T05:00:00Z"}}; a UTC stamp in the file name, for example cam1_20261121T050000Z.mp4; '
    "a creation time in the container."
)


def sidecar_name(name: str) -> str:
    """Name of the JSON file that may stand beside a recording: ``cam1_0500.mp4`` -> ``cam1_0500.mp4.json``."""
    return f"{name}.json"


def sidecar_names(name: str) -> tuple[str, str]:
    """Names of the sidecar files that are accepted, in order: ``a.mp4.json`` and ``a.json``."""
    stem, dot, suffix = name.rpartition(".")
    return sidecar_name(name), f"{stem if dot and '/' not in suffix else name}.json"


@dataclass(frozen=True)
class Sidecar:
    """A JSON file that stands beside a recording: ``{"start": "2026-11-21T05:00:00Z"}``, UTF-8.

    Attributes:
        name: its name or uri; errors call it so.
        content: what is in it.
    """

    name: str
    content: bytes

    def concerns(self, name: str) -> bool:
        """Whether it is there to say when the recording of this name starts.

        ``a.mp4.json`` always is; ``a.json`` may be about something else, and then has no ``start``.
        """
        if self.name == sidecar_name(name):
            return True
        try:
            value = json.loads(self.content)
        except ValueError:
            return True
        return isinstance(value, dict) and "start" in value

    def start_ns(self) -> int:
        """The start that it gives; InputError when it gives none."""
        fix = 'It should hold {"start": "2026-11-21T05:00:00Z"} in UTF-8.'
        try:
            value = json.loads(self.content)
        except ValueError as error:
            raise InputError(f"the sidecar file is no JSON ({error})", where=self.name, fix=fix) from error
        start = value.get("start") if isinstance(value, dict) else None
        if not isinstance(start, str):
            raise InputError('the sidecar file has no text "start"', where=self.name, fix=fix)
        try:
            return parse_utc(start)
        except InputError as error:
            what = f"the sidecar file's start cannot be used: {error.what}"
            raise InputError(what, where=self.name, fix=fix) from error
        except OverflowError as error:
            what = f"the sidecar file's start {start!r} lies outside the calendar"
            raise InputError(what, where=self.name, fix=fix) from error


def resolve_start(
    name: str, *, option_ns: int | None, sidecar: Sidecar | None, info: VideoInfo | None
) -> tuple[int, str]:
    """When the first frame was filmed, and where that is known from.

    Args:
        name: file name or uri.
        option_ns: start given by a person, nanoseconds since the epoch.
        sidecar: the file beside it, where there is one; one that is about something else is passed over.
        info: what the file says about itself, where it can be read.

    Returns:
        Nanoseconds since the epoch and ``"option"``, ``"sidecar"``, ``"file_name"`` or ``"container"``.

    Raises:
        InputError: no way gives a start, or the sidecar is there but cannot be used.
    """
    if option_ns is not None:
        return option_ns, "option"
    if sidecar is not None and sidecar.concerns(name):
        return sidecar.start_ns(), "sidecar"
    stamp_ns, without_zone = name_start(name)
    if stamp_ns is not None:
        return stamp_ns, "file_name"
    if info is not None and info.creation_time_ns is not None:
        return info.creation_time_ns, "container"
    what = "nothing says when the recording starts"
    if without_zone:
        what += f" (the stamp {without_zone} in its name does not end in Z, so its zone is unknown)"
    raise InputError(what, where=name, fix=_FOUR_WAYS.format(sidecar=sidecar_name(PurePosixPath(name).name)))


def name_start(name: str) -> tuple[int | None, str | None]:
    """Time of the first UTC stamp in a file's name, and the first stamp that names no zone."""
    without_zone = None
    for match in _STAMP.finditer(PurePosixPath(name).name):
        digits = re.sub(r"\D", "", match["date"] + match["time"])
        try:
            when = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
        if match["zone"]:
            return from_datetime(when) + int((match["fraction"] or "0").ljust(9, "0")), without_zone
        without_zone = without_zone or match[0]
    return None, without_zone


def registration_row(
    file: BinaryIO | MediaError,
    *,
    camera: str,
    uri: str,
    size_bytes: int,
    modified_ns: int | None,
    etag: str | None,
    registered_ns: int,
    option_ns: int | None = None,
    sidecar: Sidecar | None = None,
    first_hour_ns: int | None = None,
    first_hour_file: str | None = None,
) -> dict[str, Any]:
    """A row of the table `recordings` for a file that was offered.

    A file that cannot be used (no readable video, no start, a start before the first hour, a start or an end in the
    future) gives a row with status ``quarantined`` and the reason.

    Args:
        file: seekable binary file object; or why nothing can be read from it.
        camera: camera that filmed it.
        uri: where the file lies; errors call it so.
        size_bytes: its size.
        modified_ns: when it was last modified, where the store knows.
        etag: the store's change marker; without one, modification time and size take its place.
        registered_ns: the present.
        option_ns: start given by a person.
        sidecar: the file beside it, where there is one.
        first_hour_ns: the first hour that has a partition.
        first_hour_file: the file that says so; a quarantined recording's reason names it.

    Raises:
        InputError: the camera's name cannot be used.
    """
    check_camera(camera)
    marker = etag or f"{modified_ns}-{size_bytes}"
    row: dict[str, Any] = {
        "recording_id": recording_id(camera, uri, size_bytes, modified_ns, etag),
        "camera": camera,
        "uri": uri,
        "status": "ok",
        "reason": None,
        "start_time": None,
        "start_source": None,
        "end_time": None,
        "size_bytes": size_bytes,
        "etag": marker,
        "registered_at": to_datetime(registered_ns),
        "quarantined_at": None,
        **dict.fromkeys(_PROBED_COLUMNS),
    }
    try:
        info = _probe(file, uri, row)
        start_ns, row["start_source"] = resolve_start(uri, option_ns=option_ns, sidecar=sidecar, info=info)
        row["start_time"] = to_datetime(start_ns)
        end_ns = start_ns
        if info is not None and not isinstance(file, MediaError):
            end_ns += _length_ns(file, uri, info)
            row["end_time"] = to_datetime(end_ns)
        _check_times(uri, start_ns, end_ns, registered_ns, first_hour_ns, first_hour_file)
    except (MediaError, InputError) as error:
        _quarantine(row, error)
    return row


def place_id(camera: str, uri: str) -> str:
    """The first part of a recording's id: the same for every version of the file that lay at this uri."""
    return "r" + hashlib.sha256(f"{camera}\0{uri}".encode()).hexdigest()[:16]


def recording_id(camera: str, uri: str, size_bytes: int, modified_ns: int | None, etag: str | None) -> str:
    """A recording's id: another one as soon as the file is."""
    version = f"{size_bytes}\0{etag if modified_ns is None else modified_ns}"
    return f"{place_id(camera, uri)}-{hashlib.sha256(version.encode()).hexdigest()[:8]}"


def _probe(file: BinaryIO | MediaError, uri: str, row: dict[str, Any]) -> VideoInfo | None:
    """Describe the file in the row, or quarantine it: where its start is known, its hour still tells of it."""
    try:
        if isinstance(file, MediaError):
            raise file
        info = probe(file, name=uri)
    except MediaError as error:
        _quarantine(row, error)
        return None
    row.update({name: getattr(info, name) for name in _PROBED_COLUMNS})
    return info


def _quarantine(row: dict[str, Any], error: LapsError) -> None:
    row["status"] = "quarantined"
    # The uri has a column of its own; errors about a sidecar keep its name.
    said = type(error)(error.what, fix=error.fix) if error.where == row["uri"] else error
    row["reason"] = row["reason"] or str(said)


def _length_ns(file: BinaryIO, uri: str, info: VideoInfo) -> int:
    if info.duration_s is not None:
        return round(info.duration_s * NS_PER_S)
    # The container claims no length (a live stream written to a file): only reading it through tells.
    times = scan_frames(file, name=uri, from_ns=0, to_ns=_FOR_EVER_NS).times_ns
    return int(times[-1]) + _interval_ns(info.nominal_fps, times) if times.size else 0


def _check_times(
    uri: str,
    start_ns: int,
    end_ns: int,
    registered_ns: int,
    first_hour_ns: int | None,
    first_hour_file: str | None,
) -> None:
    if start_ns > registered_ns:
        raise InputError(
            f"the recording starts at {format_utc(start_ns)}, which is in the future",
            where=uri,
            fix="Check the camera's clock, or give the right --start.",
        )
    if end_ns > registered_ns:
        raise InputError(
            f"the recording starts at {format_utc(start_ns)} and would end at {format_utc(end_ns)}, "
            "which is in the future",
            where=uri,
            fix="Check the camera's clock, or give the right --start; if it is still being recorded, register it "
            "again when it is done.",
        )
    if first_hour_ns is not None and start_ns < first_hour_ns:
        raise InputError(
            f"the recording starts at {format_utc(start_ns)}, before the first hour {format_utc(first_hour_ns)}",
            where=uri,
            fix=f"Give the right --start; or write an earlier first_hour into {first_hour_file or 'settings.json'}, "
            "unset LAPS_FIRST_HOUR where it is set, and register the file again.",
        )


def check_length(duration_s: float, grid: SampleGrid, *, name: str) -> None:
    """Raise MediaError where a recording is shorter than one window of tracks."""
    window_s = grid.window * grid.step_s
    # Sixteen samples at 10 Hz span 1.5 s, and a container may claim a frame less than it holds.
    if duration_s <= window_s - grid.step_s:
        raise MediaError(
            f"too short: {duration_s:.2f} s, a window needs at least {window_s:.1f} s",
            where=name,
            fix="Give a longer recording.",
        )


def in_order(recordings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Recordings in the order in which they keep an overlap: by start, by registration, by uri."""
    return sorted(recordings, key=lambda row: (stamp_ns(row["start_time"]), stamp_ns(row["registered_at"]), row["uri"]))


def describe_hour(
    hour: CameraHour,
    grid: SampleGrid,
    recordings: Sequence[Mapping[str, Any]],
    open: Opener,
    *,
    until_ns: int | None = None,
    forgotten: Sequence[Forgotten] = (),
) -> list[dict[str, Any]]:
    """Rows of the table `raw_video`: what covers a camera hour, its pre-roll and the frame shown there.

    The range begins where the frame of the first pre-roll sample may lie, and ends with the hour, or at ``until_ns``
    while the hour is still running. Footage of times that were forgotten is not used.
    """
    first, _ = grid.hour_samples(hour.start_ns)
    start_ns = grid.time_ns(first - grid.preroll) - grid.max_age_ns
    stop_ns = hour.stop_ns if until_ns is None else min(hour.stop_ns, until_ns)
    return describe_range(hour.camera, start_ns, stop_ns, grid, recordings, open, forgotten=forgotten)


def describe_range(
    camera: str,
    start_ns: int,
    stop_ns: int,
    grid: SampleGrid,
    recordings: Sequence[Mapping[str, Any]],
    open: Opener,
    *,
    forgotten: Sequence[Forgotten] = (),
) -> list[dict[str, Any]]:
    """Rows of the table `raw_video` for ``[start_ns, stop_ns)``.

    The rows with ``used``, the gaps and what was forgotten tile the range. Rows with the status ``overlap`` or
    ``corrupt`` and without ``used`` lie over them and say what was not used and why. Which frame is used does not
    depend on the range asked for. Packets are read, no pixels.

    Args:
        camera: recordings of other cameras are passed over.
        start_ns: start of the range.
        stop_ns: end of the range (exclusive).
        grid: its ``max_age_s`` (at least two frame intervals) is the longest step between frames that is no gap.
        recordings: rows of the table `recordings`; superseded ones are passed over.
        open: opens a uri as a seekable binary file.
        forgotten: times of the camera whose footage is not used.

    Raises:
        OSError: a URL cannot be read for another reason than that the file is gone. A network that is down must not
            be stored as footage that is corrupt; a local file that cannot be read is a ``corrupt`` row.
    """
    rows: list[dict[str, Any]] = []
    footage: list[_Footage] = []
    unused = [(*one.unused(grid.max_age_ns), one.why()) for one in sorted(forgotten) if one.camera == camera]
    mine = [
        row
        for row in recordings
        if row["camera"] == camera and row["start_time"] is not None and row["status"] != "superseded"
    ]
    for recording in in_order(mine):
        begin_ns = stamp_ns(recording["start_time"])
        claimed_ns = None if recording["end_time"] is None else stamp_ns(recording["end_time"])
        if recording["status"] != "ok":
            end_ns = stop_ns if claimed_ns is None and start_ns <= begin_ns else (claimed_ns or begin_ns)
            reason = f"{recording['uri']}: {recording['reason']}"
            rows += _corrupt_rows(recording, begin_ns, end_ns, start_ns, stop_ns, reason)
            continue
        interval_ns = _interval_ns(recording["nominal_fps"], None)
        # Frames on both sides of the range decide what lies at its edges, so that neighbouring ranges agree.
        margin_ns = 3 * max(grid.max_age_ns, 2 * interval_ns)
        low, high = start_ns - margin_ns, stop_ns + margin_ns
        if begin_ns >= high or (claimed_ns is not None and claimed_ns + _CLAIM_SLACK_NS <= low):
            continue
        try:
            with open(recording["uri"]) as file:
                scan = scan_frames(file, name=recording["uri"], from_ns=low - begin_ns, to_ns=high - begin_ns)
        except FileNotFoundError:
            reason = f"{recording['uri']}: the file is gone. Put it back, or register the recordings again."
            rows += _corrupt_rows(recording, begin_ns, claimed_ns or stop_ns, start_ns, stop_ns, reason)
            continue
        except MediaError as error:
            rows += _corrupt_rows(recording, begin_ns, claimed_ns or stop_ns, start_ns, stop_ns, str(error))
            continue
        except OSError as error:
            if "://" in recording["uri"]:
                raise
            reason = (
                f"{recording['uri']}: the file cannot be read ({error.strerror or error}). Make it readable for this "
                "user and materialize the hour again."
            )
            rows += _corrupt_rows(recording, begin_ns, claimed_ns or stop_ns, start_ns, stop_ns, reason)
            continue
        one = _Footage(recording, begin_ns, claimed_ns, scan, grid.max_age_ns, unused)
        if scan.problem and not scan.truncated:
            unread_ns, reason = one.end_ns(low), f"{one.uri}: {scan.problem}"
            rows += _corrupt_rows(recording, unread_ns, claimed_ns or stop_ns, start_ns, stop_ns, reason)
        elif not scan.times_ns.size and low <= begin_ns < high:
            # A recording begins with its first frame, so that one was looked for.
            reason = f"{one.uri}: none of its frames lies in the time that it claims: their timestamps are damaged"
            ends_ns = max(claimed_ns or begin_ns, begin_ns + one.interval_ns)
            rows += _corrupt_rows(recording, begin_ns, ends_ns, start_ns, stop_ns, reason)
        footage.append(one)
    runs = _assign(footage)
    used = sorted((run for run in runs if run.instead is None), key=lambda run: run.first_ns)
    rows += _used_rows(camera, used, footage, start_ns, stop_ns, grid, unused)
    for run in runs:
        if run.instead is not None:
            rows += _overlap_rows(run, start_ns, stop_ns)
    return sorted(rows, key=lambda row: tuple(row[name] for name in RAW_VIDEO.key))


# Start and end of a time whose frames are not used, and why.
_Unused = tuple[int, int, str]


class _Footage:
    """One recording's frames in and around a range, without those that were forgotten."""

    def __init__(
        self,
        recording: Mapping[str, Any],
        begin_ns: int,
        claimed_ns: int | None,
        scan: FrameScan,
        max_age_ns: int,
        unused: Sequence[_Unused] = (),
    ) -> None:
        self.recording = recording
        self.uri: str = recording["uri"]
        self.begin_ns = begin_ns
        self.claimed_ns = claimed_ns
        self.scan = scan
        all_ns = scan.times_ns + begin_ns
        self.interval_ns = _interval_ns(scan.info.nominal_fps, all_ns)
        self.longest_step_ns = max(max_age_ns, 2 * self.interval_ns)
        self.times_ns = all_ns
        for start, stop, _ in unused:
            self.times_ns = self.times_ns[(self.times_ns < start) | (self.times_ns >= stop)]
        # Where neighbouring frames do not belong together: bool [n - 1].
        self.breaks = np.diff(self.times_ns) > self.longest_step_ns
        for start, _, _ in unused:
            self.breaks |= (self.times_ns[:-1] < start) & (self.times_ns[1:] >= start)
        sections = np.split(self.times_ns, np.flatnonzero(self.breaks) + 1) if self.times_ns.size else []
        self.sections = [(int(times[0]), int(times[-1])) for times in sections]

    def end_ns(self, otherwise: int) -> int:
        return int(self.times_ns[-1]) + self.interval_ns if self.times_ns.size else otherwise


@dataclass
class _Run:
    """Neighbouring frames of one recording that are all used, or all covered by another recording."""

    footage: _Footage
    times_ns: np.ndarray
    instead: list[_Footage] | None = None

    @property
    def first_ns(self) -> int:
        return int(self.times_ns[0])

    @property
    def last_ns(self) -> int:
        return int(self.times_ns[-1])


def _assign(footage: Sequence[_Footage]) -> list[_Run]:
    """Split each recording's frames into runs; the recordings come in the order in which they keep overlaps."""
    runs: list[_Run] = []
    for place, one in enumerate(footage):
        times = one.times_ns
        if not times.size:
            continue
        covered = np.zeros(times.size, dtype=bool)
        cut = one.breaks.copy()
        for earlier in footage[:place]:
            for first, last in earlier.sections:
                covered |= (times >= first) & (times <= last)
                cut |= (times[:-1] < first) & (times[1:] > last)
        cut |= covered[1:] != covered[:-1]
        starts = [0, *(np.flatnonzero(cut) + 1).tolist(), times.size]
        for begin, end in pairwise(starts):
            run = _Run(one, times[begin:end])
            if covered[begin]:
                run.instead = [
                    earlier
                    for earlier in footage[:place]
                    if any(first <= run.last_ns and last >= run.first_ns for first, last in earlier.sections)
                ]
            runs.append(run)
    return runs


def _used_rows(
    camera: str,
    used: Sequence[_Run],
    footage: Sequence[_Footage],
    start_ns: int,
    stop_ns: int,
    grid: SampleGrid,
    unused: Sequence[_Unused],
) -> list[dict[str, Any]]:
    """Rows that tile the range: footage that is used, what was forgotten, and gaps."""
    rows: list[dict[str, Any]] = []
    reached = start_ns
    before: _Run | None = None

    def fill(begin: int, end: int, after: _Run | None) -> Iterator[dict[str, Any]]:
        yield from _unused_rows(camera, begin, end, before, after, footage, unused)

    for place, run in enumerate(used):
        one = run.footage
        following = used[place + 1].first_ns if place + 1 < len(used) else None
        end = run.last_ns + min(one.interval_ns, one.longest_step_ns)
        if following is not None and following - run.last_ns <= one.longest_step_ns:
            end = following
        elif stop_ns - _ROUNDING_NS < end < stop_ns:
            end = stop_ns
        end = min([end, *(start for start, _, _ in unused if start > run.last_ns)])
        # A slow camera's frame may be shown at the first sample although it is older than the range.
        oldest = start_ns - max(0, one.longest_step_ns - grid.max_age_ns)
        times = run.times_ns[(run.times_ns >= oldest) & (run.times_ns < stop_ns)]
        end = min(end, stop_ns)
        if not times.size or end <= start_ns:
            continue
        previous = used[place - 1] if place else None
        adjoins = (
            previous is not None
            and run.first_ns - previous.last_ns <= previous.footage.longest_step_ns
            and not any(previous.last_ns < start <= run.first_ns for start, _, _ in unused)
        )
        footage_before = run.first_ns < start_ns or (adjoins and previous is not None and previous.last_ns < start_ns)
        begin = max(reached, start_ns if footage_before else run.first_ns)
        if begin > reached:
            rows += fill(reached, begin, run)
        ends_here = bool(one.times_ns.size) and run.last_ns == int(one.times_ns[-1]) and run.last_ns < stop_ns
        reasons = []
        if not one.scan.info.exact_times:
            reasons.append(f"{one.scan.info.container} has no timestamps: frames are timed by counting")
        status = "ok"
        if one.scan.problem and ends_here:
            status = "truncated"
            reasons.insert(0, f"{one.uri}: {one.scan.problem}")
        rows.append(_row(run, times, begin, end, status=status, used=True, reason="; ".join(reasons) or None))
        reached, before = end, run
    if reached < stop_ns:
        rows += fill(reached, stop_ns, None)
    return rows


def _unused_rows(
    camera: str,
    begin: int,
    end: int,
    before: _Run | None,
    after: _Run | None,
    footage: Sequence[_Footage],
    unused: Sequence[_Unused],
) -> Iterator[dict[str, Any]]:
    """Rows for a time without footage that is used: what was forgotten of it, and gaps."""
    reached = begin
    for start, stop, why in unused:
        start, stop = max(start, reached), min(stop, end)
        if start >= stop:
            continue
        if after is not None and end - stop < after.footage.interval_ns:
            stop = end  # until the next frame
        if reached < start:
            yield _gap_row(camera, reached, start, before, after, footage)
        yield _blank(camera, start, stop, status="forgotten", reason=why)
        reached = stop
    if reached < end:
        yield _gap_row(camera, reached, end, before, after, footage)


def _overlap_rows(run: _Run, start_ns: int, stop_ns: int) -> list[dict[str, Any]]:
    one = run.footage
    times = run.times_ns[(run.times_ns >= start_ns) & (run.times_ns < stop_ns)]
    if not times.size:
        return []
    begin = int(times[0]) if run.first_ns >= start_ns else start_ns
    end = stop_ns if run.last_ns >= stop_ns else min(stop_ns, run.last_ns + one.interval_ns)
    reason = "; ".join(
        f"{other.uri} covers this time and is used instead, because it {_why_first(other, one)}"
        for other in run.instead or []
    )
    return [_row(run, times, begin, end, status="overlap", used=False, reason=reason)]


def _why_first(kept: _Footage, other: _Footage) -> str:
    """Which part of the rule of :func:`in_order` decided."""
    if kept.begin_ns < other.begin_ns:
        return "starts earlier"
    if stamp_ns(kept.recording["registered_at"]) < stamp_ns(other.recording["registered_at"]):
        return "starts at the same time and was registered earlier"
    return "starts at the same time and its name sorts first"


def _gap_row(
    camera: str, begin: int, end: int, before: _Run | None, after: _Run | None, footage: Sequence[_Footage]
) -> dict[str, Any]:
    reason = "no recording covers this time"
    if before is not None and after is not None and before.footage is after.footage:
        reason = f"{before.footage.uri}: no frame for {(after.first_ns - before.last_ns) / NS_PER_S:.3f} s"
    for one in footage:
        claims = one.claimed_ns is not None and one.begin_ns < end and begin < one.claimed_ns
        if claims and one.scan.truncated and one.end_ns(one.begin_ns) <= begin + one.interval_ns:
            reason = f"{one.uri}: {one.scan.problem}"
    return _blank(camera, begin, end, status="gap", reason=reason)


def _corrupt_rows(
    recording: Mapping[str, Any], begin: int, end: int, start_ns: int, stop_ns: int, reason: str
) -> list[dict[str, Any]]:
    begin, end = max(begin, start_ns), min(end, stop_ns)
    if begin >= end:
        return []
    row = _blank(recording["camera"], begin, end, status="corrupt", reason=reason)
    row.update(_file_columns(recording))
    return [row]


def _blank(camera: str, begin: int, end: int, *, status: str, reason: str) -> dict[str, Any]:
    return {
        "camera": camera,
        "start_time": to_datetime(begin),
        "end_time": to_datetime(end),
        "status": status,
        "used": False,
        "reason": reason,
        "recording_id": "",
        "uri": None,
        "recording_start_time": None,
        "recording_start_ns": None,
        "first_frame_time": None,
        "last_frame_time": None,
        "frame_count": None,
        "measured_fps": None,
        "min_interval_s": None,
        "max_interval_s": None,
        "variable_rate": None,
        "pts_offset_s": None,
        "codec": None,
        "width_px": None,
        "height_px": None,
        "rotation_deg": None,
        "size_bytes": None,
        "etag": None,
    }


def _file_columns(recording: Mapping[str, Any]) -> dict[str, Any]:
    begin_ns = stamp_ns(recording["start_time"])
    return {
        "recording_start_time": to_datetime(begin_ns),
        "recording_start_ns": begin_ns,
        **{name: recording[name] for name in _COPIED_COLUMNS},
    }


def _row(
    run: _Run, times_ns: np.ndarray, begin: int, end: int, *, status: str, used: bool, reason: str | None
) -> dict[str, Any]:
    row = _blank(run.footage.recording["camera"], begin, end, status=status, reason="")
    row.update(_file_columns(run.footage.recording))
    row.update(
        used=used,
        reason=reason,
        first_frame_time=to_datetime(int(times_ns[0])),
        last_frame_time=to_datetime(int(times_ns[-1])),
        frame_count=int(times_ns.size),
    )
    if times_ns.size > 1:
        intervals = np.diff(times_ns)
        shortest, longest = int(intervals.min()), int(intervals.max())
        # A container that counts milliseconds makes even intervals differ by one.
        row.update(
            measured_fps=(times_ns.size - 1) * NS_PER_S / int(times_ns[-1] - times_ns[0]),
            min_interval_s=shortest / NS_PER_S,
            max_interval_s=longest / NS_PER_S,
            variable_rate=bool(longest - shortest > max(0.1 * float(np.median(intervals)), 1_000_000)),
        )
    return row


def _interval_ns(nominal_fps: float | None, times_ns: np.ndarray | None) -> int:
    """Nominal time between frames; it is the same whatever range is asked for, unlike a measured one.

    A damaged header may claim hours between them: the frame would be shown as long as that.
    """
    if nominal_fps and nominal_fps * _LONGEST_INTERVAL_NS >= NS_PER_S:
        return round(NS_PER_S / nominal_fps)
    if times_ns is not None and times_ns.size > 1:
        return min(_LONGEST_INTERVAL_NS, int(np.median(np.diff(times_ns))))
    return NS_PER_S // 25
