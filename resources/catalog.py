"""The catalog's connection: DuckDB in memory, with views over the store, for reading only.

Nothing is locked and nothing is written: files in the store appear whole and are replaced in one step, so queries
never wait for a running pipeline, nor the pipeline for them.

A local store is read by DuckDB itself, confined to the store's root; any other store through fsspec, by a file
system that can open the files below the root and do nothing else. :func:`run_query` admits queries only: DuckDB
types ``WITH x AS (COPY … TO …) SELECT …`` as a SELECT and runs what ``EXPLAIN ANALYZE`` is given, so the parsed
statement is checked node by node.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from fsspec.spec import AbstractFileSystem

from laps import catalog
from laps.catalog import CopyFiles
from laps.errors import InputError
from laps.tables import CLUSTER_NAMES, TABLES
from resources.copies import holdings, list_record, models_of
from resources.damage import damaged_file
from resources.names import name_files
from resources.store import SPILLED, Store

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "parquet")

_QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {
    "unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree",
    "read_parquet", "parquet_scan", "parquet_metadata", "parquet_schema", "parquet_file_metadata",
    "duckdb_views", "duckdb_columns", "duckdb_tables", "duckdb_functions", "duckdb_types", "duckdb_schemas",
    "duckdb_keywords", "pragma_table_info", "pragma_version", "summary", "icu_calendar_names", "pg_timezone_names",
}  # fmt: skip
_EXPLAIN = re.compile(r"(?P<skip>(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*)(?P<word>\w+|\([^()]*\))", re.DOTALL)


def open_catalog(store: Store, release: str | None = None) -> duckdb.DuckDBPyConnection:
    """The catalog of a store, for one release.

    Args:
        store: the store.
        release: name of the release whose tables are shown; the current one when None. Before the first
            promotion the tables of releases are empty, the others are not.

    Returns:
        An in-memory connection, confined to reading below the store's root, with locked settings. SQL that a
        person wrote goes through :func:`run_query`.

    Raises:
        InputError: there is no such release.
        StoreError: the store cannot be reached.
    """
    from resources.models import ModelRegistry

    registry = ModelRegistry(store)
    chosen = registry.release(release) if release else registry.current()
    if chosen is None:
        return connect(store)
    return connect(store, release=chosen.name, tokenizer=chosen.tokenizer, cluster_model=chosen.cluster_model)


def connect(
    store: Store, *, release: str | None = None, tokenizer: str | None = None, cluster_model: str | None = None
) -> duckdb.DuckDBPyConnection:
    """The catalog's connection for a release's name and the ids of its models; see :func:`open_catalog`.

    It shows the store as it is listed now. What changes afterwards is seen by the next connection; an hour that is run
    again meanwhile may be seen as it was or as it is.
    """
    models = {"release": release, "tokenizer": tokenizer, "cluster_model": cluster_model}
    files, copied = catalog_files(store, **models)
    connection = _connection(store)
    try:
        catalog.create_views(connection, files, store.root, cluster_model, copied)
        _lock(connection, store)
    except BaseException:
        connection.close()
        raise
    return connection


def catalog_files(
    store: Store, *, release: str | None = None, tokenizer: str | None = None, cluster_model: str | None = None
) -> tuple[dict[str, list[str]], dict[str, CopyFiles]]:
    """What the views read: those files, as paths or URLs, that belong to one release and its models.

    Returns:
        For each table the files of its record, and for each relation that has compacted copies what is read instead.
    """
    models = models_of(release=release, tokenizer=tokenizer, cluster_model=cluster_model)
    names = name_files(store, cluster_model) if cluster_model else {}
    models.pop(CLUSTER_NAMES.name, None)
    record = list_record(store, models)
    files = {name: [store.url(path) for path in record.get(name, ())] for name in TABLES}
    files[CLUSTER_NAMES.name] = [store.url(path) for path in names.values()]
    copied = {}
    for copy, held in holdings(store, models, record).items():
        folders = {table.name: store.table_path(table, models[table.name]) for table in copy.tables}
        paths = {name: [f"{folder}/{source}" for source in held.record] for name, folder in folders.items()}
        copied[copy.name] = CopyFiles(
            parts=[replace(part, files=[store.url(path) for path in part.files]) for part in held.parts],
            record={name: [store.url(path) for path in paths[name] if path in record[name]] for name in folders},
        )
    return files, copied


def run_query(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Run one SELECT (also WITH, FROM, DESCRIBE, SHOW, SUMMARIZE, VALUES) or EXPLAIN and return its rows.

    Raises:
        InputError: not exactly one statement, not a query, a wrong name (with the names that there are), or
            something outside of the store.
        StoreError: a file is damaged or vanished; the message names it.
    """
    statement, names = _admit(connection, sql)
    try:
        return _fetch(connection, statement)
    except duckdb.Error as error:
        raise _explained(connection, error, names) from error


