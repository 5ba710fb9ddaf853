"""A day of cameras through the real daemon and its queue: what it costs, and whether it costs the same for every hour.

    python -m bench.backfill --hours 10 --cameras 2 --scales 1 2 4 8 --out docs/backfill.md
    python -m bench.backfill --hours 4 --cameras 1 --scales 1 2 --minutes-per-hour 4      # a short try

Each camera's simulated work is recorded once, some minutes at 640x360, and laid end to end without encoding again into
two files an hour. A release of full size is trained beforehand, on those minutes, and not counted. Then, for every
scale, a store that holds nothing but the release, a landing zone with so many hours, and ``dagster-daemon`` with the
instance file as it is shipped. The way is that of the nightly day: `landing_files` registers the files and requests
the hours, `later_stages` their segment runs, and when all is made a night is planned, which closes with `publish` and
`compact`.

The largest scale, from four hours on, has faults: in one hour some minutes are missing, one file is cut off, and one
drops into the landing zone when everything else is made. In the end every hour must be there; the cut file be
quarantined with its reason; and, because all hours of a camera show the same, where footage is whole their primitives
must be the same, code for code, but for those near its ends (``SETTLED_S``). Exits with 1 where that is not so.

Wall time is from the first run's request to the last one's end, without the night; CPU time that of the daemon and
of all that it starts (:mod:`bench.usage`), from its own start. With fewer minutes an hour the two runs of every hour
weigh more: only 60 shows what an hour costs. All scales of the first line above are 50 camera-hours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

import dagster as dg
import numpy as np

from bench.daemon import launch
from bench.footage import lay_end_to_end
from bench.stages import measured
from bench.timeline import bars_of, draw
from bench.usage import Peak, Watch
from laps import tables
from laps.simulation import SCENARIOS, record
from laps.timegrid import HOUR_NS, NS_PER_S, CameraHour, from_datetime, parse_utc, to_datetime
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.coverage import why_failed
from laps_dagster.hour_runs import UNFINISHED, is_over
from laps_dagster.instance import open_instance
from laps_dagster.jobs import CLOSING_JOBS, observe, segment
from laps_dagster.nightly import plan_night
from laps_dagster.pipeline import Backfill, Options, Progress, select_hours
from laps_dagster.processes import pid_of, process_of
from resources.hour_files import roots_of
from resources.models import ModelRegistry
from resources.recordings import Recordings
from resources.settings import store_settings
from resources.store import Store
from tests.kills import HOUR_TABLES, Scene, group_of, kill, start_daemon

DAY = "2026-01-06"
FIRST = parse_utc(f"{DAY}T06:00:00Z")
TRAINING = parse_utc("2026-01-05T06:00:00Z")
SCENARIO = replace(SCENARIOS["clean"], width_px=640, height_px=360, fps=30.0)
BIT_RATE = 1_000_000
KEYFRAME_EVERY_S = 2
# How long after footage begins what came before it may still show (the detector looks back for 41.6 s), and how long
# before it ends.
SETTLED_S = (45.0, 10.0)
LOOK_EVERY_S = 5.0
MIB = 2**20
# Where the faults are: number of the camera, and of the hour.
GAP, BROKEN, LATE = (0, 1), (-1, 2), (0, 3)
LEAST_HOURS_FOR_FAULTS = 4


@dataclass(frozen=True)
class Part:
    """A file of an hour.

    Attributes:
        hour: the camera hour.
        file: where it lies.
        start_s: when it begins, seconds after the hour.
        length_s: its length.
    """

    hour: CameraHour
    file: Path
    start_s: float
    length_s: float


@dataclass
class Day:
    """The footage of one scale.

    Attributes:
        parts: files that are there from the beginning, and can be used.
        late: the file that comes last.
        broken: the file that was cut off.
    """

    parts: list[Part]
    late: Part | None = None
    broken: Part | None = None

    @property
    def filmed(self) -> list[CameraHour]:
        return sorted({part.hour for part in self.parts})

    @property
    def hours(self) -> list[CameraHour]:
        """The hours with footage and those that close them."""
        return sorted({*self.filmed, *(hour.next for hour in self.filmed)})

    @property
    def footage_h(self) -> float:
        """Camera-hours of footage in the parts."""
        return sum(part.length_s for part in self.parts) / 3600


@dataclass
class RunCost:
    """Where the wall time of one kind of runs goes, seconds, means.

    Attributes:
        runs: how many there were.
        queue: from the request to the launch.
        process: from the launch to the run's start: a process begins and loads the definitions.
        before: from there to the first step's start.
        between: between steps, with the wait for a place in a pool.
        after: from the last step's end to the run's.
        steps: in steps, checks among them.
    """

    runs: int
    queue: float
    process: float
    before: float
    between: float
    after: float
    steps: float


@dataclass
class Result:
    """What one scale came to; seconds, MiB."""

    hours: int
    cameras: int
    footage_h: float
    wall_s: float
    cpu_s: float
    runs_cpu_s: float
    peak: Peak
    disk_bytes: dict[str, int]
    runs: dict[str, RunCost]
    night_s: float
    night_cpu_s: float
    night_peak: Peak
    primitives: int
    late_s: float | None = None
    quarantined: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def cpu_per_hour_s(self) -> float:
        return self.cpu_s / self.footage_h

    @property
    def wall_per_hour_s(self) -> float:
        return self.wall_s / self.footage_h


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.backfill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=int, default=10, help="of the largest scale, which has the faults")
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--scales", type=int, nargs="*", default=[1, 2, 4, 8], help="hours of the smaller scales")
    parser.add_argument("--minutes-per-hour", type=int, default=60, help="footage in every hour")
    parser.add_argument("--simulated-minutes", type=int, default=2, help="recorded once, and then repeated")
    parser.add_argument("--train-minutes", type=float, default=3.0)
    parser.add_argument("--slowest", type=float, default=4.0, help="give up below so many camera-hours a wall hour")
    parser.add_argument("--folder", type=Path, default=Path(".laps/bench_backfill"))
    parser.add_argument("--go-on", action="store_true", help="leave out scales that an earlier call has measured")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    folder = options.folder.absolute()
    # Schedules are on as well, and must not come in between.
    later, much_later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (12, 84))
    os.environ["LAPS_NIGHTLY_AT"] = os.environ["LAPS_MORNING_AT"] = f"{later:%H:%M}"
    os.environ["LAPS_WEEKLY_AT"] = f"{much_later:%a %H:%M}"
    base = prepare(folder / "base", options)
    footage = make_footage(folder / "footage", base, options)
    decode_s = decode_cost(footage, base.cameras)
    kept = folder / "results.json"
    results = read_results(kept, options) if options.go_on else []
    for hours in sorted({*options.scales, options.hours} - {result.hours for result in results}):
        faults = hours == options.hours and hours >= LEAST_HOURS_FOR_FAULTS
        place = folder / f"scale{hours}"
        shutil.rmtree(place, ignore_errors=True)
        day = land(place / "landing", footage, base.cameras, hours, options.minutes_per_hour * 60, faults)
        result = run(base, place, day, hours, options)
        results = sorted([*results, result], key=lambda one: one.hours)
        kept.write_text(json.dumps({**_of(options), "results": [asdict(one) for one in results]}, indent=1))
        print("\n".join(page(results, decode_s, options)), flush=True)
        if not result.problems:
            shutil.rmtree(place)
    if options.out and results:
        options.out.write_text("\n".join(page(results, decode_s, options)) + "\n")
    return 1 if any(result.problems for result in results) else 0


def read_results(file: Path, options: argparse.Namespace) -> list[Result]:
    """What an earlier call with the same cameras and minutes measured."""
    if not file.exists():
        return []
    known = json.loads(file.read_text())
    if {name: known[name] for name in _of(options)} != _of(options):
        raise SystemExit(f"{file}: of other cameras or minutes; leave --go-on away")
    return [
        Result(
            **one
            | {name: Peak(**one[name]) for name in ("peak", "night_peak")}
            | {"runs": {job: RunCost(**cost) for job, cost in one["runs"].items()}}
        )
        for one in known["results"]
        if not one["problems"]
    ]


def _of(options: argparse.Namespace) -> dict[str, int]:
    """What results must have in common to stand in one table."""
    return {"cameras": options.cameras, "minutes_per_hour": options.minutes_per_hour, "hours": options.hours}


def prepare(folder: Path, options: argparse.Namespace) -> Scene:
    """The simulated minutes and a store with a release made from them, both kept from one call to the next."""
    cameras = tuple(f"cam{number + 1}" for number in range(options.cameras))
    scene = Scene(folder, folder / "landing", cameras)
    wanted = {"cameras": options.cameras, "minutes": options.simulated_minutes, "train": options.train_minutes}
    made = folder / "made.json"
    if made.exists() and json.loads(made.read_text()) == wanted:
        return scene
    shutil.rmtree(folder, ignore_errors=True)
    scenario = replace(SCENARIO, seed=5, duration_s=options.simulated_minutes * 60.0)
    for view, camera in enumerate(cameras):
        # There are two viewpoints; further cameras see other work.
        mine = replace(scenario, seed=scenario.seed + view // 2)
        record(scene.landing, mine, camera=camera, view=view % 2, start_ns=TRAINING, bit_rate=BIT_RATE, preset="medium")
    with scene.entered():
        store = scene.store
        store_settings(store)
        recordings = Recordings(store)
        list(recordings.scan())
        register_cameras(list(cameras))
        models = Options(train_minutes=options.train_minutes)
        Backfill(store, select_hours(recordings, [], None, None), models, Progress(print)).run()
    shutil.rmtree(folder / "dagster")
    made.write_text(json.dumps(wanted))
    return scene


def make_footage(folder: Path, base: Scene, options: argparse.Namespace) -> dict[tuple[str, int, int], Path]:
    """Two files for each camera, hour and half, and of the hour with the gap a shorter first one."""
    footage = {}
    half_s = options.minutes_per_hour * 30
    for number, camera in enumerate(base.cameras):
        (source,) = (base.landing / camera).glob("*.mp4")
        for hour in range(options.hours):
            for half in (0, 1):
                start_ns = FIRST + hour * HOUR_NS + half * half_s * NS_PER_S
                name = f"{camera}_{to_datetime(start_ns):%Y%m%dT%H%M%SZ}.mp4"
                file = folder / f"{options.minutes_per_hour}min" / camera / name
                footage[camera, hour, half] = file
                if not file.exists():
                    lay_end_to_end(source, file, half_s, start_ns)
                if (number, hour, half) == (*GAP, 0):
                    short = footage[camera, hour, -1] = file.with_name("gap") / name
                    if not short.exists():
                        lay_end_to_end(source, short, _shortened(half_s), start_ns)
    return footage


def _shortened(half_s: int) -> int:
    """Length of the first file of the hour with the gap: a third is missing, to a keyframe."""
    return half_s * 2 // 3 // KEYFRAME_EVERY_S * KEYFRAME_EVERY_S


def decode_cost(footage: dict[tuple[str, int, int], Path], cameras: Sequence[str]) -> float:
    """CPU seconds that decoding alone takes for a camera-hour, from one file of each camera, the best of two."""
    cost = []
    for camera in cameras:
        file = footage[camera, 0, 0]
        length_s = _length_s(file)
        cost.append(min(measured("--decode", str(file))[0] for _ in range(2)) * 3600 / length_s)
    return mean(cost)


def _length_s(file: Path) -> float:
    from laps.video import probe

    with file.open("rb") as opened:
        return probe(opened, name=str(file)).duration_s or 0.0


def land(
    landing: Path,
    footage: dict[tuple[str, int, int], Path],
    cameras: Sequence[str],
    hours: int,
    footage_s: int,
    faults: bool,
) -> Day:
    """Put the files of a scale into its landing zone (as links), but for the late one."""
    day = Day([])
    half_s = footage_s // 2

    def at(fault: tuple[int, int]) -> tuple[str, int]:
        return cameras[fault[0]], fault[1]

    for camera in cameras:
        (landing / camera).mkdir(parents=True)
        for hour in range(hours):
            for half in (0, 1):
                source, length_s = footage[camera, hour, half], half_s
                if faults and (camera, hour, half) == (*at(GAP), 0):
                    source, length_s = footage[camera, hour, -1], _shortened(half_s)
                target = landing / camera / source.name
                part = Part(CameraHour(camera, FIRST + hour * HOUR_NS), target, half * half_s, length_s)
                if faults and (camera, hour, half) == (*at(LATE), 1):
                    target = landing.parent / "late" / source.name
                    target.parent.mkdir()
                    day.late = part
                elif faults and (camera, hour, half) == (*at(BROKEN), 1):
                    day.broken = part
                    target.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 5])
                    continue
                else:
                    day.parts.append(part)
                os.link(source, target)
    return day


def run(base: Scene, place: Path, day: Day, hours: int, options: argparse.Namespace) -> Result:
    """One scale through the daemon."""
    scene = Scene(place, place / "landing", base.cameras)
    shutil.copytree(base.folder / "store", place / "store")
    with scene.entered(), open_instance():
        # Dagster's databases are there before the daemon starts: two processes must not make them at the same time.
        pass
    patience_s = 600 + day.footage_h / options.slowest * 3600
    release = ModelRegistry(scene.store).to_read().name
    daemon = start_daemon(scene)
    try:
        with Watch(daemon.pid) as watch:
            wait(scene, "the hours", lambda: is_made(scene, day), patience_s)
            footage_h = day.footage_h
            cpu_s, peak = watch.cpu_s(), watch.peak()
            runs, wall_s, pids = costs(scene)
            runs_cpu_s = sum(watch.cpu_of.get(pid, 0.0) for pid in pids)
            disk_bytes = disk(scene.store)
            late_s = None
            if day.late is not None:
                late_s = let_late(scene, day, day.late, release, patience_s)
            watch.peak()
            began, before = time.time(), watch.cpu_s()
            with scene.entered():
                launch(plan_night.name, {"plan_day": {"config": {"day": DAY}}})
            wait(scene, "the night", lambda: is_closed(scene), patience_s)
            night_s, night_cpu_s, night_peak = time.time() - began, watch.cpu_s() - before, watch.peak()
        if options.out and hours == options.hours:
            with scene.entered(), open_instance() as instance:
                draw(
                    bars_of(instance),
                    picture_of(options),
                    f"{hours} hours of {len(base.cameras)} cameras, and the night",
                )
    finally:
        daemon.terminate()
        daemon.wait(60)
        kill(group_of(daemon))
    primitives_made = sum(scene.store.partition_rows(tables.SEGMENTS, hour, release) for hour in day.hours)
    result = Result(
        hours=hours,
        cameras=len(base.cameras),
        footage_h=footage_h,
        wall_s=wall_s,
        cpu_s=cpu_s,
        runs_cpu_s=runs_cpu_s,
        peak=peak,
        disk_bytes=disk_bytes,
        runs=runs,
        night_s=night_s,
        night_cpu_s=night_cpu_s,
        night_peak=night_peak,
        primitives=primitives_made,
        late_s=late_s,
    )
    result.quarantined, result.problems = check(scene, day, release)
    return result


def picture_of(options: argparse.Namespace) -> Path:
    """Where the picture of the largest scale lies: beside the page."""
    out: Path = options.out
    return out.with_suffix(".svg")


def wait(scene: Scene, what: str, reached: Callable[[], bool], patience_s: float) -> None:
    """Look every few seconds until something is reached.

    Raises:
        SystemExit: a run failed, or it took too long.
    """
    stop = time.monotonic() + patience_s
    while not reached():
        with scene.entered(), open_instance() as instance:
            failed = [
                run for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])) if is_over(run)
            ]
            for run in failed:
                print(f"{run.job_name} {run.tags.get('dagster/partition')}: {why_failed(instance, run.run_id)}")
        if failed or time.monotonic() > stop:
            how = "a run failed" if failed else f"it did not come within {patience_s:.0f} s"
            raise SystemExit(f"{what}: {how}; see {scene.folder / 'daemon.log'}")
        time.sleep(LOOK_EVERY_S)


def is_made(scene: Scene, day: Day) -> bool:
    """Whether every hour has every table, and no run is queued or under way."""
    release = ModelRegistry(scene.store).to_read()
    hours = set(day.hours)
    if any(hours - set(scene.store.partitions(table, release.model_of(table))) for table in HOUR_TABLES):
        return False
    return not is_busy(scene)


def is_busy(scene: Scene) -> bool:
    with scene.entered(), open_instance() as instance:
        return instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) > 0


def is_closed(scene: Scene) -> bool:
    """Whether the last job that closes a night has ended."""
    with scene.entered(), open_instance() as instance:
        closing = instance.get_runs(dg.RunsFilter(job_name=CLOSING_JOBS[-1].name))
    return any(map(is_over, closing))


def let_late(scene: Scene, day: Day, late: Part, release: str, patience_s: float) -> float:
    """Let the late file drop; returns after how many seconds its hour and the next are made again."""
    began = time.time()
    (scene.folder / "late" / late.file.name).rename(late.file)
    paths = [
        scene.store.partition_path(tables.CLUSTER_ASSIGNMENTS, hour, release) for hour in (late.hour, late.hour.next)
    ]

    def is_remade() -> bool:
        written = scene.store.modified(tables.CLUSTER_ASSIGNMENTS.name)
        return all(written[path] > began for path in paths) and not is_busy(scene)

    wait(scene, "the late file's hour", is_remade, patience_s)
    day.parts.append(late)
    return time.time() - began


def costs(scene: Scene) -> tuple[dict[str, RunCost], float, set[int]]:
    """Where the runs' time went, by job, the seconds from the first request to the last end, and their processes."""
    requested, ended, pids = [], [], set()
    figures: dict[str, list[dict[str, float]]] = {}
    with scene.entered(), open_instance() as instance:
        for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])):
            run = record.dagster_run
            if run.job_name not in (observe.name, segment.name):
                continue
            stats = instance.get_run_stats(run.run_id)
            steps = [
                (one.start_time, one.end_time)
                for one in instance.get_run_step_stats(run.run_id)
                if one.start_time and one.end_time
            ]
            assert stats.launch_time and stats.start_time and stats.end_time
            first, last = min(start for start, _ in steps), max(end for _, end in steps)
            within = sum(end - start for start, end in steps)
            process = process_of(run)
            assert process is not None
            pids.add(pid_of(process))
            requested.append(record.create_timestamp.timestamp())
            ended.append(stats.end_time)
            figures.setdefault(run.job_name, []).append(
                {
                    "queue": stats.launch_time - requested[-1],
                    "process": stats.start_time - stats.launch_time,
                    "before": first - stats.start_time,
                    "between": last - first - within,
                    "after": stats.end_time - last,
                    "steps": within,
                }
            )
    means = {
        job: RunCost(len(runs), **{name: mean(one[name] for one in runs) for name in runs[0]})
        for job, runs in sorted(figures.items())
    }
    return means, max(ended) - min(requested), pids


