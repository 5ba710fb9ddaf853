"""Keeping house: the job that removes what is over age of tables and of runs, and its schedule."""

import dagster as dg

from assets.retries import tried_again
from laps_dagster.run_logs import remove_logs
from laps_dagster.settings import keep_runs_days, night_zone, schedules_status
from resources.configured import RecordingsResource, StoreResource

# Before the night, so that its report and compacted copies are made without what went.
_DAILY = "0 1 * * *"


@dg.op(description="Remove what is older than its table is kept (laps retention).")
@tried_again
def remove_over_age(context: dg.OpExecutionContext, store: StoreResource) -> dg.Output[None]:
    from resources.retention import apply

    removed = apply(store.open())
    for one in removed:
        context.log.info(f"removed {one.table}: {one.hours} hours, {one.files} files")
    return dg.Output(None, metadata={one.table: one.hours for one in removed})


@dg.op(description="Remove what killed runs and queries left: temporary files, unfinished uploads.")
@tried_again
def remove_leftovers(
    context: dg.OpExecutionContext, store: StoreResource, recordings: RecordingsResource
) -> dg.Output[None]:
    files = store.open()
    count = files.remove_leftovers(besides=recordings.open(files).landing)
    context.log.info(f"removed {count} files that killed runs and queries left")
    return dg.Output(None, metadata={"files": count})


@dg.op(description="Remove what runs logged and printed that ended long ago (LAPS_KEEP_RUNS_DAYS). The runs stay.")
def remove_old_logs(context: dg.OpExecutionContext) -> dg.Output[None]:
    removed = remove_logs(context.instance, keep_runs_days())
    context.log.info(f"removed {removed}")
    return dg.Output(None, metadata={"runs": removed.runs, "megabytes": removed.size_bytes / 1e6})


@dg.job(
    description="Remove what is older than its table is kept (laps retention), without days of no table; what killed "
    "runs left; and logs of old runs (LAPS_KEEP_RUNS_DAYS)."
)
def apply_retention() -> None:
    remove_over_age()
    remove_leftovers()
    remove_old_logs()


retention = dg.ScheduleDefinition(
    name="retention",
    job=apply_retention,
    cron_schedule=_DAILY,
    execution_timezone=night_zone(),
    default_status=schedules_status(),
    description="Every day, before the night, what is older than its table is kept is removed (`laps retention set` "
    "says how many days that is), with what killed runs left, and what runs logged more than LAPS_KEEP_RUNS_DAYS days "
    "ago.",
)
