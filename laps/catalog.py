"""The catalog: DuckDB views over the stored tables, made from the schema registry.

One view stands for each table of :mod:`laps.tables`, with the table's columns in their declared order, the types
that were declared (never guessed from paths or from one file), and comments with meaning and unit. Beside them:

- ``primitives``: each action primitive once, joined with its cluster, the cluster's coherence and its clip;
- ``partitions``: which files the catalog reads, so that "processed, and nothing found" differs from "not processed".

The views read explicit file lists, which the caller takes from the store. That is the seam for a compacted copy:
a list may mix compacted files and single hours, the views do not care.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb

from laps.errors import StoreError
from laps.tables import CLUSTER_ASSIGNMENTS, CLUSTER_NAMES, CLUSTERS, SEGMENTS, TABLES, Column, Table

if TYPE_CHECKING:
    import pyarrow as pa

_SQL_TYPES = {
    "string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint16": "USMALLINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "binary": "BLOB",
}

# Without these, DuckDB would take the camera 01 for the number 1 (and 1 for 01).
_HIVE_TYPES = {
    "camera": "VARCHAR",
    "date": "DATE",
    "hour": "INTEGER",
    "tokenizer": "VARCHAR",
    "release": "VARCHAR",
    "cluster_model": "VARCHAR",
}

_DATE = Column("date", "date", "UTC date of the camera hour whose file holds the row.")
_HOUR = Column("hour", "int32", "UTC hour (0 to 23) of the camera hour whose file holds the row.")


def _from(table: Table, name: str, rename: str | None = None, nullable: bool | None = None) -> Column:
    column = next(column for column in table.columns if column.name == name)
    return replace(column, name=rename or name, nullable=column.nullable if nullable is None else nullable, values=None)


PRIMITIVES = Table(
    name="primitives",
    description=(
        "One row for each action primitive: when and where, its latent action sequence, cluster, the cluster's name "
        "and coherence, its clip, and the models that made it. The table to begin with."
    ),
    key=("segment_id",),
    model_level="release",
    columns=(
        _from(SEGMENTS, "segment_id"),
        _from(SEGMENTS, "camera"),
        _from(SEGMENTS, "start_time"),
        _from(SEGMENTS, "end_time"),
        _from(SEGMENTS, "duration_s"),
        _from(CLUSTER_ASSIGNMENTS, "cluster_id", nullable=True),
        _from(CLUSTER_NAMES, "action_name"),
        _from(CLUSTER_ASSIGNMENTS, "centroid_distance", nullable=True),
        _from(SEGMENTS, "codes"),
        _from(SEGMENTS, "energy_mean"),
        _from(SEGMENTS, "energy_peak"),
        _from(SEGMENTS, "confidence"),
        _from(SEGMENTS, "energy_form"),
        _from(SEGMENTS, "end_reason"),
        Column(
            "clip",
            "string",
            "The primitive's mp4: full path or URL; null where there is none.",
            nullable=True,
        ),
        _from(CLUSTERS, "icss_mean", "cluster_icss"),
        _from(CLUSTERS, "icss_ci_low", "cluster_icss_ci_low"),
        _from(CLUSTERS, "icss_ci_high", "cluster_icss_ci_high"),
        _from(CLUSTERS, "baseline_mean", "icss_baseline"),
        _from(CLUSTERS, "encoder_id", nullable=True),
        _from(SEGMENTS, "tokenizer_id"),
        _from(SEGMENTS, "calibration_id"),
        _from(CLUSTER_ASSIGNMENTS, "cluster_model_id", nullable=True),
        _from(SEGMENTS, "release"),
        _DATE,
        _HOUR,
    ),
)

PARTITIONS = Table(
    name="partitions",
    description=(
        "The files that the catalog reads: a camera hour that was processed has one in each table, also when it "
        "holds no rows."
    ),
    key=("path",),
    columns=(
        Column("table_name", "string", "Table that the file belongs to."),
        Column("camera", "string", "Camera, where the table is kept by camera.", nullable=True),
        replace(_DATE, nullable=True),
        replace(_HOUR, nullable=True),
        Column("model", "string", "Tokenizer or release that the file belongs to.", nullable=True),
        Column("path", "string", "The file: full path or URL."),
    ),
)


def view_columns(table: Table) -> tuple[Column, ...]:
    """The columns of a table's view: those of the table, then the partition's date and hour where it has them."""
    if table.name in TABLES and table.partitioned == "camera_hour":
        return (*table.columns, _DATE, _HOUR)
    return table.columns


def sql_type(column: Column) -> str:
    """The DuckDB type of a declared column."""
    if column.type.startswith("list<"):
        return f"{_SQL_TYPES[column.type.removeprefix('list<').removesuffix('>')]}[]"
    return _SQL_TYPES[column.type]


def quote(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def files_sql(files: Sequence[str]) -> str:
    """The relation of a table's files, with typed partition columns; columns that a file lacks are null."""
    types = ", ".join(f"{quote(name)}: {kind}" for name, kind in _HIVE_TYPES.items() if f"/{name}=" in files[0])
    return (
        f"read_parquet([{', '.join(quote(file) for file in files)}], union_by_name=true, hive_partitioning=true, "
        f"hive_types_autocast=false, hive_types={{{types}}})"
    )


