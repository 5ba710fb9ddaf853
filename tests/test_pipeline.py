"""The asset graph end to end, through Dagster: two cameras of simulated work across an hour boundary."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetCheckEvaluation, DagsterEventType, RunsFilter

from assets.vital_checks import LOOKS
from laps import tables
from laps.calibration import Calibration
from laps.cameras import Camera
from laps.consistency import RULES
from laps.errors import InputError, NotProcessedError
from laps.forgotten import Forgotten
from laps.latent import LatentStream
from laps.segments import detections
from laps.simulation import SCENARIOS, record
from laps.single import encode_recording, read_recording, segment_recording, track_recording
from laps.timegrid import NS_PER_S, CameraHour, SampleGrid, from_datetime, parse_utc
from laps.tokenizer import load
from laps.trackers.flow import FlowTracker
from laps_dagster import pipeline
from laps_dagster.instance import open_instance
from laps_dagster.pipeline import Backfill, Options, Progress, select_hours
from laps_dagster.runs import Task, execute
from laps_dagster.weekly import weekly
from resources.cameras import Cameras
from resources.catalog import open_catalog, run_query
from resources.comparison import compare, earlier_numbers, kept
from resources.configured import StoreResource
from resources.forget import plan, remove
from resources.hours import read_previous
from resources.models import CALIBRATION, CALIBRATION_FILE, TOKENIZER, ModelRegistry, Release
from resources.recordings import Recordings
from resources.settings import store_settings
from resources.store import Store, hour_folder
from tests.tokenizers import narrow_heads
from tests.workers import InThisProcess, WithoutReport

START = parse_utc("2026-01-05T08:59:00Z")
LENGTH_S = 100.0
FIRST, SECOND, THIRD = (f"2026-01-05-{hour:02}:00" for hour in (8, 9, 10))
SCENARIO = replace(SCENARIOS["clean"], seed=3, duration_s=LENGTH_S, width_px=320, height_px=180, fps=15.0)
ROOT = Path(__file__).parent.parent


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backfills make their runs in this process."""
    monkeypatch.setattr(pipeline, "Runner", InThisProcess)


