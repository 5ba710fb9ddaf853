"""The store: whole files or none, tables that round-trip, and errors that name the object."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from laps.errors import InputError, NotProcessedError, SchemaError, StoreError
from laps.tables import CLUSTER_ASSIGNMENTS, KEYFRAMES, RAW_VIDEO
from laps.timegrid import CameraHour, to_datetime
from resources.store import SPILLED, Store, is_transient, rows_table

HOUR = CameraHour.parse("01|2026-11-21-05:00")


def assignments(count: int) -> pa.Table:
    return rows_table(
        CLUSTER_ASSIGNMENTS,
        [
            {
                "segment_id": f"s{n}",
                "camera": "01",
                "cluster_id": n,
                "centroid_distance": 0.5,
                "cluster_model_id": "k1",
                "release": "r1",
            }
            for n in range(count)
        ],
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.mark.parametrize("count", [0, 1, 300])
def test_a_partition_round_trips(store: Store, count: int) -> None:
    store.write_partition(CLUSTER_ASSIGNMENTS, HOUR, assignments(count), "r1")
    assert store.read_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1").equals(assignments(count))
    assert store.partition_rows(CLUSTER_ASSIGNMENTS, HOUR, "r1") == count
    assert sum(batch.num_rows for batch in store.iter_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1")) == count
    assert store.partitions(CLUSTER_ASSIGNMENTS, "r1") == [HOUR]


def test_writing_again_gives_the_same_bytes(store: Store) -> None:
    path = store.partition_path(CLUSTER_ASSIGNMENTS, HOUR, "r1")
    store.write_partition(CLUSTER_ASSIGNMENTS, HOUR, assignments(10), "r1")
    before = store.read_bytes(path)
    store.write_partition(CLUSTER_ASSIGNMENTS, HOUR, assignments(10), "r1")
    assert store.read_bytes(path) == before


def test_a_failed_write_leaves_the_old_file_and_no_rest(store: Store, tmp_path: Path) -> None:
    store.write_partition(CLUSTER_ASSIGNMENTS, HOUR, assignments(3), "r1")
    path = store.partition_path(CLUSTER_ASSIGNMENTS, HOUR, "r1")
    with pytest.raises(SchemaError), store.writer(CLUSTER_ASSIGNMENTS, path) as writer:
        writer.write(assignments(5))
        writer.write(pa.table({"segment_id": ["x"]}))
    assert store.partition_rows(CLUSTER_ASSIGNMENTS, HOUR, "r1") == 3
    assert [file.name for file in (tmp_path / "store").rglob("*") if file.is_file()] == ["part-0.parquet"]


def test_a_half_written_file_is_never_listed(store: Store) -> None:
    path = store.partition_path(CLUSTER_ASSIGNMENTS, HOUR, "r1")
    with store.writer(CLUSTER_ASSIGNMENTS, path) as writer:
        writer.write(assignments(5))
        assert not store.exists(path)
        assert store.files(CLUSTER_ASSIGNMENTS.name) == []
    assert store.files(CLUSTER_ASSIGNMENTS.name) == [path]


def test_an_absent_partition_says_what_to_do(store: Store) -> None:
    with pytest.raises(
        NotProcessedError, match=r"01\|2026-11-21-05:00: raw_video has not been .*laps backfill --camera 01"
    ):
        store.read_partition(RAW_VIDEO, HOUR)


def test_a_truncated_file_names_itself(store: Store) -> None:
    path = store.partition_path(CLUSTER_ASSIGNMENTS, HOUR, "r1")
    store.write_partition(CLUSTER_ASSIGNMENTS, HOUR, assignments(300), "r1")
    store.write_bytes(path, store.read_bytes(path)[:200])
    with pytest.raises(StoreError, match=r"part-0.parquet: is no readable Parquet file"):
        store.read_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1")


def test_columns_that_an_old_file_lacks_are_null(store: Store) -> None:
    import pyarrow.parquet as pq

    path = store.partition_path(CLUSTER_ASSIGNMENTS, HOUR, "r1")
    with store.staged(path) as local:
        pq.write_table(assignments(2).drop_columns(["centroid_distance"]), local)
    assert store.read_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1")["centroid_distance"].null_count == 2


def test_a_model_level_must_be_named_where_there_is_one(store: Store) -> None:
    with pytest.raises(InputError, match="needs a release"):
        store.partition_path(CLUSTER_ASSIGNMENTS, HOUR)
    with pytest.raises(InputError, match="kept once"):
        store.partition_path(RAW_VIDEO, HOUR, "r1")


def test_pictures_are_stored_as_they_are(store: Store) -> None:
    row = {
        "camera": "01",
        "sample": 5,
        "time": to_datetime(HOUR.start_ns),
        "frame_time": to_datetime(HOUR.start_ns),
        "width_px": 4,
        "height_px": 3,
        "jpeg": b"\xff\xd8\x00",
    }
    store.write_partition(KEYFRAMES, HOUR, rows_table(KEYFRAMES, [row]))
    assert store.read_partition(KEYFRAMES, HOUR).to_pylist() == [row]


def test_unknown_keys_of_a_row_are_refused() -> None:
    with pytest.raises(InputError, match="no columns colour"):
        rows_table(RAW_VIDEO, [{"colour": "red"}])


def test_a_store_that_cannot_be_written_names_the_object(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(str(tmp_path / "file" / "store"))
    with pytest.raises(StoreError, match="cannot be written"):
        store.write_bytes("a", b"")


def test_what_another_process_removes_meanwhile_is_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        store.write_bytes(f"folder/{name}", b"")
    rm = store.fs.rm

    def after_another(path: str, **how: bool) -> None:
        monkeypatch.undo()
        Path(store.full_path("folder/a")).unlink()
        rm(f"{path}/a")  # as found a moment ago

    monkeypatch.setattr(store.fs, "rm", after_another)
    store.delete("folder")
    assert not store.exists("folder")
    store.delete("folder")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (OSError(errno.EIO, "We encountered an internal error", "s3://bucket/key"), True),
        (TimeoutError("timed out"), True),
        (OSError(errno.EIO, "Input/output error", "/store/part-0.parquet"), False),
        (OSError(errno.ENOTEMPTY, "Directory not empty", "/cache/model"), False),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError("Corrupt snappy compressed data."), False),
        (PermissionError(errno.EACCES, "Access Denied", "s3://bucket/key"), False),
    ],
)
def test_only_what_object_storage_does_is_tried_again(error: OSError, again: bool) -> None:
    assert is_transient(error) is again


def test_a_file_is_created_once(store: Store, tmp_path: Path) -> None:
    assert store.create("releases/r1/taken", b"first")
    assert not store.create("releases/r1/taken", b"second")
    assert store.read_bytes("releases/r1/taken") == b"first"
    assert [file.name for file in (tmp_path / "store").rglob("*") if file.is_file()] == ["taken"]


def test_old_temporary_files_of_killed_runs_are_removed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spilled = tmp_path / f"{SPILLED}1"
    spilled.mkdir()
    for name in ("a.block", "b.block"):
        (spilled / name).write_bytes(b"rows of a query that was killed")
    store.write_bytes("t/a", b"1")
    (tmp_path / "store" / "t" / ".tmp-1").write_bytes(b"half")
    landing = tmp_path / "store" / "landing"
    landing.mkdir()
    (landing / ".tmp-2").write_bytes(b"what a camera is writing")
    assert store.remove_leftovers(besides=str(landing)) == 0
    assert store.remove_leftovers(older_than_s=-60, besides=str(landing)) == 3 and not spilled.exists()
    assert sorted(file.name for file in (tmp_path / "store").rglob("*") if file.is_file()) == [".tmp-2", "a"]