def view_sql(table: Table, files: Sequence[str], absent: Iterable[str] = ()) -> str:
    """``CREATE VIEW`` of a table over its files.

    Args:
        table: the declared table.
        files: full paths or URLs; none of them gives an empty relation with the same columns and types.
        absent: columns that no file has (all of them are older than the column): they are null.
    """
    missing = set(absent) if files else {column.name for column in view_columns(table)}
    columns = ", ".join(
        f"CAST({'NULL' if name in missing else _name(name)} AS {sql_type(column)}) AS {_name(name)}"
        for column in view_columns(table)
        for name in [column.name]
    )
    source = f"FROM {files_sql(files)}" if files else "WHERE false"
    return f"CREATE VIEW {_name(table.name)} AS SELECT {columns} {source}"


def primitives_sql(root: str, cluster_model: str | None = None) -> str:
    """``CREATE VIEW primitives``.

    Args:
        root: what clip paths are relative to.
        cluster_model: the cluster model for which the view ``cluster_names`` holds; other rows stay without a name.
    """
    named = quote(cluster_model or "")
    # The partition columns are part of the join, so that a filter on camera, date or hour prunes every side's files.
    same_hour = "{0}.segment_id = s.segment_id AND {0}.camera = s.camera AND {0}.date = s.date AND {0}.hour = s.hour"
    sources = {
        "cluster_id": "a.cluster_id",
        "action_name": "n.action_name",
        "centroid_distance": "a.centroid_distance",
        "clip": f"{quote(root.rstrip('/') + '/')} || c.clip_path",
        "cluster_icss": "k.icss_mean",
        "cluster_icss_ci_low": "k.icss_ci_low",
        "cluster_icss_ci_high": "k.icss_ci_high",
        "icss_baseline": "k.baseline_mean",
        "encoder_id": "k.encoder_id",
        "cluster_model_id": "a.cluster_model_id",
    }
    columns = ", ".join(
        f"{sources.get(column.name, f's.{_name(column.name)}')} AS {_name(column.name)}"
        for column in PRIMITIVES.columns
    )
    return (
        f"CREATE VIEW primitives AS SELECT {columns} FROM segments s "
        f"LEFT JOIN cluster_assignments a ON {same_hour.format('a')} "
        f"LEFT JOIN clips c ON {same_hour.format('c')} "
        "LEFT JOIN clusters k ON k.cluster_id = a.cluster_id AND k.cluster_model_id = a.cluster_model_id "
        f"LEFT JOIN cluster_names n ON n.cluster_id = a.cluster_id AND a.cluster_model_id = {named}"
    )


