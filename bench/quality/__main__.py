"""Every quality figure in one run: see :mod:`bench.quality`.

    python -m bench.quality --data FOLDER

A run that was killed goes on where it ended when it is started again with the same options.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.quality import report
from bench.quality.clusters import clusters_of
from bench.quality.methods import METHODS, PRODUCT, Streams
from bench.quality.predictions import run
from bench.quality.scenes import FPS, HEIGHT_PX, WIDTH_PX
from bench.quality.scores import score_set
from bench.quality.sets import (
    REAL,
    SIMULATED,
    SIMULATED_TOKENIZER,
    TRANSDUCTIVE,
    Item,
    RecordingSet,
    real_sets,
    simulated_sets,
)
from bench.quality.tokenizers import Say, Tokenizers, TrainingSettings, quality_of
from laps.errors import InputError, LapsError
from laps.simulation import VIEWS
from laps.trackers.flow import FlowTracker
from laps.vision import WeightFreeEncoder

DEVELOPMENT_SEEDS = (201, 101, 102)
FRESH_SEEDS = (301, 302, 303, 304, 305)


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(arguments)
    began = time.monotonic()

    def say(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{minutes:4d}:{seconds:02d} {line}", flush=True)

    try:
        outcome = measured(options, _about(options, arguments), say)
    except (LapsError, OSError) as error:
        print(f"bench.quality: {error}", file=sys.stderr)
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(report.markdown(outcome), encoding="utf-8")
    print("\n" + report.console(outcome))
    print(f"written: {options.out}")
    return 0


def measured(options: argparse.Namespace, about: dict[str, str], say: Say) -> report.Outcome:
    """Everything that the options ask for.

    Raises:
        InputError: there is nothing to score.
    """
    sets, left_out = _sets(options)
    if not sets:
        raise InputError("there is nothing to score", fix="Choose a simulated set, or give --data.")
    methods = [METHODS[name] for name in METHODS if name in options.methods]
    _prepare(sets, options.jobs, say)
    tokenizers = Tokenizers(
        options.work / "tokenizers",
        TrainingSettings(options.preset, options.minutes, options.other_minutes, options.steps, options.seed),
        say,
        {} if options.tokenizer is None else {SIMULATED_TOKENIZER: options.tokenizer},
    )
    qualities = list(_qualities(sets, tokenizers, options, say))
    streams = Streams()
    scores: dict[tuple[str, str], dict[str, Any]] = {}
    clusters = {}
    for one in sets:
        for setting in one.settings:
            say(f"{one.name}, {setting}")
            predictions = run(one, setting, methods, tokenizers, streams, options.work / "predictions", say)
            scores[one.name, setting] = score_set(one, setting, predictions, options.work / "scores")
            say(f"  {one.name}, {setting}: scored")
            if one.simulated and setting == TRANSDUCTIVE and options.clusters and PRODUCT in predictions:
                found = clusters_of(one, predictions[PRODUCT], tokenizers, streams, options.work / "clusters", say)
                clusters[one.name] = found
    return report.Outcome(about, sets, scores, qualities, clusters, left_out)


def _sets(options: argparse.Namespace) -> tuple[list[RecordingSet], list[str]]:
    cache_folder = options.work / "recordings"
    found: list[RecordingSet] = []
    scenarios = [name for name in SIMULATED if name in options.sets]
    if scenarios:
        found += simulated_sets(
            scenarios,
            views=options.views,
            development=options.development,
            fresh=options.fresh,
            seconds=options.seconds,
            cache_folder=cache_folder,
        )
    real = [name for name in REAL if name in options.sets]
    if options.data is None:
        return found, [f"{name}: no --data was given" for name in real]
    more, left_out = real_sets(options.data, real, cache_folder)
    return found + more, left_out


def _prepare(sets: Sequence[RecordingSet], jobs: int, say: Say) -> None:
    """Record and track the scenes."""
    prepares = {item.name: item.prepare for one in sets for item in _items(one) if item.prepare is not None}
    began = time.monotonic()

    def done(count: int, name: str) -> None:
        left_min = (time.monotonic() - began) / count * (len(prepares) - count) / 60
        say(f"[{count}/{len(prepares)}] {name} is there, about {left_min:.0f} min left")

    if jobs == 1:
        for count, (name, prepare) in enumerate(prepares.items(), 1):
            prepare()
            done(count, name)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        names = {pool.submit(prepare): name for name, prepare in prepares.items()}
        for count, future in enumerate(as_completed(names), 1):
            future.result()
            done(count, names[future])


def _items(one: RecordingSet) -> Iterator[Item]:
    for camera in one.cameras:
        yield from camera.tokenizer.learn
        yield from camera.learn
        yield from camera.scored


def _qualities(
    sets: Sequence[RecordingSet], tokenizers: Tokenizers, options: argparse.Namespace, say: Say
) -> Iterator[dict[str, Any]]:
    """A line for each tokenizer, measured on everything that is scored with it."""
    cameras = [camera for one in sets for camera in one.cameras]
    for plan in {camera.tokenizer.name: camera.tokenizer for camera in cameras}.values():
        items = [item for camera in cameras if camera.tokenizer.name == plan.name for item in camera.scored]
        seen = {item.content_id for item in plan.learn} & {item.content_id for item in items}
        tokenizer = tokenizers.get(plan)
        say(f"measuring the tokenizer {plan.name} ({tokenizer.tokenizer_id})")
        path = options.work / "tokenizers" / f"{plan.name}-quality.json"
        many = f"{len(items)} recording{'s' if len(items) > 1 else ''}"
        yield {
            "title": plan.title if plan.name not in tokenizers.given else f"given: {tokenizers.given[plan.name].name}",
            "tokenizer_id": tokenizer.tokenizer_id,
            "measured_on": f"{many}, {'seen in training' if seen else 'not seen'}",
            "quality": quality_of(tokenizer, items, path, options.measure_windows, held_out=not seen),
        }


def _about(options: argparse.Namespace, arguments: Sequence[str]) -> dict[str, str]:
    """The settings of the run, in words."""
    tokenizer = (
        f"preset {options.preset}, at most {options.minutes:g} min (simulation) and {options.other_minutes:g} min"
    )
    tokenizer += f" (others) of training on this machine, seed {options.seed}"
    if options.steps is not None:
        tokenizer += f", at most {options.steps} steps"
    if options.tokenizer is not None:
        tokenizer += f"; the simulation's is given: {options.tokenizer.name}"
    return {
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": f"`python -m bench.quality {shlex.join(_without_paths(options, arguments))}`",
        "simulated recordings": f"{options.seconds:g} s each, {WIDTH_PX} x {HEIGHT_PX} px, {FPS} frames/s",
        "development seeds": ", ".join(map(str, options.development)),
        "fresh seeds": ", ".join(map(str, options.fresh)),
        "tracker": FlowTracker().tracker_id,
        "tokenizers": tokenizer,
        "visual descriptor": f"{WeightFreeEncoder().encoder_id} (no trained model)",
    }


def _without_paths(options: argparse.Namespace, arguments: Sequence[str]) -> list[str]:
    """The arguments with the last part only of every path: the rest says nothing to others."""
    paths = {str(value): value.name for value in vars(options).values() if isinstance(value, Path)}
    return [paths.get(argument.rstrip("/"), argument) for argument in arguments]


def commit() -> str:
    """The commit that the program runs from, as far as git knows."""

    def git(*words: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = " with uncommitted changes" if git("status", "--porcelain", ":/laps", ":/bench") else ""
        return f"{git('rev-parse', 'HEAD')}{changed}"
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git, or no repository)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--work", type=Path, default=Path(".laps/quality"), help="folder for everything that is kept between runs")
    add("--out", type=Path, default=Path("docs/quality.md"), help="page to write")
    add("--data", type=Path, help="folder with bench_video/ and kinematics/")
    add("--sets", nargs="+", choices=[*SIMULATED, *REAL], default=[*SIMULATED, *REAL], metavar="SET")
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    add("--fresh", type=int, nargs="+", default=list(FRESH_SEEDS), metavar="SEED", help="seeds that are scored")
    add("--development", type=int, nargs="+", default=list(DEVELOPMENT_SEEDS), metavar="SEED", help="to learn from")
    add("--views", type=int, nargs="+", default=list(VIEWS), choices=list(VIEWS), metavar="VIEW")
    add("--seconds", type=float, default=180.0, help="length of a simulated recording")
    add("--preset", choices=["full", "small"], default="full", help="size of the tokenizers")
    add("--minutes", type=float, default=60.0, help="longest training of the simulation's tokenizer")
    add("--other-minutes", type=float, default=15.0, help="the same of the real sets' tokenizers")
    add("--steps", type=int, help="most training steps of a tokenizer")
    add("--seed", type=int, default=0, help="of the training")
    add("--tokenizer", type=Path, help="tokenizer for the simulated sets, instead of training one")
    add("--measure-windows", type=int, default=2400, help="most windows that a tokenizer is measured on")
    add("--no-clusters", dest="clusters", action="store_false", help="leave the clusters out")
    add("--jobs", type=int, default=1, help="processes that record and track scenes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
