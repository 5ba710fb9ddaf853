"""Processes of a backfill killed at random moments, and what is left afterwards compared with an undisturbed one.

Two ways to run hours: ``laps backfill`` with its workers, and runs that the daemon makes from its queue. What is
killed is one process, or all of them at once as when a machine restarts. Each scene is a copy of a store that holds a
release and registered recordings but no hour's tables, so that only what a kill spoils can differ.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from laps import tables
from laps.simulation import SCENARIOS, record
from laps.timegrid import CameraHour, parse_utc
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.hour_runs import UNFINISHED
from laps_dagster.instance import ensure_home, open_instance
from laps_dagster.processes import is_gone, pid_of, process_of
from laps_dagster.runs import Task, execute
from resources.hour_files import roots_of
from resources.models import ModelRegistry
from resources.recordings import Recordings
from resources.settings import store_settings
from resources.store import Store

ROOT = Path(__file__).parent.parent
CAMERAS = ("cam1", "cam2")
START = parse_utc("2026-01-05T09:59:52Z")
LENGTH_S = 16.0
SCENARIO = replace(SCENARIOS["clean"], seed=3, duration_s=LENGTH_S, width_px=320, height_px=180, fps=15.0)
HOUR_TABLES = [table for table in tables.TABLES.values() if table.partitioned == "camera_hour"]
PATIENCE_S = 900.0


@dataclass(frozen=True)
class Scene:
    """A store, a landing zone and a Dagster home below one folder.

    Attributes:
        folder: where they lie.
        landing: the landing zone; copies of a scene share it, because a recording is known by its path.
        cameras: its cameras.
        remote: the store's URL, where it is no folder.
    """

    folder: Path
    landing: Path
    cameras: tuple[str, ...] = CAMERAS
    remote: str = ""

    @property
    def store(self) -> Store:
        return Store(self.remote or str(self.folder / "store"))

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LAPS_STORE": self.store.root,
            "LAPS_LANDING": str(self.landing),
            "DAGSTER_HOME": str(self.folder / "dagster"),
            "LAPS_FIRST_HOUR": "2026-01-01T00:00:00Z",
            "OMP_NUM_THREADS": "1",
        }

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process's environment becomes the scene's."""
        before = dict(os.environ)
        os.environ.update(self.environment())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def hours(self) -> list[CameraHour]:
        """The hours with footage and those that close them."""
        register = Recordings(self.store, str(self.landing))
        filmed = {hour for camera in self.cameras for hour in register.hours(camera)}
        return sorted({*filmed, *(hour.next for hour in filmed)})

    def tables(self) -> dict[str, str]:
        """A checksum of every file of every hour, tables and clips, by its path."""
        store = self.store
        return {
            path: hashlib.sha256(store.read_bytes(path)).hexdigest()
            for table in HOUR_TABLES
            for root in roots_of(table)
            for path in store.files(root)
        }

    def laps(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The command line in a process group of its own."""
        command = [sys.executable, "-m", "laps_dagster.cli.main", *arguments]
        with (self.folder / "laps.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )


def make_scene(folder: Path, cameras: tuple[str, ...] = CAMERAS, start_ns: int = START) -> tuple[Scene, dict[str, str]]:
    """A scene whose store has a release and no tables, and the tables that an undisturbed backfill makes in it."""
    scene = Scene(folder, folder / "landing", cameras)
    for view, camera in enumerate(cameras):
        record(scene.landing, SCENARIO, camera=camera, view=view, start_ns=start_ns)
    with scene.entered():
        store = scene.store
        store_settings(store)
        list(Recordings(store).scan())
        register_cameras(list(cameras))
        hours = scene.hours()

        def run(*tasks: Task) -> None:
            for task in tasks:
                outcome = execute(task)
                assert outcome.ok, outcome.error

        # Models from the same jobs; the tokenizer by a number of steps, because time is never the same twice.
        run(*(Task("track", hour.key) for hour in hours))
        config = {"preset": "small", "max_steps": 10, "hours": [hours[0].key]}
        run(Task("train_tokenizer", ops={"motion_tokenizer": {"config": config}}))
        run(*(Task("encode", hour.key) for hour in hours))
        run(*(Task("calibrate", camera) for camera in cameras))
        run(*(Task("cut", hour.key) for hour in hours))
        run(Task("fit_clusters", ops={"cluster_model": {"config": {"k": 2, "seed": 0}}}))
        run(*(Task("assign", hour.key) for hour in hours))
        registry = ModelRegistry(store)
        registry.promote(registry.to_read().name)
    made = scene.tables()
    assert any(path.endswith(".mp4") for path in made), "the scene has no primitive"
    for table in HOUR_TABLES:
        for root in roots_of(table):
            shutil.rmtree(folder / "store" / root)
    shutil.rmtree(folder / "dagster")
    return scene, made


def copy_scene(scene: Scene, folder: Path, remote: str = "") -> Scene:
    """The same once more, with its store in a folder or at a URL."""
    copy = Scene(folder, scene.landing, scene.cameras, remote)
    folder.mkdir(parents=True)
    if not remote:
        shutil.copytree(scene.folder / "store", folder / "store")
        return copy
    for path in sorted((scene.folder / "store").rglob("*")):
        if path.is_file():
            copy.store.put_file(path, path.relative_to(scene.folder / "store").as_posix())
    return copy


def group_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Processes of its session that are still alive: workers leave its group, and not its session."""
    alive = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(path.name)) == process.pid and not _is_zombie(path):
                    alive.append(int(path.name))
    return sorted(alive)


