"""One benchmark from beginning to end: train, calibrate, cut every test video, score (paper section 4.3, Table 1).

Two settings. *Inductive*: the tokenizer and the calibration come from the split's training videos and have not seen
what is scored. *Transductive*: the tokenizer is trained on the scored videos themselves, without labels, and each
video is calibrated by itself. Labels are used for scoring only.

Everything that takes long is kept in the work folder as it is finished: models, calibrations and one file a scored
video. A run that is started again takes what was made with the same settings from the same files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from laps.benchmarks.layouts import Dataset, Item
from laps.benchmarks.table import columns, mean_of
from laps.calibration import DEFAULT_METHOD, METHODS, Calibration, calibrate
from laps.detector import DetectorTimes
from laps.energy import DEFAULT_FORM, check_form
from laps.errors import InputError, LapsError
from laps.evaluation import evaluate, evaluate_recordings
from laps.latent import LatentStream
from laps.single import (
    CAMERA,
    Recording,
    calibrate_recording,
    encode_recording,
    read_recording,
    segment_recording,
    track_recording,
)
from laps.timegrid import SampleGrid
from laps.tokenizer import MotionTokenizer, TokenizerConfig, TrainingProgress, from_tracks, load, save, train
from laps.trackers.flow import FlowTracker, tracker_from_id
from laps.tracks import TrackWindows

Setting = Literal["inductive", "transductive"]

SETTINGS: tuple[Setting, ...] = ("inductive", "transductive")


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run; all of it stands in the results.

    Attributes:
        setting: ``inductive`` or ``transductive``.
        split: the split whose test videos are scored. None: those of every split, each with its own model
            (inductive), or all videos at once (transductive).
        limit: score at most this many test videos of a split, evenly spread over their names.
        preset: size of the tokenizer, ``full`` or ``small``.
        minutes: longest training time of a tokenizer.
        steps: most optimizer steps.
        seed: of the training.
        tracker_preset: speed of the optical flow.
        form: energy to cut by.
        method: of calibration.
        train_video_minutes: videos to train on are thinned evenly to this length.
        calibration_video_minutes: the same for calibrating (inductive).
    """

    setting: Setting = "inductive"
    split: int | None = None
    limit: int | None = None
    preset: Literal["full", "small"] = "full"
    minutes: float = 60.0
    steps: int | None = None
    seed: int = 0
    tracker_preset: str = "ultrafast"
    form: str = DEFAULT_FORM
    method: str = DEFAULT_METHOD
    train_video_minutes: float = 120.0
    calibration_video_minutes: float = 30.0

    def __post_init__(self) -> None:
        if self.setting not in SETTINGS:
            raise InputError(f"there is no setting {self.setting!r}", fix=f"The settings are {', '.join(SETTINGS)}.")
        if self.preset not in ("full", "small"):
            raise InputError(f"there is no preset {self.preset!r}", fix="The presets are full, small.")
        check_form(self.form)
        if self.method not in METHODS:
            raise InputError(
                f"there is no calibration method {self.method!r}", fix=f"The methods are {', '.join(METHODS)}."
            )
        if self.limit is not None and self.limit < 1:
            raise InputError(f"at least one video must be scored, not {self.limit}")
        if not min(self.minutes, self.train_video_minutes, self.calibration_video_minutes) > 0:
            raise InputError("lengths of time must be above 0")


class Watcher(Protocol):
    """Is told how a run goes on."""

    def message(self, text: str) -> None:
        """Something that a person should read."""

    def progress(self, stage: str, done: float, total: float) -> None:
        """Seconds of video that a stage is through with."""

    def training(self, progress: TrainingProgress) -> None:
        """A step of the training."""


@dataclass(frozen=True)
class Fold:
    """Videos to learn from and videos to score."""

    name: str
    learn: list[Item]
    score: list[Item]


def folds(dataset: Dataset, settings: Settings) -> list[Fold]:
    """What is learned from and scored, split by split; only items with a video.

    Raises:
        InputError: there is no split to take the training videos from, or no test video.
    """
    usable = [item for item in dataset.items if item.video is not None]
    inductive = settings.setting == "inductive"
    found = []
    if settings.split is None and not inductive:
        found.append(Fold("all", usable, usable))
    else:
        for split in dataset.splits if settings.split is None else [settings.split]:
            test = [item for item in usable if item.splits.get(split) == "test"]
            learn = [item for item in usable if item.splits.get(split) == "train"] if inductive else test
            found.append(Fold(f"split{split}", learn, test))
    if not found:
        raise InputError(
            "there are no splits, so no training videos", where=str(dataset.folder), fix="Use the transductive setting."
        )
    for fold in found:
        if not fold.score or not fold.learn:
            raise InputError(
                f"{fold.name} has {len(fold.learn)} videos to learn from and {len(fold.score)} to score",
                where=str(dataset.folder),
                fix="Put the dataset's videos into its folder videos/.",
            )
    if settings.limit is not None:
        limit = settings.limit
        found = [
            dataclasses.replace(fold, score=_thinned(fold.score, len(fold.score) / limit)[:limit]) for fold in found
        ]
    return found


