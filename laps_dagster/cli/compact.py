"""``laps compact``: the compacted copies that make queries over long spans quick."""

from __future__ import annotations

import click

from laps_dagster.cli.places import existing_store


@click.command()
@click.option("--release", metavar="RELEASE", help="Release whose tables are compacted. Default: the current one.")
@click.option("--all", "everything", is_flag=True, help="Write months again in which nothing changed, too.")
def compact(release: str | None, everything: bool) -> None:
    """Write copies of the tables that answer queries quickly.

    One file for each view, camera and month instead of one for each hour. Answers are the same with and without, at
    any time; with it they come sooner. Only months in which something changed are written. It may run beside everything
    else, and may be interrupted.
    """
    from tqdm import tqdm

    from resources.compaction import compact as compacted
    from resources.models import ModelRegistry

    store = existing_store()
    chosen = ModelRegistry(store).to_read(release)
    with tqdm(desc="compacting", unit="file", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = compacted(store, chosen, everything=everything, progress=show)
    written = sum(result.written.values())
    click.echo(f"release {chosen.name}: {written} files written, {result.unchanged} unchanged, {result.rows:,} rows")
    for source, why in result.left_out.items():
        click.echo(f"not compacted: {source}: {why}", err=True)
