"""How often the asset checks cry on undisturbed work, and how often they notice a fault.

One simulated workstation, filmed by one camera, in stretches that stand for hours: some to train and calibrate on, some
undisturbed, some with a fault that is put into the pictures, the tracks or the thresholds. Stretches are shorter than
hours, so their figures vary more: the rates of false alarms are those of a harder case.

    python -m bench.alarms --work /tmp/alarms

Tracks are kept in the work folder; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from laps import vitals
from laps.calibration import Calibration, calibrate
from laps.clustering import ClusterModel, fit, fit_figures
from laps.cutting import cut
from laps.embedding import FrozenTransformer
from laps.energy import series
from laps.latent import LatentStream, encode_stream
from laps.sampling import Sample
from laps.simulation import SCENARIOS, Renderer
from laps.timegrid import SampleGrid, parse_utc
from laps.tokenizer import MotionTokenizer, TokenizerConfig, from_tracks, load, save, train
from laps.tokenizer.files import TRAINING
from laps.trackers.flow import FlowTracker
from laps.tracks import TrackWindows
from laps.video import TimedFrame
from laps.vitals import Verdict

CAMERA = "bench"
START_NS = parse_utc("2026-01-05T00:00:00Z")
TRAINED, UNDISTURBED, OF_A_FAULT = 3, 12, 3
GRID = SampleGrid()

NOISE = SCENARIOS["clean"].noise  # of the sensor, grey levels
MOVED = "camera moved"

Picture = NDArray[np.uint8]


def moved(picture: Picture, rng: np.random.Generator) -> Picture:
    """The camera was knocked: turned by 10 degrees, and nearer. The sensor's noise is what it was."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 10, 1.4)
    turned = cv2.warpAffine(picture, turn, (width, height))
    return np.clip(turned + rng.normal(0, NOISE, picture.shape), 0, 255).astype(np.uint8)


def covered(picture: Picture, rng: np.random.Generator) -> Picture:
    """Something hangs over the lens: a dark grey, and the sensor's noise."""
    return np.clip(rng.normal(30, NOISE, picture.shape), 0, 255).astype(np.uint8)


def lights_off(picture: Picture, rng: np.random.Generator) -> Picture:
    """A twentieth of the light, and the sensor's noise."""
    return np.clip(picture / 20 + rng.normal(0, NOISE, picture.shape), 0, 255).astype(np.uint8)


IN_PICTURES: dict[str, Callable[[Picture, np.random.Generator], Picture]] = {
    MOVED: moved,
    "lens covered": covered,
    "lights off": lights_off,
}


@dataclass(frozen=True)
class Stretch:
    """A part of the timeline, and the fault that is put into its pictures."""

    number: int
    fault: str = ""

    @property
    def name(self) -> str:
        return f"{self.number:03}{'_' + self.fault.replace(' ', '_') if self.fault else ''}"


def stretches() -> list[Stretch]:
    undisturbed = [Stretch(number) for number in range(TRAINED + UNDISTURBED)]
    later = TRAINED + UNDISTURBED
    return undisturbed + [
        Stretch(later + kind * OF_A_FAULT + number, fault)
        for kind, fault in enumerate(IN_PICTURES)
        for number in range(OF_A_FAULT)
    ]


def samples(stretch: Stretch, length_s: float, scenario: str) -> Iterator[Sample]:
    """What the camera sees in a stretch, a picture for each sample of the grid."""
    whole = replace(
        SCENARIOS[scenario], seed=7, duration_s=length_s * len(stretches()), width_px=320, height_px=180, fps=10.0
    )
    if stretch.fault == MOVED:
        whole = replace(whole, noise=0.0)  # it comes after the picture was turned
    renderer, rng = Renderer(whole, 0), np.random.default_rng(stretch.number)
    disturb = IN_PICTURES.get(stretch.fault)
    converter = VideoReformatter()
    for index in whole.frame_range(stretch.number * length_s, (stretch.number + 1) * length_s):
        picture = renderer.frame(index)
        if picture is None:
            continue
        picture = picture if disturb is None else disturb(picture, rng)
        frame = av.VideoFrame.from_ndarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), format="yuv420p")
        sample = GRID.first_sample_at_or_after(START_NS) + index
        shown = TimedFrame(frame, time_ns=GRID.time_ns(sample), quarter_turns=0, converter=converter)
        yield Sample(sample, shown)


