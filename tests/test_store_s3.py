"""The store on a real S3 server, with faults between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import resources.object_storage
from laps.errors import LapsError, NotProcessedError, StoreError
from laps.tables import CLUSTER_ASSIGNMENTS, KEYFRAMES
from laps.timegrid import CameraHour, to_datetime
from resources.object_storage import ObjectStorage
from resources.recordings import Recordings
from resources.store import Store, file_system, rows_table
from tests.s3 import S3, s3, s3_server
from tests.test_store import assignments
from tests.videos import write_video

__all__ = ["s3", "s3_server"]

HOUR = CameraHour.parse("01|2026-11-21-05:00")
PATH = Store("x").partition_path(CLUSTER_ASSIGNMENTS, HOUR, "r1")


@pytest.fixture
def store(s3: S3) -> Store:
    return Store(s3.url)


@pytest.fixture(autouse=True)
def _own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few attempts, without waits, for the tests in which they are used up."""
    monkeypatch.setattr(resources.object_storage, "ATTEMPTS", 3)
    no_waits(monkeypatch)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waits(monkeypatch)


def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    # Both waits, botocore's and ours, are drawn by it.
    monkeypatch.setattr(random, "random", lambda: 0.01)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.01)


def write(store: Store, count: int) -> None:
    store.write_partition(CLUSTER_ASSIGNMENTS, HOUR, assignments(count), "r1")


