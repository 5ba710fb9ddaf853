"""Making compacted copies: one data file for each view, camera and month, and only where something changed.

A killed compaction leaves at most a data file that no manifest names. What is not named any more stays for a day, for
queries that are running, and is removed by a later compaction. Two compactions at once are right but do the same work:
each writes data files of its own, and the manifest that is written last stands.

Memory: the rows of one row group, and of the hours that are read ahead on object storage; of recordings all rows of a
camera. Their copy is not divided into months, so it is made from the one before and the files that changed since.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from laps.compaction import COPIES, FOLDER, SOURCE, Copy, CopyWriter, LocalTime, copied_rows
from laps.errors import DamagedFileError, NotProcessedError
from laps.local_time import functions_sql
from laps.tables import CAMERAS, RECORDINGS
from resources.cameras import Cameras
from resources.copies import (
    AT_ONCE,
    MANIFEST,
    Manifest,
    Marks,
    Record,
    copy_folder,
    group_of,
    list_record,
    local_time_by,
    models_of,
    read_manifest,
    read_manifests,
    rows_of_copy,
    source_marks,
)
from resources.models import Release
from resources.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_S = 86_400.0
"""How long a data file stays after another has taken its place: longer than any query or compaction."""

BEHIND = 200
"""So many rows of a camera's register that are in no copy are worth a copy: reading them takes about as long."""


@dataclass
class Compacted:
    """What a compaction did.

    Attributes:
        written: for each view how many camera months were written.
        unchanged: camera months that held all there is.
        rows: rows written.
        left_out: files of the record that could not be read, and why; views read them themselves.
        removed: data files of earlier compactions that were removed.
    """

    written: dict[str, int] = field(default_factory=dict)
    unchanged: int = 0
    rows: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    removed: int = 0


@dataclass(frozen=True)
class _Work:
    """A data file to write."""

    copy: Copy
    model: str | None
    group: str
    local: str
    sources: dict[str, Marks]

    @property
    def folder(self) -> str:
        return f"{copy_folder(self.copy, self.model)}/{self.group}"


