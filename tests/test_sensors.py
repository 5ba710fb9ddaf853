"""Sensors and schedules on a real instance, store and landing zone: what they request, and when nothing."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.runs import SqlRunStorage  # not public
from dagster._core.storage.runs.schema import RunsTable  # not public

from assets.partitions import camera_hours
from laps.errors import InputError, StoreError
from laps.tables import Table
from laps.timegrid import HOUR_NS, CameraHour, parse_utc
from laps_dagster import nights, settings
from laps_dagster.definitions import build_definitions
from laps_dagster.hour_runs import NIGHT, THEN
from laps_dagster.instance import open_instance
from laps_dagster.nightly import day_range, later_stages, nightly
from laps_dagster.sensors import landing_files, new_cameras
from laps_dagster.stages import OBSERVE, SEGMENT, Stage
from resources.configured import RecordingsResource, StoreResource
from resources.landing import LandingZone, Look
from resources.models import CURRENT, TOKENIZER, ModelRegistry
from resources.recordings import Landed, Recordings
from resources.settings import store_settings
from resources.store import Store, rows_table
from tests.origins import origin_of
from tests.videos import write_video

DAY = "2026-01-05"
RESOURCES = {"store": StoreResource(), "recordings": RecordingsResource(stable_s=0, quiet_s=0)}
DEFINITIONS = build_definitions(resources=RESOURCES)
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
STARTED, WAITING = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED


def test_no_step_without_hours_asks_for_the_keys_of_all_hours() -> None:
    """Dagster's mapping to all partitions makes each key before such a step begins, of hours without footage too."""
    graph = DEFINITIONS.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.materializable_asset_keys]
    mapped = [
        node.partition_mappings.get(parent)
        for node in nodes
        for parent in node.parent_keys
        if node.partitions_def is None and graph.get(parent).partitions_def == camera_hours
        if parent in graph.materializable_asset_keys
    ]
    assert len(mapped) > 10
    assert all(isinstance(one, dg.SpecificPartitionsPartitionMapping) and not one.partition_keys for one in mapped)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAPS_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """An instance for all tests: its databases take a second to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(tmp_path_factory.mktemp("dagster")))
        with open_instance() as opened:
            yield opened


@pytest.fixture
def instance(kept: dg.DagsterInstance) -> dg.DagsterInstance:
    kept.wipe()
    for camera in kept.get_dynamic_partitions("cameras"):
        kept.delete_dynamic_partition("cameras", camera)
    return kept


@pytest.fixture
def store() -> Store:
    store = Store()
    store_settings(store)
    return store


@pytest.fixture
def release(store: Store) -> str:
    """A current release with a tokenizer and a calibration of cam1: all that is asked about here."""
    registry = ModelRegistry(store)
    name = registry.open_draft("for the sensors").name
    store.write_json(registry.slot_path(name, TOKENIZER), {"id": "t1"})
    store.write_json(registry.slot_path(name, "calibration", "cam1"), {"id": "c1"})
    store.write_json(CURRENT, {"release": name})
    return name


class Daemon:
    """Evaluates a sensor as the daemon does, with its cursor and run keys; what is requested becomes runs that wait."""

    def __init__(self, sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> None:
        self.sensor = sensor
        self.instance = instance
        self.cursor: str | None = None
        self.said = ""

    def tick(self, *, dies: bool = False) -> list[str]:
        """The new runs as ``job partition``; one that dies has evaluated, and made no run and kept no cursor."""
        # A real context gets its instance by reference, and looks up the cameras in it.
        with dg.build_sensor_context(
            self.instance,
            instance_ref=self.instance.get_ref(),
            cursor=self.cursor,
            sensor_name=self.sensor.name,
            definitions=DEFINITIONS,
            resources=RESOURCES,
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.said = data.skip_message or ""
        if dies:
            return []
        self.cursor = data.cursor
        made = []
        for request in data.run_requests or []:
            tags = {**request.tags, "dagster/run_key": str(request.run_key)}
            if not self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": tags["dagster/run_key"]})):
                job = request.job_name or self.sensor.job_name
                run(self.instance, job, request.partition_key, WAITING, tags)
                made.append(f"{job} {request.partition_key}" if request.partition_key else job)
        return sorted(made)


def run(
    instance: dg.DagsterInstance,
    job: str,
    hour: str | None,
    status: dg.DagsterRunStatus,
    tags: dict[str, str] | None = None,
) -> dg.DagsterRun:
    partition = {} if hour is None else {"dagster/partition": str(hour)}
    # As the daemon makes them: it tries such runs again.
    made = dg.DagsterRun(
        job, str(uuid.uuid4()), tags={**partition, **(tags or {})}, status=status, remote_job_origin=origin_of(job)
    )
    return instance.add_run(made)


def end(instance: dg.DagsterInstance, job: str, hour: str | None = None, *, ok: bool = True) -> None:
    """End the waiting run of a job and hour, and make its tables if it went well."""
    for found in instance.get_runs(dg.RunsFilter(job_name=job, statuses=[WAITING])):
        if hour is None or found.tags["dagster/partition"] == hour:
            event = dg.DagsterEventType.RUN_SUCCESS if ok else dg.DagsterEventType.RUN_FAILURE
            if ok and hour is not None:
                write(OBSERVE if job == "observe" else SEGMENT, hour)
            report(instance, found, event)


def report(instance: dg.DagsterInstance, found: dg.DagsterRun, kind: dg.DagsterEventType) -> None:
    from dagster._core.events import DagsterEvent, JobFailureData, RunFailureReason

    data = JobFailureData(None, failure_reason=RunFailureReason.UNKNOWN) if kind.value.endswith("FAILURE") else None
    event = DagsterEvent(kind.value, found.job_name, event_specific_data=data)
    # Without the event log, which is a database of its own for each run.
    instance.run_storage.handle_run_event(found.run_id, event, datetime.now(UTC))


def write(stage: Stage, hour: str) -> None:
    """Empty tables of a stage, as an hour without primitives leaves them."""
    store = Store()
    chosen = ModelRegistry(store).to_read()
    for made in stage.makes:
        store.write_partition(made.table, CameraHour.parse(hour), empty(made.table), chosen.model_of(made.table))


def empty(table: Table) -> object:
    return rows_table(table, [])


@cache
def video() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / "a.mp4", seconds=2, fps=10, width=64, height=48).read_bytes()


def land(name: str) -> Path:
    file = Path(os.environ["LAPS_LANDING"]) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(video())
    return file


def at(*hours: int, job: str = "observe", camera: str = "cam1") -> list[str]:
    return [f"{job} {camera}|{DAY}-{hour:02}:00" for hour in hours]


def key(hour: int, camera: str = "cam1") -> str:
    return f"{camera}|{DAY}-{hour:02}:00"


# --- the landing zone ---------------------------------------------------------------------------------------------


def test_without_a_release_files_are_registered_and_nothing_is_requested(
    instance: dg.DagsterInstance, store: Store
) -> None:
    land("cam1/20260105T051000Z.mp4")
    daemon = Daemon(landing_files, instance)
    assert daemon.tick() == []
    assert "no release is current" in daemon.said and "2 hours wait" in daemon.said
    assert Recordings(store).cameras() == ["cam1"]
    assert instance.get_dynamic_partitions("cameras") == ["cam1"]


def test_many_files_of_a_camera_let_its_register_be_copied(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.compaction.BEHIND", 1)
    daemon = Daemon(landing_files, instance)
    for hour in ("05", "06", "07"):
        land(f"cam1/20260105T{hour}1000Z.mp4")
        daemon.tick()
        assert bool(store.files("compacted/recordings/camera=cam1")) == (hour >= "06")
    assert len(Recordings(store).of_camera("cam1")) == 3


def test_a_file_requests_its_hours_once(instance: dg.DagsterInstance, release: str) -> None:
    land("cam1/20260105T051000Z.mp4")
    daemon = Daemon(landing_files, instance)
    assert daemon.tick() == at(5, 6)
    assert daemon.tick() == [] and daemon.tick() == []
    assert daemon.said == "1 files: nothing new"
    tags = [found.tags for found in instance.get_runs()]
    assert all(one[THEN] == "segment" for one in tags)
    # A cursor that is lost and a daemon of another instance change nothing: the store remembers.
    assert Daemon(landing_files, instance).tick() == []


def test_late_and_changed_files_request_their_hours_again(instance: dg.DagsterInstance, release: str) -> None:
    file = land("cam1/20260105T051000Z.mp4")
    daemon = Daemon(landing_files, instance)
    daemon.tick()
    for hour in (5, 6):
        end(instance, "observe", key(hour))
    assert daemon.tick() == []
    assert late_hours(instance) == []
    land("cam1/20260105T052000Z.mp4")
    assert daemon.tick() == at(5), "the hour after has what it is made from"
    assert late_hours(instance) == [key(5)]
    end(instance, "observe", key(5))
    daemon.tick()
    os.utime(file, (5, 5))
    assert daemon.tick() == at(5)


def late_hours(instance: dg.DagsterInstance) -> list[str]:
    return [run.tags["dagster/partition"] for run in instance.get_runs(dg.RunsFilter(tags={"laps/late": "true"}))]


def test_a_start_that_is_corrected_there_and_back_requests_its_hours_again(
    instance: dg.DagsterInstance, release: str
) -> None:
    sidecar = land("cam1/20260105T051000Z.mp4").with_suffix(".json")
    daemon = Daemon(landing_files, instance)
    daemon.tick()
    for hour in (5, 6):
        end(instance, "observe", key(hour))
    sidecar.write_text('{"start": "2026-01-05T09:30:00Z"}')
    assert daemon.tick() == at(5, 9, 10)
    for hour in (5, 9, 10):
        end(instance, "observe", key(hour))
    daemon.tick()
    sidecar.write_text('{"start": "2026-01-05T05:10:00Z"}')
    assert daemon.tick() == at(5, 9)


def test_a_look_lists_the_register_of_no_other_camera(
    instance: dg.DagsterInstance, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a year that of four cameras is 175,000 files, and a tick has a minute."""
    daemon = Daemon(landing_files, instance)
    land("cam2/20260105T051000Z.mp4")
    daemon.tick()
    listed: list[str] = []
    really = Store.listing
    monkeypatch.setattr(Store, "listing", lambda self, folder: listed.append(folder) or really(self, folder))
    land("cam1/20260105T051000Z.mp4")
    assert daemon.tick() == at(5, 6)
    assert {folder for folder in listed if "recordings" in folder} <= {"recordings/camera=cam1"}


