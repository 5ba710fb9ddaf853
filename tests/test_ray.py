"""Runs as Ray jobs: what they ask for, which of them are lost, and two hours on a real cluster of two nodes.

A node that dies in the middle, with the daemon: bench.ray.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from laps.errors import InputError
from laps.simulation import SCENARIOS, record
from laps.tables import KEYFRAMES, KEYPOINT_TRACKS, LATENT_STREAM, RAW_VIDEO
from laps.timegrid import CameraHour, parse_utc
from laps_dagster.instance import SETTINGS, open_instance
from laps_dagster.jobs import OBSERVE_ASSETS
from laps_dagster.processes import (
    fail_lost_runs,
    fail_runs_that_cannot_begin,
    identity,
    made_by_ray,
    made_here,
    ray_job_of,
)
from laps_dagster.runs import Task, execute
from laps_dagster.sensors import add_cameras
from resources.recordings import Recordings
from resources.settings import store_settings
from resources.store import Store
from tests.kills import wait_until
from tests.postgres import SETTINGS as POSTGRES_SETTINGS
from tests.postgres import postgres
from tests.s3 import S3, s3, s3_server
from tests.test_instance import BACKFILL
from tests.tokenizers import narrow_heads

__all__ = ["postgres", "s3", "s3_server"]

RAY_SETTINGS = SETTINGS.with_name("instance_ray.yaml")
HOURS = [CameraHour.parse(f"cam1|2026-01-05-{hour:02}:00") for hour in (9, 10)]
SCENARIO = replace(SCENARIOS["clean"], seed=3, duration_s=16.0, width_px=320, height_px=180, fps=15.0)
OBSERVED = (RAW_VIDEO, KEYPOINT_TRACKS, KEYFRAMES, LATENT_STREAM)
PATIENCE_S = 240.0

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or importlib.util.find_spec("dagster_ray") is None,
    reason="the extra `ray` is not installed",
)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    monkeypatch.setenv("LAPS_RAY_ADDRESS", "http://127.0.0.1:9")


def ray_home(tmp_path: Path, **settings: Any) -> None:
    """A Dagster home with the instance file for Ray, of which some settings are changed; None takes one away."""
    kept = {**yaml.safe_load(RAY_SETTINGS.read_text()), **settings}
    (tmp_path / "dagster").mkdir()
    text = yaml.safe_dump({name: value for name, value in kept.items() if value is not None})
    (tmp_path / "dagster" / "dagster.yaml").write_text(text)


def test_the_instance_file_differs_from_that_for_teams_in_what_a_cluster_needs() -> None:
    ray, team = (yaml.safe_load(file.read_text()) for file in (RAY_SETTINGS, POSTGRES_SETTINGS))
    assert ray.pop("run_launcher")["class"] == "RayLauncher"
    assert ray.pop("compute_logs")["class"] == "NoOpComputeLogManager"
    # As many places as runs: a run that waits for one keeps its cores.
    concurrency = ray.pop("concurrency")
    assert concurrency["runs"]["max_concurrent_runs"] == concurrency["pools"]["default_limit"]
    assert concurrency["pools"]["granularity"] == team.pop("concurrency")["pools"]["granularity"]
    for name in ("poll_interval_seconds", "start_timeout_seconds"):
        ray["run_monitoring"].pop(name)
    team["run_monitoring"].pop("start_timeout_seconds")
    assert ray == team


def test_ray_without_its_packages_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray_home(tmp_path, storage=None)
    monkeypatch.setitem(sys.modules, "dagster_ray", None)
    monkeypatch.delitem(sys.modules, "laps_dagster.ray_launcher", raising=False)
    with open_instance() as instance, pytest.raises(InputError, match=r"pip install '\.\[postgres,ray\]'"):
        assert instance.run_launcher


@with_ray
@pytest.mark.parametrize(
    ("job", "tags", "asked"),
    [
        ("observe", {}, {"num_cpus": 2.0, "num_gpus": 0.5, "memory": 1_500_000_000, "resources": {"ssd": 1.0}}),
        ("segment", {}, {"num_cpus": 1.0, "memory": 1_500_000_000}),
        ("segment", {"dagster-ray/config": '{"num_cpus": 3}'}, {"num_cpus": 3.0, "memory": 1_500_000_000}),
        ("train_tokenizer", {}, {"num_cpus": 4.0, "num_gpus": 1.0, "memory": 1_500_000_000}),
    ],
)
def test_a_run_asks_for_the_most_that_one_of_its_steps_does(
    job: str, tags: dict[str, str], asked: dict[str, Any], tmp_path: Path
) -> None:
    from laps_dagster.definitions import defs

    launcher = yaml.safe_load(RAY_SETTINGS.read_text())["run_launcher"]
    launcher["config"]["steps"] = {
        "observe_frames": {"num_gpus": 0.5, "resources": {"ssd": 1}},
        "latent_stream": {"num_cpus": 2, "num_gpus": 0.25},
        "motion_tokenizer": {"num_cpus": 4, "num_gpus": 1},
    }
    ray_home(tmp_path, storage=None, run_launcher=launcher)
    with open_instance() as instance:
        run = instance.create_run_for_job(defs.resolve_job_def(job), tags=tags)
        assert instance.run_launcher.request(run).model_dump(exclude_none=True) == asked


@with_ray
def test_a_job_makes_as_many_threads_as_it_has_cores_and_sees_only_gpus_that_it_asked_for() -> None:
    from dagster_ray.configs import RayExecutionConfig

    from laps_dagster.ray_launcher import environment_of

    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    half = environment_of(RayExecutionConfig(num_cpus=0.5), "a job")
    assert half == {**dict.fromkeys(threads, "1"), "CUDA_VISIBLE_DEVICES": "", "LAPS_RAY_JOB": "a job"}
    gpu = environment_of(RayExecutionConfig(num_cpus=2, num_gpus=0.5), "a job")
    assert gpu == {**dict.fromkeys(threads, "2"), "LAPS_RAY_JOB": "a job"}


@with_ray
def test_doctor_says_that_no_cluster_answers_or_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from laps_dagster.doctor import LOOKS

    ray_home(tmp_path, storage=None)
    (silent,) = (found for found in LOOKS["dagster"]() if found.level == "problem")
    assert silent.subject == "ray" and "http://127.0.0.1:9" in silent.said and "LAPS_RAY_ADDRESS" in silent.fix
    monkeypatch.delenv("LAPS_RAY_ADDRESS")
    (unnamed,) = (found for found in LOOKS["dagster"]() if found.level == "problem")
    assert "LAPS_RAY_ADDRESS" in unnamed.said


@with_ray
def test_runs_that_are_no_ray_jobs_are_judged_by_their_process(tmp_path: Path) -> None:
    ray_home(tmp_path, storage=None)
    run = dg.DagsterRun("observe")
    mine = made_here(run.run_id)
    # The same number, for a process that began at another time.
    gone = {tag: f"{known.rpartition(' ')[0]} 1" for tag, known in mine.items()}
    elsewhere = dict.fromkeys(mine, f"{run.run_id} another - 1 -")
    with open_instance() as instance:
        said = [
            instance.run_launcher.check_run_worker_health(run.with_tags(tags)).status.value
            for tags in (gone, mine, elsewhere, {})
        ]
    assert said == ["FAILED", "RUNNING", "RUNNING", "RUNNING"]


def test_a_process_is_asked_only_for_runs_of_its_own_that_are_no_ray_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laps_dagster.processes.is_gone", lambda known: known == identity())
    job = dg.GraphDefinition("nothing").to_job()
    with dg.DagsterInstance.ephemeral() as instance:

        def under_way(tags: Callable[[str], dict[str, str]]) -> str:
            run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
            instance.add_run_tags(run.run_id, tags(run.run_id))
            return run.run_id

        lost = under_way(made_here)
        under_way(lambda run_id: made_here(run_id) | made_by_ray(run_id, "a job"))
        # Dagster copies the tags of a run to the one that tries it again.
        under_way(lambda _: made_here(lost))
        # A run that was made by Ray once, and is tried again without.
        again = under_way(lambda run_id: made_here(run_id) | made_by_ray(lost, "a job"))
        assert set(fail_lost_runs(instance)) == {lost, again}


# --- a cluster ------------------------------------------------------------------------------------------------------


@contextmanager
def definitions(instance: dg.DagsterInstance) -> Iterator[Any]:
    """A workspace with the definitions, from which runs can be launched."""
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext

    origin = LoadableTargetOrigin(module_name="laps_dagster.definitions", attribute="defs")
    target = InProcessTestWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name="laps"))
    with WorkspaceProcessContext(instance, target) as process:
        yield process


# Dagster uses what it has deprecated itself, when it describes a schedule and when it launches a backfill.
@with_ray
@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning")
def test_two_hours_on_two_nodes_are_those_of_this_process(
    postgres: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster._daemon.backfill import execute_backfill_iteration
    from dagster_graphql.schema import create_schema

    from tests.ray_cluster import cluster

    monkeypatch.setenv("LAPS_STORE", f"{s3.url}/store")
    monkeypatch.setenv("LAPS_LANDING", f"{s3.url}/landing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LAPS_POSTGRES_URL", postgres)
    ray_home(tmp_path)
    with cluster(os.environ) as ray, open_instance() as instance:
        monkeypatch.setenv("LAPS_RAY_ADDRESS", ray.address)
        store = Store()
        here = observe_here(store, instance)
        for path in here:
            store.delete(path)
        with definitions(instance) as process:
            launched = create_schema().execute(
                BACKFILL,
                context_value=process.create_request_context(),
                variable_values={
                    "assets": [{"path": [asset]} for asset in OBSERVE_ASSETS],
                    "hours": [hour.key for hour in HOURS],
                },
            )
            assert launched.errors is None, launched.errors
            for _ in execute_backfill_iteration(process, logging.getLogger("test")):
                pass
            runs = [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))]
            assert len(runs) == len(HOURS)
            for run in runs:
                instance.launch_run(run, process.create_request_context())
        refused = a_run_whose_job_cannot_begin(instance)
        client = instance.run_launcher.client
        wait_until(lambda: all(run_of(instance, run).is_finished for run in runs), "the end of the runs", PATIENCE_S)
        wait_until(
            lambda: client.get_job_status(f"dagster-run-{refused}").is_terminal(), "the end of the job", PATIENCE_S
        )
        jobs = [client.get_job_info(ray_job_of(run_of(instance, run))) for run in runs]
        assert [run_of(instance, run).status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2, jobs
        assert len({job.driver_node_id for job in jobs}) == 2
        assert checksums(store) == here
        assert fail_runs_that_cannot_begin(instance) == [refused]
        assert "exit code 3" in instance.all_logs(refused)[-1].message
        started = run_of(instance, runs[0]).with_tags(made_by_ray(runs[0], "another cluster's"))
        assert instance.run_launcher.check_run_worker_health(started).status.value == "NOT_FOUND"


def observe_here(store: Store, instance: dg.DagsterInstance) -> dict[str, str]:
    """Record two hours, train a tokenizer and observe them in this process; returns the checksums of their tables."""
    store_settings(store)
    with Recordings(store).to_land() as landing:
        record(landing, SCENARIO, camera="cam1", view=0, start_ns=parse_utc("2026-01-05T09:59:52Z"))
    (row,) = Recordings(store).scan()
    assert isinstance(row, dict) and row["status"] == "ok", row
    add_cameras(instance, ["cam1"])
    config = {"preset": "small", "max_steps": 2, "hours": [HOURS[0].key]}
    with narrow_heads():
        for task in (
            *(Task("track", hour.key) for hour in HOURS),
            Task("train_tokenizer", ops={"motion_tokenizer": {"config": config}}),
            *(Task("encode", hour.key) for hour in HOURS),
        ):
            outcome = execute(task)
            assert outcome.ok, outcome.error
    made = checksums(store)
    assert len(made) == len(OBSERVED) * len(HOURS)
    return made


def checksums(store: Store) -> dict[str, str]:
    files = [path for table in OBSERVED for path in store.files(table.name)]
    return {path: hashlib.sha256(store.read_bytes(path)).hexdigest() for path in files}


def a_run_whose_job_cannot_begin(instance: dg.DagsterInstance) -> str:
    run = instance.create_run_for_job(dg.GraphDefinition("nothing").to_job(), status=dg.DagsterRunStatus.STARTING)
    job = f"dagster-run-{run.run_id}"
    instance.add_run_tags(run.run_id, made_by_ray(run.run_id, job))
    instance.run_launcher.client.submit_job(entrypoint="exit 3", submission_id=job)
    return run.run_id


def run_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run
