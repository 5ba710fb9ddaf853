"""Every way to cut a recording, in one registry.

A method sees a :class:`Recording` and a :class:`Context` and gives segments, seconds from the recording's first sample,
with a confidence where it has one. Neither argument holds any truth. A new method is one function::

    @method("name", "energy" or "boundaries" or "blind", "what it is, for the report", needs=("flow",))
    def _name(recording, context):
        return [{"start_sec": 1.2, "end_sec": 3.4, "confidence": 0.7}, ...]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bench.quality import energies
from bench.quality.recordings import GRID, KEYFRAME_HZ, Motion, Pictures, Recording
from bench.quality.sets import TRANSDUCTIVE, Setting
from laps import cutting
from laps.baselines.abd import ACTION_S, abd
from laps.baselines.change import change_segments, motion_features
from laps.baselines.cutting import energy_stream
from laps.baselines.flow import FlowSeries
from laps.baselines.otas import LABEL, otas_global
from laps.baselines.variance import variance_segments
from laps.boundaries import Teacher
from laps.calibration import Calibration, calibrate
from laps.errors import LapsError
from laps.evaluation import equal_spacing, metronome
from laps.latent import LatentStream
from laps.picture_changes import picture_segments
from laps.single import CAMERA
from laps.tokenizer import MotionTokenizer

Prediction = list[dict[str, float]]
Cut = Callable[[Recording, "Context"], Prediction]
Kind = Literal["energy", "boundaries", "blind"]
Need = Literal["flow", "pictures"]
T = TypeVar("T")

PRODUCT = "rests"
UNDIVIDED = "decoded_motion"
BOUNDARIES = "boundaries"
PICTURES = "boundaries_pictures"
CHANGE = "change"
REFERENCE = "velocity"


@dataclass(frozen=True)
class Method:
    """One way to cut.

    Attributes:
        name: in the tables.
        kind: ``energy``: told apart from rest by a threshold, calibrated without labels; ``boundaries``: places of
            change, so that segments touch; ``blind``: does not look at the recording.
        about: one line for the report.
        needs: what a recording must have.
        cut: the method.
    """

    name: str
    kind: Kind
    about: str
    needs: tuple[Need, ...]
    cut: Cut

    def fits(self, recording: Recording) -> bool:
        return all(getattr(recording, need) is not None for need in self.needs)


METHODS: dict[str, Method] = {}


def method(name: str, kind: Kind, about: str, *, needs: Sequence[Need] = ()) -> Callable[[Cut], Cut]:
    """Enter a function into the registry."""

    def enter(function: Cut) -> Cut:
        METHODS[name] = Method(name, kind, about, tuple(needs), function)
        return function

    return enter


class Streams:
    """Latent streams, each encoded once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], LatentStream] = {}

    def get(self, recording: Recording, tokenizer: MotionTokenizer) -> LatentStream:
        key = (tokenizer.tokenizer_id, recording.content_id)
        if key not in self._known:
            self._known[key] = recording.encode(tokenizer)
        return self._known[key]


class Context:
    """What a method may use beside the recording.

    Args:
        setting: transductive or inductive.
        tokenizer: the set's tokenizer.
        learn: gives the recordings that inductive thresholds come from.
        streams: shared, so that nothing is encoded twice.
        scored: gives the recordings of the camera that are scored; transductive boundaries are learned from them all.
    """

    def __init__(
        self,
        setting: Setting,
        tokenizer: MotionTokenizer,
        learn: Iterable[Callable[[], Recording]],
        streams: Streams,
        scored: Iterable[Callable[[], Recording]] = (),
    ) -> None:
        self.setting = setting
        self.tokenizer = tokenizer
        self.notes: list[str] = []
        self._load = tuple(learn)
        self._load_scored = tuple(scored)
        self._streams = streams
        self._made: dict[tuple[str, str], Any] = {}
        self._made_of_camera: dict[str, Any] = {}

    @cached_property
    def _learn(self) -> list[Recording]:
        return [load() for load in self._load]

    @cached_property
    def camera_recordings(self) -> list[Recording]:
        """Where a camera's boundaries are learned: what is scored, unlabelled, or others. A minute holds too few."""
        return [load() for load in self._load_scored] if self.setting == TRANSDUCTIVE else self._learn

    def calibration_recordings(self, recording: Recording) -> list[Recording]:
        """Where every statistic of the method must come from: the recording itself, or others of its camera."""
        return [recording] if self.setting == TRANSDUCTIVE else self._learn

    def once(self, name: str, recording: Recording, make: Callable[[list[Recording]], T]) -> T:
        """What is made from the calibration's recordings: once for each setting's worth of them."""
        key = (name, recording.content_id if self.setting == TRANSDUCTIVE else "")
        if key not in self._made:
            if self.setting == TRANSDUCTIVE:  # the recordings before will not come again
                self._made = {known: value for known, value in self._made.items() if known[1] == key[1]}
            self._made[key] = make(self.calibration_recordings(recording))
        return cast(T, self._made[key])

    def once_a_camera(self, name: str, make: Callable[[list[Recording]], T]) -> T:
        """What is made from :attr:`camera_recordings`."""
        if name not in self._made_of_camera:
            self._made_of_camera[name] = make(self.camera_recordings)
        return cast(T, self._made_of_camera[name])

    def stream(self, recording: Recording) -> LatentStream:
        """Codes and energies of a recording."""
        return self._streams.get(recording, self.tokenizer)

    def trust(self, calibration: Calibration) -> Calibration:
        """The calibration; noted where it says that it is not to be believed. It cuts all the same."""
        if not calibration.ok:
            self.notes.append(calibration.message)
        return calibration