def _fetch(connection: duckdb.DuckDBPyConnection, statement: Any) -> pa.Table:
    """Rows of a statement, in a thread: DuckDB does not look at signals here, and Ctrl-C should end a query."""

    def rows() -> pa.Table:
        result: Any = connection.sql(statement)
        return result.to_arrow_table()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(rows)
        try:
            return future.result()
        except KeyboardInterrupt:
            # Again and again: one that comes before DuckDB has begun is lost.
            while not future.done():
                connection.interrupt()
                wait([future], timeout=0.1)
            raise


def render(result: pa.Table, format: str = "table", *, max_rows: int | None = 1000) -> str | bytes:
    """A result as text (``table``, ``csv``, ``json``) or as the bytes of a file (``parquet``).

    Times are written in UTC as ISO 8601 with a trailing Z; binary values as base64 (``table``: their size);
    lists in CSV as JSON. ``table`` shows ``max_rows`` rows and says how many it left out; the others show all.
    """
    if format == "table":
        return _as_table(result, max_rows)
    if format == "csv":
        return _as_csv(result)
    if format == "json":
        return _as_json(result)
    if format == "parquet":
        return _as_parquet(result)
    raise InputError(f"{format!r} is no output format", fix=f"Formats: {', '.join(FORMATS)}.")


# --- the connection --------------------------------------------------------------------------------------------


class ReadOnlyFiles(AbstractFileSystem):
    """What DuckDB sees of a store that it cannot read itself: files below the root, for reading only.

    Args:
        store: the store.
    """

    cachable = False

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.protocol = store.root.split("://", 1)[0]
        self._store = store
        self._copies: dict[str, dict[str, Any]] = {}  # what is known of them stays true: they never change

    def open(self, path: str, mode: str = "rb", **_: object) -> Any:
        if mode != "rb":
            raise PermissionError(f"the catalog does not write: {path}")
        # Parquet is read in ranges: a large read-ahead would fetch what no query asked for.
        try:
            if catalog.is_copy_file(path):
                return _Ranges(self._store.fs, self._full(path), int(self.info(path)["size"]))
            return self._store.fs.open(self._full(path), "rb", block_size=2**18)
        except FileNotFoundError as error:
            # With the name that the query knows, in quotes as in DuckDB's own messages.
            raise FileNotFoundError(f'No such file: "{path}"') from error

    def info(self, path: str, **_: object) -> dict[str, Any]:
        if path in self._copies:
            return self._copies[path]
        info = {**self._store.fs.info(self._full(path)), "name": path}
        if catalog.is_copy_file(path):
            self._copies[path] = info
        return info

    def exists(self, path: str, **_: object) -> bool:
        return bool(self._store.fs.exists(self._full(path)))

    def modified(self, path: str) -> Any:
        if catalog.is_copy_file(path) and "LastModified" in (info := self.info(path)):
            return info["LastModified"]  # by which DuckDB knows what it keeps of the file
        try:
            return self._store.fs.modified(self._full(path))
        except NotImplementedError:
            return datetime.fromtimestamp(0, UTC)

    def glob(self, path: str, **_: object) -> list[str]:
        # File lists come from the store's listing. Looking again would be a request for every file of every query;
        # one that vanished meanwhile is missed when it is opened.
        self._full(path)
        return [path] if not set("*?[") & set(path) else []

    def _full(self, path: str) -> str:
        below = self._store.root + "/"
        if not path.startswith(below) or ".." in path.split("/"):
            raise PermissionError(f"outside of the store: {path}")
        return self._store.full_path(path.removeprefix(below))


