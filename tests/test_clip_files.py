"""Clips have folders of their own and go up several at once; those of stores of earlier versions stay readable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import pytest

import resources.uploads
from assets.clips import clips
from assets.partitions import multi_partition_key
from assets.raw_video import raw_video
from laps.errors import StoreError
from laps.tables import CLIPS
from laps.timegrid import CameraHour
from resources.catalog import connect, run_query
from resources.configured import default_resources
from resources.curation import Selection, choose
from resources.hour_files import CLIP_FILES, clip_folder
from resources.store import Store, hour_folder, rows_table
from resources.uploads import FILES_AT_ONCE, uploads
from tests.export_store import ExportStore
from tests.s3 import S3, s3, s3_server
from tests.test_store_s3 import impatient, quick

__all__ = ["impatient", "quick", "s3", "s3_server"]

HOUR = CameraHour.parse("a|2026-11-21-05:00")


def cut(store: Store, monkeypatch: pytest.MonkeyPatch, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
    """Materialize the clips of the hour, and what says where its footage is."""
    monkeypatch.setenv("LAPS_STORE", store.root)
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("cameras", ["a", "b"])
        return dg.materialize(
            [raw_video, clips],
            instance=instance,
            partition_key=multi_partition_key(HOUR),
            resources=default_resources(),
            raise_on_error=raise_on_error,
        )


def as_before(made: ExportStore) -> list[str]:
    """Lay the hour's clips where earlier versions kept them, with one that no row names; gives the paths of rows."""
    store, release = made.store, made.release.name
    folder = f"{CLIPS.name}/release={release}/{hour_folder(HOUR)}"
    rows = store.read_partition(CLIPS, HOUR, release).to_pylist()
    for row in rows:
        path = f"{folder}/{row['segment_id']}.mp4"
        store.move(row["clip_path"], path)
        row["clip_path"] = path
    store.write_partition(CLIPS, HOUR, rows_table(CLIPS, rows), release)
    store.write_bytes(f"{folder}/nobody.mp4", b"mp4")
    return [row["clip_path"] for row in rows]


def test_clips_of_earlier_versions_are_read_and_move_when_the_hour_is_cut_again(fresh, monkeypatch):
    store, release = fresh.store, fresh.release
    before = {path: store.read_bytes(path) for path in as_before(fresh)}
    chosen = choose(store, release, Selection(cameras=("a",), stop="2026-11-21T06:00:00Z"))
    assert sorted(item.open_clip().read() for item in chosen.items) == sorted(before.values())
    assert cut(store, monkeypatch).success
    rows = store.read_partition(CLIPS, HOUR, release.name).to_pylist()
    assert {row["status"] for row in rows} == {"ok"} and len(rows) == len(before)
    assert sorted(row["clip_path"] for row in rows) == store.files(clip_folder(HOUR, release.name))
    assert store.files(f"{CLIPS.name}/release={release.name}/camera=a/date={HOUR.date}/hour={HOUR.hour}") == [
        store.partition_path(CLIPS, HOUR, release.name)
    ]


def test_clips_of_earlier_versions_stay_where_the_video_is_gone(fresh, monkeypatch):
    before = as_before(fresh)

    def gone(uri: str) -> None:
        raise FileNotFoundError(uri)

    monkeypatch.setattr("assets.clips.open_uri", gone)
    assert cut(fresh.store, monkeypatch).success
    rows = fresh.store.read_partition(CLIPS, HOUR, fresh.release.name).to_pylist()
    assert sorted(row["clip_path"] for row in rows) == sorted(before)
    assert all(fresh.store.exists(path) for path in before)
    assert not fresh.store.exists(f"{before[0].rpartition('/')[0]}/nobody.mp4")


def on_s3(made: ExportStore, s3: S3, *leave_out: str) -> ExportStore:
    """The store of an ``ExportStore`` in the bucket, without some folders."""
    store = Store(s3.url)
    with uploads(store) as write:
        for path in made.store.files(""):
            if path.split("/")[0] not in leave_out:
                write(path, made.store.read_bytes(path))
    return ExportStore(store, made.release, made.rows)


@pytest.mark.usefixtures("quick")
def test_clips_on_object_storage_are_those_of_a_disk_also_with_faults(made, s3, monkeypatch):
    remote = on_s3(made, s3, CLIP_FILES, CLIPS.name)
    for kind in ("500", "reset", "cut request"):
        s3.proxy.fault(kind, method="PUT", path=CLIP_FILES)
    assert cut(remote.store, monkeypatch).success
    assert all(fault.seen for fault in s3.proxy.faults)
    release = made.release.name
    assert remote.store.read_partition(CLIPS, HOUR, release).equals(made.store.read_partition(CLIPS, HOUR, release))
    paths = made.store.files(clip_folder(HOUR, release))
    assert remote.store.files(clip_folder(HOUR, release)) == paths
    assert all(remote.store.read_bytes(path) == made.store.read_bytes(path) for path in paths)


