"""Which file it was: DuckDB names a file that is cut off or no Parquet, and none whose pages are damaged inside."""

from __future__ import annotations

import time
from collections.abc import Iterable

import duckdb

from laps.catalog import PRIMITIVES, quote
from laps.errors import StoreError
from laps.tables import CLIPS, CLUSTER_ASSIGNMENTS, CLUSTER_NAMES, CLUSTERS, SEGMENTS, mend

_OF_PRIMITIVES = tuple(table.name for table in (SEGMENTS, CLUSTER_ASSIGNMENTS, CLIPS, CLUSTERS, CLUSTER_NAMES))
# Long enough for thousands of small files on a disk, short enough for whoever waits for a message.
_LOOKED_FOR_S = 10.0


def damaged_file(connection: duckdb.DuckDBPyConnection, relations: Iterable[str], said: str) -> StoreError:
    """The error to raise for a query that failed to read: it names the first file that cannot be read as a whole.

    Args:
        connection: the catalog's.
        relations: names of the views in the query.
        said: DuckDB's own message.
    """
    tables: set[str] = set()
    for relation in relations:
        tables.update(_OF_PRIMITIVES if relation == PRIMITIVES.name else (relation,))
    cursor = connection.cursor()
    names = ", ".join(map(quote, sorted(tables)))
    files = cursor.execute(
        f"SELECT path FROM partitions WHERE table_name IN ({names or 'NULL'}) ORDER BY path"
    ).fetchall()
    until = time.monotonic() + _LOOKED_FOR_S
    for (path,) in files:
        if time.monotonic() > until:
            break
        try:
            cursor.execute(f"SELECT count(hash(whole)) FROM read_parquet([{quote(path)}]) AS whole").fetchall()
        except duckdb.Error:
            return StoreError(f"is no readable Parquet file: {said}", where=path, fix=mend(path))
    return StoreError(
        said,
        where=", ".join(sorted(tables)) or None,
        # Copies are no record and no partitions: they are written again rather than looked through.
        fix="Run `laps compact --all`, in case a compacted copy is damaged, and the query again.",
    )