def predict(method: Method, recording: Recording, context: Context) -> dict[str, Any]:
    """``segments`` and ``notes`` of one method; what cannot be cut has no segments, and the reason is a note."""
    context.notes = []
    try:
        segments = method.cut(recording, context)
    except LapsError as error:
        return {"segments": [], "notes": [f"failed: {error}"]}
    return {"segments": [_plain(segment) for segment in segments], "notes": context.notes}


def _plain(segment: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in segment.items()}


# --- the streams' energies -----------------------------------------------------------------------------------------


def _cut_by_form(recording: Recording, context: Context, form: str, calibration_method: str) -> Prediction:
    def make(learn: list[Recording]) -> Calibration:
        table = None
        if form == "decoded_motion" and context.tokenizer.config.decoding == "token":
            table = context.tokenizer.decoded_motion()
        return calibrate(
            [context.stream(one) for one in learn],
            camera=CAMERA,
            form=form,
            method=calibration_method,
            decoded_motion=table,
            times=energies.detector_times(),
            how="energy",
        )

    calibration = context.trust(context.once(f"{form}/{calibration_method}", recording, make))
    return energies.cut_stream(context.stream(recording), recording, calibration)


@method(UNDIVIDED, "energy", "motion decoded from the tokens, cleaned of common mode and background")
def _decoded_motion(recording: Recording, context: Context) -> Prediction:
    return _cut_by_form(recording, context, "decoded_motion", "log_energy")


@method("latent_action", "energy", "the paper's energy (section 3.1.1), the project's calibration")
def _latent_action(recording: Recording, context: Context) -> Prediction:
    return _cut_by_form(recording, context, "latent_action", "log_energy")


@method("latent_action_sweep", "energy", "the paper's energy, the paper's calibration (sweep against pseudo-labels)")
def _latent_action_sweep(recording: Recording, context: Context) -> Prediction:
    return _cut_by_form(recording, context, "latent_action", "sweep")


@method("prequantized", "energy", "the paper's energy before quantization (its table 5)")
def _prequantized(recording: Recording, context: Context) -> Prediction:
    return _cut_by_form(recording, context, "prequantized", "log_energy")


# --- energies of tracks and flow -----------------------------------------------------------------------------------


def _cut_by_energy(
    name: str, recording: Recording, context: Context, energy: Callable[[Recording], NDArray[np.floating]]
) -> Prediction:
    """Cut by an energy of the caller, with thresholds from that of the calibration's recordings."""
    calibration = context.once(
        f"{name}/thresholds", recording, lambda learn: energies.calibrated([energy(one) for one in learn])
    )
    return energies.cut(energy(recording), recording, context.trust(calibration))


@method(REFERENCE, "energy", "mean speed of the tracks, cleaned of common mode and background as the product's")
def _velocity(recording: Recording, context: Context) -> Prediction:
    # Where nothing stands still (sensors on hands) the tokenizer leaves the common mode in, and so does this.
    apart = context.tokenizer.config.remove_common_mode

    def motion(one: Recording) -> Motion:
        return one.motion(without_common_mode=apart)

    steady = context.once(
        f"{REFERENCE}/background", recording, lambda learn: energies.background([motion(one) for one in learn])
    )
    return _cut_by_energy(
        REFERENCE, recording, context, lambda one: _known(energies.speed(motion(one), steady), one, context)
    )


@method("velocity_uncleaned", "energy", "mean speed of the tracks as it is (the paper's table 5)")
def _velocity_uncleaned(recording: Recording, context: Context) -> Prediction:
    def energy(one: Recording) -> NDArray[np.floating]:
        return _known(energies.speed(one.motion(without_common_mode=False)), one, context)

    return _cut_by_energy("velocity_uncleaned", recording, context, energy)