@pytest.mark.usefixtures("impatient")
def test_a_clip_that_cannot_be_written_fails_the_run_and_no_row_names_it(made, s3, monkeypatch):
    remote = on_s3(made, s3, CLIP_FILES, CLIPS.name)
    s3.proxy.fault(
        "507 InsufficientStorage", method="PUT", path=f"{CLIP_FILES}.*{made.rows[1]['segment_id']}", times=99
    )
    result = cut(remote.store, monkeypatch, raise_on_error=False)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    said = str(failure.event_specific_data.error.cause)
    assert f"{made.rows[1]['segment_id']}.mp4: cannot be written: the object storage has no room" in said
    assert not remote.store.has_partition(CLIPS, HOUR, made.release.name)


def requests_of_opening(store: Store, s3: S3, release: str) -> list[tuple[str, int]]:
    """What opening the catalog asks for, and the bytes of each answer."""
    s3.proxy.reset()
    connection = connect(store, release=release)
    assert run_query(connection, "SELECT count(*) AS n FROM clips")["n"].to_pylist() == [5]
    connection.close()
    return sorted((request.path, request.bytes_out) for request in s3.proxy.requests)


def test_opening_a_catalog_lists_no_clips(made, s3):
    store, release = Store(s3.url), made.release.name
    path = made.store.partition_path(CLIPS, HOUR, release)
    store.write_bytes(path, made.store.read_bytes(path))
    without = requests_of_opening(store, s3, release)
    with uploads(store) as write:
        for number in range(12):
            write(f"{clip_folder(HOUR, release)}/{number}.mp4", b"mp4")
    assert requests_of_opening(store, s3, release) == without


class Watched(Store):
    """A store that counts how many files are written at once."""

    def __init__(self, root: str, meeting: threading.Barrier | None = None) -> None:
        super().__init__(root)
        self.lock, self.meeting = threading.Lock(), meeting
        self.now = self.most = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self.lock:
                self.now -= 1

    def write_bytes(self, path: str, content: bytes) -> None:
        with self.counted():
            if self.meeting is not None:
                self.meeting.wait(20)
            super().write_bytes(path, content)


def test_several_files_go_up_at_once_and_no_more_than_may(s3):
    # Each waits until all places are taken: one after another they would wait for ever.
    store = Watched(s3.url, threading.Barrier(FILES_AT_ONCE))
    with uploads(store) as write:
        for number in range(2 * FILES_AT_ONCE):
            write(f"a/{number:02}", b"%d" % number)
    assert store.most == FILES_AT_ONCE
    assert [store.read_bytes(path) for path in store.files("a")] == [b"%d" % n for n in range(2 * FILES_AT_ONCE)]


def test_what_is_in_memory_is_bounded(s3, monkeypatch):
    monkeypatch.setattr(resources.uploads, "BYTES_AT_ONCE", 100)
    store = Watched(s3.url)
    with uploads(store) as write:
        for number, size in enumerate((60, 60, 200, 60)):
            write(f"a/{number}", bytes(size))
    assert store.most == 1 and len(store.files("a")) == 4


@pytest.mark.usefixtures("impatient")
def test_the_first_file_that_cannot_be_written_is_the_error(s3):
    store = Store(s3.url)
    s3.proxy.fault("500", method="PUT", path="a/3$", times=99)
    with pytest.raises(StoreError, match=r"a/3: cannot be written: .*InternalError"), uploads(store) as write:
        for number in range(5):
            write(f"a/{number}", b"1")
    assert store.files("a") == ["a/0", "a/1", "a/2", "a/4"]
    s3.proxy.reset()
    s3.proxy.fault("507 InsufficientStorage", method="PUT", path="b/0$", times=99)
    with pytest.raises(StoreError, match=r"b/0: cannot be written: .*no room"), uploads(store) as write:
        for number in range(200):
            write(f"b/{number}", b"1")
    assert len(store.files("b")) < 100, "not known only when everything was written"


def test_an_error_of_the_block_waits_for_what_is_on_its_way(s3):
    store = Store(s3.url)
    with pytest.raises(ZeroDivisionError), uploads(store) as write:
        write("a/0", b"1")
        raise ZeroDivisionError
    assert store.files("a") == ["a/0"]


def test_files_are_deleted_together(s3, tmp_path):
    for store in (Store(s3.url), Store(str(tmp_path))):
        names = [f"a/{number}" for number in range(5)]
        for name in names:
            store.write_bytes(name, b"1")
        s3.proxy.reset()
        store.delete_files([])
        store.delete_files([*names[:4], "a/not there"])
        assert len(s3.proxy.requests) == (0 if store.is_local else 1)
        assert store.files("a") == names[4:]
        s3.proxy.fault("403 AccessDenied", method="POST")
    with pytest.raises(StoreError, match="a/4: cannot be deleted: AccessDenied"):
        Store(s3.url).delete_files(["a/4"])
