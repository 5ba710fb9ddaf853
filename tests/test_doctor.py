"""``laps doctor``: what is there is said, what is missing is said with a remedy, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext

from laps.timegrid import HOUR_NS, format_utc, parse_utc
from laps_dagster import doctor
from laps_dagster.doctor import Finding, examine
from laps_dagster.instance import open_instance
from laps_dagster.processes import identity, made_here
from resources.models import CURRENT, ModelRegistry
from resources.object_storage import ObjectStorage
from resources.settings import store_settings
from resources.store import Store
from tests.s3 import BUCKET, S3, s3, s3_server

__all__ = ["s3", "s3_server"]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAPS_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    for name in ("LAPS_TRACKER", "LAPS_VISION", "LAPS_FIRST_HOUR", "LAPS_AUTOMATION"):
        monkeypatch.delenv(name, raising=False)


def looked(*subjects: str) -> list[Finding]:
    looks = {name: look for name, look in doctor.LOOKS.items() if name in subjects}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "LOOKS", looks)
        return list(examine())


def findings(*subjects: str) -> dict[str, Finding]:
    return {finding.subject: finding for finding in looked(*subjects)}


def test_a_new_installation_has_no_problem_and_nothing_is_made(tmp_path, laps_command):
    code, out, _ = laps_command("doctor")
    assert code == 0
    assert "PROBLEM" not in out and "does not exist yet" in out
    assert list(tmp_path.iterdir()) == []


def test_a_store_in_use_is_written_to_and_left_as_it_was(tmp_path, laps_command):
    store = Store()
    store_settings(store)
    (tmp_path / "landing" / "cam1").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = laps_command("doctor", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["problems"] == 0
    said = {finding["subject"]: finding["said"] for finding in told["findings"]}
    assert said["store"] == f"{store.root} can be read and written"
    assert said["landing zone"].endswith("1 camera folder")
    assert said["catalog"] == "opens, 0 primitives"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_cannot_be_made_or_used_is_a_problem(tmp_path, monkeypatch, laps_command):
    monkeypatch.setenv("LAPS_STORE", "/proc/store")
    found = findings("store")["store"]
    assert found.level == "problem" and "/proc cannot be written" in found.said and found.fix
    code, out, _ = laps_command("doctor")
    assert code == 1 and "PROBLEM" in out
    store = Store(str(tmp_path / "broken"))
    store.write_bytes("settings.json", b"no json")
    monkeypatch.setenv("LAPS_STORE", store.root)
    (found,) = (one for one in findings("store").values() if one.level == "problem")
    assert "settings.json: is not valid JSON" in found.said and "Put back a file like" in found.fix


def test_many_camera_hours_are_noted_with_how_to_move_the_start(monkeypatch):
    present_ns = parse_utc("2026-01-05T08:30:00Z")
    monkeypatch.setattr("laps.timegrid.now_ns", lambda: present_ns)
    monkeypatch.setenv("LAPS_FIRST_HOUR", format_utc(present_ns // HOUR_NS * HOUR_NS - 39_999 * HOUR_NS))
    store = Store()
    store_settings(store)
    store.write_bytes("recordings/camera=cam1/a.parquet", b"")
    found = findings("store")["partitions"]
    assert found.level == "ok" and found.said.startswith("40,000 camera hours (1 cameras")
    store.write_bytes("recordings/camera=cam2/a.parquet", b"")
    found = findings("store")["partitions"]
    assert found.level == "note" and found.said.startswith("80,000 camera hours (2 cameras")
    assert f"a later first_hour into {store.root}/settings.json" in found.fix and "LAPS_FIRST_HOUR" in found.fix


def test_a_draft_beside_the_current_release_is_noted_with_what_to_do(monkeypatch):
    store = Store()
    store_settings(store)
    registry = ModelRegistry(store)
    current = registry.open_draft("the first")
    assert "draft" not in findings("store"), "one without a current release is told with that"
    store.write_json(CURRENT, {"release": current.name})
    assert "draft" not in findings("store")
    draft = registry.open_draft("weekly models")
    found = findings("store")
    assert found["release"].level == "ok"
    assert found["draft"].level == "note" and found["draft"].said.startswith(f"{draft.name} (weekly models, ")
    for command in (f"laps report --release {draft.name}", f"laps promote {draft.name}", f"laps discard {draft.name}"):
        assert f"`{command}" in found["draft"].fix


# --- room ----------------------------------------------------------------------------------------------------------


def test_room_is_looked_at_wherever_it_is_taken(tmp_path, monkeypatch):
    for name in ("home", "uploads", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "uploads"))
    free = {tmp_path: 9 * 10**9, tmp_path / "home": 10**9, tmp_path / "uploads": 10**9, tmp_path / "cache": 10**9}
    # What is not there yet is looked at where it will be.
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free[Path(folder)]))
    store, home = looked("room")
    assert store.said == f"9.0 GB free for the store, in {tmp_path}/store" and "long backfill" in store.fix
    assert home.said.endswith(f"in {tmp_path}/home") and "laps retention apply" in home.fix
    monkeypatch.setenv("LAPS_STORE", "s3://bucket/store")
    home, uploads, cache = looked("room")
    assert uploads.said == f"1.0 GB free for uploads, in {tmp_path}/uploads" and "TMPDIR" in uploads.fix
    assert cache.said.endswith(f"in {tmp_path}/cache/laps") and "XDG_CACHE_HOME" in cache.fix
    assert {one.level for one in (store, home, uploads, cache)} == {"note"}
    free.update(dict.fromkeys(free, 20 * 10**9))
    assert {one.level for one in looked("room")} == {"ok"}


# --- the landing zone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/prefix"])
def test_a_landing_zone_in_object_storage(s3: S3, monkeypatch, prefix: str):
    bucket = f"s3://{BUCKET}"
    monkeypatch.setenv("LAPS_LANDING", root := f"{bucket}{prefix}")
    landing = Store(root)
    landing.write_bytes("cam1/a.mp4", b"")
    found = findings("landing zone")["landing zone"]
    assert found.level == "ok" and found.said.startswith(f"{root}, ")
    landing.delete("cam1")
    monkeypatch.setenv("LAPS_LANDING", f"{s3.url}/nothing")
    found = findings("landing zone")["landing zone"]
    assert found.level == "note" and found.said == f"{s3.url}/nothing does not exist"
    monkeypatch.setenv("LAPS_LANDING", f"s3://no-such-bucket{prefix}")
    found = findings("landing zone")["landing zone"]
    assert found.level == "problem" and "the bucket does not exist" in found.said and "Create the bucket" in found.fix


@pytest.mark.parametrize("prefix", ["", "/prefix"])
@pytest.mark.parametrize("answer", ["", "403 InvalidAccessKeyId", "403 AccessDenied"])
def test_wrong_keys_to_a_landing_zone_are_a_problem(s3: S3, monkeypatch, prefix: str, answer: str):
    monkeypatch.setenv("LAPS_LANDING", root := f"s3://{BUCKET}{prefix}")
    if answer:
        s3.proxy.fault(answer, times=10**6)
    else:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "w" * 40)
        ObjectStorage.clear_instance_cache()
    found = findings("landing zone")["landing zone"]
    assert found.level == "problem" and found.said.startswith(f"{root}/: cannot be listed: ")
    assert "AWS_PROFILE" in found.fix and s3.secret not in str(found)


def test_wrong_keys_to_a_store_are_a_problem(s3: S3, monkeypatch):
    monkeypatch.setenv("LAPS_STORE", root := f"s3://{BUCKET}/store")
    store_settings(Store())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "w" * 40)
    ObjectStorage.clear_instance_cache()
    (found,) = (one for one in looked("store") if one.level == "problem")
    assert found.said.startswith(f"{root}/doctor-") and "cannot be written" in found.said
    assert "AWS_PROFILE" in found.fix and s3.secret not in str(found)


@pytest.mark.parametrize(("capability", "level"), [("DEFAULT", "note"), ("AVX2", "ok")])
def test_a_processor_without_vector_instructions_is_noted(monkeypatch, capability: str, level: str):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    found = findings("machine")["cpu"]
    assert found.level == level and ("several times slower" in found.fix) == (level == "note")


def test_weights_that_are_not_there_are_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("LAPS_VISION", "open_clip")
    monkeypatch.setenv("LAPS_CLIP_WEIGHTS", str(tmp_path / "clip.pt"))
    found = findings("vision encoder")["vision encoder"]
    assert found.level == "problem" and "clip.pt" in found.said + found.fix and found.fix


def test_a_package_of_another_version_is_named(monkeypatch):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.4.0" if name == "duckdb" else real(name))
    found = findings("packages")["packages"]
    assert found.level == "problem"
    assert "duckdb is 1.4.0, needed is <3,>=2" in found.said and "make install" in found.fix


def test_a_missing_decoder_is_named(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"hevc"})
    found = findings("codecs")["codecs"]
    assert found.level == "problem" and "no decoder for hevc" in found.said


@pytest.mark.parametrize(
    ("name", "value", "subject"),
    [("LAPS_TRACKER", "sonar", "tracker"), ("LAPS_VISION", "eyes", "vision encoder")],
)
def test_a_choice_that_cannot_be_made_is_a_problem_of_its_own(monkeypatch, name: str, value: str, subject: str):
    monkeypatch.setenv(name, value)
    found = findings("tracker", "vision encoder")
    assert found[subject].level == "problem" and found[subject].fix
    assert sum(finding.level == "problem" for finding in found.values()) == 1


@pytest.mark.parametrize(("tracker", "level"), [("flow", "ok"), ("cotracker", "note")])
def test_a_tracker_that_needs_a_gpu_where_there_is_none_is_noted(monkeypatch, tracker: str, level: str):
    monkeypatch.setenv("LAPS_TRACKER", tracker)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = findings("machine")["gpu"]
    assert found.level == level and found.said.startswith("none")
    assert (level == "ok") == ("LAPS_TRACKER=flow" not in found.fix)
    assert (level == "ok") == ("very slow" not in found.said)


# --- Dagster -------------------------------------------------------------------------------------------------------

# In a process of its own: what is imported once is not made again.
LOOK = """
import json
from laps_dagster import doctor
doctor.LOOKS = {"definitions": doctor.LOOKS["definitions"]}
print(json.dumps([finding.as_dict() for finding in doctor.examine()]))
"""


@pytest.mark.parametrize(
    ("name", "value", "said", "fix"),
    [
        ("LAPS_SCHEDULE_ZONE", "Berlin", "'Berlin' is no time zone", "like Europe/Berlin"),
        ("LAPS_NIGHTLY_AT", "25:00", "'25:00' is no time of day", "like 01:30"),
    ],
)
def test_what_keeps_daemon_and_web_server_from_loading_is_a_problem(name: str, value: str, said: str, fix: str):
    environment = {**os.environ, name: value}
    root = Path(doctor.__file__).parent.parent
    answer = subprocess.run([sys.executable, "-c", LOOK], cwd=root, env=environment, capture_output=True, check=True)
    (found,) = json.loads(answer.stdout)
    assert (found["subject"], found["level"]) == ("definitions", "problem")
    assert found["said"] == f"web server and daemon cannot load them: {name}: {said}" and fix in found["fix"]


def test_definitions_that_do_not_fit_together_are_a_problem(monkeypatch):
    @dg.op(required_resource_keys={"camera"})
    def look() -> None: ...

    @dg.job
    def looking() -> None:
        look()

    assert findings("definitions")["definitions"].level == "ok"
    monkeypatch.setattr("laps_dagster.definitions.defs", dg.Definitions(jobs=[looking]))
    found = findings("definitions")["definitions"]
    assert found.level == "problem" and "cannot load them: DagsterInvalidDefinitionError: " in found.said
    assert "dagster definitions validate -m laps_dagster.definitions" in found.fix


ALL = "landing_files, retention, nightly, morning, weekly"


def test_nothing_else_is_switched_by_the_variable():
    from laps_dagster.definitions import defs

    stopped = [one.name for one in (*defs.sensors, *defs.schedules) if one.default_status.value == "STOPPED"]
    assert sorted(stopped) == sorted(doctor.AUTOMATED)


def test_what_runs_by_itself_is_said_without_an_instance(tmp_path, monkeypatch):
    found = findings("dagster")["automation"]
    assert found.level == "note" and found.said == f"LAPS_AUTOMATION is off; stopped: {ALL}"
    assert "LAPS_AUTOMATION=on" in found.fix
    monkeypatch.setenv("LAPS_AUTOMATION", "on")
    found = findings("dagster")["automation"]
    assert (found.level, found.said) == ("ok", f"LAPS_AUTOMATION is on; running: {ALL}")
    assert not (tmp_path / "dagster").exists()


# Dagster uses what it has deprecated itself, when it describes a schedule.
@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars` is deprecated:DeprecationWarning")
def test_what_was_switched_by_hand_stands_above_the_variable(monkeypatch):
    with open_instance() as instance:
        # Another location, from before: what this one knows of the same names counts.
        for location in ("old", doctor.LOCATION):
            with switches(instance, location) as (sensor, schedule):
                weekly = schedule("weekly")
                instance.start_schedule(weekly)
                if location == doctor.LOCATION:
                    instance.stop_schedule(weekly.get_remote_origin_id(), weekly.selector_id, weekly)
                    instance.start_sensor(sensor("landing_files"))
                    # As the daemon writes it down of what begins switched on.
                    started = instance.start_schedule(schedule("morning"))
                    instance.update_instigator_state(started.with_status(InstigatorStatus.DECLARED_IN_CODE))
    found = findings("dagster")["automation"]
    said = "LAPS_AUTOMATION is off; running: landing_files; stopped: retention, nightly, morning, weekly"
    assert (found.level, found.said) == ("note", said) and "LAPS_AUTOMATION=on" in found.fix
    monkeypatch.setenv("LAPS_AUTOMATION", "on")
    found = findings("dagster")["automation"]
    said = "LAPS_AUTOMATION is on; running: landing_files, retention, nightly, morning; stopped: weekly"
    assert (found.level, found.said) == ("note", said) and "started there" in found.fix


@contextmanager
def switches(instance: dg.DagsterInstance, location: str) -> Iterator[tuple[Any, Any]]:
    """How the UI finds a sensor or a schedule by its name, to switch it."""
    origin = LoadableTargetOrigin(module_name="laps_dagster.definitions", attribute="defs")
    target = InProcessTestWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name=location))
    with WorkspaceProcessContext(instance, target) as process:
        code = process.create_request_context().get_code_location(location)
        (repository,) = code.get_repositories().values()
        yield repository.get_sensor, repository.get_schedule


def lost_run(instance: dg.DagsterInstance) -> None:
    @dg.job
    def nothing() -> None: ...

    run = instance.create_run_for_job(nothing)
    instance.add_run_tags(run.run_id, made_here(run.run_id))
    instance.report_run_canceling(run)


def test_runs_of_dead_processes_are_a_problem(monkeypatch):
    with open_instance() as instance:
        lost_run(instance)
    monkeypatch.setattr("laps_dagster.processes.is_gone", lambda known: known == identity())
    found = findings("dagster")
    assert found["runs"].level == "problem" and "1 runs are shown as started" in found["runs"].said
    assert found["daemon"].level == "note" and "no daemon has run here" in found["daemon"].said


def test_an_instance_file_that_cannot_be_used_is_named(tmp_path):
    with open_instance():
        pass
    (tmp_path / "dagster" / "dagster.yaml").write_text("no_such_setting: true\n")
    found = findings("dagster")["dagster"]
    assert found.level == "problem" and "dagster.yaml cannot be used" in found.said
