"""Runs in worker processes: outcomes in order, failures told, and a crash that takes nobody along."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from laps_dagster import runs
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.runs import Outcome, Runner, Task

HOUR = "cam1|2026-01-05-09:00"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    register_cameras(["cam1"])


def test_outcomes_come_in_order_and_failures_say_why() -> None:
    told: list[Outcome] = []
    tasks = [Task("track", HOUR), Task("train_tokenizer"), Task("track", "cam1|2026-01-05-10:00")]
    with Runner(workers=2) as runner:
        outcomes = runner.run_all(tasks, done=told.append)
    assert [outcome.task for outcome in outcomes] == tasks
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert "no window of keypoint tracks" in outcomes[1].error
    assert outcomes[0].metadata["raw_video"]["footage_s"] == 0.0
    assert sorted(map(str, told)) == sorted(map(str, outcomes))


def crash_on_nine(task: Task, threads: int | None = None) -> Outcome:
    """Stands where a codec's crash would: the process dies in the middle of one partition's run."""
    if task.partition == HOUR:
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task, True)


def test_a_crash_ends_its_own_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "execute", crash_on_nine)
    tasks = [Task("track", f"cam1|2026-01-05-{hour:02}:00") for hour in (8, 9, 10, 11)]
    with Runner(workers=2) as runner:
        outcomes = runner.run_all(tasks)
    assert [outcome.ok for outcome in outcomes] == [True, False, True, True]
    assert "worker process died" in outcomes[1].error
