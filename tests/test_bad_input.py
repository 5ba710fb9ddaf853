"""Stores that are absent, read-only, full, elsewhere or damaged: what a person reads, and that nothing is lost."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import resources.object_storage
from laps.clip_set import PrimitiveClip, cut_primitives
from laps.errors import StoreError, UnreachableError
from laps.sampling import Piece
from laps.tables import CLIPS, CLUSTER_ASSIGNMENTS, RAW_VIDEO, RECORDINGS, SEGMENTS
from laps.timegrid import NS_PER_S, CameraHour, parse_utc, to_datetime
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.runs import Task, execute
from resources.catalog import open_catalog, run_query
from resources.curation import Selection, choose
from resources.datasets import Format, publish, versions, write_dataset
from resources.object_storage import ObjectStorage, object_storage
from resources.recordings import Recordings, file_info, open_uri
from resources.settings import store_settings
from resources.store import Store
from tests.conftest import Laps
from tests.export_store import ExportStore
from tests.s3 import S3, s3, s3_server
from tests.test_cli import run
from tests.test_store_s3 import impatient, quick
from tests.videos import write_video

__all__ = ["impatient", "quick", "run", "s3", "s3_server"]

HOUR = CameraHour.parse("a|2026-11-21-05:00")
OTHER_HOUR = CameraHour.parse("a|2026-11-21-06:00")


@pytest.fixture
def remote(made: ExportStore, s3: S3) -> ExportStore:
    """The small store in the bucket, without the pictures of its clips."""
    paths = [path for path in made.store.files("") if not path.endswith(".mp4")]
    object_storage().put([made.store.full_path(path) for path in paths], [f"{s3.url}/{path}" for path in paths])
    return ExportStore(Store(s3.url), made.release, made.rows)


@pytest.fixture(autouse=True)
def _own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(params=["local", "s3"])
def anywhere(request: pytest.FixtureRequest) -> ExportStore:
    """The small store, which the test may spoil, on a disk and in object storage."""
    store = request.getfixturevalue("fresh" if request.param == "local" else "remote")
    assert isinstance(store, ExportStore)
    return store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def rows_of(store: Store, release: str, hour: CameraHour = HOUR) -> pa.Table:
    return store.read_partition(SEGMENTS, hour, release)


def more_rows(rows: pa.Table) -> pa.Table:
    """Rows in the place of ``rows``, in a file too large for the small disk."""
    noise = [random.Random(n).randbytes(400).hex() for n in range(2000)]
    wide = pa.concat_tables([rows.slice(0, 1)] * len(noise)).combine_chunks()
    return wide.set_column(wide.schema.get_field_index("segment_id"), SEGMENTS.schema().field("segment_id"), [noise])


# --- a store that does not exist ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["status"], ["sql", "select 1"], ["ingest"]], ids=lambda command: command[0])
def test_a_bucket_that_does_not_exist(run: Laps, s3: S3, command: list[str]) -> None:
    code, out, err = run("--store", "s3://no-such-bucket/store", *command)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "Traceback" not in err
    assert err.startswith("laps: s3://no-such-bucket/store/")
    assert "the bucket does not exist. Create the bucket, or correct the URL (LAPS_STORE, LAPS_LANDING)." in err


def test_a_landing_zone_whose_bucket_does_not_exist(run: Laps, s3: S3) -> None:
    code, out, err = run("ingest", "--landing", "s3://no-such-bucket")
    assert (code, out) == (1, "")
    assert "s3://no-such-bucket/: cannot be listed: the bucket does not exist" in err


def test_an_empty_place_in_a_bucket_is_no_store_for_reading(run: Laps, s3: S3) -> None:
    code, out, err = run("--store", s3.url, "status")
    assert (code, out) == (1, "")
    assert f"{s3.url}: there is no store here. `laps ingest PATH --camera NAME`" in err
    assert Store(s3.url).files("") == []


# --- a store that is read-only -----------------------------------------------------------------------------------


def test_a_disk_that_is_read_only(small_disk: Path, made: ExportStore) -> None:
    shutil.copytree(made.store.full_path("segments"), small_disk / "segments")
    store = Store(str(small_disk))
    rows = rows_of(store, made.release.name)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    path = store.partition_path(SEGMENTS, HOUR, made.release.name)
    for write in (
        lambda: store.write_partition(SEGMENTS, HOUR, rows, made.release.name),
        lambda: store.write_bytes("new/file", b"1"),
        lambda: store.create("new/file", b"1"),
    ):
        with pytest.raises(StoreError, match=r"cannot be written: Read-only file system.*is writable") as caught:
            write()
        assert caught.value.where in (store.url(path), store.url("new/file"))
    with pytest.raises(StoreError, match=r"cannot be deleted: Read-only file system") as caught:
        store.delete(path)
    assert rows_of(store, made.release.name).equals(rows)


def test_keys_that_may_only_read(remote: ExportStore, s3: S3, run: Laps, tmp_path: Path) -> None:
    store, release = remote.store, remote.release.name
    s3.proxy.fault("403 AccessDenied", method="PUT|POST|DELETE", times=10**6)
    path = store.partition_path(SEGMENTS, HOUR, release)
    before = store.read_bytes(path)
    with pytest.raises(StoreError, match=r"cannot be written: AccessDenied.*what they may do") as caught:
        store.write_partition(SEGMENTS, HOUR, rows_of(store, release).slice(0, 1), release)
    assert caught.value.where == store.url(path)
    with pytest.raises(StoreError, match=r"cannot be deleted: AccessDenied"):
        store.delete(path)
    assert store.read_bytes(path) == before
    # Who only reads needs no more than that.
    code, out, _ = run("--store", store.root, "sql", "--release", release, "select count(*) as n from primitives")
    assert (code, out.split()[2]) == (0, str(len(remote.rows)))
    code, out, err = run("--store", store.root, "name", "--release", release, "1", "fasten")
    assert (code, out) == (1, "") and "cannot be written: AccessDenied" in err and store.root in err


# --- a store that is full ----------------------------------------------------------------------------------------


def test_a_disk_that_is_full(small_disk: Path, made: ExportStore) -> None:
    shutil.copytree(made.store.full_path("segments"), small_disk / "segments")
    store, release = Store(str(small_disk)), made.release.name
    rows, other = rows_of(store, release), rows_of(store, release, OTHER_HOUR)
    path = store.partition_path(SEGMENTS, HOUR, release)
    for write, where in (
        (lambda: store.write_partition(SEGMENTS, HOUR, more_rows(rows), release), path),
        (lambda: store.write_bytes("clips/a.mp4", bytes(2**20)), "clips/a.mp4"),
        (lambda: store.create("taken", bytes(2**20)), "taken"),
        (lambda: store.put_file(big_file(small_disk.parent), "clips/b.mp4"), "clips/b.mp4"),
    ):
        with pytest.raises(StoreError, match=r"cannot be written: .*No space left.*has room") as caught:
            write()
        assert caught.value.where == store.url(where)
    # The old rows are there, no rest takes room, and the disk takes what fits.
    assert rows_of(store, release).equals(rows) and rows_of(store, release, OTHER_HOUR).equals(other)
    assert not [file for file in small_disk.rglob("*") if file.name.startswith(".tmp-")]
    store.write_partition(SEGMENTS, HOUR, rows.slice(0, 1), release)
    assert rows_of(store, release).num_rows == 1


def big_file(folder: Path) -> Path:
    file = folder / "big"
    file.write_bytes(bytes(2**20))
    return file


def test_an_export_onto_a_full_disk(small_disk: Path, made: ExportStore, run: Laps) -> None:
    (small_disk / "filler").write_bytes(bytes(2**19 - 2**15))
    code, _, err = run(
        "--store", made.store.root, "export", "--release", made.release.name, "--format", "webdataset",
        "--out", small_disk / "set",
    )  # fmt: skip
    assert code == 1 and "Traceback" not in err
    assert "No space left on device" in err and str(small_disk / "set") in err
    assert [file.name for file in small_disk.iterdir()] == ["filler"]


def test_a_bucket_that_is_full(remote: ExportStore, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.object_storage, "PART_BYTES", 2**19)
    store, release = remote.store, remote.release.name
    rows = rows_of(store, release)
    for answer in ("507 InsufficientStorage", "403 QuotaExceeded", "507 XMinioStorageFull"):
        fault = s3.proxy.fault(answer, method="PUT", times=10**6)
        for write, where in (
            (lambda: store.write_partition(SEGMENTS, HOUR, rows.slice(0, 1), release),
             store.partition_path(SEGMENTS, HOUR, release)),
            (lambda: store.write_bytes("clips/large.mp4", bytes(2**21)), "clips/large.mp4"),  # in parts
        ):  # fmt: skip
            seen = fault.seen
            with pytest.raises(
                StoreError, match=r"cannot be written: the object storage has no room.*raise the quota"
            ) as caught:
                write()
            assert caught.value.where == store.url(where)
            assert fault.seen - seen <= resources.object_storage.PARTS_AT_ONCE  # not tried again: it does not help
        s3.proxy.reset()
    assert rows_of(store, release).equals(rows)
    assert not store.exists("clips/large.mp4")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert store.remove_leftovers(older_than_s=-60) == 0  # the parts that did arrive were taken back


def test_a_data_set_that_does_not_fit_into_the_bucket_is_none(made: ExportStore, s3: S3, tmp_path: Path) -> None:
    store = Store(s3.url)
    chosen = choose(made.store, made.release, Selection(clusters=(1,)))
    write_dataset(made.store, made.release, chosen, Format("webdataset"), tmp_path / "set", name="x")
    shutil.copytree(tmp_path / "set", tmp_path / "again")
    s3.proxy.fault("507 InsufficientStorage", method="PUT", path=r"datasets/.*\.tar", times=10**6)
    with pytest.raises(StoreError, match=r"datasets/x/v1/.*cannot be written: the object storage has no room"):
        publish(store, tmp_path / "set", "x", "v1")
    s3.proxy.reset()
    assert versions(store, "x") == []
    assert publish(store, tmp_path / "again", "x", "v1") == "datasets/x/v1"
    assert versions(store, "x") == ["v1"]


def test_a_run_that_cannot_write_says_where_and_what_to_do(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(s3.url)
    monkeypatch.setenv("LAPS_STORE", store.root)
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    store_settings(store)
    register_cameras(["a"])
    for answer, fix in (("507 InsufficientStorage", "raise the quota"), ("403 AccessDenied", "AWS_PROFILE")):
        s3.proxy.fault(answer, method="PUT", times=10**6)
        outcome = execute(Task("track", HOUR.key))
        assert not outcome.ok
        assert outcome.error.startswith(
            f"{s3.url}/raw_video/camera=a/date=2026-11-21/hour=05/part-0.parquet: cannot be written"
        )
        assert fix in outcome.error
        s3.proxy.reset()
    assert store.partitions(RAW_VIDEO) == []
    assert execute(Task("track", HOUR.key)).error == ""


# --- a wrong key, another region, an endpoint that is down -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_SECRET_ACCESS_KEY", "w" * 40, "signature"),
        ("AWS_ACCESS_KEY_ID", "AKIAOTHER", "Access Key Id you provided does not exist"),
    ],
)
def test_a_wrong_key(run: Laps, s3: S3, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    for command in (["status"], ["ingest"]):
        ObjectStorage.clear_instance_cache()
        code, out, err = run("--store", s3.url, *command)
        assert (code, out) == (1, "")
        assert err.count("\n") == 1 and s3.url in err and says in err and "AWS_PROFILE" in err
        assert value not in err and s3.secret not in err


ELSEWHERE: dict[str, Any] = {"xml": "<Region>eu-central-1</Region>", "headers": {"x-amz-bucket-region": "eu-central-1"}}


@pytest.mark.parametrize("answer", ["400 AuthorizationHeaderMalformed", "301 PermanentRedirect"])
def test_a_bucket_in_another_region_is_found_there(remote: ExportStore, s3: S3, answer: str) -> None:
    # As AWS answers: with the region, until a request is signed for it.
    s3.proxy.fault(answer, times=10**6, unless="/eu-central-1/s3/", **ELSEWHERE)
    ObjectStorage.clear_instance_cache()
    store = Store(s3.url)
    assert store.exists("settings.json")
    assert rows_of(store, remote.release.name).num_rows
    store.write_bytes("new", b"1")
    assert store.read_bytes("new") == b"1"


def test_an_endpoint_of_another_region_says_which(run: Laps, s3: S3) -> None:
    s3.proxy.fault("301 PermanentRedirect", times=10**6, **ELSEWHERE)
    ObjectStorage.clear_instance_cache()
    code, out, err = run("--store", s3.url, "status")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert f"{s3.url}/settings.json: cannot be looked for: the bucket lies in the region eu-central-1" in err
    assert "Set AWS_DEFAULT_REGION to eu-central-1, and AWS_ENDPOINT_URL, where it is set" in err
    with pytest.raises(StoreError, match=r"new: cannot be written: the bucket lies in the region eu-central-1"):
        Store(s3.url).write_bytes("new", b"1")


@pytest.mark.parametrize(
    ("environment", "store", "says"),
    [
        ({"AWS_ENDPOINT_URL": "minio:9000"}, "s3://b/x", "AWS_ENDPOINT_URL is no URL"),
        ({"AWS_PROFILE": "absent"}, "s3://b/x", "the profile in AWS_PROFILE is not in the AWS files"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "s3://b/x", "there are no whole AWS credentials"),
        ({}, "s3://No Bucket!/x", "a bucket cannot have this name. Create the bucket, or correct the URL"),
        ({}, "s3://", "the URL names no place. Give s3://bucket/prefix"),
        ({}, "nothing://b/x", "there is no access to nothing:// here"),
    ],
)
def test_settings_that_cannot_be(
    run: Laps, s3: S3, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], store: str, says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ObjectStorage.clear_instance_cache()
    code, out, err = run("--store", store, "status")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert says in err and err.startswith(f"laps: {store}") and "minio" not in err


def test_a_server_that_redirects_for_ever(s3: S3) -> None:
    s3.proxy.fault("301 PermanentRedirect", times=10**6)
    store = Store(s3.url)
    for call in (lambda: store.exists("a"), lambda: store.write_bytes("a", b"1"), lambda: store.files("a")):
        with pytest.raises(StoreError, match=r"in another region, and the server does not say in which"):
            call()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid:9000"])
def test_an_endpoint_that_is_down(
    run: Laps, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    video = write_video(tmp_path / "cam1_20260105T090000Z.mp4", seconds=2)
    for command in (
        ["status"],
        ["ingest", video, "--camera", "a"],
        ["sql", "select 1"],
        ["ingest", "--landing", s3.url],
    ):
        ObjectStorage.clear_instance_cache()
        store = str(tmp_path / "store") if "--landing" in command else s3.url
        began = time.monotonic()
        code, out, err = run("--store", store, *command)
        assert time.monotonic() - began < 20  # three attempts of six, without their waits
        assert (code, out) == (1, "") and err.count("\n") == 1
        assert s3.url in err and "did not answer" in err and "3 times" in err
        assert "check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the network" in err and endpoint not in err


def test_how_long_an_endpoint_that_is_down_is_tried() -> None:
    # What the documentation says: six attempts, and waits of 0 to 1, 2, 4, 8, 16 s between them.
    waits = [min(2.0**n, resources.object_storage.LONGEST_WAIT_S) for n in range(resources.object_storage.ATTEMPTS - 1)]
    assert sum(waits) == 31


@pytest.mark.usefixtures("impatient")
def test_a_recording_whose_storage_goes_away_is_named(s3: S3, tmp_path: Path) -> None:
    uri = f"{s3.url}/landing/a/cam_20261121T050000Z.mp4"
    landing = Store(f"{s3.url}/landing")
    landing.put_file(write_video(tmp_path / "a.mp4", seconds=2), "a/cam_20261121T050000Z.mp4")
    landing.put_file(write_video(tmp_path / "a.mp4", seconds=2), "b/cam_20261121T050000Z.mp4")
    recordings = Recordings(Store(str(tmp_path / "store")), landing.root)
    s3.proxy.fault("reset", path=r"landing/.*mp4", times=10**6)
    with pytest.raises(UnreachableError, match="cannot be reached: the object storage did not answer") as caught:
        list(recordings.scan())  # ends: the next would fail as well
    assert caught.value.where == uri
    with pytest.raises(UnreachableError):
        file_info(uri)
    s3.proxy.reset()
    file = open_uri(uri)
    s3.proxy.fault("reset", method="GET", path=r"landing/.*mp4", times=10**6)
    with pytest.raises(OSError, match="did not answer") as broken:
        file.read(1)
    assert broken.value.filename == uri  # whoever meets it knows which file it was
    file.close()
    s3.proxy.reset()
    assert [row["status"] for row in recordings.scan() if isinstance(row, dict)] == ["ok", "ok"]


@pytest.mark.usefixtures("impatient")
def test_a_network_that_goes_down_is_no_clip_that_cannot_be_cut(s3: S3, tmp_path: Path) -> None:
    store = Store(s3.url)
    store.put_file(write_video(tmp_path / "a.mp4", seconds=2), "a.mp4")
    start = parse_utc("2026-11-21T05:00:00Z")
    primitives = [{"segment_id": "s", "start_time": to_datetime(start), "end_time": to_datetime(start + NS_PER_S)}]

    def cut(name: str) -> list[PrimitiveClip]:
        piece = Piece(store.url(name), "r", start, start, start + 2 * NS_PER_S)
        return list(cut_primitives(primitives, [piece], open_uri))

    s3.proxy.fault("reset", method="GET", times=10**6)
    # Stored as clips that failed, the hour would count as done.
    with pytest.raises(OSError, match="did not answer") as broken:
        cut("a.mp4")
    assert broken.value.filename == store.url("a.mp4")
    s3.proxy.reset()
    assert [clip.reason for clip in cut("a.mp4")] == [None]
    (gone,) = cut("gone.mp4")
    assert gone.content is None and "gone.mp4" in (gone.reason or "")


# --- a selection that is none, or mixes ---------------------------------------------------------------------------


def test_a_condition_that_selects_nothing(run: Laps, anywhere: ExportStore, tmp_path: Path) -> None:
    code, out, err = run(
        "--store", anywhere.store.root, "export", "--release", anywhere.release.name,
        "--where", "duration_s > 1000", "--out", tmp_path / "set",
    )  # fmt: skip
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "nothing is selected (0 matched). Release r1 has 15 primitives of camera a, b" in err
    assert "widen the conditions" in err
    assert not (tmp_path / "set").exists()


def test_a_selection_that_mixes_tokenizers(run: Laps, anywhere: ExportStore, tmp_path: Path) -> None:
    store, release = anywhere.store, anywhere.release.name
    rows = rows_of(store, release, OTHER_HOUR)
    other = pa.array(["tother"] * rows.num_rows)
    rows = rows.set_column(rows.schema.get_field_index("tokenizer_id"), SEGMENTS.schema().field("tokenizer_id"), other)
    store.write_partition(SEGMENTS, OTHER_HOUR, rows, release)
    command = ["--store", store.root, "export", "--release", release, "--format", "segments"]
    code, out, err = run(*command, "--out", tmp_path / "set")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "the selection mixes models" in err and "tokenizer_id tother" in err
    assert f"again for {OTHER_HOUR.key}" in err and "or leave these hours out" in err
    assert not (tmp_path / "set").exists()
    code, _, _ = run(*command, "--to", "2026-11-21T06:00:00Z", "--out", tmp_path / "set")
    assert code == 0


# --- files that were truncated or replaced -------------------------------------------------------------------------


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def garbage(content: bytes) -> bytes:
    return random.Random(0).randbytes(len(content))


def damaged_inside(content: bytes) -> bytes:
    """The footer is whole, the pages are not."""
    return content[:4] + bytes(200) + content[204:]


def emptied(content: bytes) -> bytes:
    return b""


def test_a_file_that_was_damaged_is_named_and_the_rest_is_readable(anywhere: ExportStore) -> None:
    store, release = anywhere.store, anywhere.release.name
    path = store.partition_path(SEGMENTS, HOUR, release)
    good = store.read_bytes(path)
    for spoil in (truncated, garbage, damaged_inside, emptied):
        store.write_bytes(path, spoil(good))
        check_it_is_named(store, release, path)
        store.write_bytes(path, good)  # as materializing does
        assert rows_of(store, release).num_rows


def check_it_is_named(store: Store, release: str, path: str) -> None:
    with pytest.raises(StoreError, match=r"is no readable Parquet file.*Materialize this partition again") as caught:
        rows_of(store, release)
    assert caught.value.where == store.url(path)
    assert rows_of(store, release, OTHER_HOUR).num_rows
    connection = open_catalog(store, release)
    with pytest.raises(StoreError) as caught:
        run_query(connection, "SELECT segment_id, codes, start_time FROM primitives")
    assert store.url(path) in str(caught.value)
    other = f"WHERE camera = 'a' AND date = '{OTHER_HOUR.date}' AND hour = {int(OTHER_HOUR.hour)}"
    assert run_query(connection, f"SELECT segment_id FROM primitives {other}").num_rows
    assert run_query(connection, "SELECT * FROM recordings").num_rows
    connection.close()


def test_a_file_of_another_table_is_named_and_not_read_as_nulls(anywhere: ExportStore) -> None:
    store, release = anywhere.store, anywhere.release.name
    path = store.partition_path(SEGMENTS, HOUR, release)
    store.write_bytes(path, store.read_bytes(store.partition_path(CLIPS, HOUR, release)))
    for read in (
        lambda: rows_of(store, release),
        lambda: store.partition_rows(SEGMENTS, HOUR, release),
        lambda: list(store.iter_partition(SEGMENTS, HOUR, release)),
    ):
        with pytest.raises(StoreError, match=r"is a file of the table clips, not of segments.*again") as caught:
            read()
        assert caught.value.where == store.url(path)
    assert rows_of(store, release, OTHER_HOUR).num_rows
    with pytest.raises(StoreError, match="is a file of the table clips, not of segments"):
        choose(store, anywhere.release, Selection())
    assert choose(store, anywhere.release, Selection(start="2026-11-21T06:00:00Z")).items


def test_a_file_that_this_program_did_not_write(fresh: ExportStore) -> None:
    store, release = fresh.store, fresh.release.name
    path = store.partition_path(SEGMENTS, HOUR, release)
    with store.staged(path) as local:
        pq.write_table(pa.table({"colour": ["red"]}), local)
    with pytest.raises(StoreError, match="is no file of the table segments: it has no column segment_id"):
        rows_of(store, release)
    with store.staged(path) as local:
        pq.write_table(pa.table({"segment_id": ["s"], "duration_s": ["long"]}), local)
    with pytest.raises(StoreError, match="its column duration_s does not fit segments"):
        rows_of(store, release)


def test_a_damaged_row_of_the_register(anywhere: ExportStore) -> None:
    store = anywhere.store
    recordings = Recordings(store)
    path = next(path for path in store.files(f"{RECORDINGS.name}/camera=a"))
    content = store.read_bytes(path)
    # Of tables with times that could be a recording's, and without.
    others = [store.partition_path(table, HOUR, anywhere.release.name) for table in (SEGMENTS, CLUSTER_ASSIGNMENTS)]
    for bad in (truncated(content), *map(store.read_bytes, others)):
        store.write_bytes(path, bad)
        for read in (
            lambda: recordings.of_camera("a"),
            lambda: recordings.of_camera("a", touching=(HOUR.start_ns, HOUR.stop_ns)),
            lambda: recordings.hours("a"),
            lambda: recordings.cameras(),
        ):
            with pytest.raises(StoreError) as caught:
                read()
            assert caught.value.where == store.url(path)
    assert recordings.of_camera("b")
    store.write_bytes(path, content)
    assert recordings.cameras() == ["a", "b"]


def test_a_json_file_that_was_truncated_is_named(run: Laps, anywhere: ExportStore) -> None:
    store = anywhere.store
    for path in ("settings.json", "models/releases/r1/release.json", "models/releases/r1/tokenizer.json"):
        good = store.read_bytes(path)
        store.write_bytes(path, good[:5])
        code, out, err = run("--store", store.root, "export", "--release", "r1", "--out", "unused")
        assert (code, out) == (1, "") and "Traceback" not in err
        assert store.url(path) in err and "is not valid JSON" in err
        assert rows_of(store, "r1").num_rows
        store.write_bytes(path, good)