def _is_zombie(path: Path) -> bool:
    with suppress(OSError):
        return path.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(reached: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    stop = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < stop, f"{what} did not come within {patience_s:.0f} s"
        time.sleep(0.2)


def kill_during_backfill(scene: Scene, rng: random.Random, kills: int, longest_s: float, workers: int = 2) -> int:
    """Run ``laps backfill`` and kill processes of it; then run it to its end by the one command that it names.

    Args:
        scene: a fresh scene.
        rng: chooses moments and victims.
        kills: how many times.
        longest_s: a kill comes within so many seconds of a command's start.
        workers: of the command.

    Returns:
        how many of the kills met a process at work.
    """
    met = 0
    for _ in range(kills):
        command = scene.laps("backfill", "--only", "missing", "--workers", str(workers))
        with suppress(subprocess.TimeoutExpired):
            command.wait(rng.uniform(0.0, longest_s))
        alive = group_of(command)
        met += bool(alive)
        if alive:
            # One worker (or the command itself, and its workers follow), or all at once.
            kill(alive if rng.random() < 0.5 else [rng.choice(alive)])
        # What was not killed goes on: a command whose worker died tries the hour again and ends by itself.
        command.wait(PATIENCE_S)
        wait_until(lambda: not group_of(command), "the end of the workers")  # noqa: B023  called here
    finish(scene, workers)
    return met


def finish(scene: Scene, workers: int = 2) -> None:
    """The one command that completes what is missing."""
    last = scene.laps("backfill", "--only", "missing", "--workers", str(workers))
    assert last.wait(PATIENCE_S) == 0, (scene.folder / "laps.log").read_text()[-3000:]


def start_daemon(scene: Scene) -> subprocess.Popen[bytes]:
    """The daemon with all sensors on, and with it the code server that makes runs."""
    program = Path(sys.executable).with_name("dagster-daemon")
    # Nobody writes for long here, and no further file of an hour will come.
    automation = {"LAPS_AUTOMATION": "on", "LAPS_STABLE_S": "0", "LAPS_QUIET_S": "0"}
    with (scene.folder / "daemon.log").open("ab") as log:
        return subprocess.Popen(
            [program, "run", "-m", "laps_dagster.definitions"],
            cwd=ROOT, env=scene.environment() | automation, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def kill_during_automation(
    scene: Scene, rng: random.Random, kills: int, longest_s: float, patience_s: float
) -> tuple[int, bool]:
    """Let the daemon find and make the hours, and kill it and its runs; what dies with the daemon is started again.

    Args:
        scene: a fresh scene.
        rng: chooses moments and victims.
        kills: how many times.
        longest_s: a kill comes within so many seconds after a run began, which is waited for as long.
        patience_s: how long after the last kill the daemon may take before the one command is given.

    Returns:
        how many of the kills met a run at work, and whether all came about without the command.
    """
    met = 0
    with scene.entered():
        ensure_home()
    daemon = start_daemon(scene)
    try:
        # Only then is there something to kill.
        wait_until(lambda: bool(started_runs(scene)), "the first run")
        for _ in range(kills):
            # A daemon that was just started has nothing to kill for a while; and all may be done.
            with suppress(AssertionError):
                wait_until(lambda: bool(started_runs(scene)) or is_complete(scene), "a run", longest_s)
            time.sleep(rng.uniform(0.0, longest_s))
            runs = started_runs(scene)
            met += bool(runs)
            victims = group_of(daemon)
            if runs and rng.random() < 0.5:
                victims = [rng.choice(runs)]
            elif rng.random() < 0.5:
                victims = [daemon.pid]
            kill(victims)
            if daemon.pid in victims:
                daemon.wait()
                # The server of the definitions would notice that its daemon is gone; this is quicker.
                kill(group_of(daemon))
                daemon = start_daemon(scene)
        with suppress(AssertionError):
            wait_until(lambda: is_complete(scene), "the hours", patience_s)
            return met, True
    finally:
        kill(group_of(daemon))
        daemon.wait()
    finish(scene)
    return met, False


def started_runs(scene: Scene) -> list[int]:
    """Processes of this machine that are making a run, as the runs say themselves."""
    with scene.entered(), open_instance() as instance:
        runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        known = [process for run in runs if (process := process_of(run))]
    return [pid_of(one) for one in known if not is_gone(one)]


def is_complete(scene: Scene) -> bool:
    """Whether every hour has every table, and no run is under way."""
    release = ModelRegistry(scene.store).to_read()
    hours = set(scene.hours())
    if any(set(scene.store.partitions(table, release.model_of(table))) != hours for table in HOUR_TABLES):
        return False
    with scene.entered(), open_instance() as instance:
        return instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) == 0
