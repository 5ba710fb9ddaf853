"""The sets of recordings that are scored, all in one form.

In the *transductive* setting the thresholds come from the scored recording itself, unlabelled; in the *inductive* one
from other recordings of the same camera. Which of them a set can have, and what its tokenizer saw, is said with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from bench.quality import recordings
from bench.quality.kept import file_key, key_of
from bench.quality.recordings import Recording
from bench.quality.scenes import FPS, HEIGHT_PX, WIDTH_PX, Scene
from laps.benchmarks.kinematics import KinematicRecording, halves, load_gear_assembly, load_suturing
from laps.errors import InputError
from laps.evaluation import Document, parse_truth
from laps.trackers.flow import FlowTracker

Setting = Literal["transductive", "inductive"]
TRANSDUCTIVE: Setting = "transductive"
INDUCTIVE: Setting = "inductive"

SIMULATED = ("clean", "distractors", "hard", "no_rest")
SIMULATED_TOKENIZER = "simulated"
REAL = ("bench_video", "suturing", "gear_assembly")

SCENES = {
    "clean": "nothing but the worker",
    "distractors": "belt, blinking lamp, flicker, shadows, passers-by",
    "hard": "shaking camera, exposure steps, occlusion, frozen pictures",
    "no_rest": "most actions follow each other directly, hands hold still inside actions, steady motion between them",
}


@dataclass(frozen=True, eq=False)
class Item:
    """One recording, and its truth apart from it.

    Attributes:
        name: of the recording.
        content_id: stands for its content.
        load: gives what methods see.
        truth: for scoring only.
        prepare: makes what takes long, unless it is there; can be sent to another process.
    """

    name: str
    content_id: str
    load: Callable[[], Recording] = field(repr=False)
    truth: Document = field(repr=False)
    prepare: Callable[[], None] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class TokenizerPlan:
    """A tokenizer that is to be trained.

    Attributes:
        name: short and unique.
        title: what it is trained on, for the report.
        learn: the recordings.
        points: N.
        tracker_id: of the tracks.
        remove_common_mode: for tracks of a whole picture; where every point sits on a body nothing stands still.
    """

    name: str
    title: str
    learn: tuple[Item, ...]
    points: int
    tracker_id: str
    remove_common_mode: bool


@dataclass(frozen=True, eq=False)
class Camera:
    """Recordings that share a tokenizer and, in the inductive setting, thresholds.

    Attributes:
        name: of the camera.
        scored: what is scored.
        learn: where inductive thresholds come from; none: there is no inductive setting.
        tokenizer: which tokenizer.
    """

    name: str
    scored: tuple[Item, ...]
    learn: tuple[Item, ...]
    tokenizer: TokenizerPlan


@dataclass(frozen=True, eq=False)
class RecordingSet:
    """What is scored together.

    Attributes:
        name: short and unique.
        title: for the report.
        about: what it is, what the tokenizer saw, which settings there are.
        cameras: its recordings.
        simulated: the labels of truth are kinds of primitive, and the goals of the simulator hold.
    """

    name: str
    title: str
    about: str
    cameras: tuple[Camera, ...]
    simulated: bool = False

    @property
    def scored(self) -> list[Item]:
        return [item for camera in self.cameras for item in camera.scored]

    @property
    def settings(self) -> tuple[Setting, ...]:
        if all(camera.learn for camera in self.cameras):
            return (TRANSDUCTIVE, INDUCTIVE)
        return (TRANSDUCTIVE,)


def simulated_sets(
    scenarios: Sequence[str],
    *,
    views: Sequence[int],
    development: Sequence[int],
    fresh: Sequence[int],
    seconds: float,
    cache_folder: Path,
) -> list[RecordingSet]:
    """One set for each scenario; one tokenizer for all, trained on the development seeds.

    Raises:
        InputError: a seed is both for development and fresh, or there are none.
    """
    if set(development) & set(fresh) or not development or not fresh:
        raise InputError("development and fresh seeds must differ, and there must be some of both")

    def items(scenario: str, view: int, seeds: Sequence[int]) -> tuple[Item, ...]:
        return tuple(_scene_item(Scene(scenario, seed, view, seconds), cache_folder) for seed in seeds)

    places = [(scenario, view) for scenario in scenarios for view in views]
    learn = {place: items(*place, development) for place in places}
    tokenizer = TokenizerPlan(
        SIMULATED_TOKENIZER,
        f"simulated workstation, seeds {_listed(development)} of all scenarios and views",
        tuple(item for place in places for item in learn[place]),
        FlowTracker().side ** 2,
        FlowTracker().tracker_id,
        remove_common_mode=True,
    )
    found = []
    for scenario in scenarios:
        cameras = tuple(
            Camera(f"{scenario}-view{view}", items(scenario, view, fresh), learn[scenario, view], tokenizer)
            for view in views
        )
        found.append(
            RecordingSet(
                scenario,
                f"Simulated workstation: {scenario}",
                f"{SCENES[scenario].capitalize()}. Fresh seeds {_listed(fresh)}, {seconds:g} s each, views "
                f"{_listed(views)}, {WIDTH_PX} x {HEIGHT_PX} px at {FPS} frames/s (the sampling rate). The tokenizer "
                f"saw seeds {_listed(development)} only. Inductive: thresholds from these seeds of the same scenario "
                "and view, together.",
                cameras,
                simulated=True,
            )
        )
    return found


def real_sets(folder: Path, names: Sequence[str], cache_folder: Path) -> tuple[list[RecordingSet], list[str]]:
    """The real sets that a folder holds, and a line for each that it does not."""
    makers = {
        "bench_video": (folder / "bench_video" / "bench_dev.mp4", lambda path: _bench_video(path, cache_folder)),
        "suturing": (folder / "kinematics" / "suturing_dev.tracks.parquet", _suturing),
        "gear_assembly": (folder / "kinematics", _gear_assembly),
    }
    found, missing = [], []
    for name in names:
        path, make = makers[name]
        there = path.is_file() or (path.is_dir() and len(list(path.glob("*.npz"))) > 1)
        if there:
            found.append(make(path))
        else:
            missing.append(f"{name}: there is no {path.name} in {path.parent.name}/")
    return found, missing


def _scene_item(scene: Scene, cache_folder: Path) -> Item:
    return Item(
        scene.name,
        scene.content_id,
        partial(scene.load, cache_folder),
        scene.truth(),
        partial(scene.make, cache_folder),
    )


def _bench_video(path: Path, cache_folder: Path) -> RecordingSet:
    content_id = key_of(file_key(path), recordings.observed_by())
    folder = cache_folder / f"bench_video-{content_id}"

    def load() -> Recording:
        if not recordings.is_saved(folder):
            recordings.save(recordings.observe_video(path, path.stem, content_id), folder)
        return recordings.load(folder)

    truth_file = path.with_name(f"{path.stem}.truth.json")
    item = Item(path.stem, content_id, load, parse_truth(truth_file.read_bytes(), where=truth_file.name))
    tokenizer = TokenizerPlan(
        "bench_video",
        "the clip itself, unlabelled",
        (item,),
        FlowTracker().side ** 2,
        FlowTracker().tracker_id,
        remove_common_mode=True,
    )
    return RecordingSet(
        "bench_video",
        "bench_video: gestures of two gloved hands",
        "One real clip of 60 s. A tokenizer of the simulation is of another domain, so one is trained on the clip "
        "itself: transductive only. A development recording: settings were chosen with it in view.",
        (Camera("bench_video", (item,), (), tokenizer),),
    )


def _suturing(path: Path) -> RecordingSet:
    # The projection to pixels is a statistic like any other: it comes from the half that is learned from.
    names = [trial.name for trial in load_suturing(path)]
    first, second = halves(names)
    trials = {trial.name: _trial_item(trial) for trial in load_suturing(path, fit_on=first)}
    learn, scored = tuple(trials[name] for name in first), tuple(trials[name] for name in second)
    return RecordingSet(
        "suturing",
        "suturing_dev: six sensors on two hands",
        f"Real tracks, N = 6. Two halves with no person in both: {len(first)} trials to learn from (tokenizer, "
        f"inductive thresholds, projection), {len(second)} to report.",
        (Camera("suturing", scored, learn, _plan("suturing", "the first half of suturing_dev", learn)),),
    )


def _gear_assembly(folder: Path) -> RecordingSet:
    names = [trial.name for trial in load_gear_assembly(folder)]
    cameras = []
    for name in names:
        trials = load_gear_assembly(folder, fit_on=[other for other in names if other != name])
        scored = tuple(_trial_item(trial) for trial in trials if trial.name == name)
        learn = tuple(_trial_item(trial) for trial in trials if trial.name != name)
        plan = _plan(f"gear_assembly-not-{name}", f"gear_assembly without {name}", learn)
        cameras.append(Camera(name, scored, learn, plan))
    return RecordingSet(
        "gear_assembly",
        "gear_assembly: body joints",
        f"Real tracks, N = {cameras[0].tokenizer.points}, {len(names)} recordings. Each is scored with a tokenizer, "
        "inductive thresholds and a projection from the others.",
        tuple(cameras),
    )


def _trial_item(trial: KinematicRecording) -> Item:
    content_id = key_of(trial.name, _hash(trial), trial.windows.tracker_id)
    return Item(trial.name, content_id, lambda: recordings.from_tracks(trial, content_id), trial.truth)


def _hash(trial: KinematicRecording) -> str:
    digest = hashlib.sha256(trial.windows.displacements.tobytes())
    digest.update(trial.windows.visible.tobytes() + trial.windows.frame_times_ns.tobytes() + trial.covered.tobytes())
    return digest.hexdigest()[:16]


def _plan(name: str, title: str, learn: tuple[Item, ...]) -> TokenizerPlan:
    windows = learn[0].load().windows[0]
    return TokenizerPlan(name, title, learn, windows.visible.shape[2], windows.tracker_id, remove_common_mode=False)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
