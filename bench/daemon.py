"""A file drops into the landing zone and the real daemon does the rest: how long until its hour is cut and reported.

    python -m bench.daemon [--week]

In a temporary folder: a minute of the simulated workstation is recorded and a small release made from it, which takes
a few minutes. Then ``dagster-daemon`` runs with all sensors on, and a second minute, a day later, drops into the
landing zone. When its hour has clusters, a night is planned for its day, and the report waited for. With ``--week`` the
weekly job then fills a draft release through the daemon's queue. Prints seconds since the file dropped. Exits with 1
when something does not come in ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from laps import tables
from laps.simulation import SCENARIOS, record
from laps.timegrid import HOUR_NS, CameraHour, parse_utc
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.pipeline import Backfill, Options, Progress, select_hours
from resources.models import ModelRegistry
from resources.recordings import Recordings
from resources.settings import store_settings
from resources.store import Store

CAMERA = "cam1"
DAY = "2026-01-06"
FIRST = parse_utc("2026-01-05T09:00:10Z")
SCENARIO = replace(SCENARIOS["clean"], seed=3, duration_s=60.0, width_px=320, height_px=180, fps=15.0)
PATIENCE_S = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.daemon")
    parser.add_argument("--week", action="store_true", help="also fill a draft release")
    week = parser.parse_args().week
    with tempfile.TemporaryDirectory(prefix="laps-daemon-") as folder:
        return run(Path(folder), week)


def run(folder: Path, week: bool) -> int:
    os.environ |= {
        "LAPS_STORE": str(folder / "store"),
        "LAPS_LANDING": str(folder / "landing"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "LAPS_FIRST_HOUR": "2026-01-01T00:00:00Z",
        "LAPS_AUTOMATION": "on",
        # Nobody writes for long here, and no further file of the hour will come.
        "LAPS_STABLE_S": "0",
        "LAPS_QUIET_S": "0",
    }
    store = Store()
    store_settings(store)
    record(folder / "landing", SCENARIO, camera=CAMERA, view=0, start_ns=FIRST)
    recordings = Recordings(store)
    list(recordings.scan())
    register_cameras([CAMERA])
    hours = select_hours(recordings, [], None, None)
    options = Options(preset="small", train_minutes=0.2, k=2)
    release = Backfill(store, hours, options, Progress(print)).run()
    program = Path(sys.executable).with_name("dagster-daemon")
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen([program, "run", "-m", "laps_dagster.definitions"], stdout=log, stderr=log)
        try:
            return watch(store, folder / "landing", release.name, log.name, week)
        finally:
            daemon.terminate()
            daemon.wait()


def watch(store: Store, landing: Path, release: str, log: str, week: bool) -> int:
    """Drop a file and print when its hour has reached each stage."""
    start_ns = FIRST + 24 * HOUR_NS
    hour = CameraHour.of(CAMERA, start_ns)
    chosen = ModelRegistry(store).release(release)
    record(landing, SCENARIO, camera=CAMERA, view=0, start_ns=start_ns)
    began = time.monotonic()
    closing = hour.next
    stages: list[tuple[str, Callable[[], bool]]] = [
        ("registered", lambda: hour in Recordings(store).hours(CAMERA)),
        ("observed", lambda: store.has_partition(tables.LATENT_STREAM, hour, chosen.tokenizer)),
        ("cut", lambda: store.has_partition(tables.CLUSTER_ASSIGNMENTS, hour, release)),
        ("closed by the hour after", lambda: store.has_partition(tables.CLUSTER_ASSIGNMENTS, closing, release)),
    ]
    for name, reached in stages:
        if not wait(name, reached, began, log):
            return 1
    report = f"reports/release={release}/report.html"
    before = store.modified("reports").get(report, 0.0)
    launch("plan_night", {"plan_day": {"config": {"day": DAY}}})
    if not wait("report", lambda: store.modified("reports").get(report, 0.0) > before, began, log):
        return 1
    if not week:
        return 0
    hours = [f"{CAMERA}|2026-01-05-09:00"]
    launch("fill_draft", {"draft_release": {"config": {"hours": hours, "preset": "small", "train_minutes": 0.1}}})
    return (
        0
        if wait(
            "draft with its report", lambda: "reports/release=r2/report.html" in store.modified("reports"), began, log
        )
        else 1
    )


def launch(job: str, ops: dict[str, Any]) -> None:
    """Queue a run, as the UI does; the daemon makes it."""
    program = Path(sys.executable).with_name("dagster")
    command = [str(program), "job", "launch", "-m", "laps_dagster.definitions", "-j", job, "--config-json"]
    subprocess.run(
        [*command, json.dumps({"ops": ops})], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait(name: str, reached: Callable[[], bool], began: float, log: str) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        if time.monotonic() > deadline:
            print(f"{name}: not within {PATIENCE_S:.0f} s; the end of the daemon's log:")
            print(Path(log).read_text()[-3000:])
            return False
        time.sleep(0.5)
    print(f"{time.monotonic() - began:6.1f} s  {name}")
    return True


if __name__ == "__main__":
    sys.exit(main())