def _known(energy: NDArray[np.floating], recording: Recording, context: Context) -> NDArray[np.floating]:
    """The energy where the stream has values: lost tracks are null to every energy alike."""
    return np.where(context.stream(recording).code >= 0, energy, np.nan)


@method("flow", "energy", "mean magnitude of dense flow, cleaned; with flow tracks nearly `velocity`", needs=["flow"])
def _flow(recording: Recording, context: Context) -> Prediction:
    steady = context.once(
        "flow/background", recording, lambda learn: energies.flow_background([_flow_of(one) for one in learn])
    )
    return _cut_by_energy("flow", recording, context, lambda one: _flow_of(one).cleaned(steady))


@method("flow_uncleaned", "energy", "mean magnitude of dense flow as it is: the paper's baseline", needs=["flow"])
def _flow_uncleaned(recording: Recording, context: Context) -> Prediction:
    return _cut_by_energy("flow_uncleaned", recording, context, lambda one: _flow_of(one).magnitude)


def _flow_of(recording: Recording) -> FlowSeries:
    return cast(FlowSeries, recording.flow)


# --- boundaries ----------------------------------------------------------------------------------------------------

_KEYFRAMES = "descriptors of keyframes (edges and colours, no trained model)"
_MOTION_START_S = -GRID.step_s  # a sample's motion began one step before it
_PICTURE_START_S = -0.5 / KEYFRAME_HZ  # a picture stands for the time around it


def _touching(segments: Iterable[tuple[float, float]], recording: Recording) -> Prediction:
    kept = ((max(0.0, start), min(end, recording.duration_s)) for start, end in segments)
    return [{"start_sec": start, "end_sec": end} for start, end in kept if end > start]


def _pictures(recording: Recording) -> tuple[NDArray[np.float32], float]:
    """Descriptors of the keyframes, and where the first one's time begins."""
    rows, first = cast(Pictures, recording.pictures).rows()
    return rows, (first - recording.first) * GRID.step_s + _PICTURE_START_S


@method(CHANGE, "boundaries", "change of the motion decoded from the tokens")
def _change(recording: Recording, context: Context) -> Prediction:
    features = motion_features(context.stream(recording).code, context.tokenizer.decoded_motion())
    return _touching(change_segments(features, GRID.rate_hz, start_s=_MOTION_START_S), recording)


@method("change_velocity", "boundaries", "the same of the tracked motion, without a tokenizer")
def _change_velocity(recording: Recording, context: Context) -> Prediction:
    motion = recording.motion(without_common_mode=context.tokenizer.config.remove_common_mode)
    present = context.stream(recording).code >= 0
    # Every sample as a code of its own, which stands for what the tracks did then.
    features = motion_features(np.where(present, np.arange(len(recording)), -1), motion.velocities)
    return _touching(change_segments(features, GRID.rate_hz, start_s=_MOTION_START_S), recording)


@method("variance", "boundaries", "variance of the tokens in a moment: a form of the energy in a summary of the paper")
def _variance(recording: Recording, context: Context) -> Prediction:
    found = variance_segments(
        context.stream(recording).code, context.tokenizer.code_vectors(), GRID.rate_hz, start_s=_MOTION_START_S
    )
    return _touching(found, recording)


@method("abd_flow", "boundaries", "ABD (Du et al. 2022) on flow histograms", needs=["flow"])
def _abd_flow(recording: Recording, context: Context) -> Prediction:
    return _touching(abd(_flow_of(recording).histograms, GRID.rate_hz, start_s=_MOTION_START_S), recording)


@method(
    "abd_visual",
    "boundaries",
    "ABD on descriptors of keyframes (edges and colours, no trained model)",
    needs=["pictures"],
)
def _abd_visual(recording: Recording, context: Context) -> Prediction:
    rows, start_s = _pictures(recording)
    return _touching(abd(rows, KEYFRAME_HZ, start_s=start_s), recording)


@method("abd_tokens", "boundaries", "ABD on the quantized vectors of the tokens")
def _abd_tokens(recording: Recording, context: Context) -> Prediction:
    codes = context.stream(recording).code
    rows = np.where(codes[:, None] >= 0, context.tokenizer.code_vectors()[np.maximum(codes, 0)], np.nan)
    return _touching(abd(rows, GRID.rate_hz, start_s=_MOTION_START_S), recording)


@method("otas_flow", "boundaries", f"{LABEL} on flow histograms", needs=["flow"])
def _otas_flow(recording: Recording, context: Context) -> Prediction:
    return _touching(otas_global(_flow_of(recording).histograms, GRID.rate_hz, start_s=_MOTION_START_S), recording)


@method(
    "otas_visual",
    "boundaries",
    "OTAS (partial: global perception only) on descriptors of keyframes",
    needs=["pictures"],
)
def _otas_visual(recording: Recording, context: Context) -> Prediction:
    rows, start_s = _pictures(recording)
    return _touching(otas_global(rows, KEYFRAME_HZ, start_s=start_s), recording)


