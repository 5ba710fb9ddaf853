"""Compacted copies in the store: where they lie, and which of their rows hold.

A copy of a camera's month lies in ``compacted/<view>[/release=<name>]/camera=<camera>/month=<YYYY-MM>/`` (of a table
without hours in ``camera=<camera>/``): a data file with a name that no other ever had, and ``manifest.json``, which
names the data file and says of each file of the record from which version of it the rows were taken. The version is
the mark of the store's listing (:meth:`resources.store.Store.marks`), which changes whenever the file is written.

So a reader lists the record, as it does without copies, and compares. Rows of a file whose mark is still the same are
read from the copy. All others (arrived, run again, or removed since) are read from the record, or not at all. That is
right at every moment: a manifest is replaced in one step after its data file is there whole, and the marks in it were
taken before the rows were read, so rows that changed in between have a mark that is no longer listed.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from laps.compaction import COPIES, FOLDER, Copy, folders_of
from laps.errors import LapsError, NotProcessedError
from laps.tables import CAMERAS, TABLES
from resources.store import PART, Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

    from laps.catalog import CopyPart

MANIFEST = "manifest.json"
# Requests at once on object storage, where each mostly waits.
AT_ONCE = 16

Marks = tuple[str | None, ...]
"""The mark of a file in each of a copy's tables; None where there is no such file."""

Record = dict[str, dict[str, str]]
"""For each table's name its files below the store's root, with their marks."""


