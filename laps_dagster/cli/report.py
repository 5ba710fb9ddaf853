"""``laps report``: the HTML report."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write. Default: in the store.")
@click.option("--release", help="Release to report on. Default: the current one.")
def report(out: Path | None, release: str | None) -> None:
    """Write one self-contained HTML page about what was processed and found."""
    from resources.models import ModelRegistry
    from resources.reporting import render_report, write_report
    from resources.store import Store

    store = Store()
    chosen = ModelRegistry(store).to_read(release)
    if out is None:
        click.echo(store.url(write_report(store, chosen)))
    else:
        out.write_text(render_report(store, chosen), encoding="utf-8")
        click.echo(str(out))