def run_benchmark(
    dataset: Dataset, settings: Settings, work: Path, watcher: Watcher, *, model: Path | None = None
) -> dict[str, Any]:
    """Run a benchmark and return its results, ready for JSON.

    Args:
        dataset: what is scored.
        settings: how.
        work: folder for what is kept between runs; made if it is not there.
        watcher: is told how it goes on.
        model: a tokenizer to use instead of training one. Whether it has seen the videos is its owner's to know.

    Returns:
        ``settings``, ``folds``, ``videos`` (name, fold, notes and the scores of each), ``failed`` (reason by name),
        ``pooled`` (:func:`laps.evaluation.evaluate_recordings` over all videos) and ``mean`` (of the columns of
        :func:`laps.benchmarks.table.columns` over the videos).

    Raises:
        InputError: nothing to learn from or to score, or not one video could be scored.
    """
    grid = SampleGrid()
    work.mkdir(parents=True, exist_ok=True)
    failed = dict(dataset.problems)
    wanted = [item for item in dataset.items if settings.split is None or settings.split in item.splits]
    failed |= {item.name: "there is no video of this name under videos/" for item in wanted if item.video is None}
    for name, reason in failed.items():
        watcher.message(f"left out: {name}: {reason}")
    made, kept = [], []
    for fold in folds(dataset, settings):
        place = work / fold.name
        place.mkdir(exist_ok=True)
        tokenizer = load(model) if model is not None else _tokenizer(fold, settings, place, grid, watcher)
        calibration = None
        if settings.setting == "inductive":
            calibration = _calibration(fold, tokenizer, settings, place, grid, watcher)
            if not calibration.ok:
                watcher.message(f"note: {fold.name}: {calibration.message}")
        made.append(
            {
                "name": fold.name,
                "tokenizer_id": tokenizer.tokenizer_id,
                "calibration_id": None if calibration is None else calibration.calibration_id,
                "videos_to_learn_from": len(fold.learn),
                "videos_to_score": len(fold.score),
            }
        )
        for item in _watched(fold.score, f"{fold.name}: scoring", watcher):
            try:
                kept.append(_scored(item, fold, tokenizer, calibration, settings, dataset, place, grid))
            except (LapsError, OSError) as error:
                failed[item.name] = str(error)
                watcher.message(f"left out: {item.name}: {error}")
    if not kept:
        raise InputError("not one video could be scored", where=str(dataset.folder), fix="The lines above say why.")
    pooled = evaluate_recordings([(one["truth"], one["prediction"]) for one in kept], ignore=dataset.layout.background)
    return {
        "dataset": dataset.layout.title,
        "layout": dataset.layout.name,
        "settings": {**dataclasses.asdict(settings), "model": None if model is None else str(model)},
        "folds": made,
        "videos": [{key: one[key] for key in ("name", "fold", "fps", "notes", "result")} for one in kept],
        "failed": failed,
        "pooled": pooled,
        "mean": mean_of([columns(one["result"]) for one in kept]),
    }


def _tokenizer(fold: Fold, settings: Settings, place: Path, grid: SampleGrid, watcher: Watcher) -> MotionTokenizer:
    """The fold's tokenizer, trained unless an earlier run has left it."""
    learn = _within(fold.learn, settings.train_video_minutes)
    tracker = FlowTracker(preset=settings.tracker_preset)
    make = TokenizerConfig.full if settings.preset == "full" else TokenizerConfig.small
    config = make(tracker.tracker_id, rate_hz=grid.rate_hz, steps=grid.window - 1)
    key = _key(config.to_json(), settings.minutes, settings.steps, settings.seed, [_file_key(item) for item in learn])
    folder, finished = place / f"model-{key}", place / f"model-{key}.json"
    if finished.is_file():
        return load(folder)

    def windows() -> Iterator[TrackWindows]:
        for item in _watched(learn, f"{fold.name}: tracking", watcher):
            try:
                yield from track_recording(read_recording(_video(item), grid), tracker, grid)
            except (LapsError, OSError) as error:
                watcher.message(f"not learned from: {item.name}: {error}")

    trained = train(
        from_tracks(windows(), grid, config),
        config,
        seed=settings.seed,
        max_minutes=settings.minutes,
        max_steps=settings.steps,
        progress=watcher.training,
    )
    tokenizer_id = save(trained.tokenizer, folder, training=trained.report())
    # Written last: a folder without it may be half of a model.
    _write(finished, _json({"tokenizer_id": tokenizer_id, "videos": [item.name for item in learn]}))
    return trained.tokenizer


