"""``laps sql``: questions to the catalog."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from laps.errors import InputError
from laps_dagster.cli.places import check_output_file, existing_store


@click.command()
@click.argument("query", required=False)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table",
              show_default=True, help="Form of the answer.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of the terminal.")
@click.option("--release", metavar="RELEASE", help="Release to look at. Default: the current one.")
@click.option("--script", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write a SQL script that opens the catalog in another DuckDB, and answer nothing.")  # fmt: skip
def sql(query: str | None, form: str, out: Path | None, release: str | None, script: Path | None) -> None:
    """Answer one SELECT over the catalog, or open a prompt.

    For example "select * from primitives limit 5". "show tables" lists what there is, and "select * from
    duckdb_columns()" shows the views' columns with their meaning. Times are UTC.

    Without QUERY a terminal gets a prompt, where .help tells more; otherwise the query is read from standard input.
    """
    from resources.catalog import open_catalog, render, run_query

    if script is not None:
        if query is not None or out is not None:
            raise click.UsageError("--script takes the place of a query and its answer")
        _write_script(script, release)
        return
    if query is None and sys.stdin.isatty():
        _converse(form, out, release)
        return
    if form == "parquet" and out is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is no text: give --out FILE")
    check_output_file(out)
    store = existing_store()
    if query is None:
        query = sys.stdin.read()
        if not query.strip():
            raise InputError("there is no query on standard input", fix='Write it there, or: laps sql "select …".')
    connection = open_catalog(store, release=release)
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


def _write_script(script: Path, release: str | None) -> None:
    from resources.catalog_script import catalog_script

    check_output_file(script)
    script.write_text(catalog_script(existing_store(), release), encoding="utf-8")
    click.echo(f"{script}: duckdb -init {script}")


def _converse(form: str, out: Path | None, release: str | None) -> None:
    from laps_dagster.cli.prompt import Prompt
    from resources.catalog import open_catalog

    if out is not None or form == "parquet" or not sys.stdout.isatty():
        raise click.UsageError('a file gets the answer of one query: laps sql "select …" [--format FORM] [--out FILE]')
    store = existing_store()
    prompt = Prompt(lambda: open_catalog(store, release=release), form)
    try:
        prompt.run()
    finally:
        prompt.close()
