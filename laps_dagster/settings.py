"""What a deployment chooses about automation, from the environment."""

from __future__ import annotations

import os
import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dagster as dg

from laps.errors import InputError

# Nights, and what follows an observed hour, look back two days; a draft takes two.
LEAST_DAYS_OF_RUNS = 7

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def automated() -> bool:
    """Whether sensors and schedules begin switched on (``LAPS_AUTOMATION=on``); in the UI each is switched by hand."""
    chosen = os.environ.get("LAPS_AUTOMATION") or "off"
    if chosen not in ("on", "off"):
        raise InputError(f"{chosen!r} is neither on nor off", where="LAPS_AUTOMATION", fix="Give on or off.")
    return chosen == "on"


def sensors_status() -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if automated() else dg.DefaultSensorStatus.STOPPED


def schedules_status() -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if automated() else dg.DefaultScheduleStatus.STOPPED


def night_zone() -> str:
    """IANA name of the zone in which schedules run and a day begins (``LAPS_SCHEDULE_ZONE``, default UTC)."""
    name = os.environ.get("LAPS_SCHEDULE_ZONE") or "UTC"
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InputError(
            f"{name!r} is no time zone", where="LAPS_SCHEDULE_ZONE", fix="Give an IANA name like Europe/Berlin."
        ) from error
    return name


def nightly_cron() -> str:
    """Cron line of ``LAPS_NIGHTLY_AT`` (HH:MM, default 01:30)."""
    return f"{_minute_and_hour('LAPS_NIGHTLY_AT', os.environ.get('LAPS_NIGHTLY_AT') or '01:30')} * * *"


def morning_cron() -> str:
    """Cron line of ``LAPS_MORNING_AT`` (HH:MM, default 06:30)."""
    return f"{_minute_and_hour('LAPS_MORNING_AT', os.environ.get('LAPS_MORNING_AT') or '06:30')} * * *"


def weekly_cron() -> str:
    """Cron line of ``LAPS_WEEKLY_AT`` (Day HH:MM, default Sun 04:00)."""
    day, _, time = (os.environ.get("LAPS_WEEKLY_AT") or "Sun 04:00").partition(" ")
    if day not in DAYS:
        raise InputError(f"{day!r} is no day", where="LAPS_WEEKLY_AT", fix="Give it like Sun 04:00.")
    return f"{_minute_and_hour('LAPS_WEEKLY_AT', time)} * * {DAYS.index(day)}"


def keep_runs_days() -> int:
    """For how many days logs of runs are kept (``LAPS_KEEP_RUNS_DAYS``, default 90); 0: for ever."""
    name = "LAPS_KEEP_RUNS_DAYS"
    text = os.environ.get(name) or "90"
    if not re.fullmatch(r"\d{1,5}", text) or 0 < int(text) < LEAST_DAYS_OF_RUNS:
        raise InputError(
            f"{text!r} is no number of days for which logs of runs can be kept",
            where=name,
            fix=f"Give {LEAST_DAYS_OF_RUNS} or more, or 0 to keep them for ever.",
        )
    return int(text)


def _minute_and_hour(name: str, text: str) -> str:
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", text)
    if not found:
        raise InputError(f"{text!r} is no time of day", where=name, fix="Give hours and minutes like 01:30.")
    return f"{int(found[2])} {int(found[1])}"