def test_hours_that_are_being_made_hold_no_other_camera_up(
    instance: dg.DagsterInstance, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("laps_dagster.sensors.HOURS_A_LOOK", 1)
    for hour in (5, 6):
        run(instance, "observe", key(hour), WAITING)
    land("cam1/20260105T051000Z.mp4")
    land("cam2/20260105T051000Z.mp4")
    daemon = Daemon(landing_files, instance)
    assert daemon.tick() == at(5, camera="cam2")


def test_a_daemon_that_dies_before_it_made_the_runs_makes_them_after(
    instance: dg.DagsterInstance, release: str
) -> None:
    land("cam1/20260105T051000Z.mp4")
    daemon = Daemon(landing_files, instance)
    assert daemon.tick(dies=True) == []
    assert daemon.tick() == at(5, 6)


def test_an_hour_that_failed_is_not_requested_again_by_itself(instance: dg.DagsterInstance, release: str) -> None:
    land("cam1/20260105T051000Z.mp4")
    daemon = Daemon(landing_files, instance)
    daemon.tick()
    for hour in (5, 6):
        end(instance, "observe", key(hour), ok=False)
    assert daemon.tick() == []
    # Not even when everything that is remembered is lost: the state of its recordings is the same.
    store = Store()
    store.delete("landing")
    assert Daemon(landing_files, instance).tick() == []
    land("cam1/20260105T052000Z.mp4")
    assert daemon.tick() == at(5)


def test_hours_that_are_made_already_are_not_requested(instance: dg.DagsterInstance, release: str) -> None:
    land("cam1/20260105T051000Z.mp4")
    list(Recordings(Store()).scan())
    for hour in (5, 6):
        write(OBSERVE, key(hour))
    daemon = Daemon(landing_files, instance)
    assert daemon.tick() == []
    assert "1 registered" in daemon.said


def test_an_hour_that_is_no_partition_any_more_holds_nothing_up(
    instance: dg.DagsterInstance, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    land("cam1/20260105T051000Z.mp4")
    land("cam1/20260105T091000Z.mp4")
    daemon = Daemon(landing_files, instance)
    daemon.tick(dies=True)
    monkeypatch.setattr("laps_dagster.sensors.first_hour_ns", lambda _: parse_utc("2026-01-05T09:00:00Z"))
    assert daemon.tick() == at(9, 10)
    assert daemon.tick() == [] and daemon.said == "2 files: nothing new"


def test_a_landing_zone_that_takes_long_to_list_is_listed_a_tenth_of_the_time(
    instance: dg.DagsterInstance, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(landing_files, instance)
    land(f"cam1/cam1_{DAY.replace('-', '')}T050000Z.mp4")
    look, looks = LandingZone.look, []

    def slow(zone: LandingZone, known_digest: str = "") -> Look:
        looks.append(look(zone, known_digest))
        looks[-1].listing_s = 6.0
        return looks[-1]

    monkeypatch.setattr(LandingZone, "look", slow)
    now_s = time.time()
    seen = []
    for after_s in range(0, 200, 10):
        monkeypatch.setattr("laps_dagster.sensors.time", SimpleNamespace(time=lambda at=now_s + after_s: at))
        before = len(looks)
        daemon.tick()
        if len(looks) > before:
            seen.append(after_s)
        else:
            assert "next look in" in daemon.said
    assert seen == [0, 60, 120, 180]
    assert looks[0].registered, "and what lies there is registered"


def test_a_file_that_takes_long_to_look_at_holds_no_later_tick(
    instance: dg.DagsterInstance, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster ends a tick after a minute and asks for the next; the thread of the first goes on."""
    looking, go_on, offered = threading.Event(), threading.Event(), []
    really = Recordings.register_landed

    def slowly(self: Recordings, landed: Landed) -> dict[str, Any]:
        offered.append(landed.uri)
        looking.set()
        assert go_on.wait(60)
        return really(self, landed)

    monkeypatch.setattr(Recordings, "register_landed", slowly)
    land("cam1/20260105T051000Z.mp4")
    zone = RESOURCES["recordings"].watch(Store())  # type: ignore[union-attr]
    first = threading.Thread(target=zone.look)
    first.start()
    assert looking.wait(60)
    daemon = Daemon(landing_files, instance)
    assert daemon.tick() == [] and "an earlier look goes on" in daemon.said
    go_on.set()
    first.join(60)
    assert len(offered) == 1
    assert daemon.tick() == at(5, 6)
    assert len(offered) == 1, "it is on record"


def test_bad_files_are_told_and_the_others_go_on(instance: dg.DagsterInstance, release: str) -> None:
    land("cam1/20260105T051000Z.mp4").with_name("b_20260105T070000Z.mp4").write_text("no video")
    land("Not A Camera/20260105T051000Z.mp4")
    daemon = Daemon(landing_files, instance)
    assert daemon.tick() == at(5, 6)
    (row,) = [row for row in Recordings(Store()).of_camera("cam1") if row["status"] == "quarantined"]
    assert row["reason"]


def test_cameras_of_the_store_become_partitions(instance: dg.DagsterInstance, store: Store) -> None:
    land("cam7/20260105T051000Z.mp4")
    list(Recordings(store).scan())
    daemon = Daemon(new_cameras, instance)
    daemon.tick()
    assert daemon.said == "added cam7"
    daemon.tick()
    assert daemon.said == "no new cameras"


# --- what follows an observed hour --------------------------------------------------------------------------------


@pytest.fixture
def followed(instance: dg.DagsterInstance, release: str) -> Daemon:
    instance.add_dynamic_partitions("cameras", ["cam1", "cam2"])
    return Daemon(later_stages, instance)


def observed(instance: dg.DagsterInstance, *hours: str) -> None:
    for hour in hours:
        write(OBSERVE, hour)
        run(instance, "observe", hour, SUCCESS, {THEN: "segment"})


def test_the_segment_stage_follows_for_the_hour_and_the_one_after(
    instance: dg.DagsterInstance, followed: Daemon
) -> None:
    observed(instance, key(5), key(6))
    assert followed.tick() == at(5, 6, job="segment")
    assert followed.tick() == []
    observed(instance, key(5))
    assert followed.tick() == at(5, 6, job="segment"), "observed again, cut again"


def test_an_hour_waits_for_its_own_observation_and_the_one_before(
    instance: dg.DagsterInstance, followed: Daemon
) -> None:
    under_way = run(instance, "observe", key(6), STARTED, {THEN: "segment"})
    observed(instance, key(5), key(7))
    assert followed.tick() == at(5, job="segment")
    assert "2 hours wait" not in followed.said
    write(OBSERVE, key(6))
    report(instance, under_way, dg.DagsterEventType.RUN_SUCCESS)
    assert followed.tick() == at(6, 7, job="segment")


def test_what_waited_for_a_run_that_failed_goes_on(instance: dg.DagsterInstance, followed: Daemon) -> None:
    write(OBSERVE, key(6))
    under_way = run(instance, "observe", key(6), STARTED, {THEN: "segment"})
    observed(instance, key(5))
    assert followed.tick() == at(5, job="segment")
    report(instance, under_way, dg.DagsterEventType.RUN_FAILURE)
    # Hour 6 keeps what it had, and has to be cut with the new hour 5.
    assert followed.tick() == at(6, job="segment")


def test_nothing_follows_what_nobody_asked_to_go_on(instance: dg.DagsterInstance, followed: Daemon) -> None:
    write(OBSERVE, key(5))
    others = [run(instance, "observe", key(5), SUCCESS), run(instance, "compact", None, SUCCESS)]
    assert followed.tick() == []
    assert followed.said == "nothing follows"
    assert set(json.loads(followed.cursor or "")["taken"]) == {other.run_id for other in others}, "not looked at again"


def test_a_backfill_of_assets_is_followed_too(instance: dg.DagsterInstance, followed: Daemon) -> None:
    assets = frozenset(map(dg.AssetKey, ("raw_video", "latent_stream")))
    backfill = dg.DagsterRun(
        "__ASSET_JOB", str(uuid.uuid4()), tags={"dagster/partition": key(5)}, status=STARTED, asset_selection=assets
    )
    instance.add_run(backfill)
    observed(instance, key(4))
    assert followed.tick() == at(4, job="segment"), "hour 5 is being observed"
    write(OBSERVE, key(5))
    tagged = backfill.with_tags({**backfill.tags, THEN: "segment"})._replace(run_id=str(uuid.uuid4()), status=SUCCESS)
    instance.add_run(tagged)
    report(instance, backfill, dg.DagsterEventType.RUN_SUCCESS)
    assert followed.tick() == at(5, job="segment")


def test_a_lost_cursor_requests_nothing_twice(instance: dg.DagsterInstance, followed: Daemon) -> None:
    observed(instance, key(5), key(6))
    followed.tick()
    observed(instance, key(6))
    assert followed.tick() == at(6, job="segment")
    assert Daemon(later_stages, instance).tick() == []


def test_a_camera_without_calibration_is_named_and_not_cut(instance: dg.DagsterInstance, followed: Daemon) -> None:
    observed(instance, key(5, "cam2"))
    assert followed.tick() == []
    assert "no calibration of cam2" in followed.said and "laps backfill --camera cam2" in followed.said


# --- the night ----------------------------------------------------------------------------------------------------


def plan(instance: dg.DagsterInstance, day: str = DAY) -> str:
    """What the nightly schedule starts."""
    config = {"ops": {"plan_day": {"config": {"day": day}}}}
    result = DEFINITIONS.resolve_job_def("plan_night").execute_in_process(run_config=config, instance=instance)
    assert result.success
    return result.run_id


def test_a_night_observes_cuts_and_publishes_in_this_order(instance: dg.DagsterInstance, followed: Daemon) -> None:
    land("cam1/20260105T051000Z.mp4")
    land("cam1/20260105T052000Z.mp4")
    land("cam1/20260104T230000Z.mp4")
    list(Recordings(Store()).scan())
    night = plan(instance)
    assert followed.tick() == at(0, 5, 6), "the hours of the day, those that close them, and what the day before left"
    assert followed.tick() == []
    assert "3 runs under way" in followed.said
    end(instance, "observe", key(0), ok=False)
    end(instance, "observe", key(5))
    assert followed.tick() == at(5, job="segment")
    end(instance, "observe", key(6))
    assert followed.tick() == at(6, job="segment")
    end(instance, "segment", key(5))
    assert followed.tick() == []
    end(instance, "segment", key(6))
    assert followed.tick() == ["publish"]
    assert followed.tick() == []
    end(instance, "publish")
    assert followed.tick() == ["compact"]
    end(instance, "compact")
    assert followed.tick() == []
    assert all(found.tags[NIGHT] == night for found in instance.get_runs() if found.job_name != "plan_night")


def test_a_night_with_failed_hours_still_publishes(instance: dg.DagsterInstance, followed: Daemon) -> None:
    land("cam1/20260105T051000Z.mp4")
    land("cam1/20260105T101000Z.mp4")
    list(Recordings(Store()).scan())
    plan(instance)
    assert followed.tick() == at(5, 6, 10, 11)
    for hour in (5, 10, 11):
        end(instance, "observe", key(hour), ok=hour != 5)
    end(instance, "observe", key(6))
    assert followed.tick() == at(6, 10, 11, job="segment")
    for hour in (6, 10, 11):
        end(instance, "segment", key(hour), ok=hour != 10)
    assert followed.tick() == ["publish"]


def test_a_run_that_dagster_will_try_again_keeps_the_night_open(instance: dg.DagsterInstance, followed: Daemon) -> None:
    land("cam1/20260105T051000Z.mp4")
    list(Recordings(Store()).scan())
    night = plan(instance)
    followed.tick()
    end(instance, "observe", key(5), ok=False)
    end(instance, "observe", key(6), ok=False)
    (first, *_) = instance.get_runs(dg.RunsFilter(job_name="observe", tags={"dagster/partition": key(5)}))
    instance.add_run_tags(first.run_id, {"dagster/will_retry": "true"})
    assert followed.tick() == []
    instance.add_run_tags(first.run_id, {"dagster/auto_retry_run_id": "another"})
    run(instance, "observe", key(5), SUCCESS, {THEN: "segment", NIGHT: night})
    write(OBSERVE, key(5))
    assert followed.tick() == at(5, job="segment")


def test_a_night_makes_only_what_is_missing(instance: dg.DagsterInstance, followed: Daemon) -> None:
    land("cam1/20260105T051000Z.mp4")
    land("cam1/20260105T101000Z.mp4")
    list(Recordings(Store()).scan())
    for hour in (5, 6, 10, 11):
        write(OBSERVE, key(hour))
    for hour in (5, 6, 10):
        write(SEGMENT, key(hour))
    plan(instance)
    assert followed.tick() == at(11, job="segment")
    end(instance, "segment", key(11))
    assert followed.tick() == ["publish"]
    end(instance, "publish")
    assert followed.tick() == ["compact"]
    end(instance, "compact")
    plan(instance)
    assert followed.tick() == ["publish"], "the report comes also when nothing was left to make"


def test_a_night_leaves_alone_what_is_being_observed(instance: dg.DagsterInstance, followed: Daemon) -> None:
    land("cam1/20260105T051000Z.mp4")
    list(Recordings(Store()).scan())
    run(instance, "observe", key(5), STARTED, {THEN: "segment"})
    plan(instance)
    assert followed.tick() == at(6)


def film_hour_five() -> None:
    """Footage at five, which is still to be made; the hour that closes it is there."""
    land("cam1/20260105T051000Z.mp4")
    list(Recordings(Store()).scan())
    write(OBSERVE, key(6))
    write(SEGMENT, key(6))


def test_a_night_waits_for_what_others_are_making(instance: dg.DagsterInstance, followed: Daemon) -> None:
    film_hour_five()
    under_way = run(instance, "observe", key(5), STARTED, {THEN: "segment"})
    plan(instance)
    assert followed.tick() == []
    assert "1 hours are being made by other runs" in followed.said
    write(OBSERVE, key(5))
    report(instance, under_way, dg.DagsterEventType.RUN_SUCCESS)
    assert followed.tick() == at(5, 6, job="segment")
    assert followed.tick() == []
    assert "2 hours are being made by other runs" in followed.said
    end(instance, "segment", key(5))
    end(instance, "segment", key(6))
    assert followed.tick() == ["publish"]


@pytest.mark.parametrize("failing", ["observe", "segment"])
def test_a_night_makes_what_others_have_failed_to(instance: dg.DagsterInstance, followed: Daemon, failing: str) -> None:
    film_hour_five()
    run(instance, "observe", key(5), WAITING, {THEN: "segment"} if failing == "segment" else {})
    night = plan(instance)
    assert followed.tick() == []
    end(instance, "observe", key(5), ok=failing == "segment")
    if failing == "segment":
        assert followed.tick() == at(5, 6, job="segment")
        end(instance, "segment", ok=False)
        assert followed.tick() == at(5, 6, job="segment"), "once more, as the night's own"
    else:
        assert followed.tick() == at(5)
        end(instance, "observe", key(5))
        assert followed.tick() == at(5, 6, job="segment")
    assert followed.tick() == []
    assert all(found.tags[NIGHT] == night for found in instance.get_runs(dg.RunsFilter(statuses=[WAITING])))
    end(instance, "segment", ok=False)
    assert followed.tick() == ["publish"]


def test_a_night_waits_for_a_run_of_others_that_dagster_will_try_again(
    instance: dg.DagsterInstance, followed: Daemon
) -> None:
    film_hour_five()
    died = run(instance, "observe", key(5), WAITING, {THEN: "segment"})
    plan(instance)
    end(instance, "observe", key(5), ok=False)
    instance.add_run_tags(died.run_id, {"dagster/will_retry": "true"})
    assert followed.tick() == []
    assert "1 hours are being made by other runs" in followed.said
    instance.add_run_tags(died.run_id, {"dagster/auto_retry_run_id": "another"})
    assert followed.tick() == at(5), "the other has failed for good"


def test_a_night_whose_recordings_cannot_be_read_holds_up_nothing_else(
    instance: dg.DagsterInstance, followed: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    film_hour_five()
    run(instance, "observe", key(5), WAITING)
    plan(instance)
    end(instance, "observe", key(5), ok=False)

    def damaged(*_: object) -> None:
        raise StoreError("is damaged", where="recordings/a.parquet")

    monkeypatch.setattr("laps_dagster.nightly.registrations", damaged)
    observed(instance, key(10))
    assert followed.tick() == at(10, job="segment")
    assert followed.tick() == []
    assert "recordings/a.parquet: is damaged" in followed.said


def test_a_night_ends_even_when_a_run_does_not(
    instance: dg.DagsterInstance, followed: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    land("cam1/20260105T051000Z.mp4")
    list(Recordings(Store()).scan())
    plan(instance)
    followed.tick()
    assert followed.tick() == []
    monkeypatch.setattr(nights, "LONGEST_NIGHT_S", -1.0)
    assert followed.tick() == ["publish"]


def schedule_context(instance: dg.DagsterInstance) -> dg.ScheduleEvaluationContext:
    when = datetime(2026, 1, 6, 1, 30, tzinfo=UTC)
    return dg.build_schedule_context(instance, scheduled_execution_time=when, resources=RESOURCES)


def test_the_schedule_plans_the_day_before(instance: dg.DagsterInstance, release: str) -> None:
    with schedule_context(instance) as context:
        (request,) = nightly.evaluate_tick(context).run_requests or []
    assert request.run_key == DAY
    assert request.run_config == {"ops": {"plan_day": {"config": {"day": DAY}}}}


@pytest.mark.parametrize(
    ("planned", "days"),
    [
        ([], ["2026-01-05"]),
        ([("2026-01-04", SUCCESS)], ["2026-01-05"]),
        ([("2026-01-02", SUCCESS), ("2026-01-04", FAILURE)], ["2026-01-03", "2026-01-04", "2026-01-05"]),
        (
            [("2025-12-01", SUCCESS)],
            [f"2025-12-{day}" for day in (29, 30, 31)] + [f"2026-01-0{n}" for n in range(1, 6)],
        ),
        ([("2026-01-05", STARTED)], ["2026-01-05"]),
    ],
)
def test_nights_in_which_no_daemon_ran_are_made_up_for(
    instance: dg.DagsterInstance, release: str, planned: list[tuple[str, dg.DagsterRunStatus]], days: list[str]
) -> None:
    for day, status in planned:
        made = run(instance, "plan_night", None, status, {"laps/day": day})
        created(instance, made, datetime.fromisoformat(day) + timedelta(days=1, hours=1))
    with schedule_context(instance) as context:
        requests = nightly.evaluate_tick(context).run_requests or []
    assert [request.tags["laps/day"] for request in requests] == days
    assert [request.run_config["ops"]["plan_day"]["config"]["day"] for request in requests] == days
    assert len({request.run_key for request in requests}) == len(days) and requests[-1].run_key == DAY


def created(instance: dg.DagsterInstance, made: dg.DagsterRun, when: datetime) -> None:
    """Say of a run that it was created then (UTC)."""
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as connection:
        row = RunsTable.update().where(RunsTable.c.run_id == made.run_id)
        connection.execute(row.values(create_timestamp=when))


def test_without_a_release_the_night_says_so(instance: dg.DagsterInstance, store: Store) -> None:
    with schedule_context(instance) as context:
        data = nightly.evaluate_tick(context)
    assert not data.run_requests and "no release is current" in str(data.skip_message)
    daemon = Daemon(later_stages, instance)
    assert daemon.tick() == []
    assert "no release is current" in daemon.said


def test_a_day_is_one_of_the_schedules_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    day = datetime(2026, 3, 29, tzinfo=UTC).date()
    assert day_range(day) == (parse_utc("2026-03-29T00:00Z"), parse_utc("2026-03-30T00:00Z"))
    monkeypatch.setenv("LAPS_SCHEDULE_ZONE", "Europe/Berlin")
    start, stop = day_range(day)
    assert start == parse_utc("2026-03-28T23:00Z")
    assert stop - start == 23 * HOUR_NS, "clocks go forward"


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("LAPS_NIGHTLY_AT", "25:00", settings.nightly_cron),
        ("LAPS_WEEKLY_AT", "Someday 04:00", settings.weekly_cron),
        ("LAPS_SCHEDULE_ZONE", "Atlantis", settings.night_zone),
        ("LAPS_AUTOMATION", "perhaps", settings.automated),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    name: str, value: str, read: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=name):
        read()  # type: ignore[operator]


def test_settings_become_cron_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (settings.nightly_cron(), settings.weekly_cron()) == ("30 1 * * *", "0 4 * * 0")
    monkeypatch.setenv("LAPS_NIGHTLY_AT", "23:05")
    monkeypatch.setenv("LAPS_WEEKLY_AT", "Sat 12:00")
    assert (settings.nightly_cron(), settings.weekly_cron()) == ("5 23 * * *", "0 12 * * 6")