@pytest.fixture
def here_without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "Runner", WithoutReport)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store, a landing zone and a Dagster instance of this module's own."""
    folder = tmp_path_factory.mktemp("pipeline")
    settings = {
        "LAPS_STORE": str(folder / "store"),
        "LAPS_LANDING": str(folder / "landing"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "LAPS_FIRST_HOUR": "2026-01-01T00:00:00Z",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def store(environment: Path) -> Store:
    store = Store()
    store_settings(store)
    return store


@pytest.fixture(scope="module")
def processed(store: Store, environment: Path) -> Backfill:
    """Everything processed once: the bootstrap of an empty store."""
    landing = environment / "landing"
    record(landing, SCENARIO, camera="cam1", view=0, start_ns=START)
    record(landing, SCENARIO, camera="02", view=1, start_ns=START, stop_s=30.0)
    record(landing, SCENARIO, camera="02", view=1, start_ns=START, start_s=30.0, stop_s=70.0)
    (landing / "cam1" / "broken_20260105T090500Z.mp4").write_text("this is no video")
    recordings = Recordings(store)
    outcomes = list(recordings.scan())
    assert [row["status"] for row in outcomes if isinstance(row, dict)].count("quarantined") == 1
    from laps_dagster.cli.backfill import register_cameras

    register_cameras(["cam1", "02"])
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch, narrow_heads():
        # Workers are processes of their own elsewhere: when a draft is filled, and in the tests of kills.
        patch.setattr(pipeline, "Runner", InThisProcess)
        backfill = Backfill(
            store,
            select_hours(recordings, [], None, None),
            Options(preset="small", train_minutes=0.05, k=3),
            Progress(report=lines.append),
        )
        backfill.run()
    assert not backfill.progress.failures, "\n".join(lines)
    return backfill


@contextmanager
def put_back(store: Store, *folders: str) -> Iterator[None]:
    """Files in whose path one of these stands are afterwards as they were, and as old."""

    def files() -> list[str]:
        return [path for path in store.files("") if any(folder in path for folder in folders)]

    before = {path: store.read_bytes(path) for path in files()}
    written = {path: Path(store.full_path(path)).stat().st_mtime_ns for path in before}
    try:
        yield
    finally:
        store.delete_files([path for path in files() if path not in before])
        for path, content in before.items():
            store.write_bytes(path, content)
            os.utime(store.full_path(path), ns=(written[path], written[path]))


def test_the_bootstrap_makes_a_complete_release(processed: Backfill, store: Store) -> None:
    current = ModelRegistry(store).current()
    assert current is not None
    assert set(current.calibrations) == {"cam1", "02"}
    assert current.tokenizer and current.embedder and current.encoder and current.cluster_model
    assert current.encoder.startswith("weight_free:")


def test_every_hour_has_a_file_in_every_table(processed: Backfill, store: Store) -> None:
    expected = {CameraHour.parse(f"{camera}|{hour}") for camera in ("cam1", "02") for hour in (FIRST, SECOND, THIRD)}
    release = ModelRegistry(store).to_read()
    for table in tables.TABLES.values():
        if table.partitioned == "camera_hour":
            assert set(store.partitions(table, release.model_of(table))) == expected, table.name


def test_every_hour_was_checked_in_its_run_and_nothing_cried(processed: Backfill, store: Store) -> None:
    asked = {(check.table, check.name) for check in LOOKS} | {(table.name, f"{table.name}_adds_up") for table in RULES}
    for hour in (FIRST, SECOND, THIRD):
        seen: dict[tuple[str, str], AssetCheckEvaluation] = {}
        with open_instance() as instance:
            for run in instance.get_runs(RunsFilter(tags={"dagster/partition": f"cam1|{hour}"})):
                records = instance.get_records_for_run(run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION)
                for record in records.records:
                    assert record.event_log_entry.dagster_event is not None
                    found = record.event_log_entry.dagster_event.asset_check_evaluation_data
                    assert found.partition == f"cam1|{hour}"
                    seen[(found.asset_key.to_user_string(), found.check_name)] = found
        assert set(seen) == asked
        assert [found.description for found in seen.values() if not found.passed] == []
        assert not any(found.blocking for (_, name), found in seen.items() if not name.endswith("_adds_up"))


def test_the_catalog_joins_what_belongs_to_a_primitive(processed: Backfill, store: Store) -> None:
    connection = open_catalog(store)
    rows = connection.execute(
        "select camera, count(*), count(cluster_id), count(clip), min(len(codes)), count(distinct tokenizer_id) "
        "from primitives group by 1 order by 1"
    ).fetchall()
    connection.close()
    assert [row[0] for row in rows] == ["02", "cam1"]
    for _, count, clustered, clips, shortest, tokenizers in rows:
        assert count >= 5
        assert clustered == clips == count
        assert shortest >= 1
        assert tokenizers == 1


def test_the_hourly_split_equals_one_pass(processed: Backfill, store: Store) -> None:
    """Codes, boundaries and order of the two hours are those of the whole file, to the bit."""
    registry = ModelRegistry(store)
    release = registry.to_read()
    tokenizer = load(registry.folder(TOKENIZER, release.require(TOKENIZER)))
    stored = registry.folder(CALIBRATION, release.require(CALIBRATION, "cam1")) / CALIBRATION_FILE
    grid = SampleGrid()
    recording = read_recording(Path(Recordings(store).of_camera("cam1")[0]["uri"]), grid)
    stream = encode_recording(recording, track_recording(recording, FlowTracker(), grid), tokenizer, grid)
    whole = segment_recording(recording, stream, Calibration.from_json(stored.read_text()), grid)["segments"]
    split = [
        row
        for hour in (FIRST, SECOND, THIRD)
        for row in store.read_partition(tables.SEGMENTS, CameraHour.parse(f"cam1|{hour}"), release.name).to_pylist()
    ]
    assert len(split) == len(whole) >= 5
    assert any(row["start_time"].hour != row["end_time"].hour or row["start_time"].hour == 9 for row in split)
    for row, segment in zip(split, whole, strict=True):
        assert row["codes"] == segment["codes"]
        assert (from_datetime(row["start_time"]) - START) / NS_PER_S == pytest.approx(segment["start_sec"], abs=1e-6)
        assert (from_datetime(row["end_time"]) - START) / NS_PER_S == pytest.approx(segment["end_sec"], abs=1e-6)
        assert row["energy_peak"] == pytest.approx(segment["energy_peak"], rel=1e-6)


@pytest.mark.usefixtures("here_without_report")
def test_a_draft_that_cuts_without_rests_fits_its_hours_together(processed: Backfill, store: Store) -> None:
    """Taught by changes of the picture: primitives touch, across the hour too, and are those of one pass."""
    registry = ModelRegistry(store)
    draft = registry.open_draft("without rests", registry.current(), before=CALIBRATION)
    hours = [CameraHour.parse(f"cam1|{hour}") for hour in (FIRST, SECOND)]
    options = Options(release=draft.name, only_missing=True, cut="boundaries", teacher="pictures", k=2)
    lines: list[str] = []
    backfill = Backfill(store, hours, options, Progress(report=lines.append))
    try:
        release = backfill.run()
        assert not backfill.progress.failures, "\n".join(lines)
        found = registry.folder(CALIBRATION, release.calibrations["cam1"]) / CALIBRATION_FILE
        calibration = Calibration.from_json(found.read_text())
        assert (calibration.cut, calibration.diagnostics.teacher) == ("boundaries", "pictures")
        streams = [
            LatentStream.from_table(store.read_partition(tables.LATENT_STREAM, hour, release.require(TOKENIZER)))
            for hour in (*hours, hours[-1].next)
        ]
        rows = [
            row
            for hour in (*hours, hours[-1].next)
            for row in store.read_partition(tables.SEGMENTS, hour, release.name).to_pylist()
        ]
        whole = detections(streams, calibration, ended=False)
        assert [(row["start_sample"], row["end_sample"]) for row in rows] == [
            (one.start_sample, one.end_sample) for one in whole
        ]
        assert len(rows) >= 5 and {row["end_reason"] for row in rows} <= {"boundary", "gap", "maximum"}
        assert any(row["end_time"] == after["start_time"] for row, after in pairwise(rows))
    finally:
        registry.discard(draft.name)


def test_the_weekly_draft_has_models_of_its_own_and_is_compared(
    processed: Backfill, store: Store, tmp_path: Path
) -> None:
    """One run of the job: tokenizer to report in a draft, beside the current release, which stays current."""
    registry = ModelRegistry(store)
    current = registry.to_read()
    config = {"hours": [f"cam1|{FIRST}"], "preset": "small", "train_minutes": 0.02, "seed": 9}
    outcome = execute(Task("fill_draft", ops={"draft_release": {"config": config}}))
    assert outcome.ok, outcome.error
    (draft,) = registry.drafts()
    try:
        assert draft.tokenizer not in (None, current.tokenizer) and draft.cluster_model is not None
        assert registry.to_read() == current
        rows = {name: (there, here) for name, there, here in compare(store, draft, current)}
        assert rows["release"] == (current.name, draft.name)
        assert rows["clusters"] == ("3", "3")
        assert rows["theta_on of cam1"][0] != "-" != rows["theta_on of cam1"][1]
        found = kept(store, draft, current)
        assert found.hours == 2 and found.before >= 5
        # Numbers are matched by what the clusters have in common, though no embedding can be compared.
        again = kept(store, current, current)
        assert again.same_cluster == again.clustered == again.same == again.before
        assert earlier_numbers(store, current, current) == {
            row["segment_id"]: row["cluster_id"]
            for hour in store.partitions(tables.CLUSTER_ASSIGNMENTS, current.name)
            for row in store.read_partition(tables.CLUSTER_ASSIGNMENTS, hour, current.name).to_pylist()
        }
        report = store.read_bytes(f"reports/release={draft.name}/report.html").decode()
        assert "Beside the current release" in report and f"laps promote {draft.name}" in report
        shows_only(store, draft, current, tmp_path / "promoted")
        # While it waits for a decision no other is filled.
        with dg.DagsterInstance.ephemeral() as instance:
            when = datetime(2026, 1, 11, 4, tzinfo=UTC)
            context = dg.build_schedule_context(
                instance, scheduled_execution_time=when, resources={"store": StoreResource()}
            )
            data = weekly.evaluate_tick(context)
        assert not data.run_requests and f"laps promote {draft.name}" in str(data.skip_message)
        outcome = execute(Task("fill_draft", ops={"draft_release": {"config": config}}))
        assert not outcome.ok and "waits for a decision" in outcome.error
    finally:
        registry.discard(draft.name)


def shows_only(store: Store, draft: Release, current: Release, folder: Path) -> None:
    """Hours that were run again with another tokenizer: the catalog shows one release or the other, never both."""
    copy = Store(str(shutil.copytree(store.root, folder)))

    def shown() -> dict[str, set[str]]:
        connection = open_catalog(copy)
        columns = connection.execute(
            "select table_name, column_name from duckdb_columns() where not internal and column_name in "
            "('release', 'tokenizer_id', 'calibration_id', 'embedder_id', 'cluster_model_id')"
        ).fetchall()
        found = {
            f"{view}.{column}": {
                one for (one,) in connection.execute(f"select distinct {column} from {view}").fetchall() if one
            }
            for view, column in columns
        }
        found["segment ids"] = {one for (one,) in connection.execute("select segment_id from primitives").fetchall()}
        for follower in ("clips", "segment_embeddings", "cluster_assignments", "visual_features"):
            ids = {one for (one,) in connection.execute(f"select segment_id from {follower}").fetchall()}
            assert ids == found["segment ids"], follower
        connection.close()
        return {name: values for name, values in found.items() if values}

    def ids_of(release: Release) -> dict[str, set[str]]:
        return {
            "release": {release.name},
            "tokenizer_id": {str(release.tokenizer)},
            "calibration_id": set(release.calibrations.values()),
            "embedder_id": {str(release.embedder)},
            "cluster_model_id": {str(release.cluster_model)},
        }

    before = shown()
    assert {name.split(".")[0] for name in before} >= {"primitives", "latent_stream", "clusters", "segment_embeddings"}
    ModelRegistry(copy).promote(draft.name, even_incomplete=True)
    after = shown()
    for release, found in ((current, before), (draft, after)):
        for name, values in found.items():
            if "." in name:
                assert values <= ids_of(release)[name.split(".")[1]], (release.name, name)
    assert after.keys() == before.keys()
    assert after["segment ids"].isdisjoint(before["segment ids"]), "old rows are not shown"
    # One step back, and the old ones are there again as they were.
    ModelRegistry(copy).promote(current.name, even_incomplete=True)
    assert shown() == before


def test_running_an_hour_again_gives_the_same_bytes(processed: Backfill, store: Store) -> None:
    hour = CameraHour.parse(f"02|{SECOND}")
    release = ModelRegistry(store).to_read()
    paths = [
        store.partition_path(table, hour, release.model_of(table))
        for table in tables.TABLES.values()
        if table.partitioned == "camera_hour"
    ]
    before = {path: store.read_bytes(path) for path in paths}
    clips = {path: store.read_bytes(path) for path in store.files("clip_files", ".mp4")}
    for job in ("observe", "segment"):
        assert execute(Task(job, hour.key)).ok
    assert {path: store.read_bytes(path) for path in paths} == before
    assert {path: store.read_bytes(path) for path in store.files("clip_files", ".mp4")} == clips


def test_the_quarantined_file_is_in_the_catalog_and_the_report(processed: Backfill, store: Store) -> None:
    connection = open_catalog(store)
    reasons = connection.execute("select uri, reason from recordings where status = 'quarantined'").fetchall()
    connection.close()
    assert len(reasons) == 1 and reasons[0][1]
    release = ModelRegistry(store).to_read()
    report = store.read_bytes(f"reports/release={release.name}/report.html").decode()
    assert "broken_20260105T090500Z.mp4" in report


def test_a_footage_hour_that_was_not_observed_stops_the_next(processed: Backfill, store: Store) -> None:
    release = ModelRegistry(store).to_read()
    hour = CameraHour.parse(f"cam1|{SECOND}")
    path = store.partition_path(tables.LATENT_STREAM, hour.previous, release.tokenizer)
    content = store.read_bytes(path)
    store.delete(path)
    try:
        with pytest.raises(NotProcessedError, match=r"Observe hour cam1\|2026-01-05-08:00 first"):
            read_previous(store, Recordings(store), tables.LATENT_STREAM, hour, release.tokenizer)
        # Before the first recording nothing was ever filmed: there is nothing to wait for.
        earlier = hour.previous
        assert read_previous(store, Recordings(store), tables.LATENT_STREAM, earlier, release.tokenizer) is None
        outcome = execute(Task("segment", hour.key))
        assert not outcome.ok
        assert "Observe hour cam1|2026-01-05-08:00 first" in outcome.error
    finally:
        store.write_bytes(path, content)


def test_primitives_of_another_tokenizer_are_refused(processed: Backfill, store: Store) -> None:
    hour = CameraHour.parse(f"cam1|{SECOND}")
    release = ModelRegistry(store).to_read()
    path = store.partition_path(tables.SEGMENTS, hour, release.name)
    content = store.read_bytes(path)
    rows = store.read_table(tables.SEGMENTS, path)
    place = rows.schema.get_field_index("tokenizer_id")
    other = rows.set_column(place, rows.schema.field(place), [["tsomeother"] * rows.num_rows])
    store.write_table(tables.SEGMENTS, path, other)
    try:
        outcome = execute(Task("segment", hour.key))
        assert outcome.ok, "the segment stage makes its own primitives again"
        from resources.segments import read_segments

        store.write_table(tables.SEGMENTS, path, other)
        with pytest.raises(Exception, match=r"tsomeother.*Materialize segments for cam1\|2026-01-05-09:00 again"):
            read_segments(store, hour, release)
    finally:
        store.write_bytes(path, content)


def test_more_clusters_than_primitives_is_a_clear_error(processed: Backfill, store: Store) -> None:
    registry = ModelRegistry(store)
    draft = registry.open_draft("too many clusters", based_on=registry.current())
    release = {"release": {"config": {"name": draft.name}}}
    assert execute(Task("cut", f"cam1|{FIRST}", resources=release)).ok
    outcome = execute(Task("fit_clusters", ops={"cluster_model": {"config": {"k": 5000}}}, resources=release))
    assert not outcome.ok
    assert "5000" in outcome.error
    store.delete(f"models/releases/{draft.name}")


def test_a_recording_that_is_gone_does_not_empty_its_hour(processed: Backfill, store: Store) -> None:
    hour = CameraHour.parse(f"02|{FIRST}")
    path = store.partition_path(tables.RAW_VIDEO, hour)
    before = store.read_bytes(path)
    file = Path(Recordings(store).of_camera("02")[0]["uri"])
    away = file.rename(file.with_suffix(".away"))
    try:
        outcome = execute(Task("observe", hour.key))
        assert not outcome.ok
        assert "cannot be read any more" in outcome.error and file.name in outcome.error
        assert store.read_bytes(path) == before
    finally:
        away.rename(file)


def test_a_recording_that_was_renamed_is_the_footage_of_its_hour(processed: Backfill, store: Store) -> None:
    hour = CameraHour.parse(f"02|{FIRST}")
    file = Path(Recordings(store).of_camera("02")[0]["uri"])
    with put_back(store, hour_folder(hour), "recordings/camera=02"):
        renamed = file.rename(file.with_name(f"renamed_{file.name}"))
        try:
            Recordings(store).register(str(renamed), "02")
            outcome = execute(Task("track", hour.key))
            assert outcome.ok, outcome.error
            rows = store.read_partition(tables.RAW_VIDEO, hour).to_pylist()
        finally:
            renamed.rename(file)
    assert renamed.name in {Path(row["uri"]).name for row in rows if row["used"]}
    assert outcome.metadata["raw_video"]["footage_s"] == 60.0


def test_a_killed_run_leaves_nothing_half_and_a_second_completes(processed: Backfill, store: Store) -> None:
    hour = CameraHour.parse(f"cam1|{FIRST}")
    paths = [store.partition_path(table, hour) for table in (tables.KEYPOINT_TRACKS, tables.KEYFRAMES)]
    before = [store.read_bytes(path) for path in paths]
    for path in paths:
        store.delete(path)
    code = f"from laps_dagster.runs import *; execute(Task('track', {hour.key!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ))
    folder = Path(store.full_path(paths[0])).parent
    deadline = time.monotonic() + 60
    # Kill it while the tracks are being written: their temporary file is there, the final one is not.
    while time.monotonic() < deadline and not any(file.name.startswith(".tmp-") for file in folder.glob(".*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not any(store.exists(path) for path in paths)
    assert hour not in store.partitions(tables.KEYPOINT_TRACKS)
    outcome = execute(Task("track", hour.key))
    assert outcome.ok, outcome.error
    assert [store.read_bytes(path) for path in paths] == before


@pytest.mark.usefixtures("here_without_report")
def test_a_range_that_begins_in_the_middle_of_footage_observes_the_hour_before(
    processed: Backfill, store: Store
) -> None:
    release = ModelRegistry(store).to_read()
    missing = CameraHour.parse(f"cam1|{FIRST}")
    path = store.partition_path(tables.LATENT_STREAM, missing, release.tokenizer)
    content = store.read_bytes(path)
    hours = [CameraHour.parse(f"cam1|{SECOND}")]
    store.delete(path)
    backfill = Backfill(store, hours, Options(), Progress(report=lambda _: None))
    planned = backfill.plan()
    backfill.run()
    assert not backfill.progress.failures
    assert store.read_bytes(path) == content
    made = [str(outcome.task) for outcome in backfill.progress.outcomes]
    assert made == [
        f"encode cam1|{FIRST}",
        *(f"{job} cam1|{hour}" for job in ("observe", "segment") for hour in (SECOND, THIRD)),
        "publish",
    ]
    assert made[:-1] == [
        f"{job} {hour.key}" for job in ("encode", "observe", "segment") for hour in planned if job in planned[hour]
    ]
    again = Backfill(store, hours, Options(only_missing=True), Progress(report=lambda _: None))
    assert again.plan() == {}


def test_other_regions_to_ignore_make_codes_out_of_date_and_no_tracks(processed: Backfill, store: Store) -> None:
    def planned() -> dict[str, list[str]]:
        hours = select_hours(Recordings(store), [], None, None)
        backfill = Backfill(store, hours, Options(only_missing=True), Progress(report=lambda _: None))
        return {hour.key: jobs for hour, jobs in backfill.plan().items()}

    before = planned()
    release = ModelRegistry(store).to_read()
    hour = CameraHour.parse(f"cam1|{SECOND}")
    path = store.partition_path(tables.LATENT_STREAM, hour, release.tokenizer)
    content = store.read_bytes(path)
    Cameras(store).write(Camera("cam1", ignore_regions=((0.0, 0.5, 1.0, 1.0),)))
    try:
        ours = [f"cam1|{key}" for key in (FIRST, SECOND, THIRD)]
        assert planned() == before | {key: ["encode", "segment"] for key in ours}
        assert execute(Task("encode", hour.key)).ok
        assert planned() == before | {key: ["encode", "segment"] for key in ours if key != hour.key} | {
            hour.key: ["segment"]
        }
        whole = store.read_partition(tables.LATENT_STREAM, hour, release.tokenizer)
        assert whole["code"].null_count < whole.num_rows
        assert store.read_bytes(path) != content
    finally:
        store.delete(Cameras(store).path("cam1"))
        store.write_bytes(path, content)


@pytest.mark.parametrize(
    ("job", "asset", "regions", "said"),
    [
        ("encode", "latent_stream", "ignore_regions", "ignored_regions"),
        ("cut", "clips", "blur_regions", "blurred_regions"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_regions_that_are_set_while_an_hour_is_made_count(
    processed: Backfill, store: Store, monkeypatch: pytest.MonkeyPatch, job: str, asset: str, regions: str, said: str,
    before: bool,
) -> None:  # fmt: skip
    """They are set just before the hour is published, or just after."""
    lower_half = (0.0, 0.5, 1.0, 1.0)
    seen: list[str] = []

    class Changing(Cameras):
        def read(self, camera: str) -> Camera:
            seen.append(camera)
            is_set = len(seen) > (1 if before else 2)
            return replace(super().read(camera), **({regions: (lower_half,)} if is_set else {}))

    hour = f"02|{FIRST}"
    monkeypatch.setattr("assets.retries.FIRST_WAIT_S", 0.0)
    with monkeypatch.context() as patch, put_back(store, hour_folder(CameraHour.parse(hour))):
        patch.setattr(import_module(f"assets.{asset}"), "Cameras", Changing)
        outcome = execute(Task(job, hour))
    assert outcome.ok, outcome.error
    assert outcome.metadata[asset][said] == [list(lower_half)]
    assert len(seen) == (5 if before else 6), "seen to change once, and found steady by the second attempt"


def test_there_is_no_footage_to_select_in_an_empty_range(processed: Backfill, store: Store) -> None:
    recordings = Recordings(store)
    with pytest.raises(InputError, match="no footage in the chosen hours"):
        select_hours(recordings, [], parse_utc("2026-03-01T00:00:00Z"), None)
    with pytest.raises(InputError, match="Cameras: 02, cam1"):
        select_hours(recordings, ["cam9"], None, None)


@pytest.mark.usefixtures("here_without_report")
def test_a_late_recording_makes_its_hours_out_of_date_and_nothing_else(
    processed: Backfill, store: Store, environment: Path
) -> None:
    lines: list[str] = []

    def missing() -> Backfill:
        hours = select_hours(Recordings(store), [], None, None)
        return Backfill(store, hours, Options(only_missing=True), Progress(report=lines.append))

    # Other tests have put back what they took away, and times say the opposite.
    written_s = time.time() - 60
    for place, table in enumerate(tables.TABLES.values()):
        if table.partitioned == "camera_hour":
            for path in store.files(table.name, "part-0.parquet"):
                os.utime(store.full_path(path), (written_s + place, written_s + place))
    assert missing().plan() == {}
    late = replace(SCENARIO, seed=8, duration_s=20.0)
    start = parse_utc("2026-01-05T09:30:00Z")
    file = record(environment / "landing", late, camera="cam1", view=0, start_ns=start)
    Recordings(store).register(str(file), "cam1")
    release = ModelRegistry(store).to_read()
    before = store.read_partition(tables.SEGMENTS, CameraHour.parse(f"cam1|{SECOND}"), release.name)
    shown = all_primitives(store)
    # The hour after has the same pictures as before, and a primitive that the late footage leaves open would end in it.
    backfill = missing()
    backfill.run()
    assert not backfill.progress.failures, "\n".join(lines)
    assert [str(outcome.task) for outcome in backfill.progress.outcomes] == [
        f"observe cam1|{SECOND}",
        *(f"segment cam1|{hour}" for hour in (SECOND, THIRD)),
        "publish",
    ]
    after = store.read_partition(tables.SEGMENTS, CameraHour.parse(f"cam1|{SECOND}"), release.name)
    assert after.num_rows > before.num_rows
    assert after.slice(0, before.num_rows).equals(before), "what was there before stays as it was"
    assert missing().plan() == {}
    # The catalog shows the old rows as they were, new ones beside them, and the file as used.
    now = all_primitives(store)
    assert {segment_id: now.get(segment_id) for segment_id in shown} == shown
    new = [row for segment_id, row in now.items() if segment_id not in shown]
    assert len(new) == after.num_rows - before.num_rows
    assert all(row["camera"] == "cam1" and from_datetime(row["start_time"]) >= start for row in new)
    with closing(open_catalog(store)) as connection:
        used = run_query(connection, f"select distinct status from raw_video where used and uri = '{file}'").to_pylist()
    assert used == [{"status": "ok"}]


def all_primitives(store: Store) -> dict[str, dict[str, Any]]:
    """The catalog's rows, by primitive."""
    with closing(open_catalog(store)) as connection:
        rows = run_query(connection, "select * from primitives").to_pylist()
    return {row["segment_id"]: row for row in rows}


@pytest.mark.usefixtures("here")
def test_a_time_that_was_forgotten_stays_away_and_the_rest_comes_back(
    processed: Backfill, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a recording across the hour: through the whole graph, and a second backfill finds nothing to do."""
    shutil.copytree(store.root, tmp_path / "store")
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    copy = Store()
    release = ModelRegistry(copy).to_read()
    before = _primitives(copy, release.name)
    start_ns, stop_ns = START + 20 * NS_PER_S, START + 50 * NS_PER_S
    reports = copy.files("reports", ".html")
    list(remove(copy, plan(copy, Forgotten("cam1", start_ns, stop_ns))))
    assert not set(reports) & set(copy.files("reports", ".html"))

    def backfill() -> Backfill:
        hours = select_hours(Recordings(copy), ["cam1"], None, None)
        return Backfill(copy, hours, Options(only_missing=True), Progress(report=lambda line: None))

    made = backfill()
    made.run()
    assert not made.progress.failures
    assert copy.files("reports", f"release={release.name}/report.html")
    after = _primitives(copy, release.name)
    # An hour's end lies within the range's reach, so both hours were made again.
    assert after and all(end_ns <= start_ns or begin_ns >= stop_ns for begin_ns, end_ns in after)
    sure_ns = 3 * NS_PER_S  # beside the time primitives may end or begin elsewhere
    assert {one for one in before if one[1] < start_ns - sure_ns} == {
        one for one in after if one[1] < start_ns - sure_ns
    }
    late_ns = stop_ns + 45 * NS_PER_S  # what the detector remembers
    assert {one for one in before if one[0] > late_ns} == {one for one in after if one[0] > late_ns}
    for hour in (FIRST, SECOND):
        for path in copy.read_partition(tables.CLIPS, CameraHour.parse(f"cam1|{hour}"), release.name).to_pylist():
            assert path["status"] == "ok"
    assert backfill().plan() == {}


def _primitives(store: Store, release: str) -> set[tuple[int, int]]:
    """Start and end of the primitives of cam1, nanoseconds since the epoch."""
    return {
        (from_datetime(row["start_time"]), from_datetime(row["end_time"]))
        for hour in (FIRST, SECOND, THIRD)
        for row in store.read_partition(tables.SEGMENTS, CameraHour.parse(f"cam1|{hour}"), release).to_pylist()
    }
