"""A node of a Ray cluster dies, with the real daemon, PostgreSQL and a store on S3: what is lost, and for how long.

Two nodes of one core each, made of processes of this machine. The daemon finds the recordings of two cameras across an
hour's boundary and makes their hours on the cluster. While both nodes are at work, every process of the second one is
killed at once and the node does not come back. Only the runs that were on it may fail; the others end, and the daemon
makes the lost ones again on the node that is left. In the end every file of every hour, tables and clips, must be that
of an undisturbed backfill by the ordinary executor, byte for byte.

    python -m bench.ray
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg

from laps_dagster.hour_runs import hour_of
from laps_dagster.instance import SETTINGS, open_instance
from laps_dagster.processes import ray_job_of
from laps_dagster.runs import reason_of
from resources.s3_server import STORE, serve
from tests import postgres
from tests.kills import (
    Scene,
    copy_scene,
    group_of,
    is_complete,
    kill,
    make_scene,
    start_daemon,
    wait_until,
)
from tests.ray_cluster import cluster, kill_node


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".laps/bench_ray"))
    parser.add_argument("--patience-s", type=float, default=900.0, help="for each thing that is waited for")
    options = parser.parse_args()
    if reason := postgres.absent():
        print(reason)
        return 2
    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    scene, undisturbed = make_scene(folder / "scene")
    print(f"scene: {len(scene.hours())} hours, {len(undisturbed)} files", flush=True)
    with serve(folder / "s3") as s3, postgres.serve() as database:
        os.environ.update(s3.environment() | {"LAPS_POSTGRES_URL": database})
        on_ray = copy_scene(scene, folder / "ray", STORE)
        (on_ray.folder / "dagster").mkdir()
        shutil.copyfile(SETTINGS.with_name("instance_ray.yaml"), on_ray.folder / "dagster" / "dagster.yaml")
        same = one_night(on_ray, options.patience_s) == undisturbed
    print(f"tables and clips: {'equal to' if same else 'DIFFERENT from'} those of an undisturbed backfill")
    return 0 if same else 1


def one_night(scene: Scene, patience_s: float) -> dict[str, str]:
    """Let the daemon make all hours on a cluster and take a node away; returns the checksums of what is there then."""
    with cluster(scene.environment()) as ray:
        os.environ["LAPS_RAY_ADDRESS"] = ray.address
        began = time.monotonic()
        daemon = start_daemon(scene)
        try:
            with scene.entered(), open_instance() as instance:
                wait_until(lambda: len(nodes_at_work(instance)) == 2, "work for both nodes", patience_s)
                # The head's life is the cluster's, so it is the other one that dies.
                at_work = nodes_at_work(instance)
                head = head_of(instance)
                lost = [run for node, runs in at_work.items() if node != head for run in runs]
                kill_node(ray.nodes[1])
                killed = time.monotonic()
                print(f"killed a node after {killed - began:.0f} s, with {names(instance, lost)}", flush=True)
                wait_until(lambda: all(is_over(instance, run) for run in lost), "the end of the lost runs", patience_s)
                print(f"known to be lost {time.monotonic() - killed:.0f} s later", flush=True)
            wait_until(lambda: is_complete(scene), "the hours", patience_s)
            print(f"complete {time.monotonic() - killed:.0f} s after the kill, by the daemon alone", flush=True)
            with scene.entered(), open_instance() as instance:
                runs = instance.get_runs()
                failed = {run.run_id for run in runs if run.status == dg.DagsterRunStatus.FAILURE}
                print(f"runs: {dict(Counter(run.status.value for run in runs))}")
                print(f"failed: {names(instance, sorted(failed))}", flush=True)
                for run_id in sorted(failed):
                    events = [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event]
                    print(f"  {run_id[:8]}: {reason_of(events)[:300]}", flush=True)
                assert failed <= set(lost), f"runs failed that were not on the node: {failed - set(lost)}"
                assert all(ray_job_of(run) for run in runs), "a run was made without Ray"
            return scene.tables()
        finally:
            kill(group_of(daemon))
            daemon.wait()


def jobs_of(instance: dg.DagsterInstance) -> Any:
    """Ray's client for jobs, which the launcher of the instance has."""
    launcher: Any = instance.run_launcher
    return launcher.client


def nodes_at_work(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """The runs that have begun, by the node that makes them."""
    found: dict[str, list[str]] = {}
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        job = jobs_of(instance).get_job_info(ray_job_of(run))
        if job.driver_node_id:
            found.setdefault(job.driver_node_id, []).append(run.run_id)
    return found


def head_of(instance: dg.DagsterInstance) -> str:
    """The node of the cluster's head: where jobs run that ask for nothing."""
    client = jobs_of(instance)
    job = client.submit_job(entrypoint="true")
    wait_until(lambda: client.get_job_info(job).driver_node_id is not None, "the head's node")
    return str(client.get_job_info(job).driver_node_id)


def is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished


def names(instance: dg.DagsterInstance, run_ids: list[str]) -> str:
    runs = filter(None, map(instance.get_run_by_id, run_ids))
    return ", ".join(f"{run.job_name} {hour_of(run).key}" for run in runs) or "none"


if __name__ == "__main__":
    sys.exit(main())