def _calibration(
    fold: Fold, tokenizer: MotionTokenizer, settings: Settings, place: Path, grid: SampleGrid, watcher: Watcher
) -> Calibration:
    """Thresholds from the fold's training videos, found unless an earlier run has left them."""
    learn = _within(fold.learn, settings.calibration_video_minutes)
    key = _key(tokenizer.tokenizer_id, settings.form, settings.method, [_file_key(item) for item in learn])
    path = place / f"calibration-{key}.json"
    if path.is_file():
        return Calibration.from_json(path.read_text(encoding="utf-8"), name=str(path))
    streams = []
    for item in _watched(learn, f"{fold.name}: calibrating", watcher):
        try:
            streams.append(_encoded(read_recording(_video(item), grid), tokenizer, grid))
        except (LapsError, OSError) as error:
            watcher.message(f"not calibrated on: {item.name}: {error}")
    calibration = calibrate(
        streams,
        camera=CAMERA,
        form=settings.form,
        method=settings.method,
        decoded_motion=tokenizer.decoded_motion() if settings.form == DEFAULT_FORM else None,
        times=DetectorTimes(rate_hz=float(grid.rate_hz)),
    )
    _write(path, calibration.to_json())
    return calibration


def _scored(
    item: Item,
    fold: Fold,
    tokenizer: MotionTokenizer,
    calibration: Calibration | None,
    settings: Settings,
    dataset: Dataset,
    place: Path,
    grid: SampleGrid,
) -> dict[str, Any]:
    """A video cut and scored; taken from an earlier run where nothing has changed since."""
    key = _key(
        tokenizer.tokenizer_id,
        "own" if calibration is None else calibration.calibration_id,
        settings.form,
        settings.method,
        _file_key(item),
        item.truth,
        dataset.layout.background,
    )
    path = place / f"{item.name}.json"
    earlier = _earlier(path)
    if earlier.get("key") == key:
        return earlier
    recording = read_recording(_video(item), grid)
    stream = _encoded(recording, tokenizer, grid)
    notes = list(recording.problems)
    chosen = calibration
    if chosen is None:
        chosen = calibrate_recording(stream, tokenizer, grid, form=settings.form, method=settings.method)
        if not chosen.ok:
            notes.append(chosen.message)
    prediction = segment_recording(recording, stream, chosen, grid)
    result = {
        "key": key,
        "name": item.name,
        "fold": fold.name,
        "fps": item.fps,
        "notes": notes,
        "result": evaluate(item.truth, prediction, ignore=dataset.layout.background),
        "truth": item.truth,
        "prediction": prediction,
    }
    _write(path, _json(result))
    return result


def _earlier(path: Path) -> dict[str, Any]:
    """What an earlier run has left; nothing, where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _encoded(recording: Recording, tokenizer: MotionTokenizer, grid: SampleGrid) -> LatentStream:
    tracker = tracker_from_id(tokenizer.config.tracker_id)
    return encode_recording(recording, track_recording(recording, tracker, grid), tokenizer, grid)


def _video(item: Item) -> Path:
    if item.video is None:
        raise InputError("there is no video of this name", where=item.name)
    return item.video


def _within(items: Sequence[Item], minutes: float) -> list[Item]:
    """The items, thinned evenly to about this length of video."""
    return _thinned(items, sum(item.duration_s for item in items) / 60 / minutes)


def _thinned(items: Sequence[Item], ratio: float) -> list[Item]:
    """About one item in ``ratio``, evenly spread; all of them for a ratio up to 1."""
    if ratio <= 1:
        return list(items)
    count = max(1, int(len(items) / ratio))
    return [items[place * len(items) // count] for place in range(count)]


def _watched(items: Sequence[Item], stage: str, watcher: Watcher) -> Iterator[Item]:
    total, done = sum(item.duration_s for item in items), 0.0
    watcher.progress(stage, done, total)
    for item in items:
        yield item
        done += item.duration_s
        watcher.progress(stage, done, total)


def _file_key(item: Item) -> list[Any]:
    status = _video(item).stat()
    return [item.name, status.st_size, status.st_mtime_ns]


def _key(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _write(path: Path, text: str) -> None:
    """Write a file so that a reader never sees half of it."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write the results of :func:`run_benchmark` as JSON."""
    _write(path, _json(results))
