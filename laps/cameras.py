"""What people say about a camera: where it hangs, its time zone, its shifts, what in its picture is no work or private.

Here the texts of ``laps camera set`` become values, or errors that say how to write them. Shifts are kept by the wall
clock, as people plan them: a night shift from 22:00 to 06:00 lasts nine hours when the clocks go back.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from laps.errors import InputError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MIN = 24 * 60
WEEK_MIN = 7 * DAY_MIN

_EVERY_DAY = tuple(range(7))
_SHIFT = re.compile(r"(?P<name>[^=]*)=(?P<start>[\d:]+)-(?P<end>[\d:]+)(?:@(?P<days>.*))?")
_SHIFT_NAME = re.compile(r"\w[\w .-]{0,39}")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_HOW_SHIFT = "Write NAME=HH:MM-HH:MM, for some days NAME=HH:MM-HH:MM@Mon-Fri or @Mon,Wed,Sat."
_HOW_REGION = "Write left,top,right,bottom as shares of the picture between 0 and 1, for example 0.8,0,1,0.1."


@dataclass(frozen=True)
class Shift:
    """A shift by the wall clock.

    Attributes:
        name: its name; several shifts may have it, for example with other hours on Saturdays.
        start_min: start in minutes after midnight, 0 to 1439.
        end_min: end (exclusive), likewise; at or before the start it lies on the next day.
        days: days of the week on which it begins, 0 for Monday.
    """

    name: str
    start_min: int
    end_min: int
    days: tuple[int, ...] = _EVERY_DAY

    @property
    def length_min(self) -> int:
        """Length by the wall clock, 1 to 1440 minutes."""
        return (self.end_min - self.start_min) % DAY_MIN or DAY_MIN

    def __str__(self) -> str:
        """The shift as :func:`parse_shift` reads it."""
        days = "" if self.days == _EVERY_DAY else f"@{_days_text(self.days)}"
        return f"{self.name}={_time_text(self.start_min)}-{_time_text(self.end_min)}{days}"


@dataclass(frozen=True)
class Camera:
    """A camera as people describe it.

    Attributes:
        name: its name.
        site: plant or building.
        station: workstation that it looks at.
        time_zone: IANA name of the zone of its wall clock.
        shifts: its shifts; they do not overlap.
        ignore_regions: left, top, right and bottom of parts of the picture that are no work, as shares of its width
            and height. Pictures show them.
        blur_regions: likewise, of parts that nobody may see: keyframes and clips are grey there. Tracks follow them.
    """

    name: str
    site: str | None = None
    station: str | None = None
    time_zone: str | None = None
    shifts: tuple[Shift, ...] = ()
    ignore_regions: tuple[tuple[float, float, float, float], ...] = ()
    blur_regions: tuple[tuple[float, float, float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.time_zone is not None:
            check_time_zone(self.time_zone)
        if self.shifts and self.time_zone is None:
            raise InputError(
                "shifts need a time zone: they are times of the wall clock",
                where=f"camera {self.name}",
                fix="Give --time-zone too, for example --time-zone Europe/Berlin.",
            )
        check_shifts(self.shifts)


def check_time_zone(name: str) -> str:
    """Return the name when it is a time zone's (``Area/City``, or ``UTC``), or raise InputError."""
    if name not in _time_zones():
        close = difflib.get_close_matches(name, _time_zones(), n=3)
        hint = f" Do you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"{name!r} is no time zone",
            fix=f"Give an IANA name, such as Europe/Berlin or America/Chicago, or UTC.{hint}",
        )
    return name


def parse_shift(text: str) -> Shift:
    """A shift from ``NAME=HH:MM-HH:MM[@DAYS]``, or InputError. DAYS: ``Mon-Fri``, ``Sat``, ``Mon,Wed-Fri``."""
    parts = _SHIFT.fullmatch(text.strip())
    if parts is None:
        raise InputError(f"{text!r} is no shift", fix=_HOW_SHIFT)
    name = parts["name"].strip()
    if not _SHIFT_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be a shift's name",
            fix="Use 1 to 40 letters, digits, spaces, '_', '.' or '-', beginning with a letter or digit.",
        )
    days = _EVERY_DAY if parts["days"] is None else _parse_days(parts["days"], text)
    # 24:00 is how people write the end of a day.
    end = "00:00" if parts["end"] == "24:00" else parts["end"]
    return Shift(name, _parse_time(parts["start"], text), _parse_time(end, text), days)


def parse_region(text: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom from ``x0,y0,x1,y1``, or InputError."""
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{text!r} is no region of a picture", fix=_HOW_REGION) from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise InputError(f"{text!r} is no region of a picture: it is empty or reaches beyond it", fix=_HOW_REGION)
    return left, top, right, bottom


def check_shifts(shifts: Iterable[Shift]) -> None:
    """Raise InputError where two shifts (or one with itself) claim the same minute of the week."""
    taken: dict[int, Shift] = {}
    for shift in shifts:
        for day in shift.days:
            for minute in range(shift.length_min):
                at = (day * DAY_MIN + shift.start_min + minute) % WEEK_MIN
                if at in taken:
                    raise InputError(
                        f"the shifts {taken[at]} and {shift} overlap on {DAYS[at // DAY_MIN]} at "
                        f"{_time_text(at % DAY_MIN)}",
                        fix="Change their times or days; a time belongs to one shift at most.",
                    )
                taken[at] = shift


def _parse_time(text: str, where: str) -> int:
    parts = _TIME.fullmatch(text)
    if parts is None:
        raise InputError(f"{text!r} in {where!r} is no time of day", fix=_HOW_SHIFT)
    return int(parts[1]) * 60 + int(parts[2])


def _parse_days(text: str, where: str) -> tuple[int, ...]:
    days: set[int] = set()
    for part in text.split(","):
        ends = [name.strip().capitalize() for name in part.split("-")]
        if len(ends) > 2 or not set(ends) <= set(DAYS):
            raise InputError(f"{part!r} in {where!r} is no day of the week", fix=_HOW_SHIFT)
        first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
        # Fri-Mon goes over the end of the week.
        days |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
    return tuple(sorted(days))


def _days_text(days: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for day in days:
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)


def _time_text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


@cache
def _time_zones() -> frozenset[str]:
    """The zones that the catalog's local times can be computed for: those of DuckDB, by their IANA names."""
    import duckdb  # here, because the Dagster definitions import this module

    connection = duckdb.connect(":memory:")
    try:
        found = connection.execute("SELECT name FROM pg_timezone_names()").fetchall()
    finally:
        connection.close()
    return frozenset(name for (name,) in found if name == "UTC" or ("/" in name and not name.startswith("SystemV/")))