def compact(
    store: Store,
    release: Release | None = None,
    *,
    everything: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Compacted:
    """Bring the compacted copies of a release's tables, and of those that belong to none, up to date.

    Args:
        store: the store.
        release: the release; None for tables of no release only.
        everything: write also what seems to be up to date.
        progress: told how many of how many data files are done.

    Raises:
        StoreError: the store cannot be listed or written. What was written until then counts.
    """
    chosen = {"release": release.name, "tokenizer": release.tokenizer} if release else {}
    models = models_of(**chosen)
    copies = [copy for copy in COPIES.values() if all(table.name in models for table in copy.tables)]
    tables = [CAMERAS, *(table for copy in copies for table in copy.tables)]
    record = list_record(store, {table.name: models[table.name] for table in tables})
    # After the listing: cameras that are described anew meanwhile have another mark then.
    local_time = _local_time(store)
    done = Compacted()
    work = []
    for planned, manifest in _planned(store, copies, models, record):
        if everything or not _is_current(planned, manifest):
            work.append((planned, None if everything else manifest))
        else:
            done.unchanged += 1
    for number, (one, manifest) in enumerate(work):
        if progress is not None:
            progress(number, len(work))
        _write(store, one, manifest, local_time, done)
    if progress is not None:
        progress(len(work), len(work))
    done.removed = _remove_unnamed(store)
    return done


def compact_register(store: Store, camera: str, *, at_most: int | None = None) -> int:
    """Copy a camera's part of the register where many of its rows are in no copy, so that reading it stays quick.

    Args:
        store: the store.
        camera: the camera.
        at_most: read no more than so many files for it; where there are more, :func:`compact` does it.

    Returns:
        How many files were read; 0 where there is nothing to do.
    """
    copy = COPIES[RECORDINGS.name]
    group = f"camera={camera}"
    record: Record = {RECORDINGS.name: store.marks(f"{RECORDINGS.name}/{group}", ".parquet")}
    manifest = read_manifest(store, f"{copy_folder(copy, None)}/{group}/{MANIFEST}")
    sources = source_marks(store, copy, None, record)
    held = {} if manifest is None or manifest.version != copy.version else {**manifest.sources, **manifest.left_out}
    others = sum(held.get(source) != marks for source, marks in sources.items())
    if others <= BEHIND or (at_most is not None and others > at_most):
        return 0
    record[CAMERAS.name] = store.marks(f"{CAMERAS.name}/{group}", ".parquet")
    work = _Work(copy, None, group, local_time_by(copy, group, record), sources)
    _write(store, work, manifest, _local_time(store), Compacted())
    return others


def _planned(
    store: Store, copies: Iterable[Copy], models: Mapping[str, str | None], record: Record
) -> Iterator[tuple[_Work, Manifest | None]]:
    """Every camera month that has a copy or should have one, with the manifest of what there is."""
    folders = {copy.name: copy_folder(copy, models[copy.tables[0].name]) for copy in copies}
    manifests = read_manifests(store, folders.values())
    for copy in copies:
        model = models[copy.tables[0].name]
        groups: dict[str, dict[str, Marks]] = defaultdict(dict)
        for source, marks in source_marks(store, copy, model, record).items():
            groups[group_of(source)][source] = marks
        there = manifests[folders[copy.name]]
        for group in sorted({*groups, *there}):
            local = local_time_by(copy, group, record)
            yield _Work(copy, model, group, local, groups.get(group, {})), there.get(group)


def _is_current(work: _Work, manifest: Manifest | None) -> bool:
    return (
        manifest is not None
        and manifest.version == work.copy.version
        and manifest.local == work.local
        and {**manifest.sources, **manifest.left_out} == work.sources
    )


def _local_time(store: Store) -> LocalTime:
    cameras = Cameras(store).described()
    return LocalTime(functions_sql((camera.name, camera.time_zone, camera.shifts) for camera in cameras))


def _write(store: Store, work: _Work, before: Manifest | None, local_time: LocalTime, done: Compacted) -> None:
    """Write a data file, then the manifest that names it."""
    # A name that never was: a reader that knows a file by name never meets another content.
    name = f"{uuid.uuid4().hex}.parquet"
    sources: dict[str, Marks] = {}
    left_out: dict[str, Marks] = {}
    with store.staged(f"{work.folder}/{name}") as local, CopyWriter(work.copy, local, local_time) as writer:
        carried = _carried(store, work, before)
        if carried is not None:
            sources = carried[0]
            writer.write(carried[1])
        rest = {source: marks for source, marks in work.sources.items() if source not in sources}
        for source, rows in _rows_of(store, replace(work, sources=rest)):
            if isinstance(rows, str):
                left_out[source] = work.sources[source]
                done.left_out[f"{work.copy.name}: {source}"] = rows
            else:
                writer.write(rows)
                sources[source] = work.sources[source]
    manifest = Manifest(work.copy.version, name, work.local, sources, left_out)
    store.write_json(f"{work.folder}/{MANIFEST}", manifest.to_json())
    done.written[work.copy.name] = done.written.get(work.copy.name, 0) + 1
    done.rows += writer.rows


def _carried(store: Store, work: _Work, before: Manifest | None) -> tuple[dict[str, Marks], pa.Table] | None:
    """The files of the register that did not change since the copy before, and their rows in it.

    None for all other tables, whose copies have months, and where there is no copy that can be read.
    """
    import pyarrow.dataset as ds

    if work.copy.tables != (RECORDINGS,) or before is None or before.version != work.copy.version:
        return None
    same = {source: marks for source, marks in before.sources.items() if work.sources.get(source) == marks}
    rows = rows_of_copy(store, work.folder, before, work.copy.schema(), ds.field(SOURCE.name).isin(list(same)))
    return None if rows is None else (same, rows)


def _rows_of(store: Store, work: _Work) -> Iterator[tuple[str, pa.Table | str]]:
    """The rows of each file of the record, or why it cannot be read; without those that vanished.

    In order of the files' names, which is that of time.
    """
    import pyarrow as pa

    def read(source: str) -> pa.Table | str | None:
        tables: dict[str, pa.Table | None] = {}
        try:
            for table, mark in zip(work.copy.tables, work.sources[source], strict=True):
                path = f"{store.table_path(table, work.model)}/{source}"
                tables[table.name] = None if mark is None else store.read_table(table, path)
            return copied_rows(work.copy, source, tables)
        except NotProcessedError:  # removed since it was listed
            return None
        except (DamagedFileError, pa.ArrowException) as error:
            return str(error)

    sources = sorted(work.sources)
    for source, rows in zip(sources, _ahead(store, read, sources), strict=True):
        if rows is not None:
            yield source, rows


def _ahead(
    store: Store, read: Callable[[str], pa.Table | str | None], sources: Iterable[str]
) -> Iterator[pa.Table | str | None]:
    """The results in order; on object storage some are read ahead, since each waits."""
    if store.is_local:
        yield from map(read, sources)
        return
    under_way: deque[Future[pa.Table | str | None]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for source in sources:
            under_way.append(pool.submit(read, source))
            if len(under_way) >= AT_ONCE:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _remove_unnamed(store: Store) -> int:
    """Remove data files that no manifest has named for a day; returns how many.

    None has where the manifest is a day old, or, as that of a register that grows is written every night, where another
    data file took the place a day ago.
    """
    before = time.time() - KEPT_S
    files: dict[str, list[str]] = defaultdict(list)
    for path in store.files(FOLDER, ".parquet"):
        files[path.rpartition("/")[0]].append(path)
    manifests = {
        folder: read_manifest(store, f"{folder}/{MANIFEST}") for folder, paths in files.items() if len(paths) > 1
    }
    # Looked at after the manifests were read: one that another compaction replaced since is young.
    written = store.modified(FOLDER)
    count = 0
    for folder, paths in files.items():
        manifest, manifest_at = manifests.get(folder), written.get(f"{folder}/{MANIFEST}")
        # What cannot be read may be the manifest of a later version of this program.
        if manifest_at is not None and manifest is None:
            continue
        latest = max((written[path] for path in paths if written.get(path, before) < before), default=before)
        unnamed_since = before if manifest_at is None or manifest_at < before else latest
        for path in paths:
            named = manifest is not None and path == f"{folder}/{manifest.file}"
            if not named and written.get(path, before) < unnamed_since:
                store.delete(path)
                count += 1
    return count
