"""What a landing zone of many files costs the sensor: registering them, and looking at it when nothing is new.

    python -m bench.landing --files 20000 --register 500

One short video lies under so many names, as hard links, in the folders of two cameras. Some are registered, through
looks of 20 s as the sensor's are; the others are then put on record as seen, so that the landing zone is as large as
after a year. Then, each in a process of its own: a look at which nothing is new, one that has to read what was seen,
and one with a new file. Prints seconds of each, CPU seconds, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from laps.simulation import SCENARIOS, record
from laps.timegrid import parse_utc, to_datetime
from resources.landing import Known, LandingZone
from resources.recordings import Recordings
from resources.settings import store_settings
from resources.store import Store

CAMERAS = ("cam1", "cam2")
FIRST = parse_utc("2026-01-05T00:00:00Z")
EVERY_NS = 300 * 10**9
"""Files of five minutes, of which each video shows two seconds."""

SCENARIO = replace(SCENARIOS["clean"], seed=3, duration_s=2.0, width_px=320, height_px=180, fps=15.0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.landing")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--register", type=int, default=500, help="how many are registered; the others are only seen")
    parser.add_argument("--look", metavar="DIGEST", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look is not None:
        return look(options.look)
    with tempfile.TemporaryDirectory(prefix="laps-landing-") as folder:
        return run(Path(folder), options.files, options.register)


def run(folder: Path, files: int, register: int) -> int:
    os.environ |= {
        "LAPS_STORE": str(folder / "store"),
        "LAPS_LANDING": str(folder / "landing"),
        "LAPS_FIRST_HOUR": "2026-01-01T00:00:00Z",
    }
    store_settings(Store())
    video = record(folder / "video", SCENARIO, camera=CAMERAS[0], view=0, start_ns=FIRST)
    land(video, range(register))
    zone = landing_zone()
    began = time.perf_counter()
    looks = 0
    while len(zone.seen.files) < register:
        zone.look()
        looks += 1
    seconds = time.perf_counter() - began
    print(
        f"registering {register:,} files: {seconds:.1f} s in {looks} looks, {1000 * seconds / register:.0f} ms a file"
    )
    land(video, range(register, files))
    for landed in zone.recordings.listed():
        zone.seen.files.setdefault(landed.uri, Known(landed.marker))
    zone.save()
    digest = zone.look().digest
    print(f"| {files:,} files | s | CPU s | peak MiB |\n|---|--:|--:|--:|")
    measure("nothing is new", digest)
    measure("nothing is new, and what was seen is read", "")
    land(video, range(files, files + 1))
    measure("a new file", "")
    return 0


def landing_zone() -> LandingZone:
    return LandingZone(Recordings(Store()), stable_s=0.0, quiet_s=0.0)


def land(video: Path, numbers: range) -> None:
    """Lay the video into the landing zone under names of other times."""
    for number in numbers:
        camera = CAMERAS[number % len(CAMERAS)]
        start = to_datetime(FIRST + number // len(CAMERAS) * EVERY_NS)
        target = Path(os.environ["LAPS_LANDING"]) / camera / f"{camera}_{start:%Y%m%dT%H%M%SZ}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(video, target)
        except OSError:  # a file has so many names at most
            shutil.copyfile(video, target)


def measure(what: str, digest: str) -> None:
    command = [sys.executable, "-m", "bench.landing", "--look", digest]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(f"| {what} | {found['s']:.2f} | {found['cpu_s']:.2f} | {found['peak_mib']:.0f} |", flush=True)


def look(digest: str) -> int:
    """One look in this process, which prints what it took."""
    zone = landing_zone()
    began, cpu_began = time.perf_counter(), time.process_time()
    zone.look(digest)
    taken = {"s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_began}
    print(json.dumps({**taken, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