def disk(store: Store) -> dict[str, int]:
    """Bytes of the day's hours: of each table, and of the clips' videos."""
    sizes: dict[str, int] = {}
    for table in HOUR_TABLES:
        for path, info in (found for root in roots_of(table) for found in store.listing(root).items()):
            if f"/date={DAY}/" in path:
                name = f"{table.name} (mp4)" if path.endswith(".mp4") else table.name
                sizes[name] = sizes.get(name, 0) + int(info["size"])
    return sizes


def check(scene: Scene, day: Day, release: str) -> tuple[str | None, list[str]]:
    """The reason for which the cut file was quarantined, and what is wrong."""
    problems = []
    store, registry = scene.store, Recordings(scene.store, str(scene.landing))
    chosen = ModelRegistry(store).release(release)
    for table in HOUR_TABLES:
        missing = set(day.hours) - set(store.partitions(table, chosen.model_of(table)))
        problems += [f"{hour.key}: {table.name} is missing" for hour in sorted(missing)]
    if problems:
        return None, problems
    for hour in day.hours:
        of_segment = [table for table in HOUR_TABLES if table.model_level == "release"]
        rows = {table.name: store.partition_rows(table, hour, release) for table in of_segment}
        if len(set(rows.values())) != 1:
            problems.append(f"{hour.key}: rows differ between tables: {rows}")
    for camera in scene.cameras:
        filmed = [hour for hour in day.filmed if hour.camera == camera]
        known = {hour: list(primitives(store, hour, release)) for hour in filmed}
        if not any(_inside(known[part.hour], part) for part in day.parts if part.hour.camera == camera):
            problems.append(f"{camera}: no primitive lies far enough from the ends of footage to be compared")
        for part in day.parts:
            if part.hour.camera == camera:
                mine, first = (_inside(known[hour], part) for hour in (part.hour, filmed[0]))
                if mine != first:
                    problems.append(
                        f"{part.hour.key}: of {len(mine)} primitives from {part.start_s:.0f} s on, "
                        f"{len(set(mine) - set(first))} are not those of the first hour, which has {len(first)}"
                    )
    quarantined = None
    if day.broken is not None:
        (row,) = (row for row in registry.of_camera(day.broken.hour.camera) if row["uri"] == str(day.broken.file))
        quarantined = row["reason"]
        if row["status"] != "quarantined" or not quarantined:
            problems.append(f"{row['uri']}: was cut off, and is {row['status']}, {quarantined}")
    return quarantined, problems