def test_tables_and_files_round_trip(store: Store, tmp_path: Path) -> None:
    write(store, 300)
    assert store.read_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1").equals(assignments(300))
    assert store.partition_rows(CLUSTER_ASSIGNMENTS, HOUR, "r1") == 300
    assert sum(batch.num_rows for batch in store.iter_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1", 64)) == 300
    assert store.partitions(CLUSTER_ASSIGNMENTS, "r1") == [HOUR]
    assert store.has_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1")

    store.write_json("releases/r1/release.json", {"note": "ä"})
    assert store.read_json("releases/r1/release.json") == {"note": "ä"}
    assert store.files("releases", ".json") == ["releases/r1/release.json"]
    assert (store.folders("releases"), store.folders("releases/r1"), store.folders("none")) == (["r1"], [], [])
    age = datetime.now(UTC) - datetime.fromtimestamp(store.modified("releases")["releases/r1/release.json"], UTC)
    assert abs(age) < timedelta(minutes=1)

    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.bin").write_bytes(bytes(range(256)))
    store.put_folder(folder, "models/kind/1")
    copy = store.get_folder("models/kind/1", tmp_path / "copy")
    assert {f.relative_to(copy).as_posix(): f.read_bytes() for f in copy.rglob("*") if f.is_file()} == {
        "a.txt": b"a",
        "sub/b.bin": bytes(range(256)),
    }
    store.delete("models")
    assert store.files("models") == [] and not store.exists("models/kind/1/a.txt")
    assert store.exists(PATH)
    store.delete("models")


def test_a_file_is_moved_whole(store: Store) -> None:
    store.write_bytes("segments/a", b"rows")
    store.move("segments/a", "quarantine/segments/a")
    assert not store.exists("segments/a") and store.read_bytes("quarantine/segments/a") == b"rows"
    with pytest.raises(NotProcessedError, match="there is no such file"):
        store.move("segments/a", "quarantine/segments/a")


def test_an_absent_partition_says_what_to_do(store: Store) -> None:
    for read in (store.read_partition, store.partition_rows, lambda *a: next(store.iter_partition(*a))):
        with pytest.raises(NotProcessedError, match=r"has not been materialized.*laps backfill"):
            read(CLUSTER_ASSIGNMENTS, HOUR, "r1")
    assert store.files("nothing") == [] and store.modified("nothing") == {}
    with pytest.raises(NotProcessedError, match="no such folder"):
        store.get_folder("nothing", Path("unused"))


def test_a_truncated_file_names_itself(store: Store) -> None:
    write(store, 300)
    store.write_bytes(PATH, store.read_bytes(PATH)[:200])
    for read in (store.read_partition, store.partition_rows):
        with pytest.raises(StoreError, match=r"part-0.parquet: is no readable Parquet file"):
            read(CLUSTER_ASSIGNMENTS, HOUR, "r1")


def test_no_listing_is_stale(store: Store, s3: S3) -> None:
    other = ObjectStorage(skip_instance_cache=True)  # as another process has it
    path = f"{s3.url}/t/a"
    assert store.files("t") == [] and not store.exists("t/a")
    other.pipe_file(path, b"1")
    assert store.files("t") == ["t/a"] and store.exists("t/a") and store.read_bytes("t/a") == b"1"
    other.pipe_file(path, b"22")
    assert store.read_bytes("t/a") == b"22"
    other.rm_file(path)
    assert store.files("t") == [] and not store.exists("t/a")


FAULTS = ["500", "503", "reset", "cut request", "cut response", "lost"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", FAULTS)
def test_a_transient_fault_is_survived(store: Store, s3: S3, kind: str) -> None:
    # Two of each kind of request, one after another.
    for method in ("PUT", "GET", "HEAD", "POST"):
        s3.proxy.fault(kind, method=method, times=2)
    write(store, 300)
    assert store.read_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1").equals(assignments(300))
    assert store.files("cluster_assignments") == [PATH]
    store.delete("cluster_assignments")
    assert not store.exists(PATH)
    assert all(fault.seen for fault in s3.proxy.faults)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", FAULTS)
def test_a_lasting_fault_names_the_object_and_nothing_is_half(store: Store, s3: S3, kind: str) -> None:
    write(store, 3)
    before = store.read_bytes(PATH)
    puts = s3.proxy.fault(kind, method="PUT", times=99)
    gets = s3.proxy.fault(kind, method="GET", times=99)
    if kind == "cut response":
        puts.times = 0  # a PUT's answer has no body
    else:
        with pytest.raises(StoreError, match=r"part-0.parquet: cannot be written") as caught:
            write(store, 5)
        check_no_secret(caught.value, s3)
        assert 3 <= puts.seen <= 6  # aiohttp itself sends once more after a reset
    if kind != "cut request":  # a GET has no body to cut
        with pytest.raises(StoreError, match=r"part-0.parquet: cannot be read") as caught:
            store.read_bytes(PATH)
        check_no_secret(caught.value, s3)
        assert 3 <= gets.seen <= 6
        with pytest.raises(StoreError, match=r"part-0.parquet: cannot be read"):
            store.read_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1")
        with pytest.raises(StoreError, match=r"cluster_assignments: cannot be listed"):
            store.files("cluster_assignments")
    s3.proxy.reset()
    if kind != "lost":  # there the file was written, and only its answer missed
        assert store.read_bytes(PATH) == before
    write(store, 5)
    assert store.partition_rows(CLUSTER_ASSIGNMENTS, HOUR, "r1") == 5


def check_no_secret(error: LapsError, s3: S3) -> None:
    text = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__)
    assert s3.secret not in text
    assert os.environ["AWS_ENDPOINT_URL"] not in str(error)


@pytest.mark.usefixtures("quick")
def test_a_slow_answer_is_waited_for(store: Store, s3: S3) -> None:
    s3.proxy.fault("delay", method="PUT", seconds=0.5)
    write(store, 3)
    assert len([r for r in s3.proxy.requests if r.method == "PUT"]) == 1


@pytest.mark.usefixtures("impatient")
def test_an_endless_delay_ends(store: Store, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.object_storage, "READ_TIMEOUT_S", 0.2)
    fault = s3.proxy.fault("delay", seconds=1, times=99)
    with pytest.raises(StoreError, match=r"cannot be written.*ReadTimeoutError"):
        store.write_bytes("a", b"1")
    assert fault.seen == 3


@pytest.mark.usefixtures("impatient")
def test_wrong_keys_an_absent_bucket_and_a_dead_endpoint(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="bucket does not exist") as caught:
        Store("s3://no-such-bucket/x").write_bytes("a", b"")
    with pytest.raises(StoreError, match=r"no-such-bucket/x/t: cannot be listed.*bucket does not exist"):
        Store("s3://no-such-bucket/x").files("t")

    def calls(message: str) -> None:
        ObjectStorage.clear_instance_cache()
        store = Store(s3.url)
        for call in (lambda: store.exists("a"), lambda: store.read_bytes("a"), lambda: store.write_bytes("a", b"1")):
            with pytest.raises(StoreError, match=message) as caught:
                call()
            check_no_secret(caught.value, s3)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong := "w" * 40)
    calls(r"/a: cannot be .*Check the credentials")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    calls("there are no whole AWS credentials")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    calls("there are no whole AWS credentials")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    calls(r"did not answer.*check AWS_ENDPOINT_URL")
    assert wrong not in "".join(traceback.format_exception(caught.value))


