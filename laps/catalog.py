"""The catalog: DuckDB views over the stored tables, made from the schema registry.

One view stands for each table of :mod:`laps.tables`, with the table's columns in their declared order, the types
that were declared (never guessed from paths or from one file), and comments with meaning and unit. Beside them:

- ``primitives``: each action primitive once, joined with its cluster, the cluster's coherence and its clip;
- ``local_time(camera, t)``, ``shift_of(camera, t)`` and ``shift_date_of(camera, t)``, for a time of any view;
- ``partitions``: which files the catalog reads, so that "processed, and nothing found" differs from "not processed".

The views read explicit file lists, which the caller takes from the store. No file is opened when they are made, and a
query opens those whose ``camera``, ``date`` and ``hour`` it asks for (by ``=``, ``<``, ``BETWEEN``; an ``IN`` chooses
files of one table, but is not carried over the joins of ``primitives``). Where there are compacted copies
(:mod:`laps.compaction`), a view reads them for the hours that they hold, and the record for the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb

from laps import local_time
from laps.cameras import parse_shift
from laps.compaction import COPIES, DATE, FOLDER, HOUR, PRIMITIVES_COPY, SOURCE, Copy
from laps.errors import StoreError
from laps.tables import CAMERAS, CLUSTER_ASSIGNMENTS, CLUSTER_NAMES, CLUSTERS, SEGMENTS, TABLES, Column, Table, mend

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
    "local_timestamp": "TIMESTAMP",
    "date": "DATE",
    "binary": "BLOB",
}

# Which folder above a file, counted from the file, names its partition: the root may hold an "=" of its own.
_PARTITION_FOLDERS = {
    "camera_hour": {"camera": -4, "date": -3, "hour": -2},
    "camera": {"camera": -2},
    "one_per_camera": {"camera": -2},
    "release": {},
    "cluster": {},
}

# The same of a compacted copy: its camera, and where it holds hours their month. Dates and hours are columns of it.
_COPY_FOLDERS = {"camera_hour": {"camera": -3}, "camera": {"camera": -2}}


@dataclass(frozen=True)
class CopyPart:
    """Data files of a compacted copy that are read in the same way.

    Attributes:
        files: full paths or URLs.
        stale: the values of ``source`` whose rows no longer hold and are not to be read.
        local: whether local time and shift are as the cameras are described now; else they are computed.
    """

    files: Sequence[str]
    stale: Sequence[str] = ()
    local: bool = False


@dataclass(frozen=True)
class CopyFiles:
    """What a relation with a compacted copy is read from.

    Attributes:
        parts: the data files of the copy.
        record: for each table of the copy, by name, the files of the record (full paths or URLs) with what no copy
            holds as it is now.
    """

    parts: Sequence[CopyPart]
    record: Mapping[str, Sequence[str]]


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
        *local_time.LOCAL,
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
        DATE,
        HOUR,
    ),
)

PARTITIONS = Table(
    name="partitions",
    description=(
        "The files of the record, which the catalog reads itself or as compacted copies: a camera hour that was "
        "processed has one in each table, also when it holds no rows."
    ),
    key=("path",),
    columns=(
        Column("table_name", "string", "Table that the file belongs to."),
        Column("camera", "string", "Camera, where the table is kept by camera.", nullable=True),
        replace(DATE, nullable=True),
        replace(HOUR, nullable=True),
        Column("model", "string", "Tokenizer or release that the file belongs to.", nullable=True),
        Column("path", "string", "The file: full path or URL."),
    ),
)


def view_columns(table: Table) -> tuple[Column, ...]:
    """The columns of a table's view: those of the table, local time, the partition's date and hour, as it has them."""
    if table.name not in TABLES:
        return table.columns
    local = local_time.LOCAL if {"camera", "start_time"} <= set(table.column_names) else ()
    return (*table.columns, *local, *((DATE, HOUR) if table.partitioned == "camera_hour" else ()))


def sql_type(column: Column) -> str:
    """The DuckDB type of a declared column."""
    if column.type.startswith("list<"):
        return f"{_SQL_TYPES[column.type.removeprefix('list<').removesuffix('>')]}[]"
    return _SQL_TYPES[column.type]


def quote(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def files_sql(columns: Sequence[Column], files: Sequence[str]) -> str:
    """The relation of Parquet files with the declared columns; what a file lacks is null.

    The columns are declared, not looked up: no file is opened before a query needs its rows. DuckDB's own way to let
    files differ (``union_by_name``) opens every file of the list for every query. ``filename`` is there for what is
    made from paths: a filter on it chooses files by name.
    """
    schema = ", ".join(
        f"{quote(column.name)}: {{name: {quote(column.name)}, type: {quote(sql_type(column))}, default_value: NULL}}"
        for column in columns
    )
    return f"read_parquet([{', '.join(quote(file) for file in files)}], schema=MAP {{{schema}}}, filename=true)"


def _selection(columns: Sequence[Column], made: Mapping[str, str], source: str) -> str:
    values = ", ".join(
        f"CAST({made.get(column.name, _name(column.name))} AS {sql_type(column)}) AS {_name(column.name)}"
        for column in columns
    )
    return f"SELECT {values} {source}"


def _from_path(places: Mapping[str, int]) -> dict[str, str]:
    """Columns that the folders above a file give, each at its place counted from the end."""
    # As text, until it is cast: DuckDB would take the camera 01 for the number 1. By functions that it works out once
    # for many rows of a file, which split_part is not.
    return {name: f"substr(string_split(filename, '/')[{place}], {len(name) + 2})" for name, place in places.items()}


def _with_local_time(made: dict[str, str]) -> dict[str, str]:
    if "camera" not in made:
        return made
    return made | {name: f"{function}({made['camera']}, start_time)" for name, function in local_time.FUNCTIONS.items()}


def record_sql(table: Table, files: Sequence[str]) -> str:
    """``SELECT`` of a view's columns from files of the record: full paths or URLs; none of them gives no rows."""
    columns = view_columns(table)
    if not files:
        return _selection(columns, {column.name: "NULL" for column in columns}, "WHERE false")
    made = _with_local_time(_from_path(_PARTITION_FOLDERS[table.partitioned]))
    return _selection(columns, made, f"FROM {files_sql(table.columns, files)}")


