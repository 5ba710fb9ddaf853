"""The Dagster code location and the ``laps`` command; :func:`open_catalog` for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def open_catalog(store: str | None = None, release: str | None = None) -> duckdb.DuckDBPyConnection:
    """The catalog as a DuckDB connection: ``laps_dagster.open_catalog("s3://bucket/prefix").sql("from primitives")``.

    Args:
        store: folder or URL. Default: ``LAPS_STORE``, then ``./.laps``.
        release: release to look at. Default: the current one.

    Returns:
        An in-memory connection with the views of :mod:`resources.catalog`, which can read the store and write nothing.

    Raises:
        InputError: there is no store, or no such release.
        StoreError: the store cannot be reached.
    """
    # Here, not above: loading the definitions must not load DuckDB.
    from laps_dagster.cli.places import existing_store
    from resources.catalog import open_catalog as open_store

    return open_store(existing_store(store), release=release)