WRITER = """
import sys
from resources import object_storage
from resources.store import Store
object_storage.PART_BYTES = int(sys.argv[4])
Store(sys.argv[1]).write_bytes("a", bytes([int(sys.argv[2])]) * int(sys.argv[3]))
"""


# More than the buffers of two sockets hold: what has been sent arrives after the sender's death.
@pytest.mark.parametrize("part", [2**24, 2**23], ids=["one request", "parts"])
def test_killed_in_the_middle_of_an_upload(store: Store, s3: S3, part: int, tmp_path: Path) -> None:
    store.write_bytes("a", b"old")
    in_parts = part == 2**23
    fault = s3.proxy.fault("hold", method="PUT", path="partNumber=2" if in_parts else "/a$")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, s3.url, "7", str(24 * 2**20), str(part)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert fault.held.wait(20)
        assert store.read_bytes("a") == b"old"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    fault.release.set()
    assert store.read_bytes("a") == b"old"
    assert store.files("") == ["a"]
    # The local copy, and the parts that did arrive, are removed once they are old.
    assert store.remove_leftovers() == 0
    assert store.remove_leftovers(older_than_s=-60) == 1 + in_parts
    assert store.remove_leftovers(older_than_s=-60) == 0
    store.write_bytes("a", b"new")
    assert store.read_bytes("a") == b"new"


@pytest.mark.usefixtures("impatient")
def test_a_large_file_goes_up_in_parts_and_a_failed_one_is_aborted(
    store: Store, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.object_storage, "PART_BYTES", 2**19)
    content = os.urandom(2**21 + 17)
    s3.proxy.fault("cut request", method="PUT", path="partNumber=3")
    store.write_bytes("big", content)
    assert store.read_bytes("big") == content
    assert len({r.path for r in s3.proxy.requests if "partNumber" in r.path}) == 5
    s3.proxy.fault("500", method="PUT", path="partNumber=2", times=99)
    with pytest.raises(StoreError, match="big: cannot be written"):
        store.write_bytes("big", b"x" * len(content))
    assert store.read_bytes("big") == content
    assert store.remove_leftovers(older_than_s=-60) == 0


def test_two_writers_of_one_path_leave_one_whole_file(store: Store, s3: S3) -> None:
    sizes = {1: 700_000, 2: 1_100_000}
    held = s3.proxy.fault("hold", method="PUT")
    slow = threading.Thread(target=store.write_bytes, args=("a", bytes([1]) * sizes[1]))
    slow.start()
    assert held.held.wait(10)
    Store(s3.url).write_bytes("a", bytes([2]) * sizes[2])
    assert store.read_bytes("a") == bytes([2]) * sizes[2]
    held.release.set()
    slow.join()
    assert store.read_bytes("a") == bytes([1]) * sizes[1]


def test_a_file_replaced_while_it_is_read_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.object_storage, "BLOCK_BYTES", 2**14)
    rows = assignments(20_000)
    store.write_partition(CLUSTER_ASSIGNMENTS, HOUR, rows, "r1")
    source = store.open(PATH)
    source.read(2**10)
    # A longer file: what follows could be read without an error.
    store.write_bytes(PATH, bytes(2 * len(store.read_bytes(PATH))))
    with pytest.raises(OSError, match="no longer exists"):
        source.read()
    source.close()

    # The replacement comes between the footer and the data of the first reading.
    import pyarrow.parquet as pq

    class Late(pq.ParquetFile):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            if replacements:
                write(store, replacements.pop())

    monkeypatch.setattr(pq, "ParquetFile", Late)
    replacements = [7]
    store.write_partition(CLUSTER_ASSIGNMENTS, HOUR, rows, "r1")
    assert store.read_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1").equals(assignments(7))


def test_a_small_column_of_a_large_file_costs_few_bytes(store: Store, s3: S3) -> None:
    rng = np.random.default_rng(0)
    groups = [
        rows_table(
            KEYFRAMES,
            [
                {
                    "camera": "01",
                    "sample": 100 * group + place,
                    "time": to_datetime(10**9 * place),
                    "frame_time": to_datetime(10**9 * place),
                    "width_px": 8,
                    "height_px": 8,
                    "jpeg": rng.bytes(2**16),
                }
                for place in range(16)
            ],
        )
        for group in range(8)
    ]
    path = store.partition_path(KEYFRAMES, HOUR)
    with store.writer(KEYFRAMES, path) as writer:
        for rows in groups:
            writer.write(rows)
    size = len(store.read_bytes(path))
    assert size > 1.5 * resources.object_storage.BLOCK_BYTES
    whole = pa.concat_tables(groups)
    for columns, bytes_read, requests in ((["sample", "time"], size / 50, 12), (None, 1.02 * size + 2**17, 16)):
        s3.proxy.reset()
        read = store.read_partition(KEYFRAMES, HOUR, columns=columns)
        assert read.equals(whole.select(columns) if columns else whole)
        gets = [request for request in s3.proxy.requests if request.method == "GET"]
        assert sum(request.bytes_out for request in gets) < bytes_read
        assert len(gets) <= requests
    # Of a file that is no longer than a block everything is one request.
    write(store, 300)
    for columns in (["cluster_id"], None):
        s3.proxy.reset()
        store.read_partition(CLUSTER_ASSIGNMENTS, HOUR, "r1", columns)
        assert [request.method for request in s3.proxy.requests] == ["HEAD", "GET"]