# --- learned boundaries --------------------------------------------------------------------------------------------


def _cut_by_boundaries(
    recording: Recording, context: Context, how: cutting.Cut, teacher: Teacher = "rests"
) -> Prediction:
    def make(learn: list[Recording]) -> Calibration:
        return calibrate(
            [context.stream(one) for one in learn],
            camera=CAMERA,
            decoded_motion=context.tokenizer.decoded_motion(),
            times=energies.detector_times(),
            how=how,
            teacher=teacher,
            pictures=_picture_segments(learn) if teacher == "pictures" else None,
        )

    calibration = context.trust(context.once_a_camera(f"{how}/{teacher}", make))
    return energies.cut_stream(context.stream(recording), recording, calibration)


def _cut_by_tracked_boundaries(
    recording: Recording, context: Context, how: cutting.Cut, teacher: Teacher = "rests"
) -> Prediction:
    """The same of the tracked motion: every sample is a code of its own, which stands for the motion at it."""
    learn = context.camera_recordings
    everything = learn if any(one is recording for one in learn) else [*learn, recording]
    apart = context.tokenizer.config.remove_common_mode
    motions = [one.motion(without_common_mode=apart) for one in everything]
    steady = energies.background([motion for motion, one in zip(motions, everything, strict=True) if one in learn])
    streams, first_row = [], 0
    for one, motion in zip(everything, motions, strict=True):
        stream = energy_stream(_known(energies.speed(motion, steady), one, context), one.first)
        rows = np.arange(first_row, first_row + len(one), dtype=np.int32)
        streams.append(replace(stream, code=np.where(stream.code >= 0, rows, -1)))
        first_row += len(one)
    calibration = calibrate(
        streams[: len(learn)],
        camera=CAMERA,
        form="velocity",
        decoded_motion=np.concatenate([motion.velocities for motion in motions]),
        times=energies.detector_times(),
        how=how,
        teacher=teacher,
        pictures=_picture_segments(learn) if teacher == "pictures" else None,
    )
    place = next(place for place, one in enumerate(everything) if one is recording)
    return energies.cut_stream(streams[place], recording, context.trust(calibration))


def _picture_segments(recordings: Iterable[Recording]) -> list[list[tuple[int, int]]]:
    pictures = [cast(Pictures, one.pictures) for one in recordings]
    return [picture_segments(one.samples, one.features, GRID) for one in pictures]


@method(PRODUCT, "boundaries", f"the product's: `{UNDIVIDED}`, divided at boundaries that rests have taught")
def _rests(recording: Recording, context: Context) -> Prediction:
    return _cut_by_boundaries(recording, context, "rests")


@method(f"{PRODUCT}_velocity", "boundaries", "the same of the tracked motion, without a tokenizer")
def _rests_velocity(recording: Recording, context: Context) -> Prediction:
    return _cut_by_tracked_boundaries(recording, context, "rests")


@method(BOUNDARIES, "boundaries", "touching: boundaries alone, taught by rests")
def _boundaries(recording: Recording, context: Context) -> Prediction:
    return _cut_by_boundaries(recording, context, "boundaries")


@method(f"{BOUNDARIES}_velocity", "boundaries", "the same of the tracked motion, without a tokenizer")
def _boundaries_velocity(recording: Recording, context: Context) -> Prediction:
    return _cut_by_tracked_boundaries(recording, context, "boundaries")


@method(PICTURES, "boundaries", "touching: boundaries alone, taught by changes of the picture", needs=["pictures"])
def _boundaries_pictures(recording: Recording, context: Context) -> Prediction:
    return _cut_by_boundaries(recording, context, "boundaries", "pictures")


@method(
    f"{PICTURES}_velocity",
    "boundaries",
    "the same of the tracked motion, without a tokenizer",
    needs=["pictures"],
)
def _boundaries_pictures_velocity(recording: Recording, context: Context) -> Prediction:
    return _cut_by_tracked_boundaries(recording, context, "boundaries", "pictures")


# --- blind ---------------------------------------------------------------------------------------------------------


@method("equal_spacing", "blind", f"as many segments as `{PRODUCT}` gives, touching, at equal spacing")
def _equal_spacing(recording: Recording, context: Context) -> Prediction:
    count = len(_rests(recording, context))
    context.notes.clear()  # they are the other method's
    return list(equal_spacing(count, recording.duration_s)["segments"])


@method("metronome", "blind", f"a boundary every {ACTION_S:g} s, the length of an action that ABD is told")
def _metronome(recording: Recording, context: Context) -> Prediction:
    return list(metronome(ACTION_S, recording.duration_s)["segments"])
