"""A question about one camera and day opens the files of that camera and day, and no others.

Of compacted copies: the files of that camera, and in them the row groups of that day.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from laps.errors import LapsError
from resources.catalog import ReadOnlyFiles, connect, run_query
from resources.compaction import compact
from resources.models import Release
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


@pytest.fixture
def compacted(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of the store, compacted but for what came since: another hour, and one that was run again."""
    monkeypatch.setattr("laps.compaction.ROW_GROUP_ROWS", 6)  # one day
    compacted = Store(str(shutil.copytree(store.root, tmp_path / "compacted")))
    compact(compacted, Release(RELEASE, "current", tokenizer=TOKENIZER))
    write_primitives(
        compacted, [LATE, *(primitive for primitive in PRIMITIVES if primitive.hour == PRIMITIVES[0].hour)]
    )
    return compacted


LATE = Primitive("01", DAYS[-1] + timedelta(hours=20), 2.0)


def opened_by(store: Store, opened: list[str], condition: str) -> list[str]:
    """What a query on a store that is read through fsspec opens, below its root and without names of data files."""
    memory = fsspec.filesystem("memory")
    for path in store.files(""):
        memory.pipe_file(f"/compacted/{path}", store.read_bytes(path))
    try:
        # The marks are those of another file system, so copies are made again here.
        remote = Store("memory://compacted")
        compact(remote, Release(RELEASE, "current", tokenizer=TOKENIZER), everything=True)
        write_primitives(remote, [LATE])
        connection = connect(remote, release=RELEASE, tokenizer=TOKENIZER)
        opened.clear()
        run_query(connection, f"SELECT segment_id, cluster_id, clip FROM primitives WHERE {condition}")
        return sorted({path.removeprefix("memory://compacted/").rpartition("/")[0] for path in opened})
    finally:
        memory.rm("/compacted", recursive=True)


@pytest.mark.parametrize(
    ("condition", "folders"),
    [
        ("camera = '01' AND date = '2026-03-02'", ["compacted/primitives/release=r1/camera=01/month=2026-03"]),
        (
            "camera = '01' AND date = '2026-03-03' AND hour = 20",
            [
                "clips/release=r1/camera=01/date=2026-03-03/hour=20",
                "cluster_assignments/release=r1/camera=01/date=2026-03-03/hour=20",
                "compacted/primitives/release=r1/camera=01/month=2026-03",
                "segments/release=r1/camera=01/date=2026-03-03/hour=20",
            ],
        ),
        ("camera = 'none'", []),
    ],
)
def test_copies_of_other_cameras_are_not_opened(store, opened, condition, folders):
    assert opened_by(store, opened, condition) == folders


@pytest.mark.parametrize("day", [1, 2, 3])
def test_row_groups_of_other_days_are_not_read(compacted, day):
    (path,) = compacted.files("compacted/primitives/release=r1/camera=01", ".parquet")
    metadata = pq.ParquetFile(compacted.full_path(path)).metadata
    assert metadata.num_row_groups == len(DAYS)
    with Path(compacted.full_path(path)).open("r+b") as file:
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            for column in (group.column(place) for place in range(group.num_columns) if number + 1 != day):
                file.seek(column.dictionary_page_offset or column.data_page_offset)
                file.write(b"\xff" * column.total_compressed_size)
    connection = connect(compacted, release=RELEASE, tokenizer=TOKENIZER)
    found = run_query(connection, f"SELECT * FROM primitives WHERE camera = '01' AND date = '2026-03-0{day}'")
    expected = {p.id for p in [*PRIMITIVES, LATE] if p.camera == "01" and p.start.day == day}
    assert set(found["segment_id"].to_pylist()) == expected
    with pytest.raises(LapsError):
        run_query(connection, "SELECT * FROM primitives")