def tracks(stretch: Stretch, length_s: float, scenario: str, folder: Path) -> pa.Table:
    """The tracks of a stretch, rows of `keypoint_tracks`; kept."""
    path = folder / f"{stretch.name}.parquet"
    if not path.exists():
        tracker = FlowTracker(short_side_px=180)
        made = [
            item.to_table(CAMERA, GRID)
            for item in tracker.track(samples(stretch, length_s, scenario), GRID)
            if isinstance(item, TrackWindows)
        ]
        pq.write_table(pa.concat_tables(made), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return pq.read_table(path)


def failing_tracker(seen: TrackWindows, rng: np.random.Generator) -> TrackWindows:
    """Three quarters of the points are lost in each window, and what is left jumps about."""
    visible = seen.visible & (rng.random((len(seen.visible), 1, seen.visible.shape[2])) < 0.25)
    noise = rng.integers(-64, 65, seen.displacements.shape)
    return replace(seen, visible=visible, displacements=(seen.displacements + noise).astype(np.int16))


@dataclass(frozen=True)
class Models:
    """What the first stretches give: a tokenizer, a calibration and clusters, as a release has them."""

    tokenizer: MotionTokenizer
    trained_perplexity: float
    calibration: Calibration
    embedder: FrozenTransformer
    clusters: ClusterModel
    fitted: dict[str, Any]


def encoded(
    seen: TrackWindows, tokenizer: MotionTokenizer, stretch: Stretch, length_s: float, work: Path, kind: str = ""
) -> LatentStream:
    """Codes and energies of a stretch; kept."""
    path = work / f"{tokenizer.tokenizer_id}_{stretch.name}{kind}.parquet"
    if not path.exists():
        stream = _encode(seen, tokenizer, stretch, length_s)
        pq.write_table(stream.to_table(CAMERA, GRID), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return LatentStream.from_table(pq.read_table(path))


def _encode(seen: TrackWindows, tokenizer: MotionTokenizer, stretch: Stretch, length_s: float) -> LatentStream:
    first = GRID.first_sample_at_or_after(START_NS) + round(stretch.number * length_s * GRID.rate_hz)
    stop = first + round(length_s * GRID.rate_hz)
    return encode_stream([seen], tokenizer, GRID, first=first, stop=stop, covered=np.ones(stop - first, bool))


def primitives_of(stream: LatentStream, calibration: Calibration) -> list[NDArray[np.int64]]:
    """The codes of each primitive."""
    found = cut(
        series(stream, calibration), stream.code, stream.first, calibration.settings, calibration.cut,
        calibration.boundaries, ended=True,
    )  # fmt: skip
    return [
        stream.code[one.start_sample - stream.first : one.end_sample - stream.first].astype(np.int64) for one in found
    ]


def make_models(seen: list[TrackWindows], length_s: float, minutes: float, work: Path) -> Models:
    folder = work / "tokenizer"
    if not (folder / TRAINING).exists():
        config = TokenizerConfig.small(seen[0].tracker_id, rate_hz=GRID.rate_hz, points=400, steps=GRID.window - 1)
        trained = train(from_tracks(iter(seen), GRID, config), config, max_minutes=minutes)
        save(trained.tokenizer, folder, training=trained.report())
    tokenizer = load(folder)
    quality = json.loads((folder / TRAINING).read_text(encoding="utf-8"))["quality"]
    streams = [encoded(one, tokenizer, Stretch(number), length_s, work) for number, one in enumerate(seen)]
    # By the velocity: minutes of training make no tokenizer whose decoded motion tells motion from rest.
    calibration = calibrate(streams, camera=CAMERA, form="velocity")
    vectors = tokenizer.code_vectors()
    embedder = FrozenTransformer.create(vectors.shape[1], seed=0)
    primitives = [codes for stream in streams for codes in primitives_of(stream, calibration) if len(codes)]
    embeddings = embedder.embed(primitives, vectors)
    fitted = fit(embeddings, 6, tokenizer_id=tokenizer.tokenizer_id, embedder_id=embedder.embedder_id)
    print(f"{calibration.message}; {calibration.diagnostics}; {quality}")
    return Models(
        tokenizer, quality["moving_perplexity"], calibration, embedder, fitted.model,
        fit_figures(fitted, embeddings),
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A stretch as the checks see it: clusters and distances of its primitives beside what it was made from."""

    stretch: Stretch
    seen: TrackWindows
    stream: LatentStream
    calibration: Calibration
    primitives: list[NDArray[np.int64]]
    ids: NDArray[np.int32]
    distances: NDArray[np.float32]


def case(stretch: Stretch, seen: TrackWindows, stream: LatentStream, calibration: Calibration, models: Models) -> Case:
    primitives = [codes for codes in primitives_of(stream, calibration) if len(codes)]
    ids, distances = np.zeros(0, np.int32), np.zeros(0, np.float32)
    if primitives:
        embeddings = models.embedder.embed(primitives, models.tokenizer.code_vectors())
        ids, distances = models.clusters.assign(embeddings)
    return Case(stretch, seen, stream, calibration, primitives, ids, distances)


def verdicts(of: Case, length_s: float, models: Models, history: list[float]) -> dict[str, Verdict]:
    """What the checks say of a stretch."""
    minutes = float((of.stream.code >= 0).sum()) * GRID.step_s / 60
    calibrated = of.calibration.diagnostics.segments_per_minute
    return {
        "tracking": vitals.tracking(of.seen.visible.mean(axis=(1, 2))),
        "values": vitals.values(minutes * 60, length_s),
        "rate": vitals.rate(len(of.primitives), minutes, history, [], calibrated),
        "codes": vitals.codes(np.concatenate([*of.primitives, np.zeros(0, np.int64)]), models.trained_perplexity),
        "thresholds": vitals.thresholds(of.stream, of.calibration),
        "clusters": vitals.clusters(of.ids, of.distances, models.fitted),
    }


def scaled(calibration: Calibration, factor: float) -> Calibration:
    """The calibration with thresholds that are wrong by a factor."""
    settings = calibration.settings
    wrong = replace(settings, theta_on=settings.theta_on * factor, theta_off=settings.theta_off * factor)
    return replace(calibration, settings=wrong)


def score(work: Path, length_s: float, scenario: str, minutes: float) -> None:
    """Print for each kind of stretch how many of them each check noticed."""
    seen = {stretch: TrackWindows.from_table(tracks(stretch, length_s, scenario, work)) for stretch in stretches()}
    models = make_models([seen[Stretch(number)] for number in range(TRAINED)], length_s, minutes, work)
    undisturbed = [Stretch(number) for number in range(TRAINED, TRAINED + UNDISTURBED)]
    streams = {one: encoded(seen[one], models.tokenizer, one, length_s, work) for one in seen}
    rates = {one: len(primitives_of(streams[one], models.calibration)) / (length_s / 60) for one in undisturbed}
    right = models.calibration
    kinds = {"undisturbed": [case(one, seen[one], streams[one], right, models) for one in undisturbed]}
    for fault in IN_PICTURES:
        kinds[fault] = [case(one, seen[one], streams[one], right, models) for one in seen if one.fault == fault]
    rng, kind = np.random.default_rng(0), "tracker failing"
    kinds[kind] = []
    for one in undisturbed[:OF_A_FAULT]:
        bad = failing_tracker(seen[one], rng)
        kinds[kind].append(
            case(one, bad, encoded(bad, models.tokenizer, one, length_s, work, "_failing"), right, models)
        )
    for factor in (0.4, 2.5):
        wrong = scaled(right, factor)
        kinds[f"thresholds x {factor:g}"] = [
            case(one, seen[one], streams[one], wrong, models) for one in undisturbed[:OF_A_FAULT]
        ]
    for kind, cases in kinds.items():
        cried: dict[str, int] = {}
        for of in cases:
            history = [rate for other, rate in rates.items() if other != of.stretch]
            for name, verdict in verdicts(of, length_s, models, history).items():
                cried[name] = cried.get(name, 0) + (not verdict.passed)
                print(
                    f"  {of.stretch.name} {name}: {'' if verdict.passed else 'ALARM '}{verdict.said} {verdict.figures}"
                )
        # Several together are nearer to an hour's number of primitives.
        for first in range(0, len(cases), OF_A_FAULT):
            several = cases[first : first + OF_A_FAULT]
            ids = np.concatenate([of.ids for of in several])
            distances = np.concatenate([of.distances for of in several])
            together = vitals.clusters(ids, distances, models.fitted)
            cried["clusters of three"] = cried.get("clusters of three", 0) + (not together.passed)
            print(f"  three together: {_mark(together)}{together.said}")
        print(f"{kind} ({len(cases)}): {', '.join(f'{name} {count}' for name, count in cried.items())}", flush=True)


def _mark(verdict: Verdict) -> str:
    return "" if verdict.passed else "ALARM "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for tracks and models")
    parser.add_argument("--minutes", type=float, default=4.0, help="length of a stretch")
    parser.add_argument("--train-minutes", type=float, default=3.0)
    parser.add_argument("--scenario", default="distractors")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for stretch in stretches():
        print(stretch.name, tracks(stretch, options.minutes * 60, options.scenario, options.work).num_rows, flush=True)
    score(options.work, options.minutes * 60, options.scenario, options.train_minutes)


if __name__ == "__main__":
    main()