class _Ranges(io.RawIOBase):
    """A file that never changes, read as DuckDB asks for it: one request for each read, and none beside.

    Args:
        fs: the file system.
        path: path in it.
        size: its size in bytes.
    """

    def __init__(self, fs: Any, path: str, size: int) -> None:
        self._fs, self._path, self._size, self._at = fs, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._size, self._at + size)
        if stop <= self._at:
            return b""
        content = bytes(self._fs.cat_file(self._path, start=self._at, end=stop))
        self._at += len(content)
        return content


def _connection(store: Store) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
            # Made only when a query does not fit into memory. The default lies in the working directory.
            "temp_directory": str(Path(tempfile.gettempdir()) / f"{SPILLED}{uuid.uuid4().hex}"),
        },
    )
    if not store.is_local:
        connection.register_filesystem(ReadOnlyFiles(store))
    return connection


def _lock(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    connection.execute(f"SET allowed_directories = [{catalog.quote(store.root + '/')}]")
    connection.execute("SET enable_external_access = false")
    if not store.is_local:
        connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
    connection.execute("SET lock_configuration = true")


# --- which statements are admitted -----------------------------------------------------------------------------


def _admit(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, set[str]]:
    """The one statement of the text and the names of the relations in it; InputError when it may not run."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise InputError(_short(str(error))) from error
    if len(statements) != 1:
        raise InputError(
            f"one query at a time, not {len(statements)}", fix="Give exactly one SELECT or EXPLAIN statement."
        )
    kind = statements[0].type.name
    query = sql
    if kind == "EXPLAIN":
        query, kind = _explained_query(connection, sql)
    if kind != "SELECT":
        raise InputError(
            f"the catalog is for reading, and this is a {kind} statement",
            fix="Use SELECT (or EXPLAIN of a SELECT).",
        )
    return statements[0], _check_tree(connection, query)


def _explained_query(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, str]:
    """What an EXPLAIN explains, and its kind: EXPLAIN ANALYZE would run it."""
    rest = sql
    for _ in range(3):  # EXPLAIN, then ANALYZE or options
        word = _EXPLAIN.match(rest)
        if word is None:
            break
        rest = rest[word.end() :]
        try:
            inner = connection.extract_statements(rest)
        except duckdb.Error:
            continue
        if len(inner) == 1:
            return rest, inner[0].type.name
    return sql, "EXPLAIN"


def _check_tree(connection: duckdb.DuckDBPyConnection, query: str) -> set[str]:
    # A cursor: the caller's connection may have an unfinished result.
    row = connection.cursor().execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    tree = json.loads(row[0]) if row else {"error": True, "error_message": "cannot be parsed"}
    if tree["error"]:
        raise InputError(f"this query is not admitted: {tree['error_message']}", fix="Use a plain SELECT.")
    names = set()
    for node in _nodes(tree):
        kind = node.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _QUERY_NODES:
            what = kind.removesuffix("_QUERY_NODE").removesuffix("_NODE").replace("_", " ")
            raise InputError(f"the catalog is for reading, and this query contains {what}", fix="Use a plain SELECT.")
        if kind == "TABLE_FUNCTION":
            function = node["function"]["function_name"].lower()
            if function not in _TABLE_FUNCTIONS:
                raise InputError(
                    f"the table function {function} is not admitted",
                    fix=f"Query the views: {', '.join(_relations())}.",
                )
        if kind == "BASE_TABLE":
            names.add(node["table_name"].lower())
    return names


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


# --- errors ----------------------------------------------------------------------------------------------------


def _explained(connection: duckdb.DuckDBPyConnection, error: duckdb.Error, names: set[str]) -> Exception:
    text = _short(str(error))
    unreadable = catalog.unreadable_file(error)
    if unreadable is not None:
        return unreadable
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException):
        relations = _relations()
        used = sorted(names & set(relations))
        if "Table with name" in text or not used:
            return InputError(text.rstrip(".?"), fix=f"There are: {', '.join(relations)}.")
        lists = [f"Columns of {name}: {', '.join(_column_names(connection, name))}." for name in used]
        return InputError(text.rstrip("."), fix="\n".join(lists))
    if isinstance(error, duckdb.PermissionException) or "PermissionError" in text:
        return InputError(f"only the store can be read: {text}", fix="Query the views; SHOW TABLES lists them.")
    if isinstance(error, duckdb.OutOfMemoryException):
        return InputError(text, fix="Select fewer columns or rows: keyframes and tracks hold pictures and arrays.")
    if type(error) in (duckdb.IOException, duckdb.Error, duckdb.HTTPException):
        return damaged_file(connection, names, text)
    return InputError(text)


def _short(text: str) -> str:
    """DuckDB's message without the stack of a Python file system and without quoting a whole file list."""
    lines = text.strip().splitlines()
    if lines and "Traceback (most recent call last)" in text:
        lines = [lines[-1].strip()]
    return "\n".join(line for line in lines if len(line) <= 300) or text[:300]


def _relations() -> list[str]:
    return [catalog.PRIMITIVES.name, *TABLES, catalog.PARTITIONS.name]


def _column_names(connection: duckdb.DuckDBPyConnection, relation: str) -> list[str]:
    rows = connection.cursor().execute(
        "SELECT column_name FROM duckdb_columns() WHERE NOT internal AND table_name = ? ORDER BY column_index",
        [relation],
    )
    return [row[0] for row in rows.fetchall()]


# --- output ----------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value as JSON takes it: times in UTC ISO, binary as base64, not-a-number as null."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.isoformat()
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def _rows(result: pa.Table) -> Iterator[list[Any]]:
    """Rows as lists, so that columns with the same name survive."""
    for batch in result.to_batches(max_chunksize=4096):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _as_json(result: pa.Table) -> str:
    names = _unique(result.column_names)
    lines = [json.dumps(dict(zip(names, map(plain, row), strict=True)), ensure_ascii=False) for row in _rows(result)]
    return "[\n  " + ",\n  ".join(lines) + "\n]\n" if lines else "[]\n"


def _as_csv(result: pa.Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(result.column_names)
    for row in _rows(result):
        cells = []
        for value in map(plain, row):
            if isinstance(value, list | dict):
                cells.append(json.dumps(value, ensure_ascii=False))
            elif isinstance(value, bool):
                cells.append("true" if value else "false")
            else:
                cells.append("" if value is None else str(value))
        writer.writerow(cells)
    return out.getvalue()


def _as_parquet(result: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    try:
        pq.write_table(result.rename_columns(_unique(result.column_names)), out, compression="zstd")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise InputError(
            f"a column's type has no Parquet form: {error}",
            fix="CAST that column, for example to VARCHAR or DOUBLE.",
        ) from error
    return out.getvalue()


def _as_table(result: pa.Table, max_rows: int | None) -> str:
    if result.column_names == ["explain_key", "explain_value"]:
        return "\n".join(result["explain_value"].to_pylist()).rstrip("\n") + "\n"
    shown = result if max_rows is None else result.slice(0, max_rows)
    cells = [[_cell(value) for value in row] for row in _rows(shown)]
    numeric = [_is_number(field.type) for field in result.schema]
    widths = [max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(result.column_names)]

    def line(row: list[str]) -> str:
        parts = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    lines = [line(list(result.column_names)), "  ".join("-" * width for width in widths), *map(line, cells)]
    count = f"{result.num_rows:,} row{'' if result.num_rows == 1 else 's'}"
    if shown.num_rows < result.num_rows:
        count += f", {shown.num_rows:,} shown; csv, json and parquet give all"
    return "\n".join([*lines, f"({count})"]) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        inside = [_cell(item) for item in value[:8]]
        return f"[{', '.join(inside)}{f', … {len(value)} values' if len(value) > 8 else ''}]"
    value = plain(value)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    text = " ".join(text.splitlines())
    return text if len(text) <= 100 else f"{text[:99]}…"


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique
