"""The store: every table, model, clip and report below one root, local or in object storage.

Files appear whole or not at all: they are written to a local temporary file and then published in one step, a
rename on a local disk and a single object upload elsewhere. Reading goes through fsspec; the layout is
``<root>/<table>[/tokenizer=<id>|/release=<name>]/camera=<camera>/date=<YYYY-MM-DD>/hour=<HH>/part-0.parquet``.
Nothing but Parquet lies in the folders of tables, so that listing them lists no more than is read.

Credentials, endpoint and region of object storage come from the environment or the AWS files and never appear here.
Its transient errors are tried again for at most 31 s of waiting a request (see :mod:`resources.object_storage`); what
remains is a StoreError that names the object and the cause. A listing is never older than the call.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from laps.errors import DamagedFileError, InputError, NotProcessedError, StoreError
from laps.tables import Table, mend
from laps.timegrid import CameraHour, parse_hour
from resources.urls import refuse_credentials

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

DEFAULT_ROOT = ".laps"
PART = "part-0.parquet"

T = TypeVar("T")

# Local files on their way to object storage lie in folders of this name in the system's temporary folder.
_UPLOADS = "laps-upload-"
SPILLED = "laps-duckdb-"
"""Folders of this name in the system's temporary folder hold what a query of the catalog could not keep in memory."""

# A file that is replaced again and again while it is read is no accident any more.
_READINGS = 3
_COPY_BYTES = 32 * 2**20
# Small files whose content is in memory at once.
_FILES_AT_ONCE = 500

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def cache_folder() -> Path:
    """What this machine keeps of stores in object storage: ``laps`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laps"


def store_root(root: str | None = None) -> str:
    """The root to use: the argument, else ``LAPS_STORE``, else ``./.laps``; local paths become absolute."""
    chosen = root or os.environ.get("LAPS_STORE") or DEFAULT_ROOT
    if chosen.startswith("file://"):
        chosen = chosen.removeprefix("file://")
    if "://" in chosen:
        refuse_credentials(chosen)
        if not chosen.split("://", 1)[1].strip("/"):
            raise InputError("the URL names no place", where=chosen, fix="Give s3://bucket/prefix.")
        return chosen.rstrip("/")
    return str(Path(chosen).expanduser().absolute())


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path in it.

    What every part of the program uses for ``s3://``: it tries again, shows no stale listing, and raises OSError.

    Raises:
        InputError: the URL holds credentials, or is of a kind that cannot be read here.
    """
    refuse_credentials(url)
    if url.startswith("s3://"):
        from resources.object_storage import object_storage

        return object_storage(), url.removeprefix("s3://").rstrip("/")
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        scheme = url.split("://", 1)[0]
        raise InputError(
            f"there is no access to {scheme}:// here ({error})", where=url, fix="Give a folder, or s3://bucket/prefix."
        ) from error


