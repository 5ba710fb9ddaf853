"""``laps quarantine``: a recording that was registered is not to be used."""

from __future__ import annotations

import click

from laps_dagster.cli.places import existing_store

_NAMED = 10


@click.command()
@click.argument("file", metavar="FILE|URL")
@click.option("--camera", required=True, metavar="NAME", help="Camera that the file is registered for.")
@click.option("--reason", metavar="TEXT", help="Why. It is kept and shown, so name nobody in it.")
@click.option("--lift", is_flag=True, help="Take it back: the file counts again as it did before.")
def quarantine(file: str, camera: str, reason: str | None, lift: bool) -> None:
    """Use a registered file no more.

    For one that ends the decoder, is gone for good, or cannot be mended. It is not looked at and may be gone. Hours
    that were made from it are out of date, and `laps backfill --only missing` makes them again without it. Neither
    `laps ingest` nor a sensor takes this back: --lift does, or another file at the same place (another size or time of
    change).
    """
    from resources.freshness import hours_from
    from resources.recordings import Recordings, by_person

    if lift == (reason is not None):
        raise click.UsageError("give --reason TEXT, or --lift to take it back")
    recordings = Recordings(existing_store())
    row = recordings.lift(file, camera) if reason is None else recordings.quarantine(file, camera, reason)
    if row["status"] == "quarantined" and not by_person(row):
        click.echo(f"lifted, and it still cannot be used: {row['uri']}: {row['reason']}", err=True)
        raise SystemExit(1)
    click.echo(f"lifted       {camera}  {row['uri']}" if lift else f"quarantined  {camera}  {row['uri']}: {reason}")
    hours = sorted({hour for one in recordings.rows_of(camera, row["uri"]) for hour in hours_from(camera, one)})
    if not hours:
        click.echo("no hour was made from it")
        return
    named = ", ".join(hour.hour_key for hour in hours[:_NAMED]) + (", …" if len(hours) > _NAMED else "")
    click.echo(f"`laps backfill --only missing` makes what it touches {'with' if lift else 'without'} it: {named} UTC")
