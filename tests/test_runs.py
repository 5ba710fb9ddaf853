"""Runs in worker processes: outcomes in order, failures told, and a crash that takes nobody along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from laps_dagster import runs
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.instance import open_instance
from laps_dagster.processes import identity, is_gone
from laps_dagster.runs import Outcome, Runner, Task, execute
from laps_dagster.sensors import lost_runs
from resources.recordings import Recordings
from resources.store import Store
from tests import workers
from tests.videos import write_video

HOUR = workers.HOUR


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    register_cameras(["cam1"])


def test_outcomes_come_in_order_and_failures_say_why() -> None:
    told: list[Outcome] = []
    tasks = [Task("track", HOUR), Task("assign", HOUR), Task("track", "cam1|2026-01-05-10:00")]
    with Runner(workers=2) as runner:
        outcomes = runner.run_all(tasks, done=told.append)
    assert [outcome.task for outcome in outcomes] == tasks
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert "there is no release yet" in outcomes[1].error
    assert outcomes[0].metadata["raw_video"]["footage_s"] == 0.0
    assert sorted(map(str, told)) == sorted(map(str, outcomes))


def test_a_crash_ends_its_own_run_only_and_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    video = write_video(tmp_path / "deadly_20260105T090000Z.mp4")
    Recordings(Store()).register(str(video), "cam1")
    tasks = [Task("track", f"cam1|2026-01-05-{hour:02}:00") for hour in (8, 9, 10)]
    with Runner(workers=2) as runner:
        monkeypatch.setattr(runs, "execute", workers.crash_at_nine)
        outcomes = runner.run_all(tasks)
        assert [outcome.ok for outcome in outcomes] == [True, False, True]
        assert "worker process died" in outcomes[1].error
        assert f"the last it said: decoding {video}" in outcomes[1].error
        # The dead runs are failed, and gave back their places in the pool: the hour can run again.
        with open_instance() as instance:
            statuses = [run.status.value for run in instance.get_runs()]
            assert "STARTED" not in statuses and "FAILURE" in statuses
            assert instance.event_log_storage.get_concurrency_info("decode").active_slot_count == 0
        monkeypatch.setattr(runs, "execute", execute)
        assert runner.run_all([Task("track", HOUR)])[0].ok


def test_after_a_crash_the_others_still_run_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "execute", workers.note_and_die_at_two)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    with Runner(workers=2) as runner:
        outcomes = runner.run_all([Task("track", str(number)) for number in range(8)])
    assert [outcome.ok for outcome in outcomes] == [True, True, False, *[True] * 5]
    lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    alone = [number for number, threads, _ in lines if threads == "8"]
    assert "2" in alone and len(alone) <= 2, "only what was under way is made alone"
    assert len({process for number, _, process in lines if int(number) >= 4}) >= 2


def test_a_run_that_waits_for_a_place_leaves_the_processor_alone() -> None:
    with open_instance() as instance:
        places = instance.event_log_storage
        places.set_concurrency_slots("decode", 1)
        holder = str(uuid.uuid4())
        assert places.claim_concurrency_slot("decode", holder, "a step").is_claimed
        outcomes: list[Outcome] = []
        waiting = threading.Thread(target=lambda: outcomes.append(execute(Task("track", HOUR))))
        waiting.start()
        deadline = time.monotonic() + 60
        while not places.get_concurrency_info("decode").pending_step_count and time.monotonic() < deadline:
            time.sleep(0.1)
        before = time.process_time()
        time.sleep(3.0)
        used_s = time.process_time() - before
        places.free_concurrency_slots_for_run(holder)
        waiting.join(60)
    assert outcomes[0].ok, outcomes[0].error
    assert used_s < 0.6, f"{used_s:.1f} of 3 s"


def start_a_runner() -> None:
    with Runner():
        pass


def evaluate_the_sensor() -> None:
    with open_instance() as instance, dg.build_sensor_context(instance) as context:
        skipped = lost_runs(context)
    assert isinstance(skipped, dg.SkipReason) and "failed " in str(skipped.skip_message)


@pytest.mark.parametrize("look", [start_a_runner, evaluate_the_sensor])
def test_runs_that_a_killed_process_left_are_failed(look: Callable[[], None]) -> None:
    code = f"from tests.workers import *; crash_at_nine(Task('track', {HOUR!r}))"
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)
    assert killed.returncode == -signal.SIGKILL
    with open_instance() as instance:
        (lost,) = instance.get_runs()
        assert lost.status is dg.DagsterRunStatus.STARTED
        # Dagster tries a run again with all of its tags, those of its process too; this one is about to begin.
        again = instance.add_run(lost._replace(run_id=str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTING))
    look()
    with open_instance() as instance:
        assert {run.run_id: run.status.value for run in instance.get_runs()} == {
            lost.run_id: "FAILURE",
            again.run_id: "STARTING",
        }
        assert instance.event_log_storage.get_concurrency_info("decode").active_slot_count == 0


def test_a_killed_run_of_the_ui_gives_its_place_to_those_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_instance() as instance:
        instance.event_log_storage.set_concurrency_slots("decode", 1)
    # `dagster asset materialize` makes a run as the UI does: with the executor of the definitions.
    note = tmp_path / "holds"
    code = (
        "import sys, time, pathlib, laps.observe; from dagster._cli import main\n"
        f"laps.observe.observe = lambda *_, **__: [pathlib.Path({str(note)!r}).touch(), time.sleep(600)]\n"
        "sys.argv = ['dagster', 'asset', 'materialize', '-m', 'laps_dagster.definitions', '--partition', "
        f"{HOUR!r}, '--select', 'raw_video,keypoint_tracks,keyframes']; main()"
    )
    said: list[str] = []
    monkeypatch.setattr(runs, "POOLS_LOOKED_AT_EVERY_S", 1.0)
    root = Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.DEVNULL) as holder:
        deadline = time.monotonic() + 60
        while not note.exists() and time.monotonic() < deadline:
            time.sleep(0.1)

        def kill_when_told(line: str) -> None:
            said.append(line)
            holder.kill()
            holder.wait()

        with Runner(notice=kill_when_told) as runner:
            outcome = runner.run_all([Task("track", "cam1|2026-01-05-10:00")])[0]
    assert outcome.ok, outcome.error
    assert len(said) == 1
    assert "waiting for pool decode, held by run" in said[0] and f"process {holder.pid}" in said[0]
    with open_instance() as instance:
        assert sorted(run.status.value for run in instance.get_runs()) == ["FAILURE", "SUCCESS"]


def test_an_interrupt_ends_the_workers_and_fails_their_runs(tmp_path: Path) -> None:
    note = tmp_path / "worker"
    code = (
        "from laps_dagster import runs; from tests.workers import hold_for_ever; runs.execute = hold_for_ever\n"
        f"if __name__ == '__main__':\n    with runs.Runner() as runner: runner.run_all([runs.Task('track', {HOUR!r})])"
    )
    script = tmp_path / "command.py"
    script.write_text(code)
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE
    ) as command:
        deadline = time.monotonic() + 60
        while not note.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=30)
    assert said.decode().count("Traceback") == 1, said.decode()  # the command's own; the workers say nothing
    with open_instance() as instance:
        assert [run.status.value for run in instance.get_runs()] == ["FAILURE"]


def test_workers_end_with_the_command_that_started_them(tmp_path: Path) -> None:
    code = (
        "from laps_dagster import runs; from tests.workers import wait_for_ever; runs.execute = wait_for_ever\n"
        f"if __name__ == '__main__': runs.Runner().run_all([runs.Task('track', {HOUR!r})])"
    )
    script = tmp_path / "command.py"
    script.write_text(code)
    root = Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}) as command:
        note = tmp_path / "worker"
        deadline = time.monotonic() + 60
        while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        worker = identity(int(note.read_text()))
        assert worker is not None
        command.kill()
    deadline = time.monotonic() + 20
    while not is_gone(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert is_gone(worker)


class EndedInTheUi(BaseException):
    """As Dagster's own: no KeyboardInterrupt."""


