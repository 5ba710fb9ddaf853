"""A question about one camera and day opens the files of that camera and day, and no others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from resources.catalog import ReadOnlyFiles, connect, run_query
from resources.store import Store
from tests.catalogs import RELEASE, TOKENIZER, Primitive, write_primitives

DAYS = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3)]
HOURS = (5, 6, 17)
CAMERAS = ("01", "bench")
# The root has an "=" of its own, as a store below a partitioned bucket would.
BELOW = "camera=all/date=none"
PRIMITIVES = [
    Primitive(camera, day + timedelta(hours=hour, minutes=minute), 2.0)
    for camera in CAMERAS
    for day in DAYS
    for hour in HOURS
    for minute in (1, 30)
]

# A condition, and the same in Python.
CONDITIONS: list[tuple[str, Any]] = [
    ("camera = '01' AND date = '2026-03-02'", lambda p: p.camera == "01" and p.start.day == 2),
    ("date = DATE '2026-03-03' AND hour = 17", lambda p: p.start.day == 3 and p.start.hour == 17),
    ("camera = '01' AND date BETWEEN '2026-03-01' AND '2026-03-02'", lambda p: p.camera == "01" and p.start.day < 3),
    ("camera = '01' AND date >= '2026-03-03'", lambda p: p.camera == "01" and p.start.day == 3),
    ("camera = 'none'", lambda p: False),
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("store") / BELOW))
    write_primitives(store, PRIMITIVES)
    return store


@pytest.fixture(scope="module")
def remote(store: Store) -> Iterator[Store]:
    memory = fsspec.filesystem("memory")
    for path in store.files(""):
        memory.pipe_file(f"/bucket/{BELOW}/{path}", store.read_bytes(path))
    yield Store(f"memory://bucket/{BELOW}")
    memory.rm("/bucket", recursive=True)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the catalog opens through fsspec, as it opens them."""
    paths: list[str] = []
    really = ReadOnlyFiles.open

    def noted(self: ReadOnlyFiles, path: str, mode: str = "rb", **options: object) -> Any:
        paths.append(path)
        return really(self, path, mode, **options)

    monkeypatch.setattr(ReadOnlyFiles, "open", noted)
    return paths


def files(store: Store, wanted: Any, *tables: str) -> set[str]:
    hours = {primitive.hour for primitive in PRIMITIVES if wanted(primitive)}
    return {
        store.url(path)
        for table in tables
        for path in store.files(table)
        if any(f"camera={hour.camera}/date={hour.date}/hour={hour.hour}/" in path for hour in hours)
    }


@pytest.mark.parametrize(("condition", "wanted"), CONDITIONS)
def test_only_the_wanted_files_are_opened_through_fsspec(remote, opened, condition, wanted):
    connection = connect(remote, release=RELEASE, tokenizer=TOKENIZER)
    assert opened == []
    found = run_query(connection, f"SELECT segment_id, clip, cluster_id FROM primitives WHERE {condition}").to_pylist()
    assert {row["segment_id"] for row in found} == {primitive.id for primitive in PRIMITIVES if wanted(primitive)}
    assert all(row["clip"] and row["cluster_id"] == 0 for row in found)
    # DuckDB does not look at the other side of a join when one side has no files left.
    assert set(opened) == files(remote, wanted, "segments", "clips", "cluster_assignments")
    opened.clear()
    run_query(connection, f"SELECT count(*), max(duration_s) FROM segments WHERE {condition}")
    assert set(opened) == files(remote, wanted, "segments")


@pytest.mark.parametrize(("condition", "wanted"), CONDITIONS[:-1])
def test_only_the_wanted_files_are_opened_on_a_disk(store, condition, wanted):
    connection = connect(store, release=RELEASE, tokenizer=TOKENIZER)
    plan = str(run_query(connection, f"EXPLAIN ANALYZE SELECT * FROM primitives WHERE {condition}")["explain_value"][0])
    read = [int(count) for count in re.findall(r"Total Files Read: (\d+)", plan)]
    expected = len(files(store, wanted, "segments"))
    assert read == [expected] * 3
    assert 0 < expected < len(store.files("segments"))


def test_damaged_files_of_other_hours_do_not_matter(store, tmp_path):
    store = Store(str(shutil.copytree(store.root, tmp_path / "copy")))
    condition, wanted = CONDITIONS[0]
    needed = files(store, wanted, "segments", "clips", "cluster_assignments")
    for path in store.files(""):
        if store.url(path) not in needed:
            Path(store.full_path(path)).write_bytes(b"no Parquet")
    connection = connect(store, release=RELEASE, tokenizer=TOKENIZER)
    found = run_query(connection, f"SELECT segment_id FROM primitives WHERE {condition}")
    assert found.num_rows == sum(wanted(primitive) for primitive in PRIMITIVES) > 0
