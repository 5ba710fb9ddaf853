"""Every score of a prediction, each beside the same score of predictions that did not look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError
from laps.evaluation.average_precision import Candidates, average_precision
from laps.evaluation.chance import METRONOME_PERIODS_S, equal_marks, metronome_marks, random_marks
from laps.evaluation.documents import BACKGROUND_LABELS, Document, Marks, Sides, sides
from laps.evaluation.scores import Metric

DEFAULT_TOLERANCES_S = (0.25, 0.5, 1.0, 2.0, 5.0)
DEFAULT_IOUS = (0.1, 0.25, 0.5)
DEFAULT_MAP_IOUS = (0.5, 0.75)

CHANCES = ("equal_true", "equal_predicted", "random_true", "random_predicted", "metronome")

NO_CONFIDENCES = "not every predicted segment has a confidence, so that they cannot be ranked"


def evaluate(
    truth: Document,
    prediction: Document,
    tolerances_s: Sequence[float] = DEFAULT_TOLERANCES_S,
    *,
    ious: Sequence[float] = DEFAULT_IOUS,
    map_ious: Sequence[float] = DEFAULT_MAP_IOUS,
    ignore: Sequence[str] = BACKGROUND_LABELS,
    seed: int = 0,
    draws: int = 20,
) -> dict[str, Any]:
    """Score a prediction against truth.

    Args:
        truth: ``{"duration_sec", "segments": [{"start_sec", "end_sec", "label"}], "labels": {label: name}}``, or
            ``{"duration_sec", "boundaries": [seconds]}`` (see :func:`truth_from_cycle_ends`), which leaves only the
            pooled boundary scores.
        prediction: ``{"segments": [{"start_sec", "end_sec", "confidence"}]}``; the confidence is for mAP.
        tolerances_s: of the boundary scores.
        ious: of the segment score.
        map_ious: of mAP.
        ignore: labels (or their names) of truth that are no action; their segments do not count.
        seed: of the random chance levels.
        draws: random predictions that a chance level averages over.

    Returns:
        ``recordings``, ``duration_s``, ``counts`` (with ``over_segmentation``, predicted / true count), ``scores`` and
        ``average_precision``. Each score has ``metric``, ``tolerance_s`` or ``iou``, ``f1``, ``precision``,
        ``recall``, ``matched``, ``truth``, ``predicted``, ``chance`` (F1 of each blind predictor, and the metronome's
        period) and ``above_chance`` (F1 less the best of them). Each average precision has ``iou``, ``value``,
        ``chance`` (blind predictors with random confidences), ``above_chance`` and ``reason``: without confidences
        the value is None and the reason says so.

    Raises:
        InputError: documents that cannot be read as such, levels out of range.
    """
    return evaluate_recordings(
        [(truth, prediction)],
        tolerances_s,
        ious=ious,
        map_ious=map_ious,
        ignore=ignore,
        seed=seed,
        draws=draws,
    )


def evaluate_recordings(
    recordings: Sequence[tuple[Document, Document]],
    tolerances_s: Sequence[float] = DEFAULT_TOLERANCES_S,
    *,
    ious: Sequence[float] = DEFAULT_IOUS,
    map_ious: Sequence[float] = DEFAULT_MAP_IOUS,
    ignore: Sequence[str] = BACKGROUND_LABELS,
    seed: int = 0,
    draws: int = 20,
) -> dict[str, Any]:
    """Score the predictions of one method for several recordings together: their counts are added (micro average).

    Blind predictors get each recording's own count and length; one metronome ticks in all of them. Where a truth or
    prediction has no segments, only boundaries are scored, in all of them.

    Args:
        recordings: truth and prediction of each; both as for :func:`evaluate`, which names the rest.
    """
    if not recordings or draws < 1:
        raise InputError("there must be at least one recording and at least 1 draw")
    if any(not 0 < iou <= 1 for iou in map_ious):
        raise InputError("IoUs must lie in (0, 1]")
    metrics = [Metric(name, level) for name in ("boundary_greedy", "boundary", "typed") for level in tolerances_s]
    metrics += [Metric("segment", level) for level in ious]
    scored = [sides(truth, prediction, ignore=ignore) for truth, prediction in recordings]
    have_segments = all(one.have_segments for one in scored)
    generator = np.random.default_rng(seed)
    length_s = math.fsum(one.duration_s for one in scored)
    counted = [_counts(one, have_segments) for one in scored]
    truth_count, predicted_count = (sum(counts) for counts in zip(*counted, strict=True))
    return {
        "recordings": len(scored),
        "duration_s": length_s,
        "counts": {
            "unit": "segments" if have_segments else "boundaries",
            "truth": truth_count,
            "predicted": predicted_count,
            "over_segmentation": predicted_count / truth_count if truth_count else None,
        },
        "scores": [
            _score(metric, scored, generator, draws) for metric in metrics if have_segments or not metric.needs_segments
        ],
        "average_precision": [_average_precision(iou, scored, generator, draws) for iou in map_ious]
        if have_segments
        else [],
    }


def _counts(one: Sides, have_segments: bool) -> tuple[int, int]:
    if have_segments:
        return len(one.truth.segments or []), len(one.predicted.segments or [])
    return len(one.truth.distinct), len(one.predicted.distinct)


def _blind(metric: Metric, scored: Sequence[Sides], generator: np.random.Generator, draws: int) -> dict[str, Any]:
    """For each kind of chance the blind predictions to score: each one :class:`Marks` a recording."""

    def equal(models: Sequence[Marks]) -> list[tuple[Marks, ...]]:
        made = [
            equal_marks(model, len(metric.points(model)), one.duration_s)
            for model, one in zip(models, scored, strict=True)
        ]
        return list(zip(*made, strict=True))

    def drawn(models: Sequence[Marks]) -> list[list[Marks]]:
        return [
            [
                random_marks(model, len(metric.points(model)), one.duration_s, generator)
                for model, one in zip(models, scored, strict=True)
            ]
            for _ in range(draws)
        ]

    truth, predicted = [one.truth for one in scored], [one.predicted for one in scored]
    ticking = [[metronome_marks(period, one.duration_s) for one in scored] for period in METRONOME_PERIODS_S]
    made = (equal(truth), equal(predicted), drawn(truth), drawn(predicted), ticking)
    return dict(zip(CHANCES, made, strict=True))


def _score(metric: Metric, scored: Sequence[Sides], generator: np.random.Generator, draws: int) -> dict[str, Any]:
    truth = [one.truth for one in scored]
    score = metric.score((one.truth, one.predicted) for one in scored)
    f1 = {
        kind: [metric.score(zip(truth, blind, strict=True)).f1 for blind in predictions]
        for kind, predictions in _blind(metric, scored, generator, draws).items()
    }
    chance = {kind: float(np.mean(values)) if kind.startswith("random") else max(values) for kind, values in f1.items()}
    return {
        "metric": metric.name,
        "iou" if metric.name == "segment" else "tolerance_s": metric.level,
        "f1": score.f1,
        "precision": score.precision,
        "recall": score.recall,
        "matched": score.matched,
        "truth": score.truth,
        "predicted": score.predicted,
        "chance": {**chance, "metronome_period_s": METRONOME_PERIODS_S[f1["metronome"].index(chance["metronome"])]},
        "above_chance": score.f1 - max(chance.values()),
    }


def _average_precision(
    iou: float, scored: Sequence[Sides], generator: np.random.Generator, draws: int
) -> dict[str, Any]:
    metric = Metric("segment", iou)
    truth = [one.truth for one in scored]

    def candidates(predicted: Sequence[Marks]) -> list[Candidates]:
        return [
            Candidates.of(true.segments or [], other.segments or [], iou)
            for true, other in zip(truth, predicted, strict=True)
        ]

    def ranked_at_random(predicted: Sequence[Marks], times: int) -> float:
        found = candidates(predicted)
        values = [average_precision(found, [generator.random(len(one.alike)) for one in found]) for _ in range(times)]
        return float(np.mean(values))

    blind = _blind(metric, scored, generator, draws)
    # Which metronome is best is asked of its segments; what it ranks at random says nothing about that.
    f1 = [metric.score(zip(truth, ticking, strict=True)).f1 for ticking in blind["metronome"]]
    best = int(np.argmax(f1))
    chance = {
        kind: float(np.mean([ranked_at_random(other, 1) for other in blind[kind]]))
        if kind.startswith("random")
        else max(ranked_at_random(other, draws) for other in blind[kind])
        for kind in CHANCES[:-1]
    }
    chance["metronome"] = ranked_at_random(blind["metronome"][best], draws)
    confidences = _confidences(scored)
    value = None
    if confidences is not None:
        value = average_precision(candidates([one.predicted for one in scored]), confidences)
    return {
        "iou": iou,
        "value": value,
        "reason": NO_CONFIDENCES if value is None else None,
        "chance": {**chance, "metronome_period_s": METRONOME_PERIODS_S[best]},
        "above_chance": None if value is None else value - max(chance.values()),
    }


def _confidences(scored: Sequence[Sides]) -> list[NDArray[np.float64]] | None:
    """The confidences of each recording's predictions; None where any is unknown."""
    found = [one.predicted.confidences for one in scored]
    if any(sure is None for sure in found):
        return None
    return [np.array(sure, float) for sure in found]
