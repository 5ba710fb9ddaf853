"""The catalog as a SQL script, for a DuckDB that knows nothing of this program.

The script makes the views, functions and comments that :func:`resources.catalog.open_catalog` makes, read back from a
connection that it made: they are the same, however the catalog comes by them. It names files, as the catalog found
them when it was written, so hours that are processed later need a new script.

A store on S3 is read by DuckDB's extensions httpfs and aws, which take credentials from where AWS's own tools do. The
script holds endpoint and region, and never a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import duckdb

from laps.catalog import quote
from resources.catalog import open_catalog
from resources.store import Store

_AWS = (".amazonaws.com", ".amazonaws.com.cn")
_ROWS = 1000  # of a table, in one statement


def catalog_script(store: Store, release: str | None = None) -> str:
    """SQL that opens the catalog of a store in another DuckDB (2.0 or newer), for one release (default: the current).

    Raises:
        InputError: there is no such release.
        StoreError: the store cannot be reached.
    """
    connection = open_catalog(store, release=release)
    try:
        statements = [*access_sql(store), "SET TimeZone = 'UTC'", *_definitions(connection), *_comments(connection)]
    finally:
        connection.close()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    title = f"-- The catalog of {store.root} as it was at {now}: duckdb -init FILE, or .read FILE in its prompt.\n"
    return title + "".join(f"{statement.rstrip().rstrip(';')};\n" for statement in statements)


def access_sql(store: Store) -> Iterator[str]:
    """Statements without which the files cannot be read: none on a disk; on S3 extensions, and where to find keys."""
    if not store.is_s3:
        return
    for extension in ("httpfs", "aws"):
        yield f"INSTALL {extension}"
        yield f"LOAD {extension}"
    endpoint, region = store.fs.place()
    options = ["TYPE s3", "PROVIDER credential_chain", f"SCOPE {quote(store.root)}"]
    if region:
        options.append(f"REGION {quote(region)}")
    url = urlsplit(endpoint or "")
    if url.hostname and not url.hostname.endswith(_AWS):
        # Without the user and password that a URL may hold.
        place = url.hostname if url.port is None else f"{url.hostname}:{url.port}"
        secure = str(url.scheme == "https").lower()
        options += [f"ENDPOINT {quote(place)}", f"USE_SSL {secure}", "URL_STYLE 'path'"]
    yield f"CREATE OR REPLACE SECRET laps ({', '.join(options)})"


def _definitions(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """``CREATE`` of every function, table and view, in the order in which they were made."""
    made: list[tuple[int, str]] = []
    for oid, name, parameters, definition in connection.execute(
        "SELECT function_oid, function_name, parameters, macro_definition FROM duckdb_functions() WHERE NOT internal"
    ).fetchall():
        arguments = ", ".join(map(_name, parameters))
        made.append((oid, f"CREATE OR REPLACE MACRO {_name(name)}({arguments}) AS {definition}"))
    views = connection.execute("SELECT view_oid, sql FROM duckdb_views() WHERE NOT internal").fetchall()
    made += [(oid, _or_replace(sql, "VIEW")) for oid, sql in views]
    tables = connection.execute("SELECT table_oid, table_name, sql FROM duckdb_tables() WHERE NOT internal").fetchall()
    for oid, name, sql in tables:
        made.append((oid, _or_replace(sql, "TABLE")))
        made += [(oid, statement) for statement in _insertions(connection, name)]
    # Stable: a table comes before its rows.
    for _, statement in sorted(made, key=lambda one: one[0]):
        yield statement


def _or_replace(sql: str, kind: str) -> str:
    return sql.replace(f"CREATE {kind}", f"CREATE OR REPLACE {kind}", 1)


def _insertions(connection: duckdb.DuckDBPyConnection, table: str) -> Iterator[str]:
    relation = connection.execute(f"SELECT * FROM {_name(table)}")
    while rows := relation.fetchmany(_ROWS):
        values = ", ".join(
            "(" + ", ".join("NULL" if value is None else quote(str(value)) for value in row) + ")" for row in rows
        )
        yield f"INSERT INTO {_name(table)} VALUES {values}"


def _comments(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    for kind in ("VIEW", "TABLE"):
        relations = connection.execute(
            f"SELECT {kind}_name, comment FROM duckdb_{kind}s() WHERE NOT internal AND comment IS NOT NULL"
        )
        for name, comment in relations.fetchall():
            yield f"COMMENT ON {kind} {_name(name)} IS {quote(comment)}"
    columns = connection.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal AND comment IS NOT NULL"
    )
    for relation, name, comment in columns.fetchall():
        yield f"COMMENT ON COLUMN {_name(relation)}.{_name(name)} IS {quote(comment)}"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
