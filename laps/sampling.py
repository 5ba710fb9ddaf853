"""From the ranges of `raw_video` to one frame for each sample of the absolute grid.

Sample ``n`` shows the newest frame at or before its time. It is *missing* when there is none, or only one that is
too old: older than the grid's ``max_age_s`` where footage has ended, or than the longest step between the range's
own frames (slow cameras) inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from laps.errors import MediaError
from laps.timegrid import NS_PER_S, SampleGrid, format_utc, stamp_ns
from laps.video import Opener, TimedFrame, decode


@dataclass(frozen=True)
class Piece:
    """A stretch of one recording whose frames are used.

    Attributes:
        uri: where the file lies.
        recording_id: the recording.
        recording_start_ns: time of the recording's first frame.
        start_ns: time of the first frame used.
        stop_ns: end of the stretch (exclusive): samples before it show its frames.
        max_gap_ns: longest time for which one of its frames is shown.
    """

    uri: str
    recording_id: str
    recording_start_ns: int
    start_ns: int
    stop_ns: int
    max_gap_ns: int = 0


@dataclass(frozen=True)
class Sample:
    """A sample of the absolute grid and the frame that it shows; None: missing."""

    index: int
    frame: TimedFrame | None


def pieces_of(rows: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """The used ranges among rows of `raw_video`, in order of time."""
    pieces = []
    for row in rows:
        if not row["used"]:
            continue
        first, last = stamp_ns(row["first_frame_time"]), stamp_ns(row["last_frame_time"])
        stop = stamp_ns(row["end_time"])
        longest_ns = round((row["max_interval_s"] or 0.0) * NS_PER_S)
        pieces.append(
            Piece(
                uri=row["uri"],
                recording_id=row["recording_id"],
                recording_start_ns=row["recording_start_ns"],
                start_ns=first,
                stop_ns=stop,
                max_gap_ns=max(longest_ns, stop - last),
            )
        )
    return sorted(pieces, key=lambda piece: piece.start_ns)


def covered(rows: Sequence[Mapping[str, Any]], grid: SampleGrid, first: int, stop: int) -> np.ndarray:
    """Which samples of ``[first, stop)`` have footage, bool [stop - first], from rows of `raw_video`."""
    result = np.zeros(stop - first, dtype=bool)
    for row in rows:
        if not row["used"]:
            continue
        begin = grid.first_sample_at_or_after(stamp_ns(row["first_frame_time"]))
        aged = grid.last_sample_at_or_before(stamp_ns(row["last_frame_time"]) + grid.max_age_ns) + 1
        end = max(grid.first_sample_at_or_after(stamp_ns(row["end_time"])), aged)
        result[max(0, begin - first) : max(0, end - first)] = True
    return result


def sample_frames(
    pieces: Sequence[Piece],
    open: Opener,
    grid: SampleGrid,
    first: int,
    stop: int,
    threads: int = 1,
    on_problem: Callable[[str], None] | None = None,
) -> Iterator[Sample]:
    """The samples ``first .. stop - 1`` in order, each with the newest frame at or before its time.

    Several samples share one frame object where no newer frame came between them. The frame of a sample does not
    depend on ``first`` and ``stop``. Memory does not depend on the length of the range.

    Args:
        pieces: ranges of footage, disjoint and in order of time (:func:`pieces_of`).
        open: opens a uri as a seekable binary file; the file is closed when its piece is done.
        grid: the sampling grid.
        first: first sample.
        stop: sample after the last.
        threads: decoder threads.
        on_problem: is called with one sentence for each damaged place.

    Raises:
        MediaError: there is footage, but not one frame of it can be decoded, or a file is gone.
    """
    frames = _frames(pieces, open, grid, first, stop, threads, on_problem)
    shown: tuple[TimedFrame, Piece] | None = None
    ahead = next(frames, None)
    for index in range(first, stop):
        time_ns = grid.time_ns(index)
        while ahead is not None and ahead[0].time_ns <= time_ns:
            shown = ahead
            ahead = next(frames, None)
        yield Sample(index, None if shown is None or _too_old(*shown, time_ns, grid) else shown[0])


def _too_old(frame: TimedFrame, piece: Piece, time_ns: int, grid: SampleGrid) -> bool:
    age_ns = time_ns - frame.time_ns
    return age_ns > (max(grid.max_age_ns, piece.max_gap_ns) if time_ns < piece.stop_ns else grid.max_age_ns)


def _frames(
    pieces: Sequence[Piece],
    open: Opener,
    grid: SampleGrid,
    first: int,
    stop: int,
    threads: int,
    on_problem: Callable[[str], None] | None,
) -> Iterator[tuple[TimedFrame, Piece]]:
    start_ns, stop_ns = grid.time_ns(first), grid.time_ns(stop - 1) + 1
    failures: list[MediaError] = []
    decoded = False
    for piece in pieces:
        from_ns = max(piece.start_ns, start_ns - max(grid.max_age_ns, piece.max_gap_ns))
        to_ns = min(piece.stop_ns, stop_ns)
        if from_ns >= to_ns:
            continue
        try:
            file = open(piece.uri)
        except FileNotFoundError as error:
            raise MediaError(
                f"the recording is gone, but raw_video uses it from {format_utc(from_ns)}",
                where=piece.uri,
                fix="Put the file back, or register the recordings and materialize raw_video again.",
            ) from error
        except PermissionError as error:
            raise MediaError(
                "the recording may not be read",
                where=piece.uri,
                fix="Give this process the right to read it, and materialize the hour again.",
            ) from error
        with file:
            try:
                for frame in decode(
                    file,
                    name=piece.uri,
                    recording_start_ns=piece.recording_start_ns,
                    from_ns=from_ns,
                    to_ns=to_ns,
                    threads=threads,
                    on_problem=on_problem,
                ):
                    decoded = True
                    yield frame, piece
            except MediaError as error:
                # One damaged file must not take the rest of the hour with it.
                failures.append(error)
                if on_problem:
                    on_problem(str(error))
    if failures and not decoded:
        raise failures[0]
