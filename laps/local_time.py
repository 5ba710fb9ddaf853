"""Local time and shift in SQL: three functions of a camera and a time, made from the cameras' zones and shifts.

They are expressions without a join, so a query that does not ask for local time does not pay for it. The zones are
DuckDB's own, each a constant of the expression (a zone that varies from row to row is slow). Shifts are looked up in a
table of the week: one entry for each step of its local minutes, as long as the shifts' boundaries allow.

When the clocks go back, an hour of the wall clock comes twice. A boundary of a shift in that hour counts the first
time: a shift that ends at 02:30 does not begin again when it is 02:00 once more. So a shift is looked up at the latest
time that the wall clock has shown so far. A boundary in an hour that is skipped counts when the clock has passed it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from laps.cameras import DAY_MIN, WEEK_MIN, Shift
from laps.tables import Column

# What views with a camera and a start_time also have.
LOCAL = (
    Column(
        "start_local",
        "local_timestamp",
        "start_time on the camera's wall clock, without zone; null where the camera has no time zone.",
        nullable=True,
    ),
    Column("shift", "string", "Shift of the camera at start_time; null outside of its shifts.", nullable=True),
    Column("shift_date", "date", "Local date on which that shift began.", nullable=True),
)

# Column of a view -> function of (camera, start_time).
FUNCTIONS = {"start_local": "local_time", "shift": "shift_of", "shift_date": "shift_date_of"}

_TYPES = {"local_time": "TIMESTAMP", "shift_of": "VARCHAR", "shift_date_of": "DATE"}

# 1 January 1970, where epoch_us begins, was a Thursday.
_MONDAY_MIN = 3 * DAY_MIN

Calendar = tuple[str | None, tuple[Shift, ...]]


def functions_sql(cameras: Iterable[tuple[str, str | None, Sequence[Shift]]]) -> list[str]:
    """``CREATE MACRO`` of the three functions.

    Args:
        cameras: name, time zone (None: not known, everything is null) and shifts of each camera.
    """
    names: dict[Calendar, list[str]] = defaultdict(list)
    for name, zone, shifts in cameras:
        names[zone, tuple(shifts)].append(name)
    cases: dict[str, list[str]] = {function: [] for function in _TYPES}
    for (zone, shifts), cameras_of in names.items():
        if zone is None:
            continue
        when = f"WHEN camera IN ({', '.join(map(_quote, sorted(cameras_of)))}) THEN"
        cases["local_time"].append(f"{when} timezone({_quote(zone)}, t)")
        if shifts:
            shift, date = _shift_sql(zone, shifts)
            cases["shift_of"].append(f"{when} {shift}")
            cases["shift_date_of"].append(f"{when} {date}")
    return [_macro(function, f"CASE {' '.join(arms)} END" if arms else "NULL") for function, arms in cases.items()]


def functions_failing_with(message: str) -> list[str]:
    """The three functions where the cameras cannot be read: whoever uses one gets the message."""
    return [_macro(function, f"error({_quote(message)})") for function in _TYPES]


def _macro(function: str, body: str) -> str:
    return f"CREATE OR REPLACE MACRO {function}(camera, t) AS CAST({body} AS {_TYPES[function]})"


def _shift_sql(zone: str, shifts: Sequence[Shift]) -> tuple[str, str]:
    """Name and date of the shift at ``t``."""
    step_min = math.gcd(DAY_MIN, *(minute for shift in shifts for minute in (shift.start_min, shift.end_min)))
    names, days_back = _week(shifts, step_min)
    clock = f"timezone({_quote(zone)}, t)"
    if step_min % 60:
        # Clocks change on the hour, so only here can a boundary lie within the hour that comes twice. An hour ago the
        # offset was still the old one: with it, it is a later time than the clock shows, counted from the change.
        earlier = f"(timezone({_quote(zone)}, t - INTERVAL 1 HOUR) + INTERVAL 1 HOUR)"
        clock = f"greatest({clock}, date_trunc('hour', {earlier}) - INTERVAL 1 MICROSECOND)"
    place = f"1 + ((epoch_us({clock}) // 60_000_000 + {_MONDAY_MIN}) % {WEEK_MIN}) // {step_min}"
    name_list = ", ".join("NULL" if name is None else _quote(name) for name in names)
    day_list = ", ".join("NULL" if days is None else str(days) for days in days_back)
    # The cast keeps a week without gaps and one with them the same type.
    name = f"CAST([{name_list}] AS VARCHAR[])[{place}]"
    return name, f"CAST({clock} AS DATE) - CAST([{day_list}] AS INTEGER[])[{place}]"


def _week(shifts: Sequence[Shift], step_min: int) -> tuple[list[str | None], list[int | None]]:
    """For each step of the week, from Monday 00:00: the shift's name, and how many days ago it began."""
    count = WEEK_MIN // step_min
    names: list[str | None] = [None] * count
    days_back: list[int | None] = [None] * count
    for shift in shifts:
        for day in shift.days:
            for minute in range(shift.start_min, shift.start_min + shift.length_min, step_min):
                place = (day * DAY_MIN + minute) % WEEK_MIN // step_min
                names[place] = shift.name
                days_back[place] = minute // DAY_MIN
    return names, days_back


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
