"""Why a run failed that could not say so itself: its process died under a code server, or was never started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import EngineEventData  # not public
from dagster._core.log_manager import DagsterLogManager  # not public
from dagster._utils.error import SerializableErrorInfo  # not public

from laps.errors import StoreError
from laps.timegrid import CameraHour
from laps_dagster.alarms import Told, new_troubles
from laps_dagster.coverage import HourState, add_runs, why_failed
from laps_dagster.instance import ensure_home, open_instance
from laps_dagster.processes import fail_lost_run
from tests.deadly import KILLED, STUCK, defs
from tests.kills import ROOT, wait_until

HOURS = {KILLED: CameraHour.parse("cam1|2026-01-05-09:00"), STUCK: CameraHour.parse("cam1|2026-01-05-10:00")}
PATIENCE_S = 240.0
SAID = {
    KILLED: "its worker process died: it was terminated by signal 9 (SIGKILL); "
    "the last it said: decoding /recordings/deadly.mp4",
    STUCK: "its worker process died: it unexpectedly exited with code 1; "
    "the last it said: decoding /recordings/endless.mp4",
}


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with (ensure_home() / "dagster.yaml").open("a") as settings:
        # Else the code server may outlive the test, and is missed when its handle is collected during the next one.
        settings.write("code_servers:\n  wait_for_local_processes_on_shutdown: true\n")
    with open_instance() as instance:
        yield instance


def launch(instance: dg.DagsterInstance, job: str, context: Any) -> str:
    """A run that a code server makes, as those of the daemon's queue; its id."""
    (location,) = context.code_locations
    (repository,) = location.get_repositories().values()
    hour = HOURS[job]
    run = instance.create_run_for_job(
        defs.resolve_job_def(job),
        tags={
            "dagster/partition": hour.key,
            "dagster/partition/camera": hour.camera,
            "dagster/partition/hour": hour.hour_key,
        },
        remote_job_origin=repository.get_full_job(job).get_remote_origin(),
    )
    instance.launch_run(run.run_id, context)
    return run.run_id


def test_a_run_that_a_code_server_found_dead_says_how_it_ended_and_what_it_was_decoding(
    instance: dg.DagsterInstance,
) -> None:
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget

    target = ModuleTarget("tests.deadly", None, str(ROOT), None)
    with WorkspaceProcessContext(instance, target) as process:
        runs = {job: launch(instance, job, process.create_request_context()) for job in HOURS}
        wait_until(lambda: all(run.is_finished for run in instance.get_runs()), "the end of the runs", PATIENCE_S)
    assert {job: why_failed(instance, run_id) for job, run_id in runs.items()} == SAID
    states = [HourState(hour, lacking=["tracked"]) for hour in HOURS.values()]
    add_runs(instance, states)
    assert [state.run for state in states] == [
        f"failed ({job}, run {run_id[:8]}): {SAID[job]}" for job, run_id in runs.items()
    ]
    for run_id in runs.values():
        # The daemon means to try them again; this was the last time.
        instance.add_run_tags(run_id, {"dagster/will_retry": "false"})
    troubles, _ = new_troubles(instance, Told(after_s=0.0), time.time(), "error")
    assert {one.what: one.why for one in troubles} == {f"run {job}": said for job, said in SAID.items()}


def failed(instance: dg.DagsterInstance, said: str, error: SerializableErrorInfo | None = None) -> dg.DagsterRun:
    """A run that Dagster fails without a reason, after an event that says it; and is then about to try again."""
    run = instance.create_run_for_job(dg.GraphDefinition("track").to_job())
    instance.report_engine_event("Launching the run", run)
    instance.report_engine_event(said, run, EngineEventData(error=error))
    instance.report_run_failed(run)
    instance.report_engine_event("Retrying the run", run)
    return run


def test_a_run_that_could_not_be_started_says_why(instance: dg.DagsterInstance) -> None:
    error = SerializableErrorInfo("DagsterUserCodeUnreachableError: no server answers\n", [], None)
    run = failed(instance, "Caught an error for the run", error)
    assert why_failed(instance, run.run_id) == f"outside of any step: {error.message.strip()}"


def test_what_dagster_noted_last_stands_for_the_reason_that_it_left_out(instance: dg.DagsterInstance) -> None:
    run = failed(instance, "Something new happened.\nAt length")
    assert why_failed(instance, run.run_id) == "Something new happened."


def test_the_last_words_are_said_once(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(dg.GraphDefinition("track").to_job(), status=dg.DagsterRunStatus.STARTED)
    log = DagsterLogManager.create(loggers=[], instance=instance, dagster_run=run)
    log.info("decoding /recordings/a.mp4")
    log.info("decoding /recordings/b.mp4\nfrom 9 s on")
    fail_lost_run(instance, run.run_id, "its process is gone: killed")
    why = why_failed(instance, run.run_id)
    assert why == "its process is gone: killed; the last it said: decoding /recordings/b.mp4"


def test_a_step_that_failed_needs_no_last_words(instance: dg.DagsterInstance) -> None:
    @dg.op
    def decode(context) -> None:
        context.log.info("decoding /recordings/a.mp4")
        raise StoreError("cannot be written: no room", where="raw_video")

    @dg.job
    def track() -> None:
        decode()

    run = track.execute_in_process(instance=instance, raise_on_error=False)
    assert why_failed(instance, run.run_id) == "raw_video: cannot be written: no room"