@dataclass(frozen=True)
class Manifest:
    """What a copy of a camera's month holds.

    Attributes:
        version: :attr:`laps.compaction.Copy.version` of what wrote it.
        file: name of the data file, beside the manifest.
        local: what local time and shift were computed by; see :func:`local_time_by`.
        sources: for each file of the record that was copied (below its table's folder) its marks.
        left_out: the same of files that could not be read.
    """

    version: str
    file: str
    local: str
    sources: dict[str, Marks] = field(default_factory=dict)
    left_out: dict[str, Marks] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Any) -> Manifest:
        """Raises KeyError, TypeError or AttributeError when it is none."""
        marks = [{source: tuple(of) for source, of in content[name].items()} for name in ("sources", "left_out")]
        return cls(content["version"], content["file"], content["local"], *marks)

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` reads."""
        return asdict(self)


@dataclass(frozen=True)
class Holding:
    """Where the rows of a relation are.

    Attributes:
        parts: data files of the copy, as paths below the store's root.
        record: files of the record, below their table's folder, that no copy holds as they are.
    """

    parts: list[CopyPart]
    record: list[str]


def models_of(
    *, release: str | None = None, tokenizer: str | None = None, cluster_model: str | None = None
) -> dict[str, str | None]:
    """For each table, by name, the model that its files are kept by; without those whose model is not given."""
    models = {None: None, "release": release, "tokenizer": tokenizer, "cluster_model": cluster_model}
    return {
        table.name: models[table.model_level]
        for table in TABLES.values()
        if table.model_level is None or models[table.model_level] is not None
    }


def list_record(store: Store, tables: Mapping[str, str | None]) -> Record:
    """The files of tables, given by name with their model (None: the table is kept without one).

    Raises:
        StoreError: the store cannot be listed.
    """

    def listed(name: str) -> dict[str, str]:
        table, model = TABLES[name], tables[name]
        if table.partitioned == "camera_hour":
            return store.partition_marks(table, model)
        return store.marks(store.table_path(table, model), ".parquet")

    return dict(zip(tables, at_once(store, listed, tables), strict=True))


def at_once(store: Store, function: Any, items: Iterable[Any]) -> list[Any]:
    """The results for all items, in order; on object storage many at once."""
    if store.is_local:
        return [function(item) for item in items]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(function, items))


def source_marks(store: Store, copy: Copy, model: str | None, record: Record) -> dict[str, Marks]:
    """For each file of the record that a copy is made from, below its table's folder, its marks in all tables."""
    tables = [(f"{store.table_path(table, model)}/", record[table.name]) for table in copy.tables]
    first = tables[0][0]
    sources = [path.removeprefix(first) for path in tables[0][1]]
    return {source: tuple(files.get(folder + source) for folder, files in tables) for source in sources}


def group_of(source: str) -> str:
    """The folder, below that of the copy, of the data file that holds a file of the record."""
    folders = folders_of(source)
    month = f"/month={folders['date'][:7]}" if "date" in folders else ""
    return f"camera={folders['camera']}{month}"


def copy_folder(copy: Copy, model: str | None) -> str:
    """The folder of a copy, or of one model's part of it."""
    return f"{FOLDER}/{copy.name}" if model is None else f"{FOLDER}/{copy.name}/{copy.model_level}={model}"


def read_manifests(store: Store, folders: Iterable[str]) -> dict[str, dict[str, Manifest]]:
    """The manifests in each of the copies' folders, by group; only those whose data file is there.

    What is no manifest, as after a disk lost its content, counts as absent: the record is read then.

    Raises:
        StoreError: the store cannot be listed.
    """
    listed = set(store.files(FOLDER))
    found: dict[str, dict[str, Manifest]] = {folder: {} for folder in folders}
    places = [
        (folder, path)
        for path in sorted(listed)
        if path.endswith(f"/{MANIFEST}")
        for folder in found
        if path.startswith(f"{folder}/camera=")
    ]
    manifests = at_once(store, lambda place: read_manifest(store, place[1]), places)
    for (folder, path), manifest in zip(places, manifests, strict=True):
        group = path.removeprefix(f"{folder}/").removesuffix(f"/{MANIFEST}")
        if manifest is not None and f"{folder}/{group}/{manifest.file}" in listed:
            found[folder][group] = manifest
    return found


def read_manifest(store: Store, path: str) -> Manifest | None:
    """The manifest at a path; None where there is none any more, or something else."""
    try:
        content = store.read_bytes(path)
    except NotProcessedError:  # removed since it was listed
        return None
    try:
        return Manifest.from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def local_time_by(copy: Copy, group: str, record: Record) -> str:
    """What local time and shift in a copy are computed by: how its camera is described, and whose time zones."""
    if not copy.has_local_time:
        return ""
    path = f"{CAMERAS.name}/camera={folders_of(group)['camera']}/{PART}"
    return f"{record[CAMERAS.name].get(path)}, time zones of DuckDB {version('duckdb')}"


def rows_of_copy(
    store: Store, folder: str, manifest: Manifest, schema: pa.Schema, chosen: pc.Expression | None
) -> pa.Table | None:
    """The chosen rows of a copy; None where its data file cannot be read: whatever is wrong, the record is there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = io.BytesIO(store.read_bytes(f"{folder}/{manifest.file}"))
        rows = pq.read_table(content, columns=schema.names, filters=chosen)
        return pa.Table.from_arrays(rows.columns, schema=schema)
    except (LapsError, pa.ArrowException, OSError):
        return None


def holding(copy: Copy, model: str | None, manifests: Mapping[str, Manifest], store: Store, record: Record) -> Holding:
    """Where the rows of a copy's relation are now.

    Args:
        copy: the relation.
        model: the model that its tables are kept by.
        manifests: what there is of it, by group.
        store: the store.
        record: the files of the record, as they are listed now.
    """
    from laps.catalog import CopyPart  # here, because it loads DuckDB, and who reads the register needs none

    sources = source_marks(store, copy, model, record)
    # Files that are read in the same way, and what of them no longer holds.
    files: dict[tuple[bool, bool], list[str]] = defaultdict(list)
    stale: dict[tuple[bool, bool], list[str]] = defaultdict(list)
    held: set[str] = set()
    for group, manifest in sorted(manifests.items()):
        if manifest.version != copy.version:
            continue
        holds = {source for source, marks in manifest.sources.items() if sources.get(source) == marks}
        if not holds:
            continue
        held |= holds
        gone = manifest.sources.keys() - holds
        way = (not gone, manifest.local == local_time_by(copy, group, record))
        files[way].append(f"{copy_folder(copy, model)}/{group}/{manifest.file}")
        stale[way] += sorted(gone)
    parts = [CopyPart(files[way], stale[way], local=way[1]) for way in sorted(files, reverse=True)]
    return Holding(parts, [source for source in sources if source not in held])


def holdings(store: Store, models: Mapping[str, str | None], record: Record) -> dict[Copy, Holding]:
    """Where the rows of each relation are that has compacted copies; see :func:`models_of` and :func:`list_record`."""
    of_copy = {
        copy: models[copy.tables[0].name]
        for copy in COPIES.values()
        if all(table.name in models for table in copy.tables)
    }
    manifests = read_manifests(store, [copy_folder(copy, model) for copy, model in of_copy.items()])
    found = {copy: manifests[copy_folder(copy, model)] for copy, model in of_copy.items()}
    return {copy: holding(copy, of_copy[copy], there, store, record) for copy, there in found.items() if there}
