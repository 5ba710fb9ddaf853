"""Predictions held against truth: every figure beside chance, with intervals, and differences in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from bench.quality import kept
from bench.quality.methods import BOUNDARIES, CHANGE, METHODS, PICTURES, PRODUCT, REFERENCE
from bench.quality.predictions import documents
from bench.quality.sets import RecordingSet, Setting
from laps.evaluation import (
    BACKGROUND_LABELS,
    Comparison,
    Document,
    Metric,
    best_metronome,
    compare,
    equal_spacing,
    evaluate_recordings,
    interval,
    marks,
)

TYPED_05, TYPED_1 = "typed F1@0.5s", "typed F1@1s"
BOUNDARY_1 = "F1@1s"
SEGMENT_25, SEGMENT_50 = "F1@IoU.25", "F1@IoU.5"
METRICS: Mapping[str, Metric] = {
    TYPED_05: Metric("typed", 0.5),
    TYPED_1: Metric("typed", 1.0),
    BOUNDARY_1: Metric("boundary", 1.0),
    SEGMENT_25: Metric("segment", 0.25),
    SEGMENT_50: Metric("segment", 0.5),
}
PAPER_METRICS: Mapping[str, Metric] = {
    "F1@2s": Metric("boundary_greedy", 2.0),
    "F1@5s": Metric("boundary_greedy", 5.0),
}
MAP_IOUS = (0.5, 0.75)

COMPARED = (TYPED_05, TYPED_1, BOUNDARY_1, SEGMENT_50)
FIRSTS = (PRODUCT, BOUNDARIES, PICTURES, CHANGE)  # what is compared with the others
VISUAL = "abd_visual"
BEST_ENERGY = "best energy"
EQUAL = "equal spacing at its count"
METRONOME = "best metronome"


@dataclass(frozen=True)
class Figure:
    """One score of one method.

    Attributes:
        value: pooled over the recordings; None: the method gives no confidences to rank by.
        equal: of as many segments as predicted, at equal spacing.
        metronome: of the best metronome, picked with the truth in hand.
        low, high: 95% interval of the value; None where there is none.
        mean: of the recordings' own scores; None for mAP.
    """

    value: float | None
    equal: float
    metronome: float
    low: float | None = None
    high: float | None = None
    mean: float | None = None


@dataclass(frozen=True)
class Difference:
    """Two methods on the same recordings.

    Attributes:
        figure: which score.
        first, second: names.
        role: why the second is there.
        first_value, second_value: pooled scores.
        low, high: 95% interval of the difference; None with too few blocks.
        verdict: ``better``, ``worse``, ``tie``, or ``too short to tell``.
    """

    figure: str
    first: str
    second: str
    role: str
    first_value: float
    second_value: float
    low: float | None
    high: float | None
    verdict: str


def score(truths: Sequence[Document], predicted: Sequence[Document]) -> dict[str, Any]:
    """Every figure of one method: ``figures`` by name (see :class:`Figure`), and ``over_segmentation``."""
    metrics = {**METRICS, **PAPER_METRICS}
    pairs = list(zip(truths, predicted, strict=True))
    result = evaluate_recordings(
        pairs,
        sorted({metric.level for metric in metrics.values() if metric.name != "segment"}),
        ious=sorted({metric.level for metric in metrics.values() if metric.name == "segment"}),
        map_ious=MAP_IOUS,
    )
    scored = {(one["metric"], one.get("iou", one.get("tolerance_s"))): one for one in result["scores"]}
    figures = {}
    for name, metric in metrics.items():
        one = scored[metric.name, metric.level]
        sure = interval(pairs, metric)
        figures[name] = Figure(
            one["f1"],
            one["chance"]["equal_predicted"],
            one["chance"]["metronome"],
            sure.low,
            sure.high,
            mean(_f1(metric, *pair) for pair in pairs),
        )
    for one in result["average_precision"]:
        figures[f"mAP@{one['iou']:g}"] = Figure(
            one["value"], one["chance"]["equal_predicted"], one["chance"]["metronome"]
        )
    return {
        "figures": {name: asdict(figure) for name, figure in figures.items()},
        "over_segmentation": result["counts"]["over_segmentation"],
        "recordings": result["recordings"],
        "minutes": result["duration_s"] / 60,
        "true_segments": result["counts"]["truth"],
    }


def _f1(metric: Metric, truth: Document, predicted: Document) -> float:
    length_s = truth["duration_sec"]
    sides = (
        marks(truth, length_s, ignore=BACKGROUND_LABELS, where="truth"),
        marks(predicted, length_s, where="prediction"),
    )
    return metric.score([sides]).f1


def differences(truths: Sequence[Document], predicted: Mapping[str, Sequence[Document]]) -> list[Difference]:
    """Differences of the methods that matter against those that they must beat, for each figure that counts."""
    found = []
    for figure in COMPARED:
        metric = METRICS[figure]
        pooled = {name: _pooled(metric, truths, one) for name, one in predicted.items()}
        for first in FIRSTS:
            if first not in predicted:
                continue
            energies = [name for name in predicted if METHODS[name].kind == "energy"]
            rivals: list[tuple[str, str, Sequence[Document]]] = []
            if REFERENCE in predicted:
                rivals.append((REFERENCE, REFERENCE, predicted[REFERENCE]))
            if energies:
                best = max(energies, key=pooled.__getitem__)
                rivals.append((BEST_ENERGY, best, predicted[best]))
            rivals.append((EQUAL, EQUAL, _equal(metric, truths, predicted[first])))
            period_s, ticking = best_metronome(truths, metric)
            rivals.append((METRONOME, f"{period_s:g} s", ticking))
            if VISUAL in predicted:
                rivals.append((VISUAL, VISUAL, predicted[VISUAL]))
            for role, second, other in rivals:
                compared = compare(truths, predicted[first], other, metric)
                found.append(
                    Difference(
                        figure,
                        first,
                        second,
                        role,
                        compared.first,
                        compared.second,
                        compared.low,
                        compared.high,
                        _verdict(compared),
                    )
                )
    return found


def _verdict(compared: Comparison) -> str:
    if compared.low is None:
        return "too short to tell"
    return "better" if compared.better else "worse" if compared.worse else "tie"


def _pooled(metric: Metric, truths: Sequence[Document], predicted: Sequence[Document]) -> float:
    sides = [
        (
            marks(truth, truth["duration_sec"], ignore=BACKGROUND_LABELS, where="truth"),
            marks(one, truth["duration_sec"], where="prediction"),
        )
        for truth, one in zip(truths, predicted, strict=True)
    ]
    return metric.score(sides).f1


def _equal(metric: Metric, truths: Sequence[Document], predicted: Sequence[Document]) -> list[Document]:
    """As many segments as were predicted at equal spacing: touching, or covering what was covered; the better."""

    def spaced(one: Document, touching: bool) -> Document:
        length_s, segments = one["duration_sec"], one["segments"]
        covered = sum(segment["end_sec"] - segment["start_sec"] for segment in segments) / length_s
        return equal_spacing(len(segments), length_s, covered=1.0 if touching else min(1.0, covered))

    both = [[spaced(one, touching) for one in predicted] for touching in (True, False)]
    return max(both, key=lambda made: _pooled(metric, truths, made))


def score_set(
    recording_set: RecordingSet, setting: Setting, predictions: Mapping[str, Sequence[dict[str, Any]]], folder: Path
) -> dict[str, Any]:
    """All scores of a set in one setting, kept in files: ``methods`` by name, ``differences``, ``notes`` by method."""
    truths = [item.truth for item in recording_set.scored]
    predicted = {name: documents(recording_set, values) for name, values in predictions.items()}
    sources = kept.sources_key("laps/evaluation/*.py", "bench/quality/scores.py")
    place = folder / recording_set.name / setting
    methods = {
        name: kept.kept(place / f"{name}.json", kept.key_of(truths, one, sources), partial(score, truths, one))
        for name, one in predicted.items()
    }
    between = kept.kept(
        place / "differences.json",
        kept.key_of(truths, predicted, sources),
        lambda: [asdict(one) for one in differences(truths, predicted)],
    )
    return {
        "methods": methods,
        "differences": between,
        "notes": {
            name: [note for one in values for note in one["notes"]]
            for name, values in predictions.items()
            if any(one["notes"] for one in values)
        },
    }
