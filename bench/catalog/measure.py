"""The catalog of one store read in three ways, and how long queries take on each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from unittest import mock

import duckdb
import numpy as np

from bench.catalog.generate import CLUSTER_MODEL, RELEASE, TOKENIZER
from laps import catalog, local_time
from laps.compaction import COPIES
from laps.errors import LapsError
from laps.tables import TABLES
from resources.catalog import ReadOnlyFiles, catalog_files, connect, run_query
from resources.compaction import compact
from resources.copies import (
    MANIFEST,
    copy_folder,
    list_record,
    local_time_by,
    models_of,
    read_manifests,
    source_marks,
)
from resources.models import Release
from resources.store import Store

MODELS = {"release": RELEASE, "tokenizer": TOKENIZER, "cluster_model": CLUSTER_MODEL}
SINGLE = "bench_single"
# Row groups as DuckDB and others write them by default.
SINGLE_ROW_GROUP_ROWS = 122_880


@dataclass
class Times:
    """Wall seconds of runs; ``stopped`` where a run took longer than allowed and was interrupted."""

    seconds: list[float] = field(default_factory=list)
    rows: int = 0
    stopped: bool = False

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.seconds, share))


def record_only(store: Store) -> duckdb.DuckDBPyConnection:
    """The catalog over the file of each camera hour, as if there were no copies."""
    with mock.patch("resources.catalog.holdings", lambda *_: {}):
        return connect(store, **MODELS)


def with_copies(store: Store) -> duckdb.DuckDBPyConnection:
    """The catalog as it is."""
    return connect(store, **MODELS)


def single_files(store: Store) -> duckdb.DuckDBPyConnection:
    """The reference: one file for each table with all its rows, and ``primitives`` joined by the query."""
    connection = duckdb.connect(":memory:")
    if not store.is_local:
        connection.register_filesystem(ReadOnlyFiles(store))
    files, _ = catalog_files(store, **MODELS)
    catalog.create_views(connection, files, store.root, CLUSTER_MODEL)
    for copy in COPIES.values():
        if copy.name not in TABLES:
            continue
        columns = catalog.view_columns(TABLES[copy.name])
        values = ", ".join(
            f'{local_time.FUNCTIONS[column.name]}(camera, start_time) AS "{column.name}"'
            if column.name in local_time.FUNCTIONS
            else f'"{column.name}"'
            for column in columns
        )
        path = store.url(f"{SINGLE}/{copy.name}.parquet")
        source = catalog.files_sql(copy.stored, [path])
        connection.execute(f"CREATE OR REPLACE VIEW {copy.name} AS SELECT {values} FROM {source}")
    return connection


WAYS: dict[str, Callable[[Store], duckdb.DuckDBPyConnection]] = {
    "hours": record_only,
    "compacted": with_copies,
    "one file": single_files,
}


def make_copies(store: Store) -> float:
    """Compact, and write the single files of the reference from the copies; CPU seconds of the compaction."""
    began = time.process_time()
    compact(store, Release(RELEASE, "current", tokenizer=TOKENIZER))
    spent = time.process_time() - began
    _, copied = catalog_files(store, **MODELS)
    for name, files in copied.items():
        if name not in TABLES or store.exists(f"{SINGLE}/{name}.parquet"):
            continue
        with store.staged(f"{SINGLE}/{name}.parquet") as local:
            paths = ", ".join(map(catalog.quote, (file for part in files.parts for file in part.files)))
            duckdb.connect().execute(
                f"COPY (SELECT * FROM read_parquet([{paths}], hive_partitioning=false)) TO '{local}' "
                f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {SINGLE_ROW_GROUP_ROWS})"
            )
    return spent


def adopt_copies(store: Store) -> None:
    """Let the copies hold for this way to reach the files, where they have other marks; their content is the same."""
    models = models_of(release=RELEASE, tokenizer=TOKENIZER)
    record = list_record(store, models)
    for copy in COPIES.values():
        model = models[copy.tables[0].name]
        folder, marks = copy_folder(copy, model), source_marks(store, copy, model, record)
        for group, manifest in read_manifests(store, [folder])[folder].items():
            sources = {source: marks[source] for source in manifest.sources}
            again = replace(manifest, sources=sources, local=local_time_by(copy, group, record))
            store.write_json(f"{folder}/{group}/{MANIFEST}", again.to_json())


def measure_opening(store: Store, way: str, *, runs: int, budget_s: float) -> Times:
    """How long it takes to open the catalog; see :func:`measure_queries`."""
    times = Times()
    for _ in range(runs):
        began = time.perf_counter()
        WAYS[way](store).close()
        times.seconds.append(time.perf_counter() - began)
        if sum(times.seconds) > budget_s:
            break
    return times


def measure_queries(
    store: Store, way: str, queries: Mapping[str, str], *, runs: int, longest_s: float, budget_s: float
) -> Iterator[tuple[str, Times]]:
    """The times of each query on one connection, after one run that is not counted.

    Args:
        store: where.
        way: one of :data:`WAYS`.
        queries: SQL by heading.
        runs: runs at most.
        longest_s: a run that takes longer is interrupted, and the query with it.
        budget_s: no run begins when the earlier ones of its query took longer together.
    """
    connection = WAYS[way](store)
    for heading, sql in queries.items():
        times = Times()
        for number in range(runs + 1):
            began = time.perf_counter()
            with _interrupted_after(connection, longest_s) as late:
                try:
                    times.rows = run_query(connection, sql).num_rows
                except LapsError:
                    if not late.is_set():
                        raise
            took = time.perf_counter() - began
            if late.is_set():
                times.stopped = True
                times.seconds = [took]
                break
            if number == 0 and took < budget_s / 2:
                continue  # files were not in the memory yet
            times.seconds.append(took)
            if sum(times.seconds) > budget_s:
                break
        yield heading, times
    connection.close()


@contextmanager
def _interrupted_after(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[threading.Event]:
    late, ended = threading.Event(), threading.Event()

    def watch() -> None:
        if ended.wait(seconds):
            return
        late.set()
        while not ended.wait(0.2):
            connection.interrupt()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield late
    finally:
        ended.set()
        thread.join()