class Store:
    """Tables and files below a root.

    Args:
        root: a local folder or a URL that fsspec understands (``s3://bucket/prefix``). Default: ``LAPS_STORE``,
            then ``./.laps``.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = store_root(root)
        self.is_local = "://" not in self.root
        self.is_s3 = self.root.startswith("s3://")
        self._fs: Any = None
        self._fs_of_process = 0
        self._base = self.root

    @property
    def fs(self) -> Any:
        """The fsspec file system (made on first use, because importing it is slow; again in a forked process)."""
        if self._fs_of_process != os.getpid():
            self._fs, self._base = file_system(self.root)
            self._fs_of_process = os.getpid()
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
        with self._trouble(path, "cannot be looked for"):
            return bool(self.fs.exists(self.full_path(path)))

    def read_bytes(self, path: str) -> bytes:
        return self._read_files([path])[path]

    def write_bytes(self, path: str, content: bytes) -> None:
        with self.staged(path) as local:
            local.write_bytes(content)

    def read_json(self, path: str) -> Any:
        return self._parse(path, self.read_bytes(path))

    def read_json_files(self, paths: Sequence[str]) -> dict[str, Any]:
        """The content of several JSON files by path; object storage is asked for all of them at once."""
        return {path: self._parse(path, content) for path, content in self._read_files(paths).items()}

    def _read_files(self, paths: Sequence[str]) -> dict[str, bytes]:
        found = {}
        full = [self.full_path(path) for path in paths]
        answers = self.fs.read_files(full) if self.is_s3 else [None] * len(full)
        for path, place, answer in zip(paths, full, answers, strict=True):
            with self._trouble(path, "cannot be read"):
                if isinstance(answer, OSError):
                    raise answer
                found[path] = bytes(self.fs.cat_file(place)) if answer is None else answer
        return found

    def _parse(self, path: str, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            raise StoreError(f"is not valid JSON: {error}", where=self.url(path)) from error

    def write_json(self, path: str, content: Any) -> None:
        self.write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

    def create(self, path: str, content: bytes) -> bool:
        """Publish a file unless there is one; False when there is. Of two processes only one gets True.

        Give content that no other process gives (a random token): an upload that is sent again after its answer was
        lost is then told from another's. In object storage that ignores conditional writes (AWS, MinIO, Ceph and R2
        know them; ``rclone serve s3`` does not) two processes that look within the same moment may both get True.
        """
        full = self.full_path(path)
        if self.is_local:
            return self._create_on_disk(path, content)
        if self.exists(path):
            return self.read_bytes(path) == content
        try:
            self.fs.pipe_file(full, content, mode="create")
        except OSError as error:
            # "There is one now" has several faces: 409, 412, and an own first attempt whose answer was lost.
            if not self.exists(path):
                raise self._cannot_write(path, error) from error
        return self.read_bytes(path) == content

    def _create_on_disk(self, path: str, content: bytes) -> bool:
        target = Path(self.full_path(path))
        temporary = target.parent / f".tmp-{uuid.uuid4().hex}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            target.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._cannot_write(path, error) from error
        finally:
            _unlink(temporary)
        return True

    def open(self, path: str) -> BinaryIO:
        """A seekable binary file below the root; the caller closes it."""
        with self._trouble(path, "cannot be read"):
            return self.fs.open(self.full_path(path), "rb")

    def delete(self, path: str) -> None:
        """Remove a file or a folder with all that is in it; nothing happens when it is not there."""
        full = self.full_path(path)
        with self._trouble(path, "cannot be deleted"):
            if self.is_s3:
                # By name: a folder is no object, and not every server forgives its deletion.
                if found := self.fs.find(full):
                    self.fs.rm(found)
                return
            for _ in range(_READINGS):
                if not self.fs.exists(full):
                    return
                # Another process may be at it as well.
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm(full, recursive=True)

    def delete_files(self, paths: Collection[str]) -> None:
        """Remove files by their paths, in object storage up to a thousand in a request; those that are gone are."""
        if self.is_s3 and paths:
            others = f"and {len(paths) - 1} others cannot all be deleted" if len(paths) > 1 else "cannot be deleted"
            with self._trouble(next(iter(paths)), others):
                self.fs.rm([self.full_path(path) for path in paths])
            return
        for path in paths:
            self.delete(path)

    def remove_empty_folders(self, folders: Collection[str]) -> None:
        """Remove those of some folders, and of the folders that they lie in, that hold nothing any more.

        On a disk only, where every listing goes through them; object storage has no folders.
        """
        if not self.is_local:
            return
        for folder in sorted({*folders, *(folder.rpartition("/")[0] for folder in folders)}, key=len, reverse=True):
            with contextlib.suppress(OSError):  # it holds something, or is gone
                Path(self.full_path(folder)).rmdir()

    def move(self, path: str, target: str) -> None:
        """Give a file another place; what is there is replaced. Not in one step: it may be in both for a moment."""
        with self._trouble(path, "cannot be moved"):
            if self.is_local:
                Path(self.full_path(target)).parent.mkdir(parents=True, exist_ok=True)
            self.fs.copy(self.full_path(path), self.full_path(target))
        self.delete(path)

    def listing(self, folder: str) -> dict[str, dict[str, Any]]:
        """What is known of each file of a folder and its subfolders (size, change marker), by path below the root."""
        try:
            found = self.fs.find(self.full_path(folder), detail=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._failed(folder, "cannot be listed", error) from error
        base = self._base.rstrip("/") + "/"
        return {path.removeprefix(base): info for path, info in found.items()}

    def files(self, folder: str, suffix: str = "") -> list[str]:
        """Paths below the root of all files in a folder and its subfolders, sorted; empty where there is none."""
        return sorted(path for path in self.listing(folder) if path.endswith(suffix) and not _is_temporary(path))

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in a folder, sorted; empty where there is none. Nothing deeper is listed."""
        try:
            found = self.fs.ls(self.full_path(folder), detail=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed(folder, "cannot be listed", error) from error
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory")

    def marks(self, folder: str, suffix: str = "") -> dict[str, str]:
        """What :meth:`files` lists, each with a mark that changes whenever the file is written again.

        It is made of what a listing tells, so that no file is opened: size, modification time and inode on a disk
        (a file that is published is a new one), size, ETag and modification time in object storage.
        """
        return {
            path: _mark(info)
            for path, info in sorted(self.listing(folder).items())
            if path.endswith(suffix) and not _is_temporary(path)
        }

    def partition_marks(self, table: Table, model: str | None = None) -> dict[str, str]:
        """:meth:`marks` of a table's camera hours; on a disk what else lies in their folders is not looked at."""
        folder = self.table_path(table, model)
        if not self.is_local:
            return self.marks(folder, PART)
        found = {}
        try:
            for path in _hour_folders(Path(self.full_path(folder))):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(f"{path}/{PART}")  # noqa: PTH116  a tenth of what a Path costs
                    found[f"{path}/{PART}"] = _mark_of_file(status)
        except OSError as error:
            raise self._failed(folder, "cannot be listed", error) from error
        base = self.full_path("")
        return {path.removeprefix(base): mark for path, mark in sorted(found.items())}

    def modified(self, folder: str) -> dict[str, float]:
        """When each file of a folder and its subfolders was last written, in seconds since the epoch, by path."""
        times = {}
        for path, info in self.listing(folder).items():
            when = info.get("mtime", info.get("LastModified", info.get("created"))) or 0.0
            times[path] = when.timestamp() if hasattr(when, "timestamp") else float(when)
        return times

    def remove_leftovers(self, older_than_s: float = 86_400.0, besides: str = "") -> int:
        """Delete what killed runs left: temporary files, unfinished uploads, what queries wrote that did not fit into
        memory; returns how many there were.

        Nothing fails when the store does not let us look: what is left takes room, and no reader sees it.

        Args:
            older_than_s: only what was last written so long ago.
            besides: a folder that others write to, which may lie in the store: the landing zone.
        """
        before = time.time() - older_than_s
        folders = [folder for made in (_UPLOADS, SPILLED) for folder in Path(tempfile.gettempdir()).glob(f"{made}*")]
        count = sum(_remove_if_older(file, before) for folder in folders for file in folder.glob("*"))
        if self.is_local:
            count += sum(_remove_if_older(file, before) for file in _temporary_files(self.root, besides))
        if self.is_s3:
            with contextlib.suppress(OSError):
                count += self.fs.abort_uploads(self.full_path("").rstrip("/"), datetime.fromtimestamp(before, UTC))
        return count

    @contextmanager
    def staged(self, path: str) -> Iterator[Path]:
        """A local path to write to; what is there when the block ends is published at ``path`` in one step.

        Nothing is published when the block raises, so a reader sees the old file or the new one, never a half.
        """
        full = self.full_path(path)
        with contextlib.ExitStack() as stack:
            try:
                if self.is_local:
                    target = Path(full)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # In the target's own folder, so that the rename stays on one file system.
                    temporary = target.parent / f".tmp-{uuid.uuid4().hex}"
                else:
                    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_UPLOADS))) / "file"
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
            except OSError as error:
                raise self._cannot_write(path, error) from error
            if not self.is_local:
                self._upload(temporary, path)

    def _upload(self, file: Path, path: str) -> None:
        try:
            if self.is_s3:
                self.fs.publish(str(file), self.full_path(path))
            else:
                self.fs.put_file(str(file), self.full_path(path))
        except OSError as error:
            raise self._cannot_write(path, error) from error

    def _cannot_write(self, path: str, error: OSError) -> StoreError:
        return self._failed(
            path,
            "cannot be written",
            error,
            fix="Check that the store exists, is writable and has room; nothing of this file was published.",
        )

    def _failed(self, path: str, what: str, error: OSError, fix: str | None = None) -> StoreError:
        if self.is_s3:
            from resources.object_storage import advice

            fix = advice(error)
        return StoreError(f"{what}: {reason(error)}", where=self.url(path), fix=fix)

    @contextmanager
    def _trouble(self, path: str, what: str) -> Iterator[None]:
        """Errors of the file system as errors that name the object."""
        try:
            yield
        except FileNotFoundError as error:
            raise NotProcessedError("there is no such file in the store", where=self.url(path)) from error
        except OSError as error:
            if self.is_s3 and _is_replaced(error):
                raise _Replaced("was replaced while it was read", where=self.url(path), fix="Run again.") from error
            raise self._failed(path, what, error) from error

    def put_file(self, file: Path, path: str) -> None:
        """Publish a local file at ``path``."""
        if self.is_local:
            with self.staged(path) as local:
                shutil.copyfile(file, local)
        else:
            self._upload(file, path)

    def put_folder(self, folder: Path, path: str) -> None:
        """Publish every file of a local folder below ``path``."""
        for file in sorted(folder.rglob("*")):
            if not file.is_file():
                continue
            self.put_file(file, f"{path}/{file.relative_to(folder).as_posix()}")

    def get_folder(self, path: str, folder: Path) -> Path:
        """Copy every file below ``path`` into a local folder and return it."""
        files = self.files(path)
        if not files:
            raise NotProcessedError("there is no such folder in the store", where=self.url(path))
        for file in files:
            target = folder / file.removeprefix(path.rstrip("/") + "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            _again_if_replaced(partial(self._fetch, file, target))
        return folder

    def _fetch(self, path: str, target: Path) -> None:
        with self.open(path) as source, target.open("wb") as copy, self._trouble(path, "cannot be read"):
            shutil.copyfileobj(source, copy, _COPY_BYTES)

    # --- tables ------------------------------------------------------------------------------------------------

    def partition_path(self, table: Table, hour: CameraHour, model: str | None = None) -> str:
        """Where a camera hour of a table lies, below the root."""
        return f"{self.table_path(table, model)}/{hour_folder(hour)}/{PART}"

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
        """Read a Parquet file of a table by column name; columns that an old file lacks are null.

        Raises:
            NotProcessedError: there is no such file.
            StoreError: it cannot be read, is damaged, or is a file of another table.
        """
        names = columns or table.column_names
        return self._typed(table, path, names, _again_if_replaced(partial(self._read_columns, table, path, names)))

    def read_tables(self, table: Table, paths: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of small files, in order, each as :meth:`read_table` gives them.

        Object storage is asked for many at once, once for each.
        """
        if not self.is_s3:
            yield from (self.read_table(table, path) for path in paths)
            return
        names = table.column_names
        for first in range(0, len(paths), _FILES_AT_ONCE):
            for path, content in self._read_files(paths[first : first + _FILES_AT_ONCE]).items():
                yield self._typed(table, path, names, self._read_columns(table, path, names, io.BytesIO(content)))

    def _read_columns(self, table: Table, path: str, names: Sequence[str], source: BinaryIO | None = None) -> pa.Table:
        """The columns that there are of those that are wanted."""
        with self._parquet(table, path, at_once=names, source=source) as file:
            have = set(file.schema_arrow.names)
            return file.read(columns=[name for name in names if name in have])

    def _typed(self, table: Table, path: str, names: Sequence[str], rows: pa.Table) -> pa.Table:
        """Rows of a file with the declared types; columns that it lacks are null."""
        import pyarrow as pa

        schema = table.schema()
        wanted = [schema.field(name) for name in names]
        have = set(rows.column_names)
        arrays = []
        for field in wanted:
            if field.name not in have:
                arrays.append(pa.chunked_array([pa.nulls(rows.num_rows, field.type)]))
                continue
            try:
                arrays.append(rows[field.name].cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise self._damaged(path, f"its column {field.name} does not fit {table.name}: {error}") from error
        return pa.Table.from_arrays(arrays, schema=pa.schema(wanted))

    def read_partition(
        self, table: Table, hour: CameraHour, model: str | None = None, columns: list[str] | None = None
    ) -> pa.Table:
        """A camera hour of a table; NotProcessedError, with what to materialize, when it is not there."""
        path = self.partition_path(table, hour, model)
        # Not asked for first: in object storage that would be one more request for every read.
        try:
            return self.read_table(table, path, columns)
        except NotProcessedError as error:
            raise self.not_processed(table, hour, model) from error

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

        with self._partition(table, hour, model) as file:
            for batch in file.iter_batches(batch_rows):
                yield pa.Table.from_batches([batch])

    def partition_rows(self, table: Table, hour: CameraHour, model: str | None = None) -> int:
        """Number of rows of a camera hour, from the file's footer."""
        with self._partition(table, hour, model) as file:
            return int(file.metadata.num_rows)

    def partitions(self, table: Table, model: str | None = None) -> list[CameraHour]:
        """The camera hours of a table that have been processed, in order."""
        hours = []
        for path in self.partition_marks(table, model):
            parts = dict(part.split("=", 1) for part in path.split("/") if "=" in part)
            hours.append(CameraHour(parts["camera"], parse_hour(f"{parts['date']}-{parts['hour']}:00")))
        return sorted(hours)

    @contextmanager
    def _partition(self, table: Table, hour: CameraHour, model: str | None) -> Iterator[pq.ParquetFile]:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._parquet(table, self.partition_path(table, hour, model)))
            except NotProcessedError as error:
                raise self.not_processed(table, hour, model) from error
            yield file

    @contextmanager
    def _parquet(
        self, table: Table, path: str, at_once: Collection[str] = (), source: BinaryIO | None = None
    ) -> Iterator[pq.ParquetFile]:
        """An open file of a table, which is closed with the block; its errors and those of the block name it.

        Args:
            table: the table.
            path: of the file, below the root.
            at_once: columns that are fetched from object storage before the block begins.
            source: its content, where it is read already.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        by_columns = source is None and self.is_s3 and len(at_once) > 0
        if source is None:
            source = self._open_for_columns(path) if by_columns else self.open(path)
        with source, self._trouble(path, "cannot be read"):
            try:
                file = pq.ParquetFile(source)
                self._check_table(table, file.schema_arrow, path)
                if by_columns:
                    from resources.column_ranges import ranges_of

                    cast("Any", source).cache.fetch_at_once(ranges_of(file.metadata, at_once))
                yield file
            except (pa.ArrowInvalid, OSError) as error:
                # Arrow's own OSError has no number; those of the file system have one, or a class.
                if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                    raise
                raise self._damaged(path, f"is no readable Parquet file: {error}") from error

    def _open_for_columns(self, path: str) -> BinaryIO:
        from resources.column_ranges import ColumnRanges

        with self._trouble(path, "cannot be read"):
            return cast("BinaryIO", self.fs.open(self.full_path(path), "rb", cache_type=ColumnRanges.name))

    def _check_table(self, table: Table, schema: pa.Schema, path: str) -> None:
        """Raise StoreError where a file is another table's: all its columns would be null."""
        made_for = (schema.metadata or {}).get(b"table", b"").decode(errors="replace")
        lacking = [name for name in table.key if name not in schema.names]
        if made_for and made_for != table.name:
            raise self._damaged(path, f"is a file of the table {made_for}, not of {table.name}")
        if lacking:
            raise self._damaged(path, f"is no file of the table {table.name}: it has no column {', '.join(lacking)}")

    def _damaged(self, path: str, what: str) -> DamagedFileError:
        return DamagedFileError(
            " ".join(what.split()).rstrip(". "),  # Arrow's reasons have several lines
            where=self.url(path),
            fix=mend(path),
        )


def hour_folder(hour: CameraHour) -> str:
    """The folder of a camera hour, below that of whatever is kept by the hour."""
    return f"camera={hour.camera}/date={hour.date}/hour={hour.hour}"


def reason(error: OSError) -> str:
    """What the file system said, without the name and the number that go before it."""
    said = str(error.strerror or error)
    # Arrow puts the temporary file's name before it.
    return os.strerror(error.errno) if error.errno and "[errno" in said else said.rstrip(". ")


def _hour_folders(table: Path) -> Iterator[str]:
    """The folders ``camera=/date=/hour=`` below a table's."""
    folders = [str(table)]
    for level in ("camera=", "date=", "hour="):
        inside: list[str] = []
        for folder in folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                inside += [entry.path for entry in entries if entry.name.startswith(level)]
        folders = inside
    yield from folders


def _mark(info: dict[str, Any]) -> str:
    if "ino" in info:
        return f"{info['size']}-{round(info['mtime'] * 1e9)}-{info['ino']}"
    when = info.get("LastModified", info.get("created"))
    etag = str(info.get("ETag", "")).strip('"')
    return f"{info['size']}-{etag}-{when.isoformat() if isinstance(when, datetime) else when}"


def _mark_of_file(status: os.stat_result) -> str:
    return _mark({"size": status.st_size, "mtime": status.st_mtime, "ino": status.st_ino})


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


class _Replaced(StoreError):
    """A file that another process replaced while it was read."""


def _is_replaced(error: OSError) -> bool:
    from resources.object_storage import FileExpired

    return isinstance(error, FileExpired)


def _again_if_replaced(read: Callable[[], T]) -> T:
    """The result of a reading, from the beginning when the file was replaced under it."""
    for _ in range(_READINGS - 1):
        with contextlib.suppress(_Replaced):
            return read()
    return read()


def _temporary_files(root: str, besides: str) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):  # several times faster than Path.rglob over millions of clips
        folders[:] = [name for name in folders if Path(folder, name) != Path(besides)]
        yield from (Path(folder, name) for name in files if name.startswith(".tmp-"))


