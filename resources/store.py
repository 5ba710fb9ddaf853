"""The store: every table, model, clip and report below one root, local or in object storage.

Files appear whole or not at all: they are written to a local temporary file and then published in one step, a
rename on a local disk and a single object upload elsewhere. Reading goes through fsspec; the layout is
``<root>/<table>[/tokenizer=<id>|/release=<name>]/camera=<camera>/date=<YYYY-MM-DD>/hour=<HH>/part-0.parquet``.

Only ``fsspec`` knows what kind of root it is; credentials come from the environment and never appear here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from laps.errors import InputError, NotProcessedError, StoreError
from laps.tables import Table
from laps.timegrid import CameraHour, parse_hour

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_ROOT = ".laps"
PART = "part-0.parquet"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def store_root(root: str | None = None) -> str:
    """The root to use: the argument, else ``LAPS_STORE``, else ``./.laps``; local paths become absolute."""
    chosen = root or os.environ.get("LAPS_STORE") or DEFAULT_ROOT
    if chosen.startswith("file://"):
        chosen = chosen.removeprefix("file://")
    if "://" in chosen:
        return chosen.rstrip("/")
    return str(Path(chosen).expanduser().absolute())


class Store:
    """Tables and files below a root.

    Args:
        root: a local folder or a URL that fsspec understands (``s3://bucket/prefix``). Default: ``LAPS_STORE``,
            then ``./.laps``.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = store_root(root)
        self.is_local = "://" not in self.root
        self._fs: Any = None
        self._base = self.root

    @property
    def fs(self) -> Any:
        """The fsspec file system (made on first use, because importing it is slow)."""
        if self._fs is None:
            import fsspec

            self._fs, self._base = fsspec.core.url_to_fs(self.root)
        return self._fs

    def full_path(self, path: str) -> str:
        """The path that ``fs`` takes for a path below the root."""
        self.fs  # noqa: B018  resolves the base
        return f"{self._base}/{path}"

    def url(self, path: str) -> str:
        """A name for people and for other tools: the root and the path."""
        return f"{self.root}/{path}"

    # --- plain files -------------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        return bool(self.fs.exists(self.full_path(path)))

    def read_bytes(self, path: str) -> bytes:
        try:
            return bytes(self.fs.cat_file(self.full_path(path)))
        except FileNotFoundError as error:
            raise NotProcessedError("there is no such file in the store", where=self.url(path)) from error
        except OSError as error:
            raise StoreError(f"cannot be read: {error}", where=self.url(path)) from error

    def write_bytes(self, path: str, content: bytes) -> None:
        with self.staged(path) as local:
            local.write_bytes(content)

    def read_json(self, path: str) -> Any:
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:
            raise StoreError(f"is not valid JSON: {error}", where=self.url(path)) from error

    def write_json(self, path: str, content: Any) -> None:
        self.write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

    def open(self, path: str) -> BinaryIO:
        """A seekable binary file below the root; the caller closes it."""
        return self.fs.open(self.full_path(path), "rb")

    def delete(self, path: str) -> None:
        """Remove a file or a folder with all that is in it; nothing happens when it is not there."""
        full = self.full_path(path)
        if self.fs.exists(full):
            self.fs.rm(full, recursive=True)

    def files(self, folder: str, suffix: str = "") -> list[str]:
        """Paths below the root of all files in a folder and its subfolders, sorted; empty where there is none."""
        full = self.full_path(folder)
        try:
            found = self.fs.find(full)
        except FileNotFoundError:
            return []
        base = self._base.rstrip("/") + "/"
        return sorted(
            relative
            for path in found
            if (relative := path.removeprefix(base)).endswith(suffix) and not _is_temporary(relative)
        )

    def modified(self, folder: str) -> dict[str, float]:
        """When each file of a folder and its subfolders was last written, in seconds since the epoch, by path."""
        try:
            found = self.fs.find(self.full_path(folder), detail=True)
        except FileNotFoundError:
            return {}
        base = self._base.rstrip("/") + "/"
        times = {}
        for path, info in found.items():
            when = info.get("mtime", info.get("LastModified", info.get("created"))) or 0.0
            times[path.removeprefix(base)] = when.timestamp() if hasattr(when, "timestamp") else float(when)
        return times

    def remove_leftovers(self, older_than_s: float = 86_400.0) -> int:
        """Delete the temporary files of killed runs on a local disk; returns how many there were."""
        if not self.is_local:
            return 0
        before = time.time() - older_than_s
        count = 0
        for file in Path(self.root).rglob(".tmp-*"):
            with contextlib.suppress(FileNotFoundError):  # its run finished just now
                if file.stat().st_mtime < before:
                    file.unlink()
                    count += 1
        return count

    @contextmanager
    def staged(self, path: str) -> Iterator[Path]:
        """A local path to write to; what is there when the block ends is published at ``path`` in one step.

        Nothing is published when the block raises, so a reader sees the old file or the new one, never a half.
        """
        fs, full = self.fs, self.full_path(path)
        with contextlib.ExitStack() as stack:
            try:
                if self.is_local:
                    target = Path(full)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # In the target's own folder, so that the rename stays on one file system.
                    temporary = target.parent / f".tmp-{uuid.uuid4().hex}"
                else:
                    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="laps-"))) / "file"
            except OSError as error:
                raise self._cannot_write(path, error) from error
            stack.callback(_unlink, temporary)
            try:
                yield temporary
            except OSError as error:
                # Other errors of the block are about what it reads, not about this file.
                if error.errno in _NO_ROOM:
                    raise self._cannot_write(path, error) from error
                raise
            try:
                if self.is_local:
                    with temporary.open("rb") as written:
                        os.fsync(written.fileno())
                    temporary.replace(full)
                else:
                    fs.put_file(str(temporary), full)
            except OSError as error:
                raise self._cannot_write(path, error) from error

    def _cannot_write(self, path: str, error: OSError) -> StoreError:
        return StoreError(
            f"cannot be written: {error.strerror or error}",
            where=self.url(path),
            fix="Check that the store exists, is writable and has room; nothing of this file was published.",
        )

    def put_folder(self, folder: Path, path: str) -> None:
        """Publish every file of a local folder below ``path``."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                with self.staged(f"{path}/{file.relative_to(folder).as_posix()}") as local:
                    shutil.copyfile(file, local)

    def get_folder(self, path: str, folder: Path) -> Path:
        """Copy every file below ``path`` into a local folder and return it."""
        files = self.files(path)
        if not files:
            raise NotProcessedError("there is no such folder in the store", where=self.url(path))
        for file in files:
            target = folder / file.removeprefix(path.rstrip("/") + "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read_bytes(file))
        return folder

    # --- tables ------------------------------------------------------------------------------------------------

    def partition_path(self, table: Table, hour: CameraHour, model: str | None = None) -> str:
        """Where a camera hour of a table lies, below the root."""
        return f"{self.table_path(table, model)}/camera={hour.camera}/date={hour.date}/hour={hour.hour}/{PART}"

    def table_path(self, table: Table, model: str | None = None) -> str:
        """The folder of a table, or of one model's part of it."""
        if (table.model_level is None) != (model is None):
            needs = f"needs a {table.model_level}" if table.model_level else "is kept once for all models"
            raise InputError(f"the table {table.name} {needs}")
        return table.name if model is None else f"{table.name}/{table.model_level}={model}"

    @contextmanager
    def writer(self, table: Table, path: str) -> Iterator[TableWriter]:
        """Write a Parquet file in pieces; it appears at ``path`` when the block ends without an error."""
        with self.staged(path) as local, TableWriter(table, local) as writer:
            yield writer

    def write_table(self, table: Table, path: str, rows: pa.Table) -> int:
        """Write a whole Parquet file after validating its rows; returns the number of rows."""
        with self.writer(table, path) as writer:
            writer.write(rows)
        return rows.num_rows

    def write_partition(self, table: Table, hour: CameraHour, rows: pa.Table, model: str | None = None) -> int:
        return self.write_table(table, self.partition_path(table, hour, model), rows)

    def read_table(self, table: Table, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet file of a table by column name; columns that an old file lacks are null."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = table.schema()
        wanted = [schema.field(name) for name in (columns or table.column_names)]
        with self._parquet(path) as source:
            try:
                file = pq.ParquetFile(source)
                have = set(file.schema_arrow.names)
                rows = file.read(columns=[field.name for field in wanted if field.name in have])
            except (pa.ArrowInvalid, OSError) as error:
                raise StoreError(
                    f"is no readable Parquet file: {error}",
                    where=self.url(path),
                    fix="Materialize this partition again; the others are not affected.",
                ) from error
        arrays = []
        for field in wanted:
            if field.name in have:
                arrays.append(rows[field.name].cast(field.type))
            else:
                arrays.append(pa.chunked_array([pa.nulls(rows.num_rows, field.type)]))
        return pa.Table.from_arrays(arrays, schema=pa.schema(wanted))

    def read_partition(
        self, table: Table, hour: CameraHour, model: str | None = None, columns: list[str] | None = None
    ) -> pa.Table:
        """A camera hour of a table; NotProcessedError, with what to materialize, when it is not there."""
        path = self.partition_path(table, hour, model)
        if not self.exists(path):
            raise self.not_processed(table, hour, model)
        return self.read_table(table, path, columns)

    def not_processed(self, table: Table, hour: CameraHour, model: str | None = None) -> NotProcessedError:
        of_model = f" of {table.model_level} {model}" if model else ""
        return NotProcessedError(
            f"{table.name}{of_model} has not been materialized for this hour",
            where=hour.key,
            fix=f"Materialize {table.name} for {hour.key} first (laps backfill --camera {hour.camera} "
            f"--from {hour.date}T{hour.hour}:00Z).",
        )

    def has_partition(self, table: Table, hour: CameraHour, model: str | None = None) -> bool:
        return self.exists(self.partition_path(table, hour, model))

    def iter_partition(
        self, table: Table, hour: CameraHour, model: str | None = None, batch_rows: int = 256
    ) -> Iterator[pa.Table]:
        """A camera hour of a table in batches of rows, with constant memory."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.partition_path(table, hour, model)
        if not self.exists(path):
            raise self.not_processed(table, hour, model)
        with self._parquet(path) as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_rows):
                yield pa.Table.from_batches([batch])

    def partition_rows(self, table: Table, hour: CameraHour, model: str | None = None) -> int:
        """Number of rows of a camera hour, from the file's footer."""
        import pyarrow.parquet as pq

        path = self.partition_path(table, hour, model)
        if not self.exists(path):
            raise self.not_processed(table, hour, model)
        with self._parquet(path) as source:
            return int(pq.ParquetFile(source).metadata.num_rows)

    def partitions(self, table: Table, model: str | None = None) -> list[CameraHour]:
        """The camera hours of a table that have been processed, in order."""
        hours = []
        for path in self.files(self.table_path(table, model), suffix=PART):
            parts = dict(part.split("=", 1) for part in path.split("/") if "=" in part)
            hours.append(CameraHour(parts["camera"], parse_hour(f"{parts['date']}-{parts['hour']}:00")))
        return sorted(hours)

    @contextmanager
    def _parquet(self, path: str) -> Iterator[Any]:
        try:
            source = self.fs.open(self.full_path(path), "rb")
        except FileNotFoundError as error:
            raise NotProcessedError("there is no such file in the store", where=self.url(path)) from error
        except OSError as error:
            raise StoreError(f"cannot be read: {error}", where=self.url(path)) from error
        with source:
            yield source


class TableWriter:
    """Writes validated row groups of one table into a local Parquet file."""

    def __init__(self, table: Table, path: Path) -> None:
        import pyarrow.parquet as pq

        self.table = table
        self.rows = 0
        binary = [column.name for column in table.columns if column.type == "binary"]
        self._writer = pq.ParquetWriter(
            path,
            table.schema(),
            compression="zstd",
            # Packed arrays and pictures repeat nothing: a dictionary would only cost time and memory.
            use_dictionary=[name for name in table.column_names if name not in binary],
            write_statistics=[name for name in table.column_names if name not in binary],
        )

    def write(self, rows: pa.Table) -> None:
        """Append rows as one row group; SchemaError when they do not fit the table."""
        rows = self.table.validate(rows)
        if rows.num_rows:
            self._writer.write_table(rows)
        self.rows += rows.num_rows

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _unlink(file: Path) -> None:
    """Remove a temporary file; what went wrong before matters more than whether this works."""
    with contextlib.suppress(OSError):
        file.unlink()


def rows_table(table: Table, rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows given as dictionaries; a key that the table lacks is an error, an absent nullable one is null."""
    import pyarrow as pa

    rows = list(rows)
    unknown = {key for row in rows for key in row} - set(table.column_names)
    if unknown:
        raise InputError(f"the table {table.name} has no columns {', '.join(sorted(unknown))}")
    return pa.Table.from_pylist(rows, schema=table.schema())


def _is_temporary(path: str) -> bool:
    return any(part.startswith(".tmp-") for part in path.split("/"))
