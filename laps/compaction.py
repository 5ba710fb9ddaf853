"""Compacted copies: what one holds, and how the rows of a camera hour get into it.

The record of the catalog is a file for each table, camera and hour. Thousands of them are slow to query, so a copy
holds many hours of one camera in one file, in the order of time. What is copied:

- the hour tables that people query over long spans: ``raw_video``, ``segments``, ``clips``, ``segment_embeddings``
  and ``cluster_assignments``; and ``recordings``, which has a file for each video;
- ``primitives``: the rows of ``segments`` already joined with those of ``cluster_assignments`` and ``clips``, because
  that join costs a query over a year more than all else in it.

Not copied: ``keypoint_tracks``, ``keyframes`` and ``latent_stream`` (their rows are large or many, 36,000 an hour at
least, so a copy would cost as much again as the record; queries take them for single hours, for which the record is
quick), ``visual_features`` (the report reads it hour by hour, and it would be the largest copy), and tables with one
file a release, a camera or a cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laps.local_time import FUNCTIONS, LOCAL
from laps.tables import (
    CLIPS,
    CLUSTER_ASSIGNMENTS,
    RAW_VIDEO,
    RECORDINGS,
    SEGMENT_EMBEDDINGS,
    SEGMENTS,
    Column,
    Table,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FOLDER = "compacted"
"""Where copies lie in a store."""

ROW_GROUP_ROWS = 16_384
"""Rows of a row group: some days of a busy camera. Smaller ones skip more, larger ones are read faster as a whole."""

# Raised when the same columns are to be written in another way.
_FORMAT = 2

DATE = Column("date", "date", "UTC date of the camera hour whose file holds the row.")
HOUR = Column("hour", "int32", "UTC hour (0 to 23) of the camera hour whose file holds the row.")
SOURCE = Column("source", "string", "File of the record that holds the row, below the folder of its table.")


@dataclass(frozen=True)
class Copy:
    """A relation of the catalog that has a compacted copy.

    Attributes:
        name: name of its view.
        tables: what it is made from; the rows of the first, each joined with at most one of every other.
        joined: the columns that it takes from the others.
    """

    name: str
    tables: tuple[Table, ...]
    joined: tuple[Column, ...] = ()

    @property
    def model_level(self) -> str | None:
        """The model that all of its tables are kept by; see :class:`laps.tables.Table`."""
        return self.tables[0].model_level

    @property
    def stored(self) -> tuple[Column, ...]:
        """The columns that the views read from the copy."""
        hours = (DATE, HOUR) if self.tables[0].partitioned == "camera_hour" else ()
        return (*self.tables[0].columns, *self.joined, *(LOCAL if self.has_local_time else ()), *hours)

    @property
    def has_local_time(self) -> bool:
        """Whether local time and shift of the rows are stored, which costs a query less than to compute them."""
        return {"camera", "start_time"} <= set(self.tables[0].column_names)

    @property
    def version(self) -> str:
        """Changes with what a copy holds and how: a copy of another version is not read but made again."""
        said = repr((_FORMAT, [(column.name, column.type) for column in self.stored]))
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def schema(self) -> pa.Schema:
        """The Arrow schema of the file. All columns may be null: old files of the record lack some."""
        import pyarrow as pa

        types = {field.name: field.type for table in self.tables for field in table.schema()}
        types |= {"start_local": pa.timestamp("us"), "shift": pa.string(), "shift_date": pa.date32()}
        types |= {DATE.name: pa.date32(), HOUR.name: pa.int32(), SOURCE.name: pa.string()}
        return pa.schema([(column.name, types[column.name]) for column in (*self.stored, SOURCE)])


def _columns(table: Table, *names: str) -> tuple[Column, ...]:
    return tuple(column for column in table.columns if column.name in names)


PRIMITIVES_COPY = Copy(
    "primitives",
    (SEGMENTS, CLUSTER_ASSIGNMENTS, CLIPS),
    (
        *_columns(CLUSTER_ASSIGNMENTS, "cluster_id", "centroid_distance", "cluster_model_id"),
        *_columns(CLIPS, "clip_path"),
    ),
)

COPIES: dict[str, Copy] = {
    copy.name: copy
    for copy in (
        Copy(RECORDINGS.name, (RECORDINGS,)),
        Copy(RAW_VIDEO.name, (RAW_VIDEO,)),
        Copy(SEGMENTS.name, (SEGMENTS,)),
        Copy(CLIPS.name, (CLIPS,)),
        Copy(SEGMENT_EMBEDDINGS.name, (SEGMENT_EMBEDDINGS,)),
        Copy(CLUSTER_ASSIGNMENTS.name, (CLUSTER_ASSIGNMENTS,)),
        PRIMITIVES_COPY,
    )
}


def folders_of(source: str) -> dict[str, str]:
    """``camera``, and ``date`` and ``hour`` where there are such, from a file's path below its table's folder."""
    return dict(part.split("=", 1) for part in source.split("/") if "=" in part)


def copied_rows(copy: Copy, source: str, tables: Mapping[str, pa.Table | None]) -> pa.Table:
    """The rows that a copy holds of one file of the record.

    Args:
        copy: the relation.
        source: the file of its first table, below that table's folder.
        tables: the rows of each of its tables in that hour, with the declared columns; None where the hour has no
            such file.

    Returns:
        Rows in :meth:`Copy.schema`, by ``start_time`` where there is one. As in the views, camera, date and hour are
        those that the path names. Local time is null: the writer computes it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    first = tables[copy.tables[0].name]
    assert first is not None
    values: dict[str, Any] = {name: first[name] for name in first.column_names}
    for table in copy.tables[1:]:
        other = tables[table.name]
        wanted = [column.name for column in copy.joined if column in table.columns]
        if other is None:
            values |= {name: pa.nulls(first.num_rows, table.schema().field(name).type) for name in wanted}
            continue
        # Keys are unique in a file. A row without a partner takes at null, which gives null.
        places = pc.index_in(first["segment_id"], value_set=other["segment_id"].combine_chunks())
        values |= {name: other[name].take(places) for name in wanted}
    schema = copy.schema()
    folders = folders_of(source)
    constant: dict[str, Any] = {"camera": folders["camera"], SOURCE.name: source}
    if "date" in folders:
        constant |= {DATE.name: _date(folders["date"]), HOUR.name: int(folders["hour"])}
    if copy.has_local_time:
        constant |= {column.name: None for column in LOCAL}
    for name, value in constant.items():
        values[name] = pa.repeat(pa.scalar(value, schema.field(name).type), first.num_rows)
    rows = pa.Table.from_arrays([values[name] for name in schema.names], schema=schema)
    return rows.sort_by("start_time") if "start_time" in schema.names else rows


def _date(text: str) -> Any:
    from datetime import date

    return date.fromisoformat(text)


class LocalTime:
    """Local time and shift of rows, by the functions that the views use.

    Args:
        functions: the statements that make the functions of :mod:`laps.local_time`.
    """

    def __init__(self, functions: Sequence[str]) -> None:
        self._functions = functions

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """Made once for all copies that are written, because it takes longer than most of them, or not at all."""
        import duckdb

        connection = duckdb.connect(config={"threads": 1})  # one thread keeps the rows' order
        connection.execute("SET TimeZone = 'UTC'")
        for statement in self._functions:
            connection.execute(statement)
        return connection

    def fill(self, rows: pa.Table) -> pa.Table:
        """The rows with the columns of :data:`laps.local_time.FUNCTIONS` filled in."""
        self._connection.register("rows_given", rows.select(["camera", "start_time"]))
        values = ", ".join(f"{function}(camera, start_time) AS {name}" for name, function in FUNCTIONS.items())
        made: Any = self._connection.sql(f"SELECT {values} FROM rows_given").to_arrow_table()
        self._connection.unregister("rows_given")
        for name in FUNCTIONS:
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(name), made[name].cast(rows.schema.field(name).type))
        return rows


class CopyWriter:
    """Writes a copy's file, holding the rows of one row group at most in memory; a context manager.

    Args:
        copy: the relation.
        path: the local file to write.
        local_time: fills in local time and shift; without it they are null.
    """

    def __init__(self, copy: Copy, path: Path, local_time: LocalTime | None = None) -> None:
        import pyarrow.parquet as pq

        self._schema = copy.schema()
        self._local = local_time if copy.has_local_time else None
        vectors = [column.name for column in copy.stored if column.type == "list<float32>"]
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            # Vectors repeat nothing: a dictionary would only cost time, and compression saves a sixth and costs more
            # than all else when they are read.
            compression={name: "none" if name in vectors else "zstd" for name in self._schema.names},
            use_dictionary=[name for name in self._schema.names if name not in vectors],
        )
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self.rows = 0

    def write(self, rows: pa.Table) -> None:
        """Append rows in :meth:`Copy.schema`."""
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self.rows += rows.num_rows
        while self._waiting_rows >= ROW_GROUP_ROWS:
            self._flush(ROW_GROUP_ROWS)

    def _flush(self, count: int) -> None:
        import pyarrow as pa

        together = pa.concat_tables(self._waiting)
        group = together.slice(0, count)
        if self._local is not None:
            group = self._local.fill(group)
        self._writer.write_table(group, row_group_size=count)
        rest = together.slice(count)
        self._waiting, self._waiting_rows = [rest] if rest.num_rows else [], rest.num_rows

    def __enter__(self) -> CopyWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._waiting_rows:
            self._flush(self._waiting_rows)
        self._writer.close()
