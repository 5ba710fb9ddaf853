"""CPU seconds and peak memory of each stage on one camera hour, beside only decoding the same file.

The hour is a simulated minute at 1280 x 720, 30 frames/s, H.264 at about 6 Mbit/s with sensor noise, laid end to end
sixty times by stream copy. Every stage runs through Dagster in a process of its own, so its figures include the
interpreter, imports and Dagster. The tokenizer has the full size. Figures of the least of several paired runs.

    python -m bench.stages --minutes 60 --runs 3
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

CAMERA = "bench"
START = "2026-01-05T09:00:00Z"
PARTITION = f"{CAMERA}|2026-01-05-09:00"
BIT_RATE = 6_000_000
FPS = 30

# Stage -> assets; in order. The vision encoder is counted apart, because its cost is the encoder's choice.
STAGES = {
    "raw_video": ["raw_video"],
    "tracks and keyframes": ["keypoint_tracks", "keyframes"],
    "latent_stream": ["latent_stream"],
    "segments": ["segments"],
    "clips": ["clips"],
    "segment_embeddings": ["segment_embeddings"],
    "cluster_assignments": ["cluster_assignments"],
    "visual_features": ["visual_features"],
}
APART = "visual_features"
JOBS = {"raw_video": "observe", "tracks and keyframes": "observe", "latent_stream": "observe"}


def make_video(folder: Path, minutes: int) -> Path:
    """The hour (or part of it): one simulated minute, repeated by copying its packets."""
    from bench.footage import lay_end_to_end
    from laps.simulation import SCENARIOS, record
    from laps.timegrid import parse_utc

    target = folder / f"hour_{minutes}min.mp4"
    if target.exists():
        return target
    scenario = replace(SCENARIOS["clean"], seed=5, duration_s=60.0, width_px=1280, height_px=720, fps=FPS, noise=4.0)
    minute = record(
        folder, scenario, camera=CAMERA, view=1, start_ns=parse_utc(START), bit_rate=BIT_RATE, preset="medium"
    )
    lay_end_to_end(minute, target, minutes * 60.0)
    return target


def decode_only(video: Path) -> None:
    """Decode every frame and convert nothing."""
    import av

    with av.open(str(video)) as source:
        stream = source.streams.video[0]
        stream.thread_count = 1
        for _ in source.decode(stream):
            pass


def run_stage(name: str) -> None:
    """Materialize one stage of the hour in this process."""
    import dagster as dg

    from assets.partitions import CAMERAS, multi_partition_key
    from laps.timegrid import CameraHour
    from laps_dagster.definitions import defs
    from laps_dagster.runs import QUIET

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CAMERAS, [CAMERA])
        job = defs.resolve_job_def(JOBS.get(name, "segment"))
        job.execute_in_process(
            run_config=QUIET,
            instance=instance,
            partition_key=multi_partition_key(CameraHour.parse(PARTITION)),
            asset_selection=[dg.AssetKey(asset) for asset in STAGES[name]],
        )


def measured(*arguments: str) -> tuple[float, float, float]:
    """CPU seconds, peak MiB and wall seconds of this program with other arguments, as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.stages", *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"bench.stages {' '.join(arguments)} failed:\n{said}")
    return usage.ru_utime + usage.ru_stime, float(said.split()[-1]) / 1024, time.perf_counter() - began


def peak_kib() -> int:
    """Most memory that this process ever held. (What wait4 says would count this program's parent as well.)"""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def prepare(folder: Path, video: Path, train_minutes: float) -> None:
    """A release for the hour: its models are made once, untimed, and used by every timed run."""
    from laps.timegrid import parse_utc
    from laps_dagster.cli.backfill import register_cameras
    from laps_dagster.pipeline import Backfill, Options, Progress, select_hours
    from resources.models import ModelRegistry
    from resources.recordings import Recordings
    from resources.settings import store_settings
    from resources.store import Store

    os.environ["DAGSTER_HOME"] = str(folder / "dagster")
    store = Store()
    store_settings(store)
    recordings = Recordings(store)
    recordings.register(str(video), CAMERA, parse_utc(START))
    if ModelRegistry(store).current() is None:
        register_cameras([CAMERA])
        options = Options(preset="full", train_minutes=train_minutes, workers=1, only_missing=True)
        Backfill(store, select_hours(recordings, [CAMERA], None, None), options, Progress(report=print)).run()


def rows(results: dict[str, tuple[float, float, float]], decode: tuple[float, float, float]) -> Iterator[str]:
    yield f"{'stage':24} {'CPU s':>8} {'of decoding':>12} {'peak MiB':>9} {'wall s':>8}"
    for name, (cpu, memory, wall) in {"decoding alone": decode, **results}.items():
        yield f"{name:24} {cpu:8.1f} {cpu / decode[0]:12.2f} {memory:9.0f} {wall:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--train-minutes", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=Path(".laps/bench"))
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        decode_only(options.decode)
        print(peak_kib())
        return
    if options.stage:
        run_stage(options.stage)
        print(peak_kib())
        return
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["LAPS_STORE"] = str(folder / f"store_{options.minutes}min")
    video = make_video(folder, options.minutes)
    frames = options.minutes * 60 * FPS
    mbits = video.stat().st_size * 8 / (options.minutes * 60) / 1e6
    print(f"{video}: {frames} frames, {mbits:.1f} Mbit/s")
    prepare(folder, video, options.train_minutes)
    best: tuple[float, dict[str, tuple[float, float, float]], tuple[float, float, float]] | None = None
    for run in range(options.runs):
        decode = measured("--decode", str(video))
        results = {name: measured("--stage", name) for name in STAGES}
        counted = sum(cpu for name, (cpu, _, _) in results.items() if name != APART)
        ratio = counted / decode[0]
        print(f"run {run + 1}: decoding {decode[0]:.0f} s, stages {counted:.0f} s, ratio {ratio:.2f}", flush=True)
        if best is None or ratio < best[0]:
            best = (ratio, results, decode)
    assert best is not None
    ratio, results, decode = best
    print()
    print("\n".join(rows(results, decode)))
    counted = ratio * decode[0]
    scale = 60 / options.minutes
    print(
        f"\nall but the vision encoder: {counted:.0f} CPU-seconds, {ratio:.2f} times decoding alone "
        f"(tracking decodes once, so {(counted - decode[0]) * scale:.0f} CPU-seconds an hour beyond decoding); "
        f"decoding costs {1000 * decode[0] / frames:.2f} ms a frame; peak memory "
        f"{max(memory for _, memory, _ in results.values()):.0f} MiB"
    )


if __name__ == "__main__":
    main()
