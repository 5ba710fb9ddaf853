"""Kills at random moments, with a backfill and with the daemon, on a local store and on S3, and what is left.

Every round begins with a fresh copy of a store that holds a release and recordings of two cameras across an hour's
boundary, and no tables of hours. `backfill`: ``laps backfill`` with two workers is killed (one process of it, or all)
and given again. `automation`: the daemon finds the recordings and makes the hours; runs, the daemon, or everything at
once is killed, and the daemon started again. In the end every file of every hour, tables and clips, must be that of an
undisturbed backfill, byte for byte.

    python -m bench.kill --kills 50 --seed 0
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from resources.s3_server import BUCKET, serve
from tests.kills import Scene, copy_scene, kill_during_automation, kill_during_backfill, make_scene

KILLS_A_ROUND = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="all together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=["backfill", "automation"], default=["backfill", "automation"])
    parser.add_argument("--stores", nargs="+", choices=["local", "s3"], default=["local", "s3"])
    parser.add_argument("--patience-s", type=float, default=420.0, help="for the daemon after the last kill")
    parser.add_argument("--folder", type=Path, default=Path(".laps/bench_kill"))
    options = parser.parse_args()
    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    scene, undisturbed = make_scene(folder / "scene")
    print(
        f"scene: {len(scene.hours())} hours, {len(undisturbed)} files, {time.perf_counter() - began:.0f} s", flush=True
    )
    rng = random.Random(options.seed)
    plan = [(way, store) for store in options.stores for way in options.ways]
    left, number, wrong = options.kills, 0, 0
    print("| round | way | store | kills | met work | completed | tables | seconds |")
    print("|---|---|---|---:|---:|---|---|---:|")
    with ExitStack() as stack:
        if "s3" in options.stores:
            # One server for all rounds: an fsspec file system stays with the endpoint that it was made with.
            os.environ.update(stack.enter_context(serve(folder / "s3")).environment())
        while left > 0:
            way, where = plan[number % len(plan)]
            kills = min(KILLS_A_ROUND, left)
            began = time.perf_counter()
            place = folder / f"round{number}"
            remote = f"s3://{BUCKET}/round{number}" if where == "s3" else ""
            met, by_itself, same = one_round(scene, undisturbed, place, remote, way, rng, kills, options)
            wrong += not same
            how = "by itself" if by_itself else "by one command"
            print(
                f"| {number} | {way} | {where} | {kills} | {met} | {how} | {'equal' if same else 'DIFFERENT'} | "
                f"{time.perf_counter() - began:.0f} |",
                flush=True,
            )
            if same:
                for there in (place, folder / "s3" / BUCKET / place.name):
                    shutil.rmtree(there, ignore_errors=True)
            left -= kills
            number += 1
    print(f"\n{wrong} rounds with other tables than an undisturbed backfill's")
    return 1 if wrong else 0


def one_round(
    scene: Scene,
    undisturbed: dict[str, str],
    place: Path,
    remote: str,
    way: str,
    rng: random.Random,
    kills: int,
    options: argparse.Namespace,
) -> tuple[int, bool, bool]:
    disturbed = copy_scene(scene, place, remote)
    if way == "backfill":
        met, by_itself = kill_during_backfill(disturbed, rng, kills, longest_s=15.0), False
    else:
        met, by_itself = kill_during_automation(disturbed, rng, kills, longest_s=20.0, patience_s=options.patience_s)
    return met, by_itself, disturbed.tables() == undisturbed


if __name__ == "__main__":
    sys.exit(main())