def copy_sql(copy: Copy, columns: Sequence[Column], part: CopyPart) -> str:
    """``SELECT`` of these columns, which the copy stores, from some of its data files."""
    made = _from_path(_COPY_FOLDERS[copy.tables[0].partitioned])
    if not part.local:
        made = _with_local_time(made)
    if not part.stale:
        return _selection(columns, made, f"FROM {files_sql(copy.stored, part.files)}")
    stale = ", ".join(map(quote, part.stale))
    rows = files_sql((*copy.stored, SOURCE), part.files)
    return _selection(columns, made, f"FROM {rows} WHERE {SOURCE.name} NOT IN ({stale})")


def view_sql(table: Table, files: Sequence[str], copied: CopyFiles | None = None) -> str:
    """``CREATE VIEW`` of a table.

    Args:
        table: the declared table.
        files: the files of its record, full paths or URLs; none of them gives an empty relation with the same columns
            and types.
        copied: where there is a compacted copy of it: what is read instead of ``files``.
    """
    selections = []
    if copied is not None:
        selections = [copy_sql(COPIES[table.name], view_columns(table), part) for part in copied.parts]
        files = copied.record.get(table.name, ())
    if files or not selections:
        selections.append(record_sql(table, files))
    return f"CREATE VIEW {_name(table.name)} AS {' UNION ALL '.join(selections)}"


def _joined_sql(segments: str, cluster_assignments: str, clips: str) -> str:
    """``SELECT`` of the columns of the copy ``primitives`` from three relations."""
    # The partition columns are part of the join, so that a filter on camera, date or hour prunes every side's files.
    same_hour = "{0}.segment_id = s.segment_id AND {0}.camera = s.camera AND {0}.date = s.date AND {0}.hour = s.hour"
    side = {column: "a" if column in CLUSTER_ASSIGNMENTS.columns else "c" for column in PRIMITIVES_COPY.joined}
    columns = ", ".join(f"{side.get(column, 's')}.{_name(column.name)}" for column in PRIMITIVES_COPY.stored)
    return (
        f"SELECT {columns} FROM {segments} s "
        f"LEFT JOIN {cluster_assignments} a ON {same_hour.format('a')} "
        f"LEFT JOIN {clips} c ON {same_hour.format('c')}"
    )


