"""``laps report``: the HTML report."""

from __future__ import annotations

from pathlib import Path

import click

from laps_dagster.cli.places import check_output_file, existing_store


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write. Default: in the store.")
@click.option("--release", metavar="RELEASE", help="Release to report on. Default: the current one.")
def report(out: Path | None, release: str | None) -> None:
    """Write one HTML page about what was processed and found."""
    from resources.models import ModelRegistry
    from resources.reporting import render_report, write_report

    store = existing_store()
    check_output_file(out)
    chosen = ModelRegistry(store).to_read(release)
    if out is None:
        click.echo(store.url(write_report(store, chosen)))
    else:
        out.write_text(render_report(store, chosen), encoding="utf-8")
        click.echo(str(out))
