"""``laps retention``: for how many days tables and logs of runs are kept, and removing what is older."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from laps_dagster.cli.places import existing_store

if TYPE_CHECKING:
    from laps_dagster.run_logs import RemovedLogs


@click.group(invoke_without_command=True)
@click.pass_context
def retention(ctx: click.Context) -> None:
    """Show or set for how many days tables are kept, and apply it.

    What was removed for its age is not missing: neither `laps backfill --only missing` nor `laps status` nor a sensor
    makes or reports it.
    """
    if ctx.invoked_subcommand is not None:
        return
    from laps_dagster.settings import keep_runs_days
    from resources.retention import KEPT, Retention

    kept = Retention.of(existing_store())
    for table in KEPT:
        days = kept.days_of(table)
        click.echo(f"{table.name:<20}  {'kept for ever' if days is None else f'{days} days'}")
    days = keep_runs_days()
    click.echo(f"{'logs of runs':<20}  {f'{days} days' if days else 'kept for ever'} (LAPS_KEEP_RUNS_DAYS)")
    click.echo("cluster_assignments go with segments; raw_video and recordings hold no pictures and stay")


@retention.command("set")
@click.argument("table")
@click.argument("days", metavar="DAYS|forever")
def set_(table: str, days: str) -> None:
    """Keep TABLE for DAYS days; nothing is removed yet.

    Days count from the end of the hour that a partition is of. Embeddings, features, clusters and clips of primitives
    are kept no longer than segments.
    """
    from resources.retention import set_days

    if days != "forever" and not days.isdecimal():
        raise click.UsageError(f"{days!r} is no number of days: give one, or forever")
    store = existing_store()
    set_days(store, table, None if days == "forever" else int(days))
    click.echo(
        f"{table}: {days}{'' if days == 'forever' else ' days'}; `laps retention apply` and the schedule "
        "`retention` (01:00, where it is switched on) remove what is older"
    )


@retention.command("apply")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and do nothing.")
def apply_(dry_run: bool) -> None:
    """Remove what is older than its days.

    Clips cannot be cut again, and tracks and keyframes not be made again, when the video is gone. Of old runs
    (LAPS_KEEP_RUNS_DAYS) it removes what they logged and printed; the runs stay in the list. Of killed runs it removes
    temporary files.
    """
    from resources.recordings import Recordings
    from resources.retention import apply

    store = existing_store()
    removed = apply(store, dry_run=dry_run)
    if not dry_run and (left := store.remove_leftovers(besides=Recordings(store).landing)):
        click.echo(f"removed  {left:,} temporary {'file' if left == 1 else 'files'} of killed runs")
    for one in removed:
        click.echo(f"{'would remove' if dry_run else 'removed'}  {one.table}: {one.hours:,} hours, {one.files:,} files")
    logs = _remove_logs(dry_run)
    if logs is not None and (logs.runs or logs.ticks):
        click.echo(f"{'would remove' if dry_run else 'removed'}  {logs}")
    elif not removed:
        click.echo("nothing is over age")


def _remove_logs(dry_run: bool) -> RemovedLogs | None:
    """Logs of old runs, where there is a Dagster instance: none is made."""
    from laps_dagster.instance import existing_instance
    from laps_dagster.run_logs import remove_logs
    from laps_dagster.settings import keep_runs_days

    with existing_instance() as instance:
        return None if instance is None else remove_logs(instance, keep_runs_days(), dry_run=dry_run)