def primitives_sql(root: str, cluster_model: str | None = None, copied: CopyFiles | None = None) -> str:
    """``CREATE VIEW primitives``.

    Args:
        root: what clip paths are relative to.
        cluster_model: the cluster model for which the view ``cluster_names`` holds; other rows stay without a name.
        copied: where there is a compacted copy: what is read instead of the views of the tables.
    """
    tables = PRIMITIVES_COPY.tables
    if copied is None:
        parts = [_joined_sql(*(table.name for table in tables))]
    else:
        parts = [copy_sql(PRIMITIVES_COPY, PRIMITIVES_COPY.stored, part) for part in copied.parts]
        files = [copied.record.get(table.name, ()) for table in tables]
        if files[0] or not parts:
            parts.append(_joined_sql(*(f"({record_sql(*pair)})" for pair in zip(tables, files, strict=True))))
    of_cluster = {
        "cluster_icss": "icss_mean",
        "cluster_icss_ci_low": "icss_ci_low",
        "cluster_icss_ci_high": "icss_ci_high",
        "icss_baseline": "baseline_mean",
        "encoder_id": "encoder_id",
    }
    sources = {
        "action_name": "k.action_name",
        "clip": f"{quote(root.rstrip('/') + '/')} || p.clip_path",
        **{name: f"k.{_name(column)}" for name, column in of_cluster.items()},
    }
    columns = ", ".join(
        f"{sources.get(column.name, f'p.{_name(column.name)}')} AS {_name(column.name)}"
        for column in PRIMITIVES.columns
    )
    # Grouped by what is joined, and joined once: so DuckDB sees that no row is doubled, and leaves the join out of a
    # query that does not use what is known of a cluster.
    known = [_name(column) for column in of_cluster.values()]
    of_clusters = (
        f"SELECT cluster_id, cluster_model_id, {', '.join(known)}, NULL AS action_name FROM clusters UNION ALL "
        f"SELECT cluster_id, {quote(cluster_model or '')}, {', '.join('NULL' for _ in known)}, action_name "
        "FROM cluster_names"
    )
    values = ", ".join(f"any_value({column}) AS {column}" for column in (*known, "action_name"))
    return (
        f"CREATE VIEW primitives AS SELECT {columns} FROM ({' UNION ALL '.join(parts)}) p "
        f"LEFT JOIN (SELECT cluster_id, cluster_model_id, {values} FROM ({of_clusters}) "
        "GROUP BY cluster_id, cluster_model_id) k "
        "ON k.cluster_id = p.cluster_id AND k.cluster_model_id = p.cluster_model_id"
    )


def comments_sql(table: Table, kind: str = "VIEW") -> list[str]:
    """``COMMENT ON`` statements with the descriptions and units of the registry."""
    name = _name(table.name)
    statements = [f"COMMENT ON {kind} {name} IS {quote(table.description)}"]
    for column in view_columns(table):
        unit = f" Unit: {column.unit}." if column.unit else ""
        statements.append(f"COMMENT ON COLUMN {name}.{_name(column.name)} IS {quote(column.description + unit)}")
    return statements


def create_views(
    connection: duckdb.DuckDBPyConnection,
    files: Mapping[str, Sequence[str]],
    root: str,
    cluster_model: str | None = None,
    copied: Mapping[str, CopyFiles] | None = None,
) -> None:
    """Make the view of each table, ``primitives``, ``partitions`` and the comments; set the time zone to UTC.

    No file is opened but those of ``cameras``: one that is damaged or vanished shows when a query needs it
    (:func:`unreadable_file`), and the others are not affected.

    Args:
        connection: an empty in-memory database.
        files: for each table's name, the files that it consists of; absent means none.
        root: where the store lies; clip paths become ``<root>/<clip_path>``.
        cluster_model: the cluster model whose clusters the view ``cluster_names`` names.
        copied: for each view's name that has compacted copies, what it is read from.
    """
    copied = copied or {}
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute(view_sql(CAMERAS, files.get(CAMERAS.name, ())))
    for statement in _local_time_functions(connection):
        connection.execute(statement)
    for table in TABLES.values():
        if table is not CAMERAS:
            connection.execute(view_sql(table, files.get(table.name, ()), copied.get(table.name)))
    connection.execute(primitives_sql(root, cluster_model, copied.get(PRIMITIVES.name)))
    _create_partitions(connection, files)
    for table in (*TABLES.values(), PRIMITIVES):
        connection.execute("; ".join(comments_sql(table)))
    connection.execute("; ".join(comments_sql(PARTITIONS, "TABLE")))


