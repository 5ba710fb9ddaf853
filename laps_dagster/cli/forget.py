"""``laps forget``: remove what was made of a time of a camera, and never use its footage again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from laps.errors import InputError
from laps.timegrid import parse_utc
from laps_dagster.cli.places import existing_store

if TYPE_CHECKING:
    from laps_dagster.forgetting import Runs
    from resources.forget import Plan

_NAMED = 10


@click.command()
@click.option("--camera", required=True, metavar="NAME", help="Camera that filmed it.")
@click.option("--from", "start", required=True, metavar="TIME", help="Start of the time, ISO 8601 with a zone.")
@click.option("--to", "stop", required=True, metavar="TIME", help="End (exclusive), likewise.")
@click.option("--reason", help="Why. It is kept and shown, so name nobody in it.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; also where more is removed than can be made again.")
def forget(camera: str, start: str, stop: str, reason: str | None, dry_run: bool, yes: bool) -> None:
    """Remove all that the store holds of a time of a camera.

    Tracks, keyframes, latent streams, primitives, clips, data sets, report, scores, imported work. The time is kept in
    the table `forgotten`, and no later run uses its footage. Whole hours are removed; `laps backfill --only missing`
    makes them again without the time. Video files are not touched: those that show it are listed. If it was
    interrupted, run it again.
    """
    from laps.forgotten import Forgotten
    from laps_dagster.forgetting import Runs, delete_runs, runs_of
    from laps_dagster.instance import existing_instance
    from laps_dagster.processes import fail_lost_runs
    from resources.forget import plan, remove

    store = existing_store()
    time = Forgotten(camera, parse_utc(start), parse_utc(stop), reason or None)
    planned = plan(store, time)
    around = time.hours()
    written = {around[0].previous, *around, around[-1].next, *planned.hours}
    with existing_instance() as instance:

        def its_runs() -> Runs:
            return Runs([], []) if instance is None else runs_of(instance, planned.hours, written)

        if instance is not None and not dry_run:
            # A run whose process was killed would be waited for in vain.
            fail_lost_runs(instance)
        runs = its_runs()
        _echo_plan(planned, len(runs.ended))
        if dry_run:
            return
        _refuse_beside(runs)
        if planned.lost and not yes:
            raise InputError(
                f"nothing was removed: the rest of {len(planned.lost)} hours cannot be made again",
                fix="Give --yes if it may go, or a time that does not touch these hours; a time that ends 20 s before "
                "an hour leaves that hour alone.",
            )
        if not yes:
            click.confirm("Remove this?", abort=True)
            # The question may have stood there for an hour.
            runs = its_runs()
            _refuse_beside(runs)
            if plan(store, time) != planned:
                raise InputError("nothing was removed: it has changed while this was asked", fix="Run this again.")
        # Runs first: what a command that was killed has left of them is found again by the files of their hours.
        if instance is not None and runs.ended:
            delete_runs(instance, runs.ended)
            click.echo(f"removed  {len(runs.ended)} runs of these hours from the Dagster instance")
        for part in remove(store, planned):
            click.echo(f"removed  {part}")
    left = plan(store, time)
    click.echo(f'forgotten: {camera} from {time}; `laps sql "select * from forgotten"` lists all such times')
    if left.parts:
        click.echo(
            f"something was written meanwhile ({'; '.join(part.what for part in left.parts)}): a run is under way. "
            "Run this again when it has ended.",
            err=True,
        )
        raise SystemExit(1)
    if planned.hours:
        click.echo("`laps backfill --only missing` makes the rest of these hours, and the report, again")


def _refuse_beside(runs: Runs) -> None:
    if runs.under_way:
        raise InputError(
            f"nothing was removed: runs are under way that may write it again ({_named(runs.under_way)})",
            fix="Wait until they have ended, or end them in the Dagster UI; then run this again.",
        )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _echo_plan(planned: Plan, runs: int) -> None:
    for part in planned.parts:
        click.echo(f"  {part}")
    if not planned.parts:
        click.echo("  nothing in the store is of this time")
    if runs:
        click.echo(f"  {runs} runs of these hours in the Dagster instance, with their logs")
    if planned.hours:
        click.echo(f"  hours of which this is: {_named([hour.key for hour in planned.hours])}")
    for hour, why in planned.lost.items():
        click.echo(f"  WARNING {hour.key}: the rest of it cannot be made again: {why}")
    there = [held.uri for held in planned.held if held.there]
    if there:
        click.echo("video files that still show it; whoever keeps the recordings must remove or cut them:")
        for uri in there:
            click.echo(f"  {uri}")
    click.echo(
        "not known here: copies of data sets, reports and query results outside of the store (checksums on a data "
        "set's card tell its files), other stores, backups. Models stay: they hold weights and thresholds, no pictures."
    )
