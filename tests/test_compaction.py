"""Whatever happened to the store, the catalog with compacted copies shows what it shows without them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from laps.cameras import Camera, parse_shift
from laps.catalog import PRIMITIVES
from laps.compaction import COPIES, FOLDER, PRIMITIVES_COPY
from laps.errors import StoreError
from laps.tables import CLIPS, CLUSTER_ASSIGNMENTS, RAW_VIDEO, RECORDINGS, SEGMENT_EMBEDDINGS, SEGMENTS
from laps.timegrid import HOUR_NS, CameraHour, parse_utc, to_datetime
from resources import compaction
from resources.cameras import Cameras
from resources.catalog import connect, run_query
from resources.compaction import Compacted, compact
from resources.copies import MANIFEST
from resources.history import footage_share, footage_shares
from resources.models import Release
from resources.store import Store, rows_table
from tests.catalogs import RELEASE, TOKENIZER, Primitive, write_primitives
from tests.s3 import S3, s3, s3_server

__all__ = ["s3", "s3_server"]  # fixtures

CURRENT = Release(RELEASE, "current", tokenizer=TOKENIZER)
CAMERAS = ("01", "bench")
# Across the end of a month: an hour of one file of a copy, and of another.
FIRST = parse_utc("2026-03-31T21:00:00Z")
HOURS = [CameraHour(camera, FIRST + number * HOUR_NS) for camera in CAMERAS for number in range(5)]
# What belongs to the row's file comes first, so that rows are told apart.
VIEWS = [*COPIES, "partitions"]


def write_hour(store: Store, hour: CameraHour, rng: np.random.Generator) -> None:
    """Process an hour: other primitives each time, sometimes none, and sometimes not all that belongs to them."""
    start = to_datetime(hour.hour_ns)
    seconds = np.sort(rng.choice(3500, int(rng.integers(0, 4)), replace=False))
    primitives = [
        Primitive(hour.camera, start + timedelta(seconds=int(second)), float(rng.integers(1, 90)) / 10,
                  int(rng.integers(3)), float(np.float32(rng.random())))
        for second in seconds
    ]  # fmt: skip
    write_primitives(store, [one for one in primitives if one.hour == hour], [hour])
    footage = {"camera": hour.camera, "start_time": start, "end_time": start + timedelta(hours=1), "status": "ok",
               "used": True, "recording_id": f"r{rng.integers(1000)}"}  # fmt: skip
    store.write_partition(RAW_VIDEO, hour, rows_table(RAW_VIDEO, [footage]))


def write_one_table(store: Store, hour: CameraHour, rng: np.random.Generator) -> None:
    """Run one stage of an hour again, which gives other rows than those that it belongs to."""
    table = (SEGMENTS, CLIPS, CLUSTER_ASSIGNMENTS, SEGMENT_EMBEDDINGS)[int(rng.integers(4))]
    other = Store(str(Path(store.full_path("")).parent / "other"))
    write_hour(other, hour, rng)
    store.write_table(table, path_of(table, hour), other.read_partition(table, hour, RELEASE))


def path_of(table: Any, hour: CameraHour) -> str:
    return Store("/").partition_path(table, hour, RELEASE if table.model_level else None)


def write_recording(store: Store, hour: CameraHour, rng: np.random.Generator) -> None:
    """Register a file, or register it again."""
    row = {"recording_id": f"r{rng.integers(3)}-{rng.integers(1000)}", "camera": hour.camera, "uri": "/a.mp4",
           "status": "ok", "size_bytes": 1, "etag": "1", "registered_at": datetime(2026, 4, 1, tzinfo=UTC),
           "start_time": to_datetime(hour.hour_ns)}  # fmt: skip
    path = f"recordings/camera={hour.camera}/{str(row['recording_id']).partition('-')[0]}.parquet"
    store.write_table(RECORDINGS, path, rows_table(RECORDINGS, [row]))


def remove_hour(store: Store, hour: CameraHour, rng: np.random.Generator) -> None:
    """Remove an hour, or one of its tables."""
    tables = (RAW_VIDEO, SEGMENTS, CLIPS, CLUSTER_ASSIGNMENTS, SEGMENT_EMBEDDINGS)
    for table in tables if rng.random() < 0.5 else (tables[int(rng.integers(len(tables)))],):
        store.delete(path_of(table, hour))


def describe_camera(store: Store, hour: CameraHour, rng: np.random.Generator) -> None:
    """Say something else about a camera's clock and shifts."""
    zone = ("Europe/Berlin", "America/Chicago", None)[int(rng.integers(3))]
    shifts = (parse_shift("night=22:00-06:00"),) if zone and rng.random() < 0.5 else ()
    Cameras(store).write(Camera(hour.camera, time_zone=zone, shifts=shifts))