_FILE = re.compile(r"[\"'](?P<path>(?:/|\w+://)[^\"\n]*?\.parquet)(?:/\*\*/\*\.parquet)?[\"']")

_COPY_FILE = re.compile(rf"/{FOLDER}/.*/[0-9a-f]{{32}}\.parquet$")


def is_copy_file(path: str) -> bool:
    """Whether a path or URL is that of a compacted copy's data file, which never changes."""
    return _COPY_FILE.search(path) is not None


# These quote files only because the statement did.
_NOT_ABOUT_FILES = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.PermissionException,
)


def unreadable_file(error: duckdb.Error) -> StoreError | None:
    """The error to raise for a file that is damaged or vanished; None when the cause is something else."""
    text = str(error)
    found = _FILE.search(text)
    if found is None or isinstance(error, _NOT_ABOUT_FILES):
        return None
    path = found["path"]
    if any(sign in text for sign in ("No files found", "No such file", "FileNotFoundError")):
        return StoreError(
            "vanished while the catalog was open",
            where=path,
            fix="It was replaced or removed: run the query again; if that does not help, materialize its partition.",
        )
    return StoreError(
        f"is no readable Parquet file: {_first_line(error)}",
        where=path,
        fix="Run `laps compact --all`, which writes it again; no rows are lost." if is_copy_file(path) else mend(path),
    )


def _first_line(error: duckdb.Error) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    line = lines[-1] if lines and "Traceback (most recent call last)" in str(error) else lines[0]
    return line[:300].rstrip(".")


def _local_time_functions(connection: duckdb.DuckDBPyConnection) -> list[str]:
    try:
        found = connection.execute("SELECT camera, time_zone, shifts FROM cameras").fetchall()
    except duckdb.Error as error:
        unreadable = unreadable_file(error)
        if unreadable is None:
            raise
        return local_time.functions_failing_with(str(unreadable))
    calendars = [(camera, zone, [parse_shift(shift) for shift in shifts or ()]) for camera, zone, shifts in found]
    return local_time.functions_sql(calendars)


def _create_partitions(connection: duckdb.DuckDBPyConnection, files: Mapping[str, Sequence[str]]) -> None:
    import pyarrow as pa

    declared = ", ".join(f"{_name(column.name)} {sql_type(column)}" for column in PARTITIONS.columns)
    connection.execute(f"CREATE OR REPLACE TABLE partitions ({declared})")
    for name, paths in files.items():
        if not paths:
            continue
        table = TABLES[name]
        places = _PARTITION_FOLDERS[table.partitioned]
        if table.model_level is not None:
            places = places | {table.model_level: min(places.values(), default=-1) - 1}
        made = {"table_name": quote(name), "model": "NULL", **_from_path(places), "path": "filename"}
        if table.model_level is not None:
            made["model"] = made[table.model_level]
        columns = [replace(column, nullable=True) for column in PARTITIONS.columns]
        absent = {column.name: "NULL" for column in columns if column.name not in made}
        connection.register("listed_files", pa.table({"filename": pa.array(paths, pa.string())}))
        connection.execute(f"INSERT INTO partitions {_selection(columns, made | absent, 'FROM listed_files')}")
        connection.unregister("listed_files")


def catalog_summary(connection: duckdb.DuckDBPyConnection, *, most_files: int | None = None) -> pa.Table:
    """What the catalog holds: for each table its rows, camera hours, cameras, and first and last hour (UTC).

    Counting rows reads the files' footers only. ``rows`` is null for a table that cannot be read.

    Args:
        connection: the catalog.
        most_files: rows are null also for a table of more files that is of a kind which is never copied
            (:data:`laps.compaction.COPIES`): in object storage each footer takes some requests.
    """
    files = dict(connection.execute("SELECT table_name, count(*) FROM partitions GROUP BY 1").fetchall())
    counts = []
    for place, name in enumerate((*TABLES, PRIMITIVES.name)):
        if most_files is not None and name not in COPIES and files.get(name, 0) > most_files:
            counts.append(f"({quote(name)}, {place}, NULL)")
            continue
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
