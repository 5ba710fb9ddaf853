"""Predictions that have not looked at the video: what any score must be compared with.

Equal spacing and random times know a recording's length and a count (of truth, or of a prediction); a metronome knows
only the length, but the best metronome is picked by its score, with knowledge of the truth.

The functions that give documents make whole predictions, to be compared with others as any method is
(:func:`laps.evaluation.compare`). :func:`equal_marks` and :func:`random_marks` place boundaries, starts, ends and
segments each at its own best, independently of one another: the levels that stand beside every score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from laps.errors import InputError
from laps.evaluation.documents import BACKGROUND_LABELS, Document, Marks, marks, recording_duration_s
from laps.evaluation.matching import Segment
from laps.evaluation.scores import Metric

METRONOME_PERIODS_S = tuple(round(0.1 * step, 1) for step in range(10, 101))


def equal_marks(model: Marks, points: int, length_s: float) -> list[Marks]:
    """Blind predictions at equal spacing with the model's counts.

    Segments of two widths: touching, and covering the share of the time that the model's cover.
    """

    def spaced(count: int) -> list[float]:
        return [(place + 0.5) * length_s / count for place in range(count)]

    segments = model.segments or []
    share = min(1.0, math.fsum(end - start for start, end in segments) / length_s)
    return [
        Marks(
            spaced(points),
            spaced(len(model.starts)),
            spaced(len(model.ends)),
            _equal_segments(len(segments), length_s, width),
        )
        for width in (1.0, share)
    ]


def random_marks(model: Marks, points: int, length_s: float, generator: np.random.Generator) -> Marks:
    """A blind prediction at random times, with the model's counts."""

    def drawn(count: int) -> list[float]:
        return sorted(generator.uniform(0, length_s, count).tolist())

    segments = _random_segments(len(model.segments or []), length_s, generator)
    return Marks(drawn(points), drawn(len(model.starts)), drawn(len(model.ends)), segments)


def metronome_marks(period_s: float, length_s: float) -> Marks:
    """A boundary every ``period_s``: segments that touch, the last as long as is left."""
    ticks = [place * period_s for place in range(1, math.ceil(length_s / period_s))]
    return Marks(ticks, ticks, ticks, list(pairwise([0.0, *ticks, length_s])))


def equal_spacing(count: int, length_s: float, *, covered: float = 1.0, seed: int = 0) -> Document:
    """``count`` segments at equal spacing, as a prediction with random confidences.

    Args:
        count: segments.
        length_s: length of the recording.
        covered: share of the time that they cover; 1: they touch.
        seed: of the confidences.
    """
    return _document(_equal_segments(count, length_s, covered), length_s, np.random.default_rng(seed))


def random_segments(count: int, length_s: float, *, seed: int = 0) -> Document:
    """``count`` segments between neighbours of 2 x count random times, as a prediction with random confidences."""
    generator = np.random.default_rng(seed)
    return _document(_random_segments(count, length_s, generator), length_s, generator)


def metronome(period_s: float, length_s: float, *, seed: int = 0) -> Document:
    """A boundary every ``period_s``, as a prediction with random confidences."""
    if not period_s > 0:
        raise InputError(f"the period must be above 0 s, not {period_s}")
    return _document(metronome_marks(period_s, length_s).segments or [], length_s, np.random.default_rng(seed))


def best_metronome(
    truths: Sequence[Document],
    metric: Metric,
    *,
    periods_s: Sequence[float] = METRONOME_PERIODS_S,
    ignore: Sequence[str] = BACKGROUND_LABELS,
    seed: int = 0,
) -> tuple[float, list[Document]]:
    """The period whose metronome scores highest over all recordings, and its predictions.

    **It is chosen with the truth in hand**, unlike any method that it is compared with: the upper end of what ticking
    could reach, and so a bar on the hard side. A metronome that could be deployed has a period fixed beforehand
    (:func:`metronome`).
    """
    lengths = [recording_duration_s(truth) for truth in truths]
    true = [marks(truth, length, ignore=ignore, where="truth") for truth, length in zip(truths, lengths, strict=True)]

    def f1(period_s: float) -> float:
        ticking = [metronome_marks(period_s, length) for length in lengths]
        return metric.score(zip(true, ticking, strict=True)).f1

    best = max(periods_s, key=f1)
    return best, [metronome(best, length, seed=seed + place) for place, length in enumerate(lengths)]


def _equal_segments(count: int, length_s: float, covered: float) -> list[Segment]:
    cell, gap = length_s / max(1, count), (1 - covered) / 2
    # Counted from the end, so that what should end with the recording does: that is no boundary.
    return [((place + gap) * cell, length_s - (count - 1 - place + gap) * cell) for place in range(count)]


def _random_segments(count: int, length_s: float, generator: np.random.Generator) -> list[Segment]:
    turns = sorted(generator.uniform(0, length_s, 2 * count).tolist())
    return [(start, end) for start, end in zip(turns[::2], turns[1::2], strict=True) if end > start]


def _document(segments: Sequence[Segment], length_s: float, generator: np.random.Generator) -> Document:
    sure = generator.uniform(size=len(segments)).tolist()
    return {
        "duration_sec": length_s,
        "segments": [
            {"start_sec": start, "end_sec": end, "confidence": confidence}
            for (start, end), confidence in zip(segments, sure, strict=True)
            if end > start
        ],
    }
