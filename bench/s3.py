"""Wall seconds of each stage of one camera hour with recording and store on S3, beside a local disk, in one run.

The hour is that of bench.stages. The server is ``rclone serve s3`` on this machine: the figures hold what requests cost
the pipeline and the server, which share its cores, and not the latency of a network. Requests and bytes are counted by
the tests' proxy in one more run that is not timed, because all bytes pass through it. Models are trained once, on the
local store, and copied. Each stage runs on both in turn, in a process of its own.

    python -m bench.s3 --minutes 60 --runs 3
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from bench.stages import CAMERA, FPS, STAGES, START, make_video, measured, prepare
from resources.s3_server import LANDING, STORE, S3Server, serve
from tests.s3 import proxied

MIB = 2**20


@dataclass
class Cost:
    """What a stage cost: the least wall seconds of all runs, and requests and bytes on S3."""

    local_s: float = float("inf")
    s3_s: float = float("inf")
    requests: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


def fill(folder: Path, video: Path) -> None:
    """Give the S3 store the local one's models, and register the recording where it lands there."""
    from laps.timegrid import parse_utc
    from resources.recordings import Recordings
    from resources.settings import store_settings
    from resources.store import Store

    store = Store(STORE)
    store_settings(store)
    store.put_folder(folder / "store" / "models", "models")
    landing = Store(LANDING)
    path = f"{CAMERA}/{video.name}"
    if not landing.exists(path):
        landing.put_file(video, path)
    Recordings(store, LANDING).register(landing.url(path), CAMERA, parse_utc(START))


def measure(folder: Path, costs: dict[str, Cost]) -> None:
    """Run every stage once on the local disk and once on S3, and take the time."""
    for name, cost in costs.items():
        os.environ["LAPS_STORE"] = str(folder / "store")
        cost.local_s = min(cost.local_s, measured("--stage", name)[2])
        os.environ["LAPS_STORE"] = STORE
        cost.s3_s = min(cost.s3_s, measured("--stage", name)[2])
        print(f"{name}: {cost.local_s:.1f} s, on S3 {cost.s3_s:.1f} s", flush=True)


def count(server: S3Server, costs: dict[str, Cost]) -> None:
    """Run every stage once more on S3, and count its requests and bytes."""
    os.environ["LAPS_STORE"] = STORE
    with proxied(server) as proxy:
        os.environ.update(server.environment(proxy.url))
        for name, cost in costs.items():
            proxy.reset()
            measured("--stage", name)
            cost.requests = len(proxy.requests)
            cost.read_bytes = sum(request.bytes_out for request in proxy.requests)
            cost.written_bytes = sum(request.bytes_in for request in proxy.requests)
            print(f"{name}: {cost.requests} requests", flush=True)


def line(name: str, cost: Cost) -> str:
    return (
        f"{name:24} {cost.local_s:8.1f} {cost.s3_s:8.1f} {100 * (cost.s3_s / cost.local_s - 1):+7.0f}% "
        f"{cost.requests:9} {cost.read_bytes / MIB:9.1f} {cost.written_bytes / MIB:12.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--train-minutes", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=Path(".laps/bench_s3"))
    options = parser.parse_args()
    folder = options.folder.absolute() / f"{options.minutes}min"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["LAPS_STORE"] = str(folder / "store")
    video = make_video(folder, options.minutes)
    prepare(folder, video, options.train_minutes)
    costs = {name: Cost() for name in STAGES}
    with serve(folder / "s3") as server:
        os.environ.update(server.environment())
        fill(folder, video)
        for _ in range(options.runs):
            measure(folder, costs)
        count(server, costs)
    each = list(costs.values())
    total = Cost(
        sum(cost.local_s for cost in each),
        sum(cost.s3_s for cost in each),
        sum(cost.requests for cost in each),
        sum(cost.read_bytes for cost in each),
        sum(cost.written_bytes for cost in each),
    )
    print(f"\n{video.name}: {options.minutes * 60 * FPS} frames, {video.stat().st_size / MIB:.1f} MiB\n")
    print(f"{'stage':24} {'local s':>8} {'S3 s':>8} {'':>8} {'requests':>9} {'MiB read':>9} {'MiB written':>12}")
    print("\n".join(line(name, cost) for name, cost in {**costs, "all of them": total}.items()))


if __name__ == "__main__":
    main()
