"""The night: yesterday's hours through both stages, then report and catalog; and what follows an observed hour.

The schedule `nightly` starts the job `plan_night`, which only looks: which hours of the day has each stage still to
make. The sensor `later_stages` requests them, one run for an hour and a stage, and the closing jobs when all of
those have *ended*: an hour that failed stops no other, and the report says that it is missing. Where an hour is
observed, whoever asked for it, its segment stage and that of the hour after become due; they are requested when
neither their own hour nor the one before is being observed. Everything that these two know is in the instance's runs:
a daemon that restarts goes on where it was, and a run is requested once.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import Field

from assets.retries import tried_again
from laps.errors import InputError, LapsError, NotProcessedError, StoreError
from laps.timegrid import CameraHour, from_datetime, now_ns
from laps_dagster.following import Follower, uncalibrated_note
from laps_dagster.hour_runs import DAY, UNFINISHED, hours_being_observed, hours_under_way
from laps_dagster.jobs import CLOSING_JOBS, observe, segment
from laps_dagster.nights import Left, open_nights
from laps_dagster.sensors import add_cameras
from laps_dagster.settings import night_zone, nightly_cron, schedules_status
from laps_dagster.stages import OBSERVE, SEGMENT, OutOfDate
from resources.configured import RecordingsResource, StoreResource
from resources.freshness import registrations
from resources.store import is_transient

RUNS_A_LOOK = 200
MOST_MISSED_DAYS = 7
# People plan nights too, also such of long ago.
_NEWEST_PLANS = 50
NO_RELEASE = "no release is current, so there is nothing to work with: `laps backfill` makes the first"


class Night(dg.Config):
    """Which day to make."""

    day: str = Field("", description="Day to make, YYYY-MM-DD, in the schedules' zone. Empty: yesterday.")


@dg.op(description="Which hours of a day has each stage still to make; `later_stages` requests them.")
@tried_again
def plan_day(
    context: dg.OpExecutionContext, config: Night, store: StoreResource, recordings: RecordingsResource
) -> dg.Output[None]:
    files = store.open()
    release = store.models().current()
    if release is None:
        raise NotProcessedError("no release is current", where=files.root, fix="`laps backfill` makes the first.")
    register = recordings.open(files)
    cameras = register.cameras(include_superseded=True)
    add_cameras(context.instance, cameras)
    day = _day(config.day)
    start_ns, stop_ns = day_range(day)
    # A camera's hours of the day, and the hour that closes what the last of each stretch leaves open.
    filmed = [
        hour
        for camera in cameras
        for hour in register.hours(camera, include_superseded=True)
        if start_ns <= hour.stop_ns and hour.start_ns < stop_ns
    ]
    closing = {hour.next for hour in filmed}
    # An hour that ends as the day begins is that of the night before; only what it leaves open is this one's.
    ours = {hour for hour in filmed if hour.stop_ns > start_ns} | closing
    hours = [hour for hour in sorted(ours) if hour.stop_ns <= now_ns()]
    stale = OutOfDate(files, release.name, registrations(register, cameras), by_day=True)
    # What is being observed right now goes on to the segment stage without the night, which waits for it.
    busy = hours_being_observed(context.instance)
    to_observe, to_segment = still_to_make(stale, hours, busy)
    if new := sorted({hour.camera for hour in to_segment} - release.calibrations.keys()):
        context.log.warning(uncalibrated_note(new, release))
        to_segment = [hour for hour in to_segment if hour.camera not in new]
    context.log.info(f"{day}: {len(hours)} hours, {len(to_observe)} to observe, {len(to_segment)} only to cut")
    return dg.Output(
        None,
        metadata={
            "day": str(day),
            "release": release.name,
            "hours": len(hours),
            "observe": dg.MetadataValue.json([hour.key for hour in to_observe]),
            "segment": dg.MetadataValue.json([hour.key for hour in to_segment]),
            "others": dg.MetadataValue.json([hour.key for hour in hours if {hour, hour.previous} & busy]),
        },
    )


def still_to_make(
    stale: OutOfDate, hours: Sequence[CameraHour], busy: Collection[CameraHour]
) -> tuple[list[CameraHour], list[CameraHour]]:
    """The hours to observe, and those that only have to be cut, but for what is being observed."""
    to_observe = [hour for hour in stale.hours(OBSERVE, hours) if hour not in busy]
    # The others follow by themselves: being observed makes an hour and the one after it due.
    followed = {after for hour in (*to_observe, *busy) for after in (hour, hour.next)}
    return to_observe, [hour for hour in stale.hours(SEGMENT, hours) if hour not in followed]


@dg.job(description="Plan a night: which hours of a day are still to be made. `later_stages` makes them.")
def plan_night() -> None:
    plan_day()


@contextmanager
def left_to_the_run() -> Iterator[None]:
    """What a schedule asks the store before its run: where it is away, the run is requested, waits and asks again.

    A tick that fails would come again a day or a week later.
    """
    try:
        yield
    except StoreError as error:
        if not is_transient(error):
            raise


@dg.schedule(
    job=plan_night,
    cron_schedule=nightly_cron(),
    execution_timezone=night_zone(),
    default_status=schedules_status(),
    description="Every night the hours of the day before, of all cameras: observe and segment stages of what is "
    "missing or out of date, then report and catalog. It works with the current release and trains nothing. Nights of "
    "the last week in which no daemon ran are made up for.",
)
def nightly(context: dg.ScheduleEvaluationContext, store: StoreResource) -> list[dg.RunRequest] | dg.SkipReason:
    with left_to_the_run():
        if store.models().current_name() is None:
            return dg.SkipReason(NO_RELEASE)
    when = context.scheduled_execution_time.astimezone(ZoneInfo(night_zone()))
    day = when.date() - timedelta(days=1)
    return [
        *(_plan(missed, run_key=f"{missed}, missed before {day}") for missed in _missed(context.instance, day)),
        _plan(day, run_key=str(day)),
    ]


def _plan(day: date, run_key: str) -> dg.RunRequest:
    config = {"ops": {"plan_day": {"config": {"day": str(day)}}}}
    return dg.RunRequest(run_key=run_key, run_config=config, tags={DAY: str(day)})


def _missed(instance: dg.DagsterInstance, day: date) -> list[date]:
    """The days before one, and after the last that this schedule planned: Dagster makes up for one missed tick only."""
    first = day - timedelta(days=MOST_MISSED_DAYS)
    begun = [*UNFINISHED, dg.DagsterRunStatus.SUCCESS]
    # The newest, however long ago they began: the daemon may have been away for longer than is made up for.
    runs = instance.get_runs(dg.RunsFilter(job_name=plan_night.name, statuses=begun), limit=_NEWEST_PLANS)
    planned = [date.fromisoformat(run.tags[DAY]) for run in runs if DAY in run.tags]
    if not planned:
        return []  # it begins with this night
    first = max(first, max(planned) + timedelta(days=1))
    return [first + timedelta(days=number) for number in range((day - first).days)]


@dg.sensor(
    jobs=[observe, segment, *CLOSING_JOBS],
    minimum_interval_seconds=30,
    # It starts nothing by itself: it goes on with what somebody asked for.
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Goes on with what was begun. After an observe run that carries the tag laps/then=segment: the segment "
    "stage of its hour and of the one after, as soon as neither they nor the hour before are being observed. "
    "After `plan_night`: the runs of the night, and when all have ended, well or not, report and catalog.",
)
def later_stages(
    context: dg.SensorEvaluationContext, store: StoreResource, recordings: RecordingsResource
) -> dg.SensorResult:
    release = store.models().current()
    if release is None:
        return dg.SensorResult(skip_reason=NO_RELEASE, cursor=context.cursor)
    # First, so that every run that is seen to have ended here is seen by the follower as well.
    nights = open_nights(context.instance, plan_night.name)
    # Before the follower: a run that ends in between is under way for the nights, and not in neither.
    busy = hours_under_way(context.instance) if any(night.plan.others for night in nights) else set()
    follower = Follower.of(context.cursor)
    follower.take_in(context.instance)
    files = store.open()
    follower.request(context.instance, files, release)

    def left(hours: Sequence[CameraHour]) -> Left:
        if under_way := (busy | follower.hours()) & set(hours):
            return Left(sorted(under_way), [], [])
        register = recordings.open(files)
        registered = registrations(register, {hour.camera for hour in hours})
        to_observe, to_segment = still_to_make(OutOfDate(files, release.name, registered, by_day=True), hours, ())
        return Left([], to_observe, [hour for hour in to_segment if hour.camera in release.calibrations])

    requests, notes = list(follower.requested), list(follower.notes)
    for night in nights:
        try:
            asked, said = night.requests(follower, RUNS_A_LOOK - len(requests), left)
        except LapsError as error:
            # What follows observed hours does not wait for a night whose recordings cannot be read.
            asked, said = [], f"night of {night.plan.day}: {error}"
        requests += asked
        notes.append(said)
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=follower.cursor())
    return dg.SensorResult(skip_reason="; ".join(notes) or "nothing follows", cursor=follower.cursor())


def day_range(day: date) -> tuple[int, int]:
    """Start and end of a day in the schedules' zone, nanoseconds since the epoch."""
    start, stop = (
        datetime(one.year, one.month, one.day, tzinfo=ZoneInfo(night_zone())) for one in (day, day + timedelta(days=1))
    )
    return from_datetime(start), from_datetime(stop)


def _day(text: str) -> date:
    if not text:
        return datetime.now(ZoneInfo(night_zone())).date() - timedelta(days=1)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no day", where="day", fix="Write it like 2026-11-25.") from error