def comments_sql(table: Table, kind: str = "VIEW") -> list[str]:
    """``COMMENT ON`` statements with the descriptions and units of the registry."""
    name = _name(table.name)
    statements = [f"COMMENT ON {kind} {name} IS {quote(table.description)}"]
    for column in view_columns(table):
        unit = f" Unit: {column.unit}." if column.unit else ""
        statements.append(f"COMMENT ON COLUMN {name}.{_name(column.name)} IS {quote(column.description + unit)}")
    return statements


def create_views(connection: duckdb.DuckDBPyConnection, files: Mapping[str, Sequence[str]]) -> dict[str, duckdb.Error]:
    """Make the view of each table, and ``partitions``; set the time zone to UTC.

    Args:
        connection: an empty in-memory database.
        files: for each table's name, the files that it consists of; absent means none.

    Returns:
        For each table that could not be opened (a file is truncated, or vanished), why. It has no view yet: try
        again with a new list, or let :func:`finish_views` put one there that says what is wrong.
    """
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    failures: dict[str, duckdb.Error] = {}
    for table in TABLES.values():
        try:
            _create_view(connection, table, files.get(table.name, ()))
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            failures[table.name] = error
        except duckdb.Error as error:
            # A file system in Python raises what it likes; DuckDB wraps that without a class of its own.
            if type(error) is not duckdb.Error:
                raise
            failures[table.name] = error
    _create_partitions(connection, files)
    return failures


def finish_views(
    connection: duckdb.DuckDBPyConnection,
    root: str,
    broken: Mapping[str, duckdb.Error] | None = None,
    cluster_model: str | None = None,
) -> None:
    """Make ``primitives`` and the comments, after :func:`create_views`.

    Args:
        connection: the database.
        root: where the store lies; clip paths become ``<root>/<clip_path>``.
        broken: tables that could not be opened, and why. Reading one raises an error that
            :func:`unreadable_file` understands; the other tables are not affected.
        cluster_model: the cluster model whose clusters the view ``cluster_names`` names.
    """
    placeholders = []
    for name, error in (broken or {}).items():
        # A view over a table that is then dropped fails whenever it is bound. A view that calls error() would
        # not: the optimizer drops the call together with a filter that it can decide.
        known = unreadable_file(error)
        placeholder = _name(str(known) if known else _first_line(error))
        columns = view_columns(TABLES[name])
        declared = ", ".join(f"{_name(column.name)} {sql_type(column)}" for column in columns)
        connection.execute(f"CREATE TABLE {placeholder} ({declared})")
        connection.execute(f"CREATE VIEW {_name(name)} AS SELECT * FROM {placeholder}")
        placeholders.append(placeholder)
    connection.execute(primitives_sql(root, cluster_model))
    for table in (*TABLES.values(), PRIMITIVES):
        connection.execute("; ".join(comments_sql(table)))
    connection.execute("; ".join(comments_sql(PARTITIONS, "TABLE")))
    for placeholder in placeholders:
        connection.execute(f"DROP TABLE {placeholder}")


_FILE = re.compile(r"[\"'](?P<path>(?:/|\w+://)[^\"\n]*?\.parquet)(?:/\*\*/\*\.parquet)?[\"']")
_PLACEHOLDER = re.compile(
    r"Table with name (?P<path>.+?\.parquet): (?P<what>.+?)\. (?P<fix>[A-Z][^.]+(?:[.:;][^.]+)*\.) does not exist!",
    re.DOTALL,
)


# These quote files only because the statement did.
_NOT_ABOUT_FILES = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.PermissionException,
)


def file_in(error: duckdb.Error) -> str | None:
    """The Parquet file that an error of DuckDB is about."""
    found = _FILE.search(str(error))
    return found["path"] if found else None


