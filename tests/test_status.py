"""``laps status``: coverage of hours, what their latest runs did, quarantined files, and exit codes for scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from laps.timegrid import CameraHour
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.coverage import HourState, add_runs
from laps_dagster.instance import open_instance
from laps_dagster.runs import Task, execute
from resources.recordings import Recordings
from resources.store import Store
from tests.conftest import Laps
from tests.videos import write_video

EIGHT, NINE, TEN = (f"cam1|2026-01-05-{hour}:00" for hour in ("08", "09", "10"))

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in it, which holds footage in two hours of a camera, and a file that is none."""
    folder = tmp_path_factory.mktemp("status")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
        register = Recordings(Store(str(folder / "store")))
        for name in ("a_20260105T080000Z.mp4", "b_20260105T090000Z.mp4"):
            register.register(str(write_video(folder / name, seconds=36.0, fps=5, width=64, height=48)), "cam1")
        bad = folder / "bad_20260105T100000Z.mp4"
        bad.write_bytes(b"no video")
        register.register(str(bad), "cam2")
    return folder


@pytest.fixture(autouse=True)
def environment(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of that store; its videos stay where they are."""
    shutil.copytree(registered / "store", tmp_path / "store")
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")


@pytest.fixture
def status(laps_command: Laps) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        code, out, _ = laps_command("status", *arguments)
        return code, out

    return run


def test_hours_tell_their_coverage_and_why_their_runs_failed(status):
    register_cameras(["cam1"])
    assert execute(Task("track", EIGHT)).ok
    failed = execute(Task("encode", EIGHT))
    assert not failed.ok
    code, out = status("--json")
    assert code == 0
    eight, nine, ten = json.loads(out)["hours"]
    assert eight["covered"] == pytest.approx(36 / 3600, abs=1e-3)
    assert eight["lacking"] == ["encoded", "clustered"] and not eight["complete"]
    assert eight["run"] == f"failed (encode, run {failed.run_id[:8]}): {failed.error.splitlines()[0]}"
    assert nine["covered"] is None and nine["run"] is None and "described" in nine["lacking"]
    assert [hour["closes"] for hour in (eight, nine, ten)] == [False, False, True]


def test_the_hour_that_closes_the_last_one_is_named_where_it_failed(status):
    register_cameras(["cam1"])
    assert execute(Task("track", TEN)).ok
    failed = execute(Task("encode", TEN))
    code, out = status()
    assert code == 0 and "0 of 2 hours complete, 0.0 h of footage in 0 described" in out
    (line,) = [line for line in out.splitlines() if "2026-01-05-10:00" in line]
    assert "not yet encoded, clustered (closes what was open before); failed" in line and failed.run_id[:8] in line
    assert "2026-01-05-08:00 to 2026-01-05-09:00 UTC" in out
    assert "3 hours are not complete" in out
    assert status("--check", "--camera", "cam1", "--from", "2026-01-05T10:00:00Z")[0] == 1


def test_an_hour_that_is_running_closes_nothing_yet(status, monkeypatch):
    monkeypatch.setattr("laps_dagster.coverage.now_ns", lambda: CameraHour.parse(TEN).stop_ns - 1)
    assert len(json.loads(status("--json")[1])["hours"]) == 2


def launched(instance: dg.DagsterInstance, job: dg.JobDefinition, hour: str) -> dg.DagsterRun:
    camera, _, time = hour.partition("|")
    tags = {"dagster/partition/camera": camera, "dagster/partition/hour": time}
    return instance.create_run_for_job(job, tags=tags)


def test_the_latest_run_counts_and_those_of_other_jobs_do_not():
    @dg.job
    def track() -> None: ...

    @dg.job
    def sweep() -> None: ...

    states = [HourState(CameraHour.parse(hour), lacking=["tracked"]) for hour in (EIGHT, NINE)]
    with open_instance() as instance:
        instance.report_run_failed(launched(instance, track, EIGHT), "its process is gone: killed")
        newest = launched(instance, track, EIGHT)
        launched(instance, sweep, EIGHT)
        dead = launched(instance, track, NINE)
        instance.report_run_failed(dead, "its process is gone: killed")
        add_runs(instance, states)
    assert states[0].run == f"queued (track, run {newest.run_id[:8]})"
    assert states[1].run == f"failed (track, run {dead.run_id[:8]}): its process is gone: killed"


def test_a_run_at_work_is_shown_with_when_it_began():
    @dg.job
    def observe() -> None: ...

    states = [HourState(CameraHour.parse(hour), lacking=["tracked"]) for hour in (EIGHT, NINE)]
    with open_instance() as instance:
        starting, running = (launched(instance, observe, hour) for hour in (EIGHT, NINE))
        for run, kinds in ((starting, ("STARTING",)), (running, ("STARTING", "START"))):
            for kind in kinds:
                event = dg.DagsterEvent(f"PIPELINE_{kind}", "observe")
                instance.report_dagster_event(event, run.run_id)
        add_runs(instance, states)
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[running.run_id]))
    assert states[0].run == f"starting (observe, run {starting.run_id[:8]})"
    began = datetime.fromtimestamp(record.start_time or 0.0, UTC)
    assert states[1].run == f"running since {began:%H:%M} UTC (observe, run {running.run_id[:8]})"


def test_a_complete_hour_is_shown_while_it_is_made_again(status, monkeypatch):
    @dg.job
    def observe() -> None: ...

    def complete(store, hours, release):
        return [HourState(hour, covered=0.5) for hour in hours]

    monkeypatch.setattr("laps_dagster.coverage.hour_states", complete)
    with open_instance() as instance:
        runs = [launched(instance, observe, hour) for hour in (EIGHT, NINE)]
        instance.report_run_failed(runs[0], "its process is gone: killed")
    code, out = status("--check", "--camera", "cam1")
    assert code == 0 and "2 of 2 hours complete" in out
    assert [line.strip() for line in out.splitlines() if "observe" in line] == [
        f"2026-01-05-09:00 UTC   50%  complete; queued (observe, run {runs[1].run_id[:8]})"
    ]
    with open_instance() as instance:
        instance.report_run_canceled(runs[1])
    assert "observe" not in status("--camera", "cam1")[1], "what is over is the past of a complete hour"


def test_quarantined_files_are_of_the_range_and_those_of_a_person_apart(status, laps_command, registered, tmp_path):
    bad = registered / "bad_20260105T100000Z.mp4"
    quarantined = f"\nquarantined\n  cam2  {bad}: "
    code, out = status("--check", "--camera", "cam2")
    assert code == 1 and quarantined in out
    assert status("--check", "--camera", "cam2", "--from", "2026-01-05T10:00:00Z")[0] == 1
    code, out = status("--check", "--camera", "cam2", "--from", "2026-01-05T11:00:00Z")
    assert code == 0 and str(bad) not in out
    assert status("--check", "--camera", "cam2", "--to", "2026-01-05T10:00:00Z")[0] == 0
    # One without a start is of the time at which it was registered.
    unknown = Path(shutil.copyfile(bad, tmp_path / "unknown.mp4"))
    Recordings(Store()).register(str(unknown), "cam2")
    code, out = status("--check", "--camera", "cam2", "--from", "2026-01-05T11:00:00Z")
    assert code == 1 and str(unknown) in out and str(bad) not in out
    for file in (bad, unknown):
        assert laps_command("quarantine", file, "--camera", "cam2", "--reason", "renamed")[0] == 0
    code, out = status("--check", "--camera", "cam2")
    assert code == 0 and quarantined not in out
    assert f"\nquarantined by a person\n  cam2  {bad}: renamed" in out
    shown = json.loads(status("--json", "--camera", "cam2")[1])
    assert shown["quarantined"] == []
    assert [row["uri"] for row in shown["quarantined_by_a_person"]] == [str(bad), str(unknown)]


def test_scripts_are_told_by_the_exit_code(status):
    assert status()[0] == 0
    code, out = status("--check")
    assert code == 1 and "3 hours are not complete" in out and "no video file" in out
    # Nothing recorded before, nothing missing.
    assert status("--check", "--camera", "cam1", "--to", "2026-01-05T08:00:00Z")[0] == 0
    assert status("--check", "--camera", "cam1", "--from", "2026-01-05T09:00:00Z")[0] == 1


def test_a_camera_that_is_none_is_an_error(status):
    code, out = status("--camera", "cam7")
    assert code == 1 and out == ""


def test_nothing_is_made_by_looking(status, tmp_path):
    assert not (tmp_path / "dagster").exists()
    status()
    assert not (tmp_path / "dagster").exists()
