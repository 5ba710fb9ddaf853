"""Scores of a segmentation against truth, never without what chance would score.

====================  ==============================================================================================
score                 what is matched
====================  ==============================================================================================
``boundary_greedy``   as the reference implementation scores: all starts above 0 and all ends below the duration,
                      each true boundary taking its nearest unused prediction, in order of time
``boundary``          the same boundaries, those that touching segments share counted once, matched one to one so
                      that as many as possible lie within the tolerance
``typed``             starts with starts and ends with ends, matched one to one, best possible
``segment``           segments with segments, by intersection over union (IoU), one to one, best possible
====================  ==============================================================================================

Beside each stand the same score of predictions that have not looked at the video: boundaries or segments at equal
spacing and at random, as many as there are in truth and as many as were predicted, and the best metronome (a
boundary every P seconds) over all P from 1 to 10 s.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from laps.errors import InputError
from laps.reference_files import check_segments

DEFAULT_TOLERANCES_S = (0.25, 0.5, 1.0, 2.0, 5.0)
DEFAULT_IOUS = (0.1, 0.25, 0.5)
BACKGROUND_LABELS = ("background", "no gesture", "no action", "rest", "idle", "null", "none", "sil")
METRONOME_PERIODS_S = tuple(round(0.1 * step, 1) for step in range(10, 101))

_SAME_TIME_S = 1e-6  # boundaries closer than this are one
_CHANCES = ("equal_true", "equal_predicted", "random_true", "random_predicted", "metronome")

Segment = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """Counts of a matching and what follows from them."""

    matched: int
    truth: int
    predicted: int

    @property
    def precision(self) -> float:
        if self.predicted == 0:
            return 1.0 if self.truth == 0 else 0.0
        return self.matched / self.predicted

    @property
    def recall(self) -> float:
        return self.matched / self.truth if self.truth else 1.0

    @property
    def f1(self) -> float:
        """2 m / (truth + predicted); 1 when there is nothing to find and nothing was found."""
        total = self.truth + self.predicted
        return 2 * self.matched / total if total else 1.0


@dataclass(frozen=True)
class Marks:
    """What one side says, sorted by time.

    Attributes:
        boundaries: starts above 0 and ends below the duration, in seconds; those shared by touching segments twice.
        starts, ends: the two kinds apart.
        segments: None where only boundaries are known.
    """

    boundaries: list[float]
    starts: list[float]
    ends: list[float]
    segments: list[Segment] | None

    @classmethod
    def of_segments(cls, segments: Iterable[Segment], duration_s: float) -> Marks:
        ordered = sorted(segments)
        starts = [start for start, _ in ordered if start > 0]
        ends = sorted(end for _, end in ordered if end < duration_s)
        return cls(sorted(starts + ends), starts, ends, ordered)

    @cached_property
    def distinct(self) -> list[float]:
        """The boundaries, each time once."""
        kept: list[float] = []
        for time in self.boundaries:
            if not kept or time - kept[-1] > _SAME_TIME_S:
                kept.append(time)
        return kept


# --- matching ------------------------------------------------------------------------------------------------------


def match_greedy(truth: Sequence[float], predicted: Sequence[float], tolerance_s: float) -> int:
    """Matches as the reference implementation counts them.

    In order of time each true boundary looks at its nearest prediction that is not yet used (the earlier one of two
    equally near) and takes it if it lies within the tolerance. Both lists are sorted.
    """
    used = [False] * len(predicted)
    matched = 0
    for time in truth:
        right = bisect.bisect_left(predicted, time)
        left = right - 1
        while right < len(predicted) and used[right]:
            right += 1
        while left >= 0 and used[left]:
            left -= 1
        candidates = [place for place in (left, right) if 0 <= place < len(predicted)]
        if not candidates:
            continue
        nearest = min(candidates, key=lambda place: abs(predicted[place] - time))
        if abs(predicted[nearest] - time) <= tolerance_s:
            used[nearest] = True
            matched += 1
    return matched


def match_points(truth: Sequence[float], predicted: Sequence[float], tolerance_s: float) -> int:
    """The largest number of one-to-one matches within the tolerance. Both lists are sorted.

    One sweep finds it: when the earliest open points of both sides lie within the tolerance of each other, some best
    matching pairs them (whatever else either could take lies later, and what lies later can take the other's place);
    otherwise the earlier of the two can match nothing.
    """
    matched = at = predicted_at = 0
    while at < len(truth) and predicted_at < len(predicted):
        difference = predicted[predicted_at] - truth[at]
        if abs(difference) <= tolerance_s:
            matched, at, predicted_at = matched + 1, at + 1, predicted_at + 1
        elif difference < 0:
            predicted_at += 1
        else:
            at += 1
    return matched


def intersection_over_union(a: Segment, b: Segment) -> float:
    """Overlap of two segments over the time that either covers."""
    overlap = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return overlap / (a[1] - a[0] + b[1] - b[0] - overlap)


def match_segments(truth: Sequence[Segment], predicted: Sequence[Segment], iou: float) -> int:
    """The largest number of one-to-one matches with at least this IoU (above 0), by augmenting paths."""
    order = sorted(range(len(truth)), key=lambda place: truth[place])
    starts = [truth[place][0] for place in order]
    longest = max((end - start for start, end in truth), default=0.0)
    candidates = []
    for segment in predicted:
        low = bisect.bisect_left(starts, segment[0] - longest)
        high = bisect.bisect_right(starts, segment[1])
        candidates.append([place for place in order[low:high] if intersection_over_union(truth[place], segment) >= iou])
    owner: dict[int, int] = {}  # true segment -> predicted segment
    taken: dict[int, int] = {}  # and the reverse
    matched = 0
    for root in range(len(predicted)):
        # Breadth-first search for a chain of re-assignments that frees a true segment for this prediction.
        reached_from: dict[int, int] = {}
        queue = [root]
        free: int | None = None
        for place in queue:
            for target in candidates[place]:
                if target in reached_from:
                    continue
                reached_from[target] = place
                if target not in owner:
                    free = target
                    break
                queue.append(owner[target])
            if free is not None:
                break
        if free is None:
            continue
        matched += 1
        step: int | None = free
        while step is not None:
            place = reached_from[step]
            before = taken.get(place)
            owner[step], taken[place] = place, step
            step = before
    return matched


# --- documents -----------------------------------------------------------------------------------------------------


def truth_from_cycle_ends(text: str, *, fps: float, duration_s: float) -> dict[str, Any]:
    """Truth from a list of the frame numbers at which cycles end, one a line or separated by spaces.

    Raises:
        InputError: something that is no frame number, or a rate that is not above 0.
    """
    if not fps > 0:
        raise InputError(f"the frame rate must be above 0, not {fps}")
    frames = []
    for word in text.split():
        if not word.isdecimal():
            raise InputError(f"{word!r} is no frame number", fix="List the frames at which cycles end.")
        frames.append(int(word))
    return {"duration_sec": duration_s, "boundaries": [frame / fps for frame in sorted(frames)]}


def marks(document: dict[str, Any], duration_s: float, *, ignore: Sequence[str] = (), where: str) -> Marks:
    """The boundaries and segments of a truth or prediction document, without those whose label is ignored.

    Args:
        document: ``segments`` with ``start_sec``, ``end_sec`` and perhaps ``label``, or ``boundaries`` in seconds;
            ``labels`` may give the labels' names.
        duration_s: length of the recording.
        ignore: labels, or names of labels, in any case.
        where: what the document is, for errors.
    """
    if "segments" in document:
        check_segments(document, where=where)
        names = document.get("labels", {})
        ignored = {label.casefold() for label in ignore}
        kept = [
            (float(segment["start_sec"]), float(segment["end_sec"]))
            for segment in document["segments"]
            if not ignored & _spellings(segment.get("label"), names)
        ]
        return Marks.of_segments(kept, duration_s)
    if "boundaries" in document:
        times = sorted(float(time) for time in document["boundaries"] if 0 < float(time) < duration_s)
        return Marks(times, [], [], None)
    raise InputError('there are neither "segments" nor "boundaries"', where=where)


def _spellings(label: Any, names: Any) -> set[str]:
    if label is None:
        return set()
    name = names.get(str(label), "") if isinstance(names, dict) else ""
    return {str(label).casefold(), str(name).casefold()}


def _duration_s(truth: dict[str, Any], prediction: dict[str, Any]) -> float:
    for document in (truth, prediction):
        for key in ("duration_sec", "video_duration_sec"):
            if key in document:
                duration = document[key]
                if not isinstance(duration, int | float) or not math.isfinite(duration) or duration <= 0:
                    raise InputError(f"{key} must be a number of seconds above 0, not {duration!r}")
                return float(duration)
    raise InputError("the length of the recording is in neither file", fix='Add "duration_sec" to the truth.')


# --- scores beside chance ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Metric:
    name: str
    level: float  # tolerance in seconds, or IoU

    def points(self, side: Marks) -> int:
        """How many pooled boundaries this score counts on a side."""
        return len(side.boundaries) if self.name == "boundary_greedy" else len(side.distinct)

    def score(self, truth: Marks, predicted: Marks) -> Score:
        if self.name == "boundary_greedy":
            matched = match_greedy(truth.boundaries, predicted.boundaries, self.level)
            return Score(matched, len(truth.boundaries), len(predicted.boundaries))
        if self.name == "boundary":
            a, b = truth.distinct, predicted.distinct
            return Score(match_points(a, b, self.level), len(a), len(b))
        if self.name == "typed":
            matched = match_points(truth.starts, predicted.starts, self.level)
            matched += match_points(truth.ends, predicted.ends, self.level)
            return Score(matched, len(truth.starts) + len(truth.ends), len(predicted.starts) + len(predicted.ends))
        a_segments, b_segments = truth.segments or [], predicted.segments or []
        return Score(match_segments(a_segments, b_segments, self.level), len(a_segments), len(b_segments))


def evaluate(
    truth: dict[str, Any],
    prediction: dict[str, Any],
    tolerances_s: Sequence[float] = DEFAULT_TOLERANCES_S,
    *,
    ious: Sequence[float] = DEFAULT_IOUS,
    ignore: Sequence[str] = BACKGROUND_LABELS,
    seed: int = 0,
    draws: int = 20,
) -> dict[str, Any]:
    """Score a prediction against truth.

    Args:
        truth: ``{"duration_sec", "segments": [{"start_sec", "end_sec", "label"}], "labels": {label: name}}``, or
            ``{"duration_sec", "boundaries": [seconds]}`` (see :func:`truth_from_cycle_ends`), which leaves only the
            pooled boundary scores.
        prediction: ``{"segments": [{"start_sec", "end_sec"}]}``.
        tolerances_s: of the boundary scores.
        ious: of the segment score.
        ignore: labels (or their names) of truth that are no action; their segments do not count.
        seed: of the random chance levels.
        draws: random predictions that a chance level averages over.

    Returns:
        ``duration_s``, ``counts`` and ``scores``: for each score ``metric``, ``tolerance_s`` or ``iou``, ``f1``,
        ``precision``, ``recall``, ``chance`` (F1 of each blind predictor, and the metronome's period) and
        ``above_chance`` (F1 less the best of them).

    Raises:
        InputError: documents that cannot be read as such, levels out of range.
    """
    if any(not tolerance > 0 for tolerance in tolerances_s) or any(not 0 < iou <= 1 for iou in ious) or draws < 1:
        raise InputError("tolerances must be above 0 s, IoUs in (0, 1], and draws at least 1")
    duration_s = _duration_s(truth, prediction)
    true = marks(truth, duration_s, ignore=ignore, where="truth")
    predicted = marks(prediction, duration_s, where="prediction")
    both_have_segments = true.segments is not None and predicted.segments is not None

    metrics = [_Metric(name, level) for name in ("boundary_greedy", "boundary") for level in tolerances_s]
    if both_have_segments:
        metrics += [_Metric("typed", level) for level in tolerances_s]
        metrics += [_Metric("segment", level) for level in ious]

    generator = np.random.default_rng(seed)
    metronomes = [_metronome(period, duration_s) for period in METRONOME_PERIODS_S]
    scores = []
    for metric in metrics:
        score = metric.score(true, predicted)
        blind = {
            "equal_true": _equal(true, metric.points(true), duration_s),
            "equal_predicted": _equal(predicted, metric.points(predicted), duration_s),
            "random_true": [_random(true, metric.points(true), duration_s, generator) for _ in range(draws)],
            "random_predicted": [
                _random(predicted, metric.points(predicted), duration_s, generator) for _ in range(draws)
            ],
            "metronome": metronomes,
        }
        f1 = {kind: [metric.score(true, other).f1 for other in blind[kind]] for kind in _CHANCES}
        chance = {
            kind: float(np.mean(values)) if kind.startswith("random") else max(values) for kind, values in f1.items()
        }
        best_period = METRONOME_PERIODS_S[f1["metronome"].index(chance["metronome"])]
        scores.append(
            {
                "metric": metric.name,
                "iou" if metric.name == "segment" else "tolerance_s": metric.level,
                "f1": score.f1,
                "precision": score.precision,
                "recall": score.recall,
                "matched": score.matched,
                "truth": score.truth,
                "predicted": score.predicted,
                "chance": {**chance, "metronome_period_s": best_period},
                "above_chance": score.f1 - max(chance.values()),
            }
        )
    if both_have_segments:
        true_count, predicted_count = len(true.segments or []), len(predicted.segments or [])
    else:
        true_count, predicted_count = len(true.distinct), len(predicted.distinct)
    return {
        "duration_s": duration_s,
        "counts": {
            "unit": "segments" if both_have_segments else "boundaries",
            "truth": true_count,
            "predicted": predicted_count,
            "over_segmentation": predicted_count / true_count if true_count else None,
        },
        "scores": scores,
    }


def _equal(model: Marks, points: int, duration_s: float) -> list[Marks]:
    """Blind predictions at equal spacing: as many starts, ends and segments as in ``model``, ``points`` boundaries.

    Two of them, of which the better counts: segments that touch, and segments that together cover as much time as
    the model's.
    """

    def spaced(count: int) -> list[float]:
        return [(place + 0.5) * duration_s / count for place in range(count)]

    segments = model.segments or []
    share = min(1.0, math.fsum(end - start for start, end in segments) / duration_s)
    cell = duration_s / max(1, len(segments))
    return [
        Marks(
            spaced(points),
            spaced(len(model.starts)),
            spaced(len(model.ends)),
            [((n + 0.5 - width / 2) * cell, (n + 0.5 + width / 2) * cell) for n in range(len(segments))],
        )
        for width in (1.0, share)
    ]


def _random(model: Marks, points: int, duration_s: float, generator: np.random.Generator) -> Marks:
    """A blind prediction at random times, with the same counts as :func:`_equal`."""

    def drawn(count: int) -> list[float]:
        return sorted(generator.uniform(0, duration_s, count).tolist())

    turns = drawn(2 * len(model.segments or []))
    segments = [(start, end) for start, end in zip(turns[::2], turns[1::2], strict=True) if end > start]
    return Marks(drawn(points), drawn(len(model.starts)), drawn(len(model.ends)), segments)


def _metronome(period_s: float, duration_s: float) -> Marks:
    """A boundary every ``period_s``: segments that touch, the last as long as is left."""
    ticks = [place * period_s for place in range(1, math.ceil(duration_s / period_s))]
    edges = [0.0, *ticks, duration_s]
    return Marks(ticks, ticks, ticks, list(pairwise(edges)))


def render(result: dict[str, Any]) -> str:
    """The result of :func:`evaluate` as a plain-text table, every score beside its chance levels."""
    counts = result["counts"]
    ratio = counts["over_segmentation"]
    lines = [
        f"{result['duration_s']:.1f} s, {counts['truth']} true and {counts['predicted']} predicted {counts['unit']}"
        + (f" (over-segmentation {ratio:.2f})" if ratio is not None else ""),
        "",
    ]
    header = ["score", "at", "F1", "precision", "recall", "equal n", "equal n'", "random n", "random n'", "metronome"]
    rows = []
    for score in result["scores"]:
        chance = score["chance"]
        at = f"IoU {score['iou']:g}" if "iou" in score else f"{score['tolerance_s']:g} s"
        values = [score["f1"], score["precision"], score["recall"], *(chance[kind] for kind in _CHANCES[:-1])]
        metronome = f"{chance['metronome']:.3f} ({chance['metronome_period_s']:g} s)"
        rows.append([score["metric"], at, *(f"{value:.3f}" for value in values), metronome])
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines += [
        "",
        "The columns from 'equal n' on are the F1 of predictions that did not look: as many as in truth (n) or as",
        "predicted (n'), equally spaced or at random, and the best metronome over 1 to 10 s.",
    ]
    return "\n".join(lines) + "\n"