def compact_whole(store: Store, hour: CameraHour, rng: np.random.Generator) -> None:
    compact(store, CURRENT)


class Killed(BaseException):
    """What ends a process, which nothing catches."""


@contextmanager
def after_writes(count: int, happens: Callable[[], None]) -> Iterator[None]:
    """Something happens before the write with this number; what the files looked like then, they keep."""
    really = Store.staged
    seen = 0

    @contextmanager
    def staged(self: Store, path: str) -> Iterator[Path]:
        nonlocal seen
        seen += 1
        with really(self, path) as local:
            yield local
            if seen == count + 1:
                with pytest.MonkeyPatch.context() as inner:
                    inner.setattr(Store, "staged", really)
                    happens()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "staged", staged)
        yield


def kill_a_compaction(store: Store, hour: CameraHour, rng: np.random.Generator) -> None:
    def die() -> None:
        raise Killed

    with after_writes(int(rng.integers(12)), die):
        try:
            compact(store, CURRENT)
        except Killed:
            return


def change_during_a_compaction(store: Store, hour: CameraHour, rng: np.random.Generator) -> None:
    with after_writes(int(rng.integers(12)), lambda: write_hour(store, hour, rng)):
        compact(store, CURRENT)


STEPS = (write_hour, write_hour, write_one_table, write_recording, remove_hour, describe_camera, compact_whole,
         kill_a_compaction, change_during_a_compaction)  # fmt: skip