def test_workers_end_with_the_run_that_they_are_part_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "execute", workers.wait_for_ever)
    note = tmp_path / "worker"

    def end_it() -> list[str]:
        raise EndedInTheUi

    monkeypatch.setattr(runs, "POOLS_LOOKED_AT_EVERY_S", 0.1)
    monkeypatch.setattr(Runner, "_look_at_pools", lambda *_: end_it() if note.exists() and note.read_text() else [])
    began = time.monotonic()
    with pytest.raises(EndedInTheUi), Runner() as runner:
        runner.run_all([Task("track", HOUR)])
    assert time.monotonic() - began < 60
    assert identity(int(note.read_text())) is None


def test_an_hour_that_is_no_partition_is_an_outcome() -> None:
    outcome = execute(Task("track", "cam1|2020-01-05-09:00"))
    assert not outcome.ok
    assert "2020-01-05-09:00" in outcome.error


def test_processes_are_told_apart() -> None:
    mine = identity()
    assert mine is not None and not is_gone(mine)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        theirs = identity(child.pid)
        assert theirs is not None and not is_gone(theirs)
        child.kill()
    assert is_gone(theirs)
    elsewhere = theirs.split()
    assert not is_gone(" ".join(["another-host", *elsewhere[1:]])), "another machine's processes cannot be judged"
