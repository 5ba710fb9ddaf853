"""Thresholds of a camera, found without labels, and what says whether to believe them.

Two methods:

``log_energy`` (default)
    A hidden Markov model with two Gaussian states, fitted to the logarithm of the smoothed energy; theta_on is
    where the two states are equally probable. The signal is measured against its own rest, no other signal is asked.

``sweep``
    The paper's (section 3.1.2, *Threshold optimization*): Otsu's threshold on the velocity energy gives pseudo-labels
    "motion" and "no motion"; theta_on is the value at which "energy > theta_on" has the best F1 against them.

Either way theta_off = r * theta_on. Null samples never enter. Beside the thresholds a calibration holds what primitives
of the camera look like where they end and begin (:mod:`laps.boundaries`), and how both cut (:mod:`laps.cutting`).

A calibration judges itself: ``ok`` is false, and ``message`` says why, when the signal does not tell motion from rest
(where it is to), or when it cuts implausibly.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laps.boundaries import BoundaryModel, Learned, Lesson, Teacher, learn, motion_components
from laps.cutting import Cut, check_cut, cut, lessons_of_rests, lessons_of_segments
from laps.detector import Detection, DetectorSettings, DetectorTimes, smooth
from laps.energy import (
    DEFAULT_FORM,
    check_form,
    cleaned_code_energy,
    code_counts,
    form_series,
    without_background,
)
from laps.errors import CalibrationError, InputError, ModelMismatchError
from laps.reference_files import read_energy_jsonl

if TYPE_CHECKING:
    from laps.latent import LatentStream

METHODS = ("log_energy", "sweep")
DEFAULT_METHOD = "log_energy"
DEFAULT_HYSTERESIS = 0.8
CALIBRATION_VERSION = 2

MIN_SAMPLES = 20  # fewer values than this (2 s at 10 Hz) are no basis for a threshold at all
TRUSTED_SAMPLES = 100  # with fewer than this (10 s at 10 Hz) there is one, and not much to be said for it
SEGMENTS_PER_MINUTE = (1.0, 60.0)
ACTIVE_SHARE = (0.05, 0.95)
MIN_YOUDEN_J = 0.1  # of the sweep; below, the signal hardly knows the pseudo-labels
MIN_LEVEL_RATIO = 1.5  # motion against rest, in energy
MAX_VALLEY = 0.95  # density between rest and motion, against the lower of their two peaks

# Times of the reference implementation, whose signal has one value every 0.4 s: alpha 0.7, u = d = 2 windows, at
# least two windows. Its longest segment is 2 s; here it is left at the project's.
REFERENCE_TIMES = DetectorTimes(
    rate_hz=2.5, time_constant_s=0.4 / -math.log(0.3), up_s=0.8, down_s=0.8, min_duration_s=0.8
)
REFERENCE_HYSTERESIS = 0.95

LEAST_TOLD_APART = 0.6  # ends and beginnings from other moments, area under the curve; chance is 0.5

_OTSU_BINS = 256
_CURVE_POINTS = 101
_FLOOR_QUANTILE = 0.01  # of the positive energies: what lies below (zeros above all) counts as this much
_MIN_LOG_STD = 0.15  # of a state; codes make energies repeat exactly, and a state must not shrink onto one value
_HUMP_SHARE = 0.03  # of the samples, at least, on either side of a valley
_STRETCH = 256  # samples in a sequence of the hidden Markov model
_EM_ROUNDS = 60
_EM_TOLERANCE = 1e-5  # gain in log likelihood a sample


@dataclass(frozen=True)
class Diagnostics:
    """What a calibration saw; figures that could not be computed are None.

    Attributes:
        sample_count, null_count: samples used and left out.
        minutes: length of what was used.
        spans: ``[first, stop)`` samples of the streams, on the absolute grid.
        rest_level, motion_level: energy of the two states (``log_energy`` only; geometric means).
        level_ratio: motion_level / rest_level.
        valley: density of the log energy between rest and motion over the lower of the two peaks: 1 when the
            signal has one hump, near 0 when rest and motion stand apart.
        segment_count, segments_per_minute, active_share: what the thresholds cut from the calibration's own samples.
        label_threshold: Otsu's threshold on the velocity energy.
        label_share: share of samples with pseudo-label "motion".
        f1, precision, recall, youden_j: of "energy > theta_on" against the pseudo-labels.
        f1_always_on: F1 of calling everything motion, the level to beat.
        curve_theta, curve_f1: F1 over thresholds.
        teacher: what boundaries were learned from.
        ends_taught, starts_taught: boundaries that the boundary model was taught by.
        ends_told_apart, starts_told_apart: how well it knows ends and beginnings that it was not taught, from other
            moments: area under the curve, 0.5 is chance.
    """

    sample_count: int
    null_count: int
    minutes: float
    spans: list[list[int]]
    segment_count: int
    segments_per_minute: float
    active_share: float
    rest_level: float | None = None
    motion_level: float | None = None
    level_ratio: float | None = None
    valley: float | None = None
    label_threshold: float | None = None
    label_share: float | None = None
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    youden_j: float | None = None
    f1_always_on: float | None = None
    curve_theta: list[float] = field(default_factory=list)
    curve_f1: list[float] = field(default_factory=list)
    teacher: str | None = None
    ends_taught: int | None = None
    starts_taught: int | None = None
    ends_told_apart: float | None = None
    starts_told_apart: float | None = None


@dataclass(frozen=True, eq=False)
class Calibration:
    """How one camera's stream is cut, and how that was found.

    Attributes:
        camera: the camera.
        tokenizer_id: tokenizer whose streams it was made from and may be used on.
        form: energy form, a key of :data:`laps.energy.FORM_COLUMNS`.
        method: one of :data:`METHODS`.
        settings: thresholds and times of the detector.
        code_energy: float32[n_codes], the cleaned decoded motion of each code; only for ``decoded_motion``.
        ok: whether to believe the thresholds.
        message: why not, or that all is well, in a sentence or more.
        diagnostics: the figures behind it.
        cut: one of :data:`laps.cutting.CUTS`.
        boundaries: what ends and beginnings look like, in the tokenizer's codes; None where nothing was learned.
    """

    camera: str
    tokenizer_id: str
    form: str
    method: str
    settings: DetectorSettings
    code_energy: NDArray[np.float32] | None
    ok: bool
    message: str
    diagnostics: Diagnostics
    cut: Cut = "energy"
    boundaries: BoundaryModel | None = None

    @property
    def calibration_id(self) -> str:
        """Hash of all that decides how a stream is cut; two calibrations that cut alike have the same id."""
        content = self._content()
        return "c" + hashlib.sha256(_canonical(content).encode()).hexdigest()[:12]

    def _content(self) -> dict[str, Any]:
        return {
            "version": CALIBRATION_VERSION,
            "camera": self.camera,
            "tokenizer_id": self.tokenizer_id,
            "form": self.form,
            "method": self.method,
            "settings": self.settings.to_dict(),
            "code_energy": None if self.code_energy is None else _packed(self.code_energy),
            "cut": self.cut,
            "boundaries": None if self.boundaries is None else _boundaries_to_dict(self.boundaries),
        }

    def to_json(self) -> str:
        """The calibration as JSON text; the same calibration gives the same text."""
        document = {
            "calibration_id": self.calibration_id,
            **self._content(),
            "ok": self.ok,
            "message": self.message,
            "diagnostics": asdict(self.diagnostics),
        }
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, name: str = "calibration") -> Calibration:
        """Inverse of :meth:`to_json`.

        Raises:
            InputError: no calibration, another version, or content that does not match its id.
        """
        try:
            document = json.loads(text)
            if document["version"] != CALIBRATION_VERSION:
                raise InputError(
                    f"the calibration has version {document['version']}, this program reads {CALIBRATION_VERSION}",
                    where=name,
                    fix="Calibrate the camera again.",
                )
            table, boundaries = document["code_energy"], document["boundaries"]
            calibration = cls(
                camera=document["camera"],
                tokenizer_id=document["tokenizer_id"],
                form=document["form"],
                method=document["method"],
                settings=DetectorSettings.from_dict(document["settings"]),
                code_energy=None if table is None else _unpacked(table),
                ok=document["ok"],
                message=document["message"],
                diagnostics=Diagnostics(**document["diagnostics"]),
                cut=document["cut"],
                boundaries=None if boundaries is None else _boundaries_from_dict(boundaries),
            )
            expected = document["calibration_id"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is no calibration ({type(error).__name__}: {error})",
                where=name,
                fix="Calibrate again.",
            ) from error
        if calibration.calibration_id != expected:
            raise InputError(
                f"the content does not match its id {expected}",
                where=name,
                fix="It was edited; calibrate again.",
            )
        return calibration


def calibrate(
    streams: list[LatentStream],
    *,
    camera: str,
    form: str = DEFAULT_FORM,
    method: str = DEFAULT_METHOD,
    decoded_motion: NDArray[np.floating[Any]] | None = None,
    times: DetectorTimes | None = None,
    hysteresis: float = DEFAULT_HYSTERESIS,
    how: Cut | None = None,
    teacher: Teacher = "rests",
    pictures: list[list[tuple[int, int]]] | None = None,
) -> Calibration:
    """Find how a camera's streams are cut.

    Args:
        streams: latent streams of the camera's chosen hours, all of one tokenizer.
        camera: the camera.
        form: energy form.
        method: ``log_energy`` or ``sweep``.
        decoded_motion: float[n_codes, N, 2], the tokenizer's table; with it ``decoded_motion`` is cleaned of
            common mode and background and becomes a table of the codes, and boundaries can be learned.
        times: rate and times of the detector.
        hysteresis: r = theta_off / theta_on, in (0, 1].
        how: one of :data:`laps.cutting.CUTS`. Default: ``rests`` for the decoded motion where its table is given, else
            ``energy``, the paper's.
        teacher: what boundaries are learned from where ``how`` is ``boundaries``; ``rests`` always teaches ``rests``.
        pictures: for the teacher ``pictures``, for each stream the ``[first, stop)`` samples between changes of the
            picture (:func:`laps.picture_changes.picture_segments`).

    Raises:
        CalibrationError: no threshold can be found: too few values, an energy that is zero throughout, or (sweep)
            a velocity energy without two classes; or ``boundaries`` and too few to learn from.
        ModelMismatchError: streams of several tokenizers.
        InputError: an unknown form, method, cut or teacher, or one that lacks what it needs.
    """
    times = DetectorTimes() if times is None else times
    check_form(form)
    if method not in METHODS:
        raise InputError(f"there is no calibration method {method!r}", fix=f"The methods are {', '.join(METHODS)}.")
    if not 0 < hysteresis <= 1:
        raise InputError(f"the hysteresis r must lie in (0, 1], not {hysteresis}")
    if how is None:
        how = "rests" if form == DEFAULT_FORM and decoded_motion is not None else "energy"
    check_cut(how, teacher, has_motion=decoded_motion is not None, has_pictures=pictures is not None)
    tokenizers = sorted({stream.tokenizer_id for stream in streams})
    if len(tokenizers) > 1:
        raise ModelMismatchError(
            f"the streams come from several tokenizers ({', '.join(tokenizers)})",
            where=camera,
            fix="Encode the chosen hours with one tokenizer.",
        )
    present = sum(int((stream.code >= 0).sum()) for stream in streams)
    if present < MIN_SAMPLES:
        raise CalibrationError(
            f"only {present} samples of the chosen hours have values, at least {MIN_SAMPLES} are needed",
            where=camera,
            fix="Choose hours with footage.",
        )
    counts = None if decoded_motion is None else code_counts(streams, len(decoded_motion))
    code_energy = None
    if form == "decoded_motion" and decoded_motion is not None and counts is not None:
        code_energy = cleaned_code_energy(decoded_motion, counts)
    energies = [form_series(stream, form, code_energy) for stream in streams]
    velocities = [form_series(stream, "velocity") for stream in streams]
    settings, problems, diagnostics = _find(
        energies, velocities, method=method, times=times, hysteresis=hysteresis, where=camera
    )
    learned = None
    if how != "energy" and decoded_motion is not None and counts is not None:
        learned = learn(
            _lessons(streams, energies, settings, touching=how == "boundaries", pictures=pictures),
            times.rate_hz,
            teacher=teacher,
            touching=how == "boundaries",
            table=motion_components(without_background(decoded_motion, counts), counts),
        )
    boundaries, undivided = _settled(how, teacher, learned, where=camera)
    if how == "boundaries":
        problems = []  # rest decides nothing then: what cannot be told from motion does not matter
    cuts = [
        cut(energy, stream.code, stream.first, settings, how, boundaries, ended=True)
        for energy, stream in zip(energies, streams, strict=True)
    ]
    diagnostics = _counted(diagnostics, cuts)
    diagnostics = replace(diagnostics, spans=[[stream.first, stream.stop] for stream in streams])
    if learned is not None:
        diagnostics = replace(
            diagnostics,
            teacher=teacher,
            ends_taught=learned.taught[0],
            starts_taught=learned.taught[1],
            ends_told_apart=learned.told_apart[0],
            starts_told_apart=learned.told_apart[1],
        )
    ok, message = _judged(problems, diagnostics, touching=how == "boundaries")
    if undivided:
        message += f"; {undivided}"
    return Calibration(
        camera=camera,
        tokenizer_id=tokenizers[0],
        form=form,
        method=method,
        settings=settings,
        code_energy=code_energy,
        ok=ok,
        message=message,
        diagnostics=diagnostics,
        cut=how,
        boundaries=boundaries,
    )


def _settled(
    how: Cut, teacher: Teacher, learned: Learned | None, *, where: str
) -> tuple[BoundaryModel | None, str | None]:
    """The boundary model to cut by, and why there is none where ``rests`` would have one."""
    if how == "boundaries" and learned is None:
        raise CalibrationError(
            f"there are too few {'rests' if teacher == 'rests' else 'changes of the picture'} to learn from what the "
            "boundaries between primitives look like",
            where=where,
            fix="Choose more hours with work in them, or cut by rests.",
        )
    if learned is None:
        return None, None if how == "energy" else "too few rests to learn from what boundaries without one look like"
    if how == "rests" and min(learned.told_apart) < LEAST_TOLD_APART:
        # A student that learned nothing would still divide here and there.
        ends, starts = learned.told_apart
        return None, (
            "what lies between rests is not divided: ends and beginnings look like other moments (told apart "
            f"{ends:.2f} and {starts:.2f}; chance 0.5)"
        )
    return learned.model, None


def _lessons(
    streams: list[LatentStream],
    energies: list[NDArray[np.float64]],
    settings: DetectorSettings,
    *,
    touching: bool,
    pictures: list[list[tuple[int, int]]] | None,
) -> list[Lesson]:
    lessons: list[Lesson] = []
    for place, (stream, energy) in enumerate(zip(streams, energies, strict=True)):
        if pictures is None:
            lessons += lessons_of_rests(energy, stream.code, stream.first, settings, touching=touching)
        else:
            lessons += lessons_of_segments(stream.code, stream.first, pictures[place])
    return lessons


def calibrate_files(
    energy: Path,
    proxy: Path,
    *,
    method: str = "sweep",
    smoothed: bool = False,
    times: DetectorTimes = REFERENCE_TIMES,
    hysteresis: float = REFERENCE_HYSTERESIS,
) -> dict[str, Any]:
    """Calibrate from two energy files of the reference implementation (``{"window", "energy"}`` lines).

    Works at the files' own rate and, like the reference, on the values as they stand; windows that one file lacks
    are left out.

    Args:
        energy: the energy to find a threshold for.
        proxy: the velocity energy that gives the pseudo-labels.
        method: ``sweep`` (the reference's) or ``log_energy``.
        smoothed: sweep the smoothed energy instead of the values as they stand.
        times: rate and times of the detector.
        hysteresis: r = theta_off / theta_on.

    Returns:
        ``theta_on``, ``theta_off``, ``proxy_threshold``, ``f1`` and the other figures, ready for JSON.

    Raises:
        InputError: a file that cannot be read, or that has no window in common with the other.
        CalibrationError: no threshold can be found.
    """
    if method not in METHODS:
        raise InputError(f"there is no calibration method {method!r}", fix=f"The methods are {', '.join(METHODS)}.")
    windows, values = read_energy_jsonl(energy)
    proxy_windows, proxy_values = read_energy_jsonl(proxy)
    common, at, proxy_at = np.intersect1d(windows, proxy_windows, assume_unique=True, return_indices=True)
    if common.size < MIN_SAMPLES:
        raise InputError(
            f"the files have {common.size} windows in common, at least {MIN_SAMPLES} are needed",
            where=f"{energy} and {proxy}",
            fix="Give the two energies of one recording.",
        )
    # On the axis of windows, so that a window that is left out is a gap to the detector.
    series = np.full(int(common[-1] - common[0]) + 1, np.nan)
    proxy_series = series.copy()
    series[common - common[0]] = values[at]
    proxy_series[common - common[0]] = proxy_values[proxy_at]
    settings, problems, diagnostics = _find(
        [series],
        [proxy_series],
        method=method,
        times=times,
        hysteresis=hysteresis,
        where=str(energy),
        sweep_smoothed=smoothed,
    )
    codes = np.where(np.isfinite(series), 0, -1)
    found = cut(series, codes, int(common[0]), settings, "energy", None, ended=True)
    diagnostics = replace(_counted(diagnostics, [found]), spans=[[int(common[0]), int(common[-1]) + 1]])
    ok, message = _judged(problems, diagnostics)
    return {
        "theta_on": settings.theta_on,
        "theta_off": settings.theta_off,
        "proxy_threshold": diagnostics.label_threshold,
        "f1": diagnostics.f1,
        "f1_always_on": diagnostics.f1_always_on,
        "youden_j": diagnostics.youden_j,
        "precision": diagnostics.precision,
        "recall": diagnostics.recall,
        "windows": diagnostics.sample_count,
        "proxy_motion_share": diagnostics.label_share,
        "segments_per_minute": diagnostics.segments_per_minute,
        "active_share": diagnostics.active_share,
        "method": method,
        "ok": ok,
        "message": message,
    }


def _find(
    energies: list[NDArray[np.float64]],
    velocities: list[NDArray[np.float64]],
    *,
    method: str,
    times: DetectorTimes,
    hysteresis: float,
    where: str,
    sweep_smoothed: bool = True,
) -> tuple[DetectorSettings, list[str], Diagnostics]:
    """Thresholds from signals alone, what is wrong with them, and the figures but for what they cut."""
    y = [smooth(energy, times) for energy in energies]
    pooled = np.concatenate(y)
    present = np.isfinite(pooled)
    count = int(present.sum())
    if count < MIN_SAMPLES:
        raise CalibrationError(
            f"only {count} samples have an energy, at least {MIN_SAMPLES} are needed",
            where=where,
            fix="Choose hours with footage.",
        )
    if not (pooled[present] > 0).any():
        raise CalibrationError(
            "the energy is zero throughout, so there is nothing to set a threshold against",
            where=where,
            fix="Look at whether anything moves in these hours, and whether the tokenizer has collapsed to one code.",
        )

    # Pseudo-labels: the sweep's target, and for the other method a second opinion.
    velocity = np.concatenate(velocities)
    swept = pooled if sweep_smoothed else np.concatenate(energies)
    both = np.isfinite(swept) & np.isfinite(velocity)
    label_threshold: float | None = None
    labels = np.zeros(0, dtype=bool)
    if both.sum() >= MIN_SAMPLES and np.ptp(velocity[both]) > 0:
        label_threshold = otsu_threshold(velocity[both])
        labels = velocity[both] > label_threshold

    problems: list[str] = []
    if count < TRUSTED_SAMPLES:
        problems.append(f"only {count} samples have an energy, too few to tell rest from motion reliably")
    model: _TwoStates | None = None
    valley: float | None = None
    if method == "sweep":
        if label_threshold is None:
            raise CalibrationError(
                "the velocity energy is constant or missing, so Otsu's method finds no two classes",
                where=where,
                fix="Use the method log_energy, or choose hours in which something moves.",
            )
        theta_on, _ = best_f1_threshold(swept[both], labels)
        if theta_on <= 0:
            # A threshold at zero would make theta_off zero too, below which nothing falls.
            theta_on = float(swept[both][swept[both] > 0].min())
            problems.append("the best threshold was zero; the lowest positive energy stands in for it")
    else:
        theta_on, model, valley, problem = _log_energy_threshold(y, pooled[present])
        if problem:
            problems.append(problem)

    settings = times.with_thresholds(theta_on, hysteresis * theta_on)
    diagnostics = Diagnostics(
        sample_count=count,
        null_count=len(pooled) - count,
        minutes=count / times.rate_hz / 60,
        spans=[],
        segment_count=0,
        segments_per_minute=0.0,
        active_share=0.0,
        valley=valley,
    )
    if model is not None:
        rest, motion = math.exp(model.mean[0]), math.exp(model.mean[1])
        diagnostics = replace(diagnostics, rest_level=rest, motion_level=motion, level_ratio=motion / rest)
    if label_threshold is not None:
        scores = threshold_scores(swept[both], labels, theta_on)
        curve_theta = np.unique(np.quantile(swept[both], np.linspace(0, 1, _CURVE_POINTS)))
        diagnostics = replace(
            diagnostics,
            label_threshold=label_threshold,
            label_share=float(labels.mean()),
            f1=scores["f1"],
            precision=scores["precision"],
            recall=scores["recall"],
            youden_j=scores["youden_j"],
            f1_always_on=scores["f1_always_on"],
            curve_theta=curve_theta.tolist(),
            curve_f1=[threshold_scores(swept[both], labels, float(theta))["f1"] for theta in curve_theta],
        )
        if method == "sweep" and scores["youden_j"] < MIN_YOUDEN_J:
            problems.append(
                f"the energy does not tell motion from rest: F1 {scores['f1']:.3f}, calling everything motion gives "
                f"{scores['f1_always_on']:.3f}; Youden's J {scores['youden_j']:.3f}"
            )
    return settings, problems, diagnostics


def _counted(diagnostics: Diagnostics, cuts: list[list[Detection]]) -> Diagnostics:
    """The figures with what was cut."""
    active = sum(one.end_sample - one.start_sample for found in cuts for one in found)
    count = sum(map(len, cuts))
    return replace(
        diagnostics,
        segment_count=count,
        segments_per_minute=count / diagnostics.minutes,
        active_share=active / diagnostics.sample_count,
    )


def _judged(problems: list[str], diagnostics: Diagnostics, *, touching: bool = False) -> tuple[bool, str]:
    """Whether to believe the calibration, and in words."""
    problems = [*problems, *_implausible(diagnostics, touching=touching)]
    if problems:
        return False, "; ".join(problems)
    return True, (
        f"{diagnostics.segments_per_minute:.1f} segments a minute, active {diagnostics.active_share:.0%} of "
        f"{diagnostics.minutes:.1f} minutes"
    )


def _implausible(diagnostics: Diagnostics, *, touching: bool) -> list[str]:
    """What speaks against what was cut from the calibration's own samples; touching primitives may fill all of it."""
    problems = []
    low, high = SEGMENTS_PER_MINUTE
    if not low <= diagnostics.segments_per_minute <= high:
        problems.append(
            f"the thresholds give {diagnostics.segments_per_minute:.2f} segments a minute, outside {low:g} to {high:g}"
        )
    low, high = (ACTIVE_SHARE[0], 1.0) if touching else ACTIVE_SHARE
    if not low <= diagnostics.active_share <= high:
        problems.append(
            f"the thresholds call {diagnostics.active_share:.1%} of the time active, outside {low:.0%} to {high:.0%}"
        )
    return problems


# --- the paper's sweep ---------------------------------------------------------------------------------------------


def otsu_threshold(values: NDArray[np.floating[Any]]) -> float:
    """Otsu's threshold over 256 equal bins between the lowest and the highest value.

    Returns:
        The centre of the last bin of the lower class, as the reference implementation takes it; values above it
        form the upper class. The first such bin, where several separate equally well.

    Raises:
        InputError: no finite value.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise InputError("Otsu's method needs at least one value")
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low
    counts, edges = np.histogram(values, bins=_OTSU_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    sum_below = np.cumsum(counts * centres)[:-1]
    above = values.size - below
    total = float((counts * centres).sum())
    # Between-class variance w0 w1 (m0 - m1)^2; both classes hold values, since the end bins are never empty.
    between = below * above * (sum_below / below - (total - sum_below) / above) ** 2
    return float(centres[int(np.argmax(between))])


def threshold_scores(values: NDArray[np.float64], labels: NDArray[np.bool_], theta: float) -> dict[str, float]:
    """Precision, recall, F1 and Youden's J of ``values > theta``, and F1 of calling everything positive."""
    predicted = values > theta
    positives, negatives = int(labels.sum()), int((~labels).sum())
    true_positives, false_positives = int((predicted & labels).sum()), int((predicted & ~labels).sum())
    recall = true_positives / positives if positives else 0.0
    fallout = false_positives / negatives if negatives else 0.0
    hits = true_positives + false_positives
    return {
        "precision": true_positives / hits if hits else 0.0,
        "recall": recall,
        "f1": 2 * true_positives / (hits + positives) if hits + positives else 0.0,
        "youden_j": recall - fallout,
        "f1_always_on": 2 * positives / (len(values) + positives) if len(values) + positives else 0.0,
    }


def best_f1_threshold(values: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold at which ``values > threshold`` has the best F1 against labels, and that F1.

    Every distinct value is a candidate (between two of them F1 does not change); the lowest wins a tie.
    """
    order = np.argsort(values, kind="stable")
    ordered, positive = values[order], labels[order].astype(np.int64)
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # last place of each distinct value
    true_positives = positive.sum() - np.cumsum(positive)[last]
    hits = len(values) - 1 - last
    f1 = 2 * true_positives / np.maximum(hits + positive.sum(), 1)
    best = int(np.argmax(f1))
    return float(ordered[last[best]]), float(f1[best])


# --- the signal's own log energy -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TwoStates:
    """Two-state Gaussian hidden Markov model; state 0 is the lower one."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    share: NDArray[np.float64]
    transition: NDArray[np.float64]
    log_likelihood: float


def theta_of(smoothed: NDArray[np.float64]) -> float | None:
    """The theta_on that a smoothed signal by itself would give by ``log_energy``.

    Args:
        smoothed: float64[n], NaN where null.

    Returns:
        None where the signal is too short, or does not tell motion from rest.
    """
    present = smoothed[np.isfinite(smoothed)]
    if len(present) < TRUSTED_SAMPLES or not (present > 0).any():
        return None
    theta, _, _, problem = _log_energy_threshold([smoothed], present)
    return None if problem else theta


def _log_energy_threshold(
    y: list[NDArray[np.float64]], pooled: NDArray[np.float64]
) -> tuple[float, _TwoStates | None, float | None, str | None]:
    """theta_on from the smoothed energies, with the model, the valley, and what is wrong with it if anything is."""
    floor = float(np.quantile(pooled[pooled > 0], _FLOOR_QUANTILE))
    logs = np.log(np.maximum(pooled, floor))
    if np.ptp(logs) < 1e-9:
        theta = float(pooled.max()) * MIN_LEVEL_RATIO
        return theta, None, None, "the energy is constant: it cannot be told whether this is rest or motion"
    values, mask = _stretches(y, floor)
    model = _fit_two_states(values, mask, logs)
    log_theta, crossing = _crossing(model)
    valley = _valley(logs[(pooled >= floor) | (pooled == 0)])  # else the floor would be a hump of its own
    ratio = math.exp(model.mean[1] - model.mean[0])
    problem = None
    if not crossing:
        problem = "the states of rest and motion do not cross; the threshold lies halfway between them"
    elif ratio < MIN_LEVEL_RATIO or valley > MAX_VALLEY:
        problem = (
            "it cannot be told whether this is rest or motion: the energy has one level, not two "
            f"(upper to lower {ratio:.2f}, density between them {valley:.2f} of the lower peak)"
        )
    return math.exp(log_theta), model, valley, problem


def _stretches(y: list[NDArray[np.float64]], floor: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log energies as rows of at most 256 unbroken samples, padded, with a mask; each row is a sequence by itself."""
    rows = []
    for series in y:
        present = np.isfinite(series)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            rows += [series[at : min(at + _STRETCH, stop)] for at in range(start, stop, _STRETCH)]
    length = max(len(row) for row in rows)
    values = np.zeros((len(rows), length))
    mask = np.zeros((len(rows), length), dtype=bool)
    for index, row in enumerate(rows):
        values[index, : len(row)] = np.log(np.maximum(row, floor))
        mask[index, : len(row)] = True
    return values, mask


def _fit_two_states(values: NDArray[np.float64], mask: NDArray[np.bool_], logs: NDArray[np.float64]) -> _TwoStates:
    """Expectation maximisation from a few fixed starts; the most likely fit wins."""
    splits = [otsu_threshold(logs), *np.quantile(logs, [0.5, 0.85])]
    best: _TwoStates | None = None
    for split in splits:
        upper = logs > split
        if not upper.any() or upper.all():
            continue
        model = _TwoStates(
            mean=np.array([logs[~upper].mean(), logs[upper].mean()]),
            std=np.maximum([logs[~upper].std(), logs[upper].std()], _MIN_LOG_STD),
            share=np.array([(~upper).mean(), upper.mean()]),
            transition=np.array([[0.95, 0.05], [0.05, 0.95]]),
            log_likelihood=-math.inf,
        )
        for _ in range(_EM_ROUNDS):
            before = model.log_likelihood
            model = _em_round(model, values, mask)
            if model.log_likelihood - before < _EM_TOLERANCE * len(logs):
                break
        if best is None or model.log_likelihood > best.log_likelihood:
            best = model
    assert best is not None  # logs are not all equal, so the split by Otsu has two sides
    if best.mean[0] > best.mean[1]:
        best = _TwoStates(
            best.mean[::-1],
            best.std[::-1],
            best.share[::-1],
            best.transition[::-1, ::-1],
            best.log_likelihood,
        )
    return best


def _em_round(model: _TwoStates, values: NDArray[np.float64], mask: NDArray[np.bool_]) -> _TwoStates:
    """One round of Baum-Welch over all rows at once (scaled forward and backward passes).

    A row's first state is drawn from the overall shares, so that cutting a stretch into rows changes little.
    """
    rows, length = values.shape
    scaled = (values[..., None] - model.mean) / model.std
    log_density = -0.5 * scaled**2 - np.log(model.std) - 0.5 * math.log(2 * math.pi)
    highest = log_density.max(axis=2, keepdims=True)
    density = np.where(mask[..., None], np.exp(log_density - highest), 1.0)
    by_step = np.ascontiguousarray(density.transpose(1, 0, 2))

    forward = np.empty((length, rows, 2))
    scale = np.empty((length, rows))
    state = np.broadcast_to(model.share, (rows, 2))
    for step in range(length):
        state = (state if step == 0 else state @ model.transition) * by_step[step]
        scale[step] = state[:, 0] + state[:, 1]
        state = state / scale[step, :, None]
        forward[step] = state
    by_step /= scale[..., None]
    ahead = np.empty((length, rows, 2))  # density times what follows, at the next step
    backward = np.ones((length, rows, 2))
    for step in range(length - 2, -1, -1):
        ahead[step] = by_step[step + 1] * backward[step + 1]
        backward[step] = ahead[step] @ model.transition.T
    posterior = (forward * backward).transpose(1, 0, 2) * mask[..., None]

    before = forward[:-1] * mask.T[1:, :, None]
    pairs = before.reshape(-1, 2).T @ ahead[:-1].reshape(-1, 2) * model.transition
    weight = np.maximum(posterior.sum(axis=(0, 1)), 1e-9)
    mean = (posterior * values[..., None]).sum(axis=(0, 1)) / weight
    variance = (posterior * (values[..., None] - mean) ** 2).sum(axis=(0, 1)) / weight
    pairs = pairs + 1.0  # one transition of each kind in advance, so that no state is ever closed
    return _TwoStates(
        mean=mean,
        std=np.maximum(np.sqrt(variance), _MIN_LOG_STD),
        share=weight / weight.sum(),
        transition=pairs / pairs.sum(axis=1, keepdims=True),
        log_likelihood=float(((np.log(scale.T) + highest[..., 0]) * mask).sum()),
    )


def _crossing(model: _TwoStates) -> tuple[float, bool]:
    """Where the two states are equally probable, between their means: by their shares, else as if equally frequent.

    Returns:
        The log energy, and False when there is no such place and the middle of the means is given instead.
    """
    (low, high), (low_std, high_std) = model.mean, model.std
    for shares in (model.share, np.array([0.5, 0.5])):
        # ln p0 N0(x) - ln p1 N1(x) = a x^2 + b x + c
        a = 0.5 / high_std**2 - 0.5 / low_std**2
        b = low / low_std**2 - high / high_std**2
        c = (
            0.5 * (high / high_std) ** 2
            - 0.5 * (low / low_std) ** 2
            + math.log(shares[0] / low_std)
            - math.log(shares[1] / high_std)
        )
        roots = np.roots([a, b, c]) if abs(a) > 1e-12 else np.array([-c / b])
        between = [root.real for root in roots if abs(root.imag) < 1e-12 and low < root.real < high]
        if between:
            return float(min(between)), True
    return float((low + high) / 2), False


def _valley(logs: NDArray[np.float64]) -> float:
    """Depth of the valley in the density of the log energy: 1 for one hump, towards 0 for two that stand apart.

    At each place the density is set against the lower of the highest peaks to its left and right; the lowest such
    ratio counts, where enough samples lie on either side.
    """
    # Silverman's rule, for a signal in which ten neighbouring samples tell about as much as one alone would.
    width = 1.06 * float(logs.std()) * (len(logs) / 10) ** -0.2
    low, high = float(logs.min()) - 4 * width, float(logs.max()) + 4 * width
    counts, edges = np.histogram(logs, bins=400, range=(low, high))
    bins = width / (edges[1] - edges[0])
    reach = math.ceil(4 * bins)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / bins) ** 2)
    density = np.convolve(counts, kernel / kernel.sum(), mode="full")[reach:-reach]
    peak = np.minimum(np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1])
    below = np.cumsum(counts) / len(logs)
    counted = (below >= _HUMP_SHARE) & (below <= 1 - _HUMP_SHARE) & (peak > 0)
    return float((density[counted] / peak[counted]).min(initial=1.0))


def _packed(values: NDArray[np.float32]) -> dict[str, Any]:
    return {"shape": list(values.shape), "float32_base64": base64.b64encode(values.astype("<f4").tobytes()).decode()}


def _unpacked(document: dict[str, Any]) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(document["float32_base64"]), "<f4")
    return values.reshape(document["shape"]).astype(np.float32)


def _boundaries_to_dict(model: BoundaryModel) -> dict[str, Any]:
    values = {name: getattr(model, name) for name in ("bias", "threshold", "apart_samples")}
    return {**values, "weights": _packed(model.weights)}


def _boundaries_from_dict(document: dict[str, Any]) -> BoundaryModel:
    return BoundaryModel(**{**document, "weights": _unpacked(document["weights"])})


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
