"""The asset graph on a real S3 server with faults on the way: the tables are those of a run on a local disk."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from laps import tables
from laps.simulation import SCENARIOS, record
from laps.timegrid import CameraHour, parse_utc
from laps_dagster import pipeline
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.pipeline import Backfill, Options, Progress, select_hours
from laps_dagster.runs import Task, execute
from resources.catalog import open_catalog
from resources.models import ModelRegistry
from resources.object_storage import ObjectStorage
from resources.recordings import Recordings
from resources.reporting import render_report
from resources.s3_server import S3Server
from resources.settings import store_settings
from resources.store import Store, file_system
from tests.s3 import BUCKET, Fault, Proxy, Request, s3_server
from tests.test_store_s3 import no_waits
from tests.tokenizers import narrow_heads
from tests.workers import InThisProcess

__all__ = ["s3_server"]

CAMERA = "cam1"
START = parse_utc("2026-01-05T09:00:10Z")
HOURS = [CameraHour.parse(f"{CAMERA}|2026-01-05-{hour:02}:00") for hour in (9, 10)]
SCENARIO = replace(SCENARIOS["clean"], seed=3, duration_s=24.0, width_px=320, height_px=180, fps=15.0)
ROOT = Path(__file__).parent.parent
# What says where a recording lies and when it came there, and what is made from that.
ELSEWHERE = {"recording_id", "uri", "etag", "registered_at"}
PRIMITIVES = (
    "select segment_id, start_time, end_time, cluster_id, codes, clip is not null from primitives order by segment_id"
)
# Kind of fault, method and path of the request that meets it: each once, and the run goes on.
FAULTS = (
    ("500", "PUT", "recordings/"),
    ("503", "GET", "recordings/"),
    ("reset", "GET", "landing/.*mp4"),
    ("cut response", "GET", "landing/.*mp4"),
    ("cut request", "PUT", "keypoint_tracks/"),
    ("cut response", "GET", "keypoint_tracks/"),
    ("lost", "PUT", "models/tokenizer/"),
    ("reset", "PUT", "latent_stream/"),
    ("503", "PUT", r"clip_files/.*mp4"),
    ("500", "HEAD", "segments/"),
    ("cut response", "GET", "segment_embeddings/"),
    ("reset", "GET", "list-type"),
    ("cut request", "PUT", "report.html"),
)


@dataclass(frozen=True)
class Processed:
    """Two stores in which the same recording was processed.

    Attributes:
        local, remote: the stores.
        proxy: before the remote one.
        faults: what the requests of its run met.
        landed_bytes: size of the recording.
        reads: the requests for it that were not answered with an error.
        said: the lines of the remote run.
    """

    local: Store
    remote: Store
    proxy: Proxy
    faults: list[Fault]
    landed_bytes: int
    reads: list[Request]
    said: list[str]


@pytest.fixture(scope="module")
def processed(s3_server: tuple[Proxy, S3Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processed]:
    folder = tmp_path_factory.mktemp("both")
    proxy, server = s3_server
    proxy.reset()
    record(folder / "landing", SCENARIO, camera=CAMERA, view=0, start_ns=START)
    with pytest.MonkeyPatch.context() as patch, narrow_heads():
        patch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in server.environment(proxy.url).items():
            patch.setenv(name, value)
        ObjectStorage.clear_instance_cache()

        def trained(name: str, root: str, landing: str) -> Store:
            patch.setenv("LAPS_STORE", root)
            patch.setenv("LAPS_LANDING", landing)
            patch.setenv("DAGSTER_HOME", str(folder / f"dagster_{name}"))
            store = Store()
            store_settings(store)
            train(store)
            return store

        local = trained("local", str(folder / "store"), str(folder / "landing"))
        process_here(local)
        remote_landing = f"s3://{BUCKET}/both/landing"
        patch.setenv("LAPS_LANDING", remote_landing)
        with Recordings(local).to_land() as landing:
            shutil.copytree(folder / "landing", landing, dirs_exist_ok=True)
        proxy.reset()
        faults = [proxy.fault(kind, method=method, path=path) for kind, method, path in FAULTS]
        # The waits before a request is tried again have tests of their own.
        no_waits(patch)
        remote = trained("s3", f"s3://{BUCKET}/both/store", remote_landing)
        patch.setattr(pipeline, "Runner", InThisProcess)
        said = process(remote)
        reads = [r for r in proxy.requests if r.method == "GET" and r.path.split("?")[0].endswith("Z.mp4")]
        (landed,) = (folder / "landing").rglob("*.mp4")
        yield Processed(local, remote, proxy, faults, landed.stat().st_size, reads, said)
        proxy.reset()
        ObjectStorage.clear_instance_cache()


def train(store: Store) -> None:
    """Ingest, and train a tokenizer for a number of steps: what ends after seconds is never the same twice."""
    (row,) = Recordings(store).scan()
    assert isinstance(row, dict) and row["status"] == "ok", row
    register_cameras([CAMERA])
    make(Task("track", hour.key) for hour in HOURS)
    config = {"preset": "small", "max_steps": 10, "hours": [HOURS[0].key]}
    make([Task("train_tokenizer", ops={"motion_tokenizer": {"config": config}})])


def make(tasks: Iterable[Task]) -> None:
    for task in tasks:
        outcome = execute(task)
        assert outcome.ok, outcome.error


def process(store: Store) -> list[str]:
    """The rest as a backfill does it, and the report; returns what it said."""
    lines: list[str] = []
    options = Options(k=2, workers=1, only_missing=True)
    hours = select_hours(Recordings(store), [], None, None)
    backfill = Backfill(store, hours, options, Progress(report=lines.append))
    backfill.run()
    assert not backfill.progress.failures, "\n".join(lines)
    return lines


def process_here(store: Store) -> None:
    """The same jobs one by one in this process, without the report."""
    make(Task("encode", hour.key) for hour in HOURS)
    make([Task("calibrate", CAMERA)])
    make(Task("cut", hour.key) for hour in HOURS)
    make([Task("fit_clusters", ops={"cluster_model": {"config": {"k": 2, "seed": 0}}})])
    make(Task("assign", hour.key) for hour in HOURS)
    registry = ModelRegistry(store)
    registry.promote(registry.to_read().name)


def comparable(table: tables.Table, store: Store, hour: CameraHour, model: str | None) -> pa.Table:
    columns = [name for name in table.column_names if name not in ELSEWHERE]
    return store.read_partition(table, hour, model, columns=columns)


def test_every_table_is_that_of_the_local_run_row_for_row(processed: Processed) -> None:
    local, remote = ModelRegistry(processed.local).to_read(), ModelRegistry(processed.remote).to_read()
    assert replace(remote, created_at="", promoted_at="") == replace(local, created_at="", promoted_at="")
    compared = 0
    for table in tables.TABLES.values():
        if table.partitioned == "camera_hour":
            model = local.model_of(table)
            assert processed.remote.partitions(table, model) == processed.local.partitions(table, model) == HOURS
            for hour in HOURS:
                ours, theirs = (comparable(table, store, hour, model) for store in (processed.remote, processed.local))
                assert ours.equals(theirs), f"{table.name} of {hour.key}"
                compared += ours.num_rows
    assert compared > 500
    clips = processed.local.files("clip_files", ".mp4")
    assert len(clips) >= 3
    assert processed.remote.files("clip_files", ".mp4") == clips
    assert all(processed.remote.read_bytes(clip) == processed.local.read_bytes(clip) for clip in clips)


def test_every_fault_was_met(processed: Processed) -> None:
    assert [fault for fault in processed.faults if not fault.seen] == []


def test_the_recording_is_read_by_ranges_and_not_copied(processed: Processed) -> None:
    (row,) = Recordings(processed.remote).of_camera(CAMERA)
    assert row["uri"].startswith(f"s3://{BUCKET}/both/landing/{CAMERA}/")
    size = processed.landed_bytes
    assert all(re.fullmatch(r"bytes=\d+-\d+", request.range) for request in processed.reads)
    # Each stage that opens it (registering, describing two hours, tracking, cutting) reads it once, as it is smaller
    # than a block; two faults cost one reading each.
    assert 4 * size <= sum(request.bytes_out for request in processed.reads) <= 7 * size
    copies = [
        path for path in processed.remote.files("") if path.endswith(".mp4") and not path.startswith("clip_files/")
    ]
    assert copies == []


def test_the_catalog_answers_the_same_on_both(processed: Processed) -> None:
    answers = []
    for store in (processed.local, processed.remote):
        connection = open_catalog(store)
        answers.append(connection.execute(PRIMITIVES).fetchall())
        connection.close()
    assert answers[0] == answers[1]
    assert len(answers[0]) >= 3


def test_the_report_lies_where_the_run_says_and_shows_the_same_pictures(processed: Processed) -> None:
    release = ModelRegistry(processed.remote).to_read()
    (url,) = [line.removeprefix("publish: report ") for line in processed.said if line.startswith("publish: report ")]
    assert url == f"s3://{BUCKET}/both/store/reports/release={release.name}/report.html"
    fs, path = file_system(url)
    page = fs.cat_file(path).decode()
    pictures = re.findall(r"data:image/jpeg;base64,[^\"]+", page)
    local = render_report(processed.local, ModelRegistry(processed.local).to_read())
    assert pictures and pictures == re.findall(r"data:image/jpeg;base64,[^\"]+", local)
    # It stands alone: nobody who opens it needs the store.
    assert "s3://" not in page and str(processed.local.root) not in page


def test_a_run_killed_in_the_middle_of_an_upload_leaves_no_partition_and_the_next_completes_it(
    processed: Processed,
) -> None:
    store, hour, proxy = processed.remote, HOURS[0], processed.proxy
    path = store.partition_path(tables.KEYPOINT_TRACKS, hour)
    before = store.read_bytes(path)
    store.delete(path)
    # The sender's machine dies: nothing more of the upload arrives.
    fault = proxy.fault("hold", method="PUT", path="keypoint_tracks/", then="reset")
    code = f"from laps_dagster.runs import *; execute(Task('track', {hour.key!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ))
    try:
        assert fault.held.wait(60)
        assert not store.exists(path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    fault.release.set()
    assert hour not in store.partitions(tables.KEYPOINT_TRACKS)
    make([Task("track", hour.key)])
    assert store.read_bytes(path) == before