def primitives(store: Store, hour: CameraHour, release: str) -> Iterator[tuple[Any, ...]]:
    """Start and end of each primitive of an hour, seconds after the hour, and what it is."""
    columns = ["segment_id", "start_time", "end_time", "end_reason", "codes"]
    clusters = store.read_partition(tables.CLUSTER_ASSIGNMENTS, hour, release, ["segment_id", "cluster_id"]).to_pylist()
    cluster_of = {row["segment_id"]: row["cluster_id"] for row in clusters}
    for row in store.read_partition(tables.SEGMENTS, hour, release, columns).to_pylist():
        start_s, end_s = ((from_datetime(row[name]) - hour.start_ns) / NS_PER_S for name in ("start_time", "end_time"))
        yield start_s, end_s, row["end_reason"], tuple(row["codes"]), cluster_of[row["segment_id"]]


def _inside(found: list[tuple[Any, ...]], part: Part) -> list[tuple[Any, ...]]:
    """The primitives that do not depend on what lies outside of a part."""
    after, before = SETTLED_S
    start_s, stop_s = part.start_s + after, part.start_s + part.length_s - before
    return [one for one in found if start_s <= one[0] and one[1] <= stop_s]


def page(results: list[Result], decode_s: float, options: argparse.Namespace) -> Iterator[str]:
    """The results as Markdown."""
    largest = results[-1]
    yield "# What a day of video costs"
    yield ""
    yield (
        f"Made by `python -m bench.backfill --hours {options.hours} --cameras {options.cameras} --scales "
        f"{' '.join(map(str, options.scales))} --minutes-per-hour {options.minutes_per_hour}`; do not edit. "
        f"Simulated work at {SCENARIO.width_px}x{SCENARIO.height_px}, {SCENARIO.fps:.0f} frames/s, H.264 at "
        f"{BIT_RATE / 1e6:.0f} Mbit/s, {options.simulated_minutes} minutes recorded once and laid end to end, through "
        "the real daemon, its queue and the instance file as it is shipped (SQLite; OMP_NUM_THREADS=1); the "
        "tokenizer of full size was trained beforehand. "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.system()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; load average at the end {os.getloadavg()[1]:.1f}."
    )
    yield ""
    yield "| hours of each camera | " + " | ".join(str(result.hours) for result in results) + " |"
    yield "|---|" + "--:|" * len(results)
    for name, figure in rows(results, decode_s):
        yield f"| {name} | " + " | ".join(map(figure, results)) + " |"
    yield ""
    yield from fit(results)
    yield ""
    yield "Of each run, seconds in the mean, at the largest scale:"
    yield ""
    yield (
        "| job | runs | queue | process starts | to the first step | steps | between steps | after the last step | "
        "Dagster's own |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for job, cost in largest.runs.items():
        yield (
            f"| {job} | {cost.runs} | {cost.queue:.1f} | {cost.process:.1f} | {cost.before:.2f} | {cost.steps:.1f} | "
            f"{cost.between:.1f} | {cost.after:.2f} | {cost.process + cost.before + cost.after:.1f} |"
        )
    yield ""
    yield (
        "*Queue* is waiting for other runs, *between steps* waiting for a place in a pool and writing events; "
        "*Dagster's own* is the start of the process, the time to the first step, and that after the last one."
    )
    yield ""
    if options.out and picture_of(options).exists():
        yield f"![what ran when, at the largest scale]({picture_of(options).name})"
        yield ""
    if largest.late_s is not None:
        yield f"The late file's hour and the next were made again {largest.late_s:.0f} s after it dropped."
    if largest.quarantined:
        yield f"The file that was cut off was quarantined: {largest.quarantined.rstrip('.')}."
    problems = [problem for result in results for problem in result.problems]
    yield (
        f"{len(problems)} problems."
        if problems
        else (
            f"Every hour is there, and its {largest.primitives} primitives are those of its camera's first hour "
            "wherever footage is whole."
        )
    )
    for problem in problems:
        yield f"- {problem}"


def rows(results: list[Result], decode_s: float) -> Iterator[tuple[str, Callable[[Result], str]]]:
    yield "camera-hours of footage", lambda one: f"{one.footage_h:.2f}"
    yield "runs", lambda one: str(sum(cost.runs for cost in one.runs.values()))
    yield "wall time, s", lambda one: f"{one.wall_s:.0f}"
    yield "**camera-hours a wall hour**", lambda one: f"**{3600 / one.wall_per_hour_s:.1f}**"
    yield "CPU, s", lambda one: f"{one.cpu_s:.0f}"
    yield "CPU for a camera-hour, s", lambda one: f"{one.cpu_per_hour_s:.0f}"
    yield "of it decoding alone, s", lambda _: f"{decode_s:.0f}"
    yield "CPU over decoding alone", lambda one: f"{one.cpu_per_hour_s / decode_s:.2f}"
    yield "CPU of the daemon and its code servers, s", lambda one: f"{one.cpu_s - one.runs_cpu_s:.0f}"
    yield "peak memory of all processes, MiB", lambda one: f"{one.peak.all_mib:.0f}"
    yield "peak memory of the largest process, MiB", lambda one: f"{one.peak.largest_mib:.0f}"
    yield "night: plan, report, compacted copies, s", lambda one: f"{one.night_s:.0f}"
    yield "night: CPU, s", lambda one: f"{one.night_cpu_s:.0f}"
    yield "night: peak memory of the largest process, MiB", lambda one: f"{one.night_peak.largest_mib:.0f}"
    yield "primitives", lambda one: str(one.primitives)
    for name in results[0].disk_bytes:
        yield (
            f"disk for a camera-hour, MiB: {name}",
            lambda one, name=name: (  # type: ignore[misc]
                f"{one.disk_bytes.get(name, 0) / MIB / one.footage_h:.2f}"
            ),
        )


def fit(results: list[Result]) -> Iterator[str]:
    """Whether cost grows linearly and memory does not."""
    if len(results) < 2:
        return
    hours = [result.footage_h for result in results]
    for name, cost in (("wall time", [r.wall_s for r in results]), ("CPU time", [r.cpu_s for r in results])):
        slope, start = np.polyfit(hours, cost, 1)
        first, last = cost[0] / hours[0], cost[-1] / hours[-1]
        yield (
            f"- {name}: {slope:.0f} s for each camera-hour and {start:.0f} s once (least squares); a camera-hour "
            f"of the largest scale costs {last / first:.2f} times one of the smallest"
        )
    first_peak, last_peak = results[0].peak, results[-1].peak
    yield (
        f"- memory: the largest process of the largest scale takes "
        f"{last_peak.largest_mib / first_peak.largest_mib:.2f} times that of the smallest, all together "
        f"{last_peak.all_mib / first_peak.all_mib:.2f} times"
    )


if __name__ == "__main__":
    sys.exit(main())