def test_only_one_process_creates(store: Store, s3: S3, tmp_path: Path) -> None:
    for place in (store, Store(str(tmp_path / "local"))):
        barrier = threading.Barrier(6)
        won: list[int] = []

        def attempt(n: int, place: Store = place, barrier: threading.Barrier = barrier, won: list[int] = won) -> None:
            barrier.wait()
            if place.create("releases/r1/taken", b"%d" % n):
                won.append(n)

        threads = [threading.Thread(target=attempt, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert place.read_bytes("releases/r1/taken") == b"%d" % won[0]
        assert not place.create("releases/r1/taken", b"other")
        assert place.files("") == ["releases/r1/taken"]


@pytest.mark.usefixtures("quick")
def test_an_own_creation_whose_answer_was_lost_counts(store: Store, s3: S3) -> None:
    s3.proxy.fault("lost", method="PUT")
    assert store.create("taken", b"mine")


def test_a_forked_process_reads_too(store: Store) -> None:
    store.write_bytes("a", b"1")
    assert store.read_bytes("a") == b"1"
    store._fs_of_process = -1  # what a fork leaves
    assert store.read_bytes("a") == b"1"


def test_a_recording_is_registered_by_range_requests(s3: S3, store: Store, tmp_path: Path) -> None:
    # Noise, lossless, so that it is large without many frames; its index is at the end.
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    video = write_video(
        tmp_path / "a.mp4",
        pts_s=[n / 25 for n in range(70)],
        width=640,
        height=480,
        draw=lambda index, _: np.roll(noise, 7 * index, axis=0),
        codec_options={"qp": "0"},
        gop=5,
    )
    size = video.stat().st_size
    uri = f"{s3.url}/landing/01/cam_20261121T050000Z.mp4"
    fs, path = file_system(uri)
    fs.publish(str(video), path)
    s3.proxy.reset()
    (row,) = Recordings(store, f"{s3.url}/landing").scan()
    assert isinstance(row, dict), row
    assert row["reason"] is None
    assert (row["status"], row["uri"], row["size_bytes"]) == ("ok", uri, size)
    # Listed, looked at, read at both ends: with the row's own file, a few requests.
    assert not any(r.path.split("?")[0].endswith(".mp4.json") for r in s3.proxy.requests)
    reads = [r for r in s3.proxy.requests if r.method == "GET" and r.path.endswith(".mp4")]
    asked = [tuple(map(int, r.range.removeprefix("bytes=").split("-"))) for r in reads]
    assert min(first for first, _ in asked) == 0 and max(last for _, last in asked) == size - 1
    assert len(asked) == len(set(asked)) <= 4
    assert all(r.bytes_out == last - first + 1 for r, (first, last) in zip(reads, asked, strict=True))
    assert 0 < sum(r.bytes_out for r in reads) < size / 10
    # Offered by its URL, without a listing: one request for each name that a sidecar may have.
    s3.proxy.reset()
    assert Recordings(store).register(uri, "01")["recording_id"] == row["recording_id"]
    sidecars = [
        (r.method, r.path.rpartition("/")[2]) for r in s3.proxy.requests if "landing" in r.path and ".json" in r.path
    ]
    name = uri.rpartition("/")[2]
    assert sorted(sidecars) == [("GET", name.replace(".mp4", ".json")), ("GET", f"{name}.json")]
    # The register is listed once, its copy is looked for, and each of its files is one request.
    s3.proxy.reset()
    assert Recordings(store).of_camera("01", touching=(0, 2**62)) == [row]
    assert Recordings(store).of_camera("01", touching=(0, 1)) == []
    assert [r.method for r in s3.proxy.requests] == ["GET"] * 6