def shown(connection: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    """All rows of all views, as they are written down."""
    found = {}
    for view in VIEWS:
        found[view] = sorted(map(repr, connection.execute(f"SELECT * FROM {view}").fetchall()))
    return found


def without_copies(store: Store) -> duckdb.DuckDBPyConnection:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resources.catalog.holdings", lambda *_: {})
        return open_(store)


def open_(store: Store) -> duckdb.DuckDBPyConnection:
    with pytest.MonkeyPatch.context() as patch:
        # The comments take most of the time in which a small catalog is opened.
        patch.setattr("laps.catalog.comments_sql", lambda *_: ["SELECT 1"])
        return connect(store, release=RELEASE, tokenizer=TOKENIZER)


def same_as_without(store: Store) -> bool:
    return shown(open_(store)) == shown(without_copies(store))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    Cameras(store).write(Camera("01", time_zone="Europe/Berlin", shifts=(parse_shift("night=22:00-06:00"),)))
    return store


@cache
def _filled(seed: int) -> tempfile.TemporaryDirectory[str]:
    """Some hours, written once: each file takes a moment until it is safe on the disk."""
    folder = tempfile.TemporaryDirectory()
    rng, store = np.random.default_rng(seed), Store(folder.name)
    for hour in HOURS:
        write_hour(store, hour, rng)
        write_recording(store, hour, rng)
    return folder


def filled(store: Store, seed: int = 1) -> Store:
    shutil.copytree(_filled(seed).name, store.full_path(""), dirs_exist_ok=True)
    return store


def data_files(store: Store) -> list[str]:
    return store.files(FOLDER, ".parquet")


def record_files(connection: duckdb.DuckDBPyConnection, view: str) -> int:
    """How many files of the record a view reads, because no copy holds them."""
    (sql,) = connection.execute("SELECT sql FROM duckdb_views() WHERE view_name = ?", [view]).fetchone() or ("",)
    return len(re.findall(r"'/[^']*/part-0\.parquet'", sql))


@pytest.mark.parametrize("seed", range(2))
def test_after_any_sequence_of_changes_the_views_are_those_of_the_record(store: Store, seed: int) -> None:
    rng = np.random.default_rng(seed)
    filled(store, seed)
    compact(store, CURRENT)
    for number in range(7):
        step = STEPS[int(rng.integers(len(STEPS)))]
        step(store, HOURS[int(rng.integers(len(HOURS)))], rng)
        assert same_as_without(store), f"after step {number}: {step.__name__}"
    compact(store, CURRENT)
    assert same_as_without(store)
    # All that is there is in copies now.
    connection = open_(store)
    assert all(record_files(connection, name) == 0 for name in COPIES)


def test_copies_are_what_is_read(store: Store) -> None:
    filled(store)
    compact(store, CURRENT)
    before = shown(open_(store))
    assert before["primitives"] and before["recordings"]
    for table in (RAW_VIDEO, SEGMENTS, CLIPS, SEGMENT_EMBEDDINGS, CLUSTER_ASSIGNMENTS):
        for hour in HOURS:
            # The listing tells nothing of it, as long as length, time and inode stay.
            file = Path(store.full_path(path_of(table, hour)))
            times = file.stat()
            with file.open("r+b") as out:
                out.write(b"no Parquet"[: times.st_size])
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert shown(open_(store)) == before


def test_an_hour_that_is_run_again_within_the_same_tick_is_read_from_its_own_file(store: Store) -> None:
    filled(store)
    compact(store, CURRENT)
    hour = HOURS[2]
    file = Path(store.full_path(path_of(SEGMENTS, hour)))
    times = file.stat()
    rows = store.read_partition(SEGMENTS, hour, RELEASE)
    store.write_partition(SEGMENTS, hour, rows.slice(1) if rows.num_rows else rows, RELEASE)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert record_files(open_(store), "segments") == 1
    assert same_as_without(store)


def test_how_much_of_each_hour_was_filmed_is_read_from_the_copies_that_hold_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store)
    one_by_one = {hour: footage_share(store, hour) for hour in HOURS}
    assert set(one_by_one.values()) == {1.0} and footage_shares(store, HOURS) == one_by_one
    compact(store, CURRENT)
    opened: list[CameraHour] = []
    really = Store.read_partition

    def noted(self: Store, table: Any, hour: CameraHour, *rest: Any, **how: Any) -> Any:
        opened.append(hour)
        return really(self, table, hour, *rest, **how)

    monkeypatch.setattr(Store, "read_partition", noted)
    assert footage_shares(store, HOURS) == one_by_one and not opened
    hour = HOURS[2]
    half = {"camera": hour.camera, "start_time": to_datetime(hour.start_ns), "status": "ok", "used": True,
            "end_time": to_datetime(hour.start_ns + HOUR_NS // 2), "recording_id": "r1"}  # fmt: skip
    store.write_partition(RAW_VIDEO, hour, rows_table(RAW_VIDEO, [half]))
    assert footage_shares(store, HOURS) == one_by_one | {hour: 0.5} and opened == [hour]
    assert footage_shares(store, HOURS[:1]) == {HOURS[0]: 1.0} and footage_shares(store, []) == {}


def test_only_months_in_which_something_changed_are_written(store: Store) -> None:
    filled(store)
    first = compact(store, CURRENT)
    assert first.written == dict.fromkeys(COPIES, 4) | {"recordings": 2}
    assert first.rows > 0
    again = compact(store, CURRENT)
    assert again == Compacted(unchanged=sum(first.written.values()))
    write_one = HOURS[-1]  # April, on the second camera
    store.write_partition(CLIPS, write_one, rows_table(CLIPS, []), RELEASE)
    assert compact(store, CURRENT).written == {"clips": 1, "primitives": 1}
    assert compact(store, CURRENT, everything=True).written == first.written


def test_copies_are_sorted_by_time_in_small_row_groups(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laps.compaction.ROW_GROUP_ROWS", 4)
    filled(store)
    compact(store, CURRENT)
    seen = 0
    for path in store.files(f"{FOLDER}/primitives", ".parquet"):
        file = pq.ParquetFile(store.full_path(path))
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        assert all(group.num_rows == 4 for group in groups[:-1])
        rows = file.read().to_pylist()
        assert [row["start_time"] for row in rows] == sorted(row["start_time"] for row in rows)
        hour_column = file.schema_arrow.names.index("hour")
        assert all(group.column(hour_column).statistics.has_min_max for group in groups)
        seen += len(rows)
    assert seen == run_query(without_copies(store), "SELECT * FROM primitives").num_rows


def test_the_columns_are_those_of_the_view() -> None:
    computed = {"clip", "action_name", "cluster_icss", "cluster_icss_ci_low",
                "cluster_icss_ci_high", "icss_baseline", "encoder_id"}  # fmt: skip
    stored = {column.name for column in PRIMITIVES_COPY.stored}
    assert {column.name for column in PRIMITIVES.columns} - computed <= stored


def test_what_a_killed_compaction_left_is_removed_after_a_day(store: Store) -> None:
    filled(store)
    rng = np.random.default_rng(5)
    for _ in range(4):
        kill_a_compaction(store, HOURS[0], rng)
    compact(store, CURRENT)
    compact(store, CURRENT, everything=True)
    needed = {path.rpartition("/")[0] for path in data_files(store)}
    assert len(data_files(store)) > len(needed)  # earlier files are there for queries that are running
    old = time.time() - 2 * compaction.KEPT_S
    for path in store.files(FOLDER):
        os.utime(store.full_path(path), (old, old))
    removed = compact(store, CURRENT).removed
    assert removed > 0
    assert len(data_files(store)) == len(needed)
    assert same_as_without(store)


def test_copies_that_are_written_every_day_do_not_pile_up(store: Store) -> None:
    """A file goes when the one that took its place is a day old, though the manifest is always young."""
    filled(store)
    days = 4
    for _ in range(days):
        compact(store, CURRENT, everything=True)
        for path in data_files(store):
            aged = store.modified(path)[path] - 1.2 * compaction.KEPT_S
            os.utime(store.full_path(path), (aged, aged))
    compact(store, CURRENT, everything=True)
    needed = {path.rpartition("/")[0] for path in data_files(store)}
    # The one in use, and the one whose place it has just taken.
    assert len(data_files(store)) == 2 * len(needed)
    assert same_as_without(store)


def test_a_query_that_is_running_keeps_its_files(store: Store) -> None:
    filled(store)
    compact(store, CURRENT)
    connection = open_(store)
    before = shown(connection)
    old = time.time() - 2 * compaction.KEPT_S
    for path in store.files(FOLDER):
        os.utime(store.full_path(path), (old, old))
    # The file is old, but it is only now that another takes its place.
    assert compact(store, CURRENT, everything=True).removed == 0
    assert shown(connection) == before


def test_a_copy_of_another_version_is_not_read_and_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store)
    compact(store, CURRENT)
    monkeypatch.setattr("laps.compaction._FORMAT", 99)
    assert record_files(open_(store), "segments") == len(HOURS)
    assert same_as_without(store)
    assert compact(store, CURRENT).unchanged == 0
    assert record_files(open_(store), "segments") == 0


@pytest.mark.parametrize("damage", ["no manifest", "no data", "half a manifest"])
def test_a_copy_that_lost_a_file_is_not_read_and_made_again(store: Store, damage: str) -> None:
    filled(store)
    compact(store, CURRENT)
    folder = data_files(store)[0].rpartition("/")[0]
    if damage == "half a manifest":
        content = store.read_bytes(f"{folder}/{MANIFEST}")
        store.write_bytes(f"{folder}/{MANIFEST}", content[: len(content) // 2])
    else:
        (path,) = [path for path in store.files(folder) if path.endswith(MANIFEST) == (damage == "no manifest")]
        store.delete(path)
    assert same_as_without(store)
    assert sum(compact(store, CURRENT).written.values()) == 1
    assert same_as_without(store)


def test_a_damaged_file_of_the_record_does_not_stop_a_compaction(store: Store) -> None:
    filled(store)
    damaged = path_of(SEGMENT_EMBEDDINGS, HOURS[0])
    store.write_bytes(damaged, b"no Parquet")
    done = compact(store, CURRENT)
    assert list(done.left_out) == [f"segment_embeddings: {damaged.split('/', 2)[2]}"]
    assert damaged in next(iter(done.left_out.values()))
    # It is not tried again every night, and the error is that of whoever needs it.
    assert not compact(store, CURRENT).written
    with pytest.raises(StoreError, match=damaged):
        run_query(open_(store), "SELECT * FROM segment_embeddings")
    write_hour(store, HOURS[0], np.random.default_rng(0))
    assert compact(store, CURRENT).written["segment_embeddings"] == 1
    assert same_as_without(store)


def test_a_damaged_copy_is_named_and_made_again(store: Store) -> None:
    filled(store)
    compact(store, CURRENT)
    damaged = store.files(f"{FOLDER}/clips", ".parquet")[0]
    Path(store.full_path(damaged)).write_bytes(b"no Parquet")
    with pytest.raises(StoreError, match=rf"{damaged}.*laps compact --all"):
        run_query(open_(store), "SELECT * FROM clips")
    compact(store, CURRENT, everything=True)
    assert same_as_without(store)


def test_columns_that_old_files_lack_are_null(store: Store) -> None:
    filled(store)
    file = Path(store.full_path(path_of(SEGMENTS, HOURS[0])))
    pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["confidence"]), file)
    compact(store, CURRENT)
    assert same_as_without(store)
    assert record_files(open_(store), "segments") == 0


def test_a_camera_that_is_described_anew_has_its_new_local_time_at_once(store: Store) -> None:
    filled(store)
    compact(store, CURRENT)
    query = (
        "SELECT segment_id, start_time, start_local, shift, shift_date FROM primitives WHERE camera = '01' ORDER BY 1"
    )
    before = open_(store).execute(query).fetchall()
    assert any(row[3] == "night" for row in before)
    Cameras(store).write(Camera("01", time_zone="America/Chicago"))
    after = open_(store).execute(query).fetchall()
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert all(row[2] != old[2] and row[3] is None for row, old in zip(after, before, strict=True))
    assert same_as_without(store)
    # Two months of it are written again: recordings have no months.
    assert compact(store, CURRENT).written == {"recordings": 1, "raw_video": 2, "segments": 2, "primitives": 2}
    assert open_(store).execute(query).fetchall() == after
    assert same_as_without(store)


def test_releases_have_copies_of_their_own(store: Store) -> None:
    filled(store)
    compact(store, CURRENT)
    for table in (SEGMENTS, CLIPS, CLUSTER_ASSIGNMENTS, SEGMENT_EMBEDDINGS):
        source = Path(store.full_path(f"{table.name}/release={RELEASE}"))
        shutil.copytree(source, source.with_name("release=r2"))
    connection = connect(store, release="r2", tokenizer=TOKENIZER)
    assert record_files(connection, "segments") == len(HOURS)
    compact(store, replace(CURRENT, name="r2"))
    again = connect(store, release="r2", tokenizer=TOKENIZER)
    assert record_files(again, "segments") == 0
    assert shown(again)["segments"] == shown(connection)["segments"]
    assert same_as_without(store)


def test_on_object_storage_the_copies_are_read_where_they_hold(s3: S3) -> None:
    store = Store(f"{s3.url}/store")
    rng = np.random.default_rng(4)
    for hour in HOURS[3:6]:
        write_hour(store, hour, rng)
    write_recording(store, HOURS[3], rng)
    compact(store, CURRENT)
    s3.proxy.reset()
    before = shown(open_(store))
    read = {
        request.path for request in s3.proxy.requests if request.method == "GET" and "list-type" not in request.path
    }
    assert any(f"/{FOLDER}/" in path for path in read)
    assert not any("part-0.parquet" in path for path in read)
    write_hour(store, HOURS[4], rng)
    remove_hour(store, HOURS[5], rng)
    assert shown(open_(store)) != before
    kill_a_compaction(store, HOURS[3], rng)
    assert same_as_without(store)
    compact(store, CURRENT)
    assert same_as_without(store)


def test_the_asset_and_the_command_compact(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from laps_dagster.cli.main import laps
    from laps_dagster.runs import Task, execute
    from resources.models import ModelRegistry

    monkeypatch.setenv("LAPS_STORE", store.root)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    filled(store)
    draft = ModelRegistry(store).open_draft("test")
    assert draft.name == RELEASE
    ModelRegistry(store).fill(draft, "tokenizer", TOKENIZER)
    outcome = execute(Task("compact"))
    assert outcome.ok, outcome.error
    assert outcome.metadata["compacted_catalog"]["written"]["primitives"] == 4
    said = CliRunner().invoke(laps, ["compact"], catch_exceptions=False)
    assert "0 files written, 26 unchanged" in said.output
    assert "26 files written" in CliRunner().invoke(laps, ["compact", "--all"], catch_exceptions=False).output
    ModelRegistry(store).discard(RELEASE)
    left = {path.split("/")[1] for path in store.files(FOLDER)}
    assert left == {"raw_video", "recordings"}
