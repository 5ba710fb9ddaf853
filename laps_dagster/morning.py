"""The morning: whether the day before is complete, asked when somebody can still do something about it.

The check asks no run and no schedule, only the tables and the landing zone, so it also notices a night that never
began, footage that no hour knows of because it was quarantined, files that nobody registered, and a report that nobody
refreshed. `morning` runs it; where it fails, `alarms` tells it.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from assets.guide import see
from assets.retries import tried_again
from assets.vital_checks import result
from laps import vitals
from laps.errors import StoreError
from laps.tables import CLUSTER_ASSIGNMENTS
from laps.timegrid import CLOSES, NS_PER_S, CameraHour
from laps_dagster.coverage import expected_hours, hour_states
from laps_dagster.nightly import day_range
from laps_dagster.settings import morning_cron, night_zone, schedules_status
from resources.configured import RecordingsResource, StoreResource
from resources.freshness import Freshness
from resources.landing import LandingZone
from resources.recordings import Recordings, by_person
from resources.reporting import report_path
from resources.store import Store

_WEEKS, _LEAST_WEEKS = 4, 3


def judge_day(store: Store, register: Recordings, day: date, release: str) -> vitals.Verdict:
    """Whether all hours of a day are complete, every camera filmed that usually does, and all its files can be used."""
    silent = []
    quarantined: dict[str, list[str]] = {}
    cameras = register.offered()
    incomplete: dict[str, list[str]] = {camera: [] for camera in cameras}
    expected = expected_hours(store, register, cameras)
    # An hour that only closes what was open is of the day of the one before.
    wanted = {
        hour: f" ({note})" if note else ""
        for hour, note in expected.items()
        if _of_day([hour.previous if note == CLOSES else hour], day)
    }
    for camera in cameras:
        hours = [hour for hour, note in expected.items() if hour.camera == camera and not note]
        filmed = _of_day(hours, day)
        weeks = [_of_day(hours, day - timedelta(weeks=week)) for week in range(1, _WEEKS + 1)]
        if not filmed and sum(map(bool, weeks)) >= _LEAST_WEEKS:
            silent.append(camera)
        quarantined[camera] = [
            f"{row['uri'].rpartition('/')[2]}: {row['reason']}"
            for row in register.quarantined(camera, *day_range(day), or_registered=True)
            if not by_person(row)
        ]
    # All cameras at once: the tables are listed for each call.
    for state in hour_states(store, list(wanted), release):
        if not state.complete:
            incomplete[state.hour.camera].append(f"{state.hour.hour_key}{wanted[state.hour]}")
    left, unknown = _landing_zone(register, day)
    report = _report(store, release, list(wanted), day)
    return vitals.night(str(day), incomplete, silent, quarantined, left, unknown, report)


def _report(store: Store, release: str, hours: Sequence[CameraHour], day: date) -> str:
    """What is wrong with the report where no night has closed the day: the hours are made without one too."""
    times = Freshness(store, by_day=True)
    made = [times.written(store.partition_path(CLUSTER_ASSIGNMENTS, hour, release)) for hour in hours]
    latest = max((when for when in made if when is not None), default=None)
    report = times.written(report_path(release))
    if latest is None:
        return ""
    if report is None:
        return "there is no report"
    # One that was written in the evening, when all was made, is as good; what came late waits for the next night.
    if report < min(latest, day_range(day)[1] / NS_PER_S):
        return f"the report is older than these hours ({datetime.fromtimestamp(report, UTC):%Y-%m-%d %H:%M} UTC)"
    return ""


def _landing_zone(register: Recordings, day: date) -> tuple[list[str], str]:
    """Files of a day in the landing zone that nobody registered, and why that cannot be told where it cannot."""
    try:
        left = LandingZone(register).not_registered(*day_range(day))
    except StoreError as error:
        return [], str(error)
    # What is told is kept as UTF-8, and names of files need not be.
    return [uri.removeprefix(f"{register.landing}/").encode(errors="replace").decode() for uri in left], ""


def _of_day(hours: list[CameraHour], day: date) -> list[CameraHour]:
    start_ns, stop_ns = day_range(day)
    return [hour for hour in hours if start_ns < hour.stop_ns and hour.start_ns < stop_ns]


@dg.asset_check(
    asset=vitals.NIGHT.table,
    name=vitals.NIGHT.name,
    description=f"{vitals.NIGHT.asks} {see(vitals.NIGHT.name)}",
)
@tried_again
def night(
    context: dg.AssetCheckExecutionContext, store: StoreResource, recordings: RecordingsResource
) -> dg.AssetCheckResult:
    files = store.open()
    release = store.models().current_name()
    yesterday = datetime.now(ZoneInfo(night_zone())).date() - timedelta(days=1)
    if release is None:
        return result(vitals.NIGHT, vitals.too_little("no release is current"))
    return result(vitals.NIGHT, judge_day(files, recordings.open(files), yesterday, release))


look_at_night = dg.define_asset_job(
    "look_at_night",
    selection=dg.AssetSelection.checks(night),
    description="Whether the hours of the day before are complete.",
)


@dg.schedule(
    job=look_at_night,
    cron_schedule=morning_cron(),
    execution_timezone=night_zone(),
    default_status=schedules_status(),
    description="Every morning: are the hours of the day before complete? `alarms` tells it where they are not.",
)
def morning() -> dg.RunRequest:
    return dg.RunRequest()
