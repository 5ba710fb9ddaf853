"""Keeping house: the job that removes what is over age, and its schedule."""

import dagster as dg

from resources.configured import StoreResource


@dg.op(description="Remove what is older than its table is kept (laps retention).")
def remove_over_age(context: dg.OpExecutionContext, store: StoreResource) -> dg.Output[None]:
    from resources.retention import apply

    removed = apply(store.open())
    for one in removed:
        context.log.info(f"removed {one.table}: {one.hours} hours, {one.files} files")
    return dg.Output(None, metadata={"hours": {one.table: one.hours for one in removed}})


@dg.job(
    description="Remove what is older than its table is kept (laps retention). Without any days set it does nothing."
)
def apply_retention() -> None:
    remove_over_age()
