"""A thousand damaged recordings beside good ones, through registration, description, tracking and cutting.

Each camera hour holds good recordings of every container that cameras write, and damaged copies of them between
(flipped bits, cut ends, swapped packets, swapped, blanked, repeated and shuffled stretches, wrong headers;
tests/mutants.py). All are ingested as a person would, every hour is tracked by a run of its own, and of each used range
a clip is cut. Printed is what became of the files; the bench ends with 1 where a process died, a run failed, something
took too long, a damaged file is neither used nor told of, or a good file's tracks differ from those in an hour without
damaged files.

    python -m bench.mutants --files 1000
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.mutants import cut_clips, make_good, make_mutant

CAMERA = "bench"
START = "2026-01-05T00:00:00Z"
SPACING_S = 30
DAMAGED_PER_HOUR = 50
# A recording of four seconds is looked at in hundredths of a second; an hour of a hundred of them takes seconds.
SLOW_HOUR_S = 300.0


def lay_out(folder: Path, count: int, seed: int) -> tuple[dict[str, str], set[str]]:
    """Fill the landing zone; returns the damage of each damaged file and the names of the good ones.

    The first hour holds good files alone.
    """
    from laps.timegrid import HOUR_NS, NS_PER_S, parse_utc, to_datetime

    sources = make_good(folder)
    landing = folder / "landing" / CAMERA
    landing.mkdir(parents=True)
    damaged, good = {}, set()

    def land(content: bytes, kind: str, suffix: str, time_ns: int) -> str:
        path = landing / f"{kind}_{to_datetime(time_ns):%Y%m%dT%H%M%SZ}{suffix}"
        path.write_bytes(content)
        return path.name

    hours = 1 + -(-count // DAMAGED_PER_HOUR)
    for hour in range(hours):
        for place in range(DAMAGED_PER_HOUR):
            source = sources[place % len(sources)]
            start_ns = parse_utc(START) + hour * HOUR_NS + place * 2 * SPACING_S * NS_PER_S
            good.add(land(source.read_bytes(), "good", source.suffix, start_ns))
            number = (hour - 1) * DAMAGED_PER_HOUR + place
            if 0 <= number < count:
                kind, content = make_mutant(source, seed + number)
                name = land(content, kind, source.suffix, start_ns + SPACING_S * NS_PER_S)
                damaged[name] = kind
    return damaged, good


def windows_of_good(store: Any, hour: Any, rows: list[dict[str, Any]], good: set[str]) -> dict[int, bytes]:
    """Tracks of the windows that lie within good files, by their place in the hour."""
    from laps.tables import KEYPOINT_TRACKS
    from laps.timegrid import SampleGrid, from_datetime

    grid = SampleGrid()
    first, _ = grid.hour_samples(hour.start_ns)
    inside: set[int] = set()
    for row in rows:
        if row["used"] and Path(row["uri"]).name in good:
            begin = grid.first_sample_at_or_after(from_datetime(row["first_frame_time"]))
            end = grid.last_sample_at_or_before(from_datetime(row["last_frame_time"]))
            inside.update(range(begin + grid.window - 1, end + 1))
    windows = {}
    columns = ["end_sample", "displacements", "visible"]
    for window in store.read_partition(KEYPOINT_TRACKS, hour, columns=columns).to_pylist():
        if window["end_sample"] in inside:
            windows[window["end_sample"] - first] = window["displacements"] + window["visible"]
    return windows


def clips_of_hours(store: Any, hours: list[Any], good: set[str]) -> list[str]:
    """What is wrong with the clips of the used ranges; an hour's are cut in a process apart, which may die or hang."""
    from laps.errors import LapsError
    from laps.tables import RAW_VIDEO
    from resources.apart import Apart

    apart = Apart(limit_s=SLOW_HOUR_S)
    wrong, cut = [], 0
    for hour in hours:
        if not store.has_partition(RAW_VIDEO, hour):
            continue
        try:
            clips = apart.call(hour.key, cut_clips, store.read_partition(RAW_VIDEO, hour).to_pylist())
        except LapsError as error:
            wrong.append(str(error))
            continue
        failed = {name: clip for name, clip in clips.items() if clip.startswith("failed")}
        wrong += [f"{name}: {clip}" for name, clip in failed.items() if Path(name.rpartition(" ")[0]).name in good]
        wrong += [f"{name}: no reason" for name, clip in failed.items() if clip == "failed: None"]
        cut += len(clips) - len(failed)
    print(f"{cut} clips")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(".laps/bench_mutants"))
    options = parser.parse_args()
    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ |= {
        "LAPS_STORE": str(folder / "store"),
        "LAPS_LANDING": str(folder / "landing"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "LAPS_FIRST_HOUR": "2026-01-01T00:00:00Z",
    }
    damaged, good = lay_out(folder, options.files, options.seed)
    complaints = []

    began = time.perf_counter()
    ingest = subprocess.run([sys.executable, "-m", "laps_dagster.cli.main", "ingest"], capture_output=True, text=True)
    print(f"ingested {len(damaged)} damaged and {len(good)} good files in {time.perf_counter() - began:.0f} s")
    if "Traceback" in ingest.stderr or ingest.returncode < 0:
        complaints.append(f"ingest ended with {ingest.returncode}:\n{ingest.stderr[-2000:]}")

    from laps.tables import KEYPOINT_TRACKS, RAW_VIDEO
    from laps_dagster.cli.backfill import register_cameras
    from laps_dagster.runs import Runner, Task
    from resources.recordings import Recordings
    from resources.store import Store

    store = Store()
    register = Recordings(store)
    registered = {Path(row["uri"]).name: row for row in register.of_camera(CAMERA)}
    hours = register.hours(CAMERA)
    register_cameras([CAMERA])
    began = time.perf_counter()
    with Runner(options.workers) as runner:
        outcomes = runner.run_all([Task("track", hour.key) for hour in hours])
    took_s = time.perf_counter() - began
    print(f"tracked {len(hours)} hours in {took_s:.0f} s with {options.workers} workers")
    complaints += [f"{outcome.task}: {outcome.error}" for outcome in outcomes if not outcome.ok]
    if took_s > SLOW_HOUR_S * len(hours):
        complaints.append(f"{took_s / len(hours):.0f} s for each hour")

    began = time.perf_counter()
    complaints += clips_of_hours(store, hours, good)
    print(f"cut clips of {len(hours)} hours in {time.perf_counter() - began:.0f} s")

    used: set[str] = set()
    told: set[str] = set()
    alone: dict[int, bytes] = {}
    compared = 0
    for hour in hours:
        rows = store.read_partition(RAW_VIDEO, hour).to_pylist() if store.has_partition(RAW_VIDEO, hour) else []
        used |= {Path(row["uri"]).name for row in rows if row["used"]}
        told |= {Path(row["uri"]).name for row in rows if row["uri"] and row["status"] != "ok" and row["reason"]}
        windows = windows_of_good(store, hour, rows, good) if store.has_partition(KEYPOINT_TRACKS, hour) else {}
        alone = alone or windows
        # A damaged file may claim to be so long that it runs into a good one, but never takes what lies earlier.
        differing = [place for place, content in windows.items() if alone.get(place) not in (None, content)]
        compared += len(windows)
        if differing:
            complaints.append(f"{hour.key}: {len(differing)} of {len(windows)} windows of good files differ")
    ends: Counter[tuple[str, str]] = Counter()
    for name, kind in damaged.items():
        row = registered.get(name)
        if row is None:
            complaints.append(f"{name} was not registered")
            continue
        if row["status"] == "quarantined":
            end = "quarantined"
        elif name in told:
            end = "used in part" if name in used else "refused in its hour"
        else:
            end = "used"
        ends[kind, end] += 1
        if row["status"] != "quarantined" and name not in used | told:
            complaints.append(f"{name} is neither used nor told of")
        if row["status"] == "quarantined" and not row["reason"]:
            complaints.append(f"{name} is quarantined without a reason")
    columns = ("used", "used in part", "refused in its hour", "quarantined")
    print(f"\n| damage | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for kind in sorted({kind for kind, _ in ends}):
        print(f"| {kind} | {' | '.join(str(ends[kind, column]) for column in columns)} |")
    print(f"\n{compared} windows of good files compared with those of an hour without damaged ones")
    for complaint in complaints[:50]:
        print(f"WRONG: {complaint}")
    print(f"{len(complaints)} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
