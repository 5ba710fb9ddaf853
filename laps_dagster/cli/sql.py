"""``laps sql``: questions to the catalog."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from laps_dagster.cli.places import check_output_file, existing_store


@click.command()
@click.argument("query")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table",
              show_default=True, help="Form of the answer.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of the terminal.")
@click.option("--release", metavar="RELEASE", help="Release to look at. Default: the current one.")
def sql(query: str, form: str, out: Path | None, release: str | None) -> None:
    """Answer one SELECT over the catalog.

    For example "select * from primitives limit 5". "show tables" lists what there is, and "select * from
    duckdb_columns()" shows the views' columns with their meaning. Times are UTC.
    """
    from resources.catalog import open_catalog, render, run_query

    if form == "parquet" and out is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is no text: give --out FILE")
    check_output_file(out)
    connection = open_catalog(existing_store(), release=release)
    try:
        content = render(run_query(connection, query), form)
    finally:
        connection.close()
    data = content if isinstance(content, bytes) else content.encode()
    if out is not None:
        out.write_bytes(data)
    elif form == "parquet":
        sys.stdout.buffer.write(data)
    else:
        click.echo(data.decode(), nl=False)
