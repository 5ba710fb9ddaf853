"""Checks of what was published: one blocking check for each table of a camera hour.

An hour is judged before it is published (:mod:`resources.publishing`), so these checks fail only where something
changed since: a file that was deleted, a disk that lost its content. The hour is then moved into quarantine, so that
it counts as not made, and what follows from it waits.
"""

import warnings

import dagster as dg

from assets.guide import see, what_to_do
from assets.partitions import camera_hour, camera_hours
from assets.retries import tried_again
from laps.consistency import RULES
from laps.tables import Table
from resources.configured import StoreResource
from resources.publishing import in_words, published_problems, withdraw
from resources.release import ReleaseResource

ADDS_UP = "adds-up"  # section of docs/alarms.md
_ASKS = "The rows of the hour fit the time grid and each other."


def _check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=table.name,
        name=f"{table.name}_adds_up",
        description=f"{(RULES[table].__doc__ or _ASKS).strip()} {see(ADDS_UP)}",
        partitions_def=camera_hours,
        blocking=True,
    )
    @tried_again
    def adds_up(
        context: dg.AssetCheckExecutionContext, store: StoreResource, release: ReleaseResource
    ) -> dg.AssetCheckResult:
        hour, files = camera_hour(context), store.open()
        model = release.read(files).model_of(table) if table.model_level else None
        problems = published_problems(files, table, hour, model)
        said = in_words(problems) or "adds up"
        if problems:
            said += f"; moved to {withdraw(files, table, hour, model, problems)}"
        return dg.AssetCheckResult(
            passed=not problems,
            severity=dg.AssetCheckSeverity.ERROR,
            description=said,
            metadata={**what_to_do(ADDS_UP), "problems": len(problems)},
        )

    return adds_up


with warnings.catch_warnings():
    # Checks with partitions are marked as a preview.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    table_checks = [_check(table) for table in RULES]