def unreadable_file(error: duckdb.Error) -> StoreError | None:
    """The error to raise for a file that is damaged or vanished; None when the cause is something else."""
    text = str(error)
    carried = _PLACEHOLDER.search(text)
    if carried:
        return StoreError(carried["what"], where=carried["path"], fix=carried["fix"])
    path = file_in(error)
    if path is None or isinstance(error, _NOT_ABOUT_FILES):
        return None
    if any(sign in text for sign in ("No files found", "No such file", "FileNotFoundError")):
        return StoreError(
            "vanished while the catalog was open",
            where=path,
            fix="It was replaced or removed: run the query again; if that does not help, materialize its partition.",
        )
    return StoreError(
        f"is no readable Parquet file: {_first_line(error)}",
        where=path,
        fix="Materialize this partition again; the others are not affected.",
    )


def _first_line(error: duckdb.Error) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    line = lines[-1] if lines and "Traceback (most recent call last)" in str(error) else lines[0]
    return line[:300].rstrip(".")


def _create_view(connection: duckdb.DuckDBPyConnection, table: Table, files: Sequence[str]) -> None:
    try:
        connection.execute(view_sql(table, files))
    except duckdb.BinderException:
        # Some column is in none of the files. Finding out costs a second look at all footers, so only then.
        found = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {files_sql(files)}").fetchall()}
        absent = [column.name for column in view_columns(table) if column.name not in found]
        if not absent:
            raise
        connection.execute(view_sql(table, files, absent))


def _create_partitions(connection: duckdb.DuckDBPyConnection, files: Mapping[str, Sequence[str]]) -> None:
    declared = ", ".join(f"{_name(column.name)} {sql_type(column)}" for column in PARTITIONS.columns)
    connection.execute(f"CREATE OR REPLACE TABLE partitions ({declared})")
    rows = []
    for name, paths in files.items():
        for path in paths:
            parts = dict(part.split("=", 1) for part in path.split("/") if "=" in part)
            model = parts.get(TABLES[name].model_level or "")
            rows.append((name, parts.get("camera"), parts.get("date"), parts.get("hour"), model, path))
    for start in range(0, len(rows), 1000):
        values = ", ".join(
            "(" + ", ".join("NULL" if value is None else quote(value) for value in row) + ")"
            for row in rows[start : start + 1000]
        )
        connection.execute(f"INSERT INTO partitions VALUES {values}")


def catalog_summary(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """What the catalog holds: for each table its rows, camera hours, cameras, and first and last hour (UTC).

    Counting rows reads the files' footers only. ``rows`` is null for a table that cannot be read.
    """
    counts = []
    for place, name in enumerate((*TABLES, PRIMITIVES.name)):
        try:
            found = connection.execute(f"SELECT count(*) FROM {_name(name)}").fetchall()[0][0]
        except duckdb.Error as error:
            if unreadable_file(error) is None:
                raise
            found = "NULL"
        counts.append(f"({quote(name)}, {place}, {found})")
    return arrow(
        connection,
        f"""
        SELECT
            c.name AS "table",
            CAST(c.rows AS BIGINT) AS "rows",
            count(DISTINCT (p.camera, p.date, p.hour)) FILTER (p.date IS NOT NULL) AS camera_hours,
            count(DISTINCT p.camera) AS cameras,
            CAST(min(p.date + to_hours(p.hour)) AS TIMESTAMP WITH TIME ZONE) AS first_hour,
            CAST(max(p.date + to_hours(p.hour)) AS TIMESTAMP WITH TIME ZONE) AS last_hour
        FROM (VALUES {", ".join(counts)}) c(name, place, rows)
        LEFT JOIN partitions p ON p.table_name = CASE c.name WHEN 'primitives' THEN 'segments' ELSE c.name END
        GROUP BY c.name, c.rows, c.place
        ORDER BY c.place
        """,
    )


def arrow(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """The rows of a query as an Arrow table (times stay UTC, to the microsecond)."""
    result: Any = connection.sql(query)
    return result.to_arrow_table()


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
