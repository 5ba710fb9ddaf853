"""Times of a camera that were forgotten: footage in them is never used again.

A range is ``[start, stop)`` by the camera's clock. No frame in it is used, nor one that a sample in it would still
show: what is not used begins :attr:`~laps.timegrid.SampleGrid.max_age_s` before the range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from laps.errors import InputError
from laps.timegrid import NS_PER_S, CameraHour, check_camera, format_utc, hours_between

# What is made of the time after a range may hold pictures of it: the first windows of an hour reach 1.2 s back to the
# frame shown there, and a clip holds up to 15 s that are hidden before its first frame (laps.clips.MAX_LEAD_IN_S).
REACHES_BACK_NS = 20 * NS_PER_S
# A clip may hold pictures that are shown after its last one, because that one refers to them: 16 at most.
REACHES_AHEAD_NS = NS_PER_S


@dataclass(frozen=True, order=True)
class Forgotten:
    """A time of a camera that was forgotten.

    Attributes:
        camera: the camera.
        start_ns: start, nanoseconds since the epoch.
        stop_ns: end (exclusive).
        reason: why, in the words of whoever did it; None where nothing was said.
    """

    camera: str
    start_ns: int
    stop_ns: int
    reason: str | None = None

    def __post_init__(self) -> None:
        check_camera(self.camera)
        if self.start_ns >= self.stop_ns:
            raise InputError(
                f"the time to forget ends at {format_utc(self.stop_ns)}, not after it starts", fix="Check --from, --to."
            )
        for time_ns in (self.start_ns, self.stop_ns):
            # Tables keep microseconds, so a finer range would be another one when it is read back.
            if time_ns % 1000:
                raise InputError(f"{time_ns} ns since the epoch is no whole microsecond")

    def __str__(self) -> str:
        return f"{format_utc(self.start_ns)} to {format_utc(self.stop_ns)}"

    def touches(self, start_ns: int, stop_ns: int) -> bool:
        """Whether ``[start_ns, stop_ns)`` and the range have a time in common."""
        return start_ns < self.stop_ns and self.start_ns < stop_ns

    def hours(self) -> list[CameraHour]:
        """The hours of which a table may hold something of it: those that it lies in, and one that reaches back."""
        return list(hours_between(self.camera, self.start_ns, self.stop_ns + REACHES_BACK_NS))

    def unused(self, max_age_ns: int) -> tuple[int, int]:
        """Start and end of the time whose frames are not used."""
        return self.start_ns - max_age_ns, self.stop_ns

    def why(self) -> str:
        """What a row of ``raw_video`` says."""
        said = f": {self.reason}" if self.reason else ""
        return f"the time from {self} was forgotten (laps forget){said}"


def outside(span: tuple[int, int], ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts of a half-open span that lie in none of the ranges, in order of time."""
    begin, end = span
    for start, stop in sorted(ranges):
        if start >= end:
            break
        if begin < start:
            yield begin, start
        begin = max(begin, stop)
    if begin < end:
        yield begin, end


def holds_forgotten(start_ns: int, stop_ns: int, ranges: Sequence[Forgotten]) -> bool:
    """Whether a time in ``[start_ns, stop_ns)`` was forgotten."""
    return any(one.touches(start_ns, stop_ns) for one in ranges)