def _remove_if_older(file: Path, before: float) -> bool:
    """Delete a temporary file last written before a time, and its folder if that was made for such files alone."""
    try:
        if file.stat().st_mtime >= before:
            return False
        file.unlink()
        if file.parent.name.startswith((_UPLOADS, SPILLED)):
            with contextlib.suppress(OSError):  # there are more
                file.parent.rmdir()
    except (FileNotFoundError, PermissionError):  # its run finished just now, or is another user's
        return False
    return True


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


def is_transient(error: StoreError | OSError) -> bool:
    """Whether object storage, or the way to it, was at fault: the same may go well a few minutes later.

    No credentials, no permission, no such bucket, a damaged file and whatever a local disk says are no such faults.
    """
    if isinstance(error, StoreError):
        return "://" in (error.where or "") and isinstance(error.__cause__, OSError) and is_transient(error.__cause__)
    # Arrow's own OSError, about a damaged file, has neither number nor class.
    damaged = type(error) is OSError and error.errno is None
    local = error.filename is not None and "://" not in str(error.filename)
    # A disk that is full names no file when it is written to.
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    return not (damaged or local or full or isinstance(error, PermissionError | FileNotFoundError))


def _is_temporary(path: str) -> bool:
    return any(part.startswith(".tmp-") for part in path.split("/"))
