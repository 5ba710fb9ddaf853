"""``laps doctor``: what is there is said, what is missing is said with a remedy, and nothing is left behind."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import av
import dagster as dg
import pytest

from laps.timegrid import HOUR_NS, format_utc, parse_utc
from laps_dagster import doctor
from laps_dagster.doctor import Finding, examine
from laps_dagster.instance import open_instance
from laps_dagster.processes import identity, made_here
from resources.settings import store_settings
from resources.store import Store


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAPS_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    for name in ("LAPS_TRACKER", "LAPS_VISION", "LAPS_FIRST_HOUR"):
        monkeypatch.delenv(name, raising=False)


def findings(*subjects: str) -> dict[str, Finding]:
    looks = {name: look for name, look in doctor.LOOKS.items() if name in subjects}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "LOOKS", looks)
        return {finding.subject: finding for finding in examine()}


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
