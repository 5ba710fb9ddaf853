"""How sure a score is, and whether one method is better than another: block bootstrap over time.

F1 = (m_t + m_p) / (T + P): matched true and matched predicted elements over all of both. Matching is done once, over
each whole recording; then every element belongs to the stretch of time (*block*) of its recording in which it stands,
and so every block holds its own part of both sums. Blocks of all recordings are drawn with replacement, as many as
there are, and F1 is taken of the sums: 2,000 times; the interval is the middle 95%. Two methods are compared in the
same draws, for what makes a stretch hard makes it hard for both.

Blocks and not elements, because neighbours depend on each other: a late cut shifts the end of one action and the start
of the next, and the same piece of work goes on for several actions. 30 s hold about ten actions of the usual length of
a few seconds, so that little of that dependence crosses from one block to the next.

A percentile interval over few blocks is too narrow. Below :data:`LEAST_BLOCKS` there is none, and nothing is 'better'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError
from laps.evaluation.documents import BACKGROUND_LABELS, Document, Sides, recording_duration_s, sides
from laps.evaluation.scores import Metric

BLOCK_S = 30.0
DRAWS = 2_000
LEAST_BLOCKS = 10

_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """F1 of one method and its 95% interval.

    Attributes:
        f1: over all recordings.
        low, high: None where there are too few blocks.
        blocks: how many there are.
    """

    f1: float
    low: float | None
    high: float | None
    blocks: int


@dataclass(frozen=True)
class Comparison:
    """F1 of two methods on the same recordings.

    Attributes:
        first, second: F1 over all recordings.
        low, high: 95% interval of the difference; None where there are too few blocks.
        blocks: how many there are.
    """

    first: float
    second: float
    low: float | None
    high: float | None
    blocks: int

    @property
    def difference(self) -> float:
        """First less second."""
        return self.first - self.second

    @property
    def better(self) -> bool:
        """Whether the first is better: the interval lies above zero."""
        return self.low is not None and self.low > 0

    @property
    def worse(self) -> bool:
        """Whether the first is worse: the interval lies below zero."""
        return self.high is not None and self.high < 0


def interval(
    recordings: Sequence[tuple[Document, Document]],
    metric: Metric,
    *,
    ignore: Sequence[str] = BACKGROUND_LABELS,
    block_s: float = BLOCK_S,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """F1 of one method over recordings, with its interval.

    Args:
        recordings: truth and prediction of each.
        metric: which F1.
        ignore: labels of truth that are no action.
        block_s: length of a block.
        draws: of all blocks.
        seed: of the draws.
    """
    counts = block_counts(recordings, metric, ignore=ignore, block_s=block_s)
    low, high = _middle(_resampled([counts], draws, seed)[0], len(counts))
    return Interval(_f1(counts.sum(axis=0)), low, high, len(counts))


def compare(
    truths: Sequence[Document],
    first: Sequence[Document],
    second: Sequence[Document],
    metric: Metric,
    *,
    ignore: Sequence[str] = BACKGROUND_LABELS,
    block_s: float = BLOCK_S,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare two methods' predictions for the same recordings.

    A blind prediction of :mod:`laps.evaluation.chance` is a method like any other.

    Args:
        truths: one for each recording.
        first, second: the predictions of each method for these.
        metric: which F1.
        ignore: labels of truth that are no action.
        block_s: length of a block.
        draws: of all blocks.
        seed: of the draws.
    """
    if not len(truths) == len(first) == len(second):
        raise InputError(
            f"there are {len(truths)} recordings, but {len(first)} and {len(second)} predictions",
            fix="Give one prediction of each method for each recording.",
        )
    # The lengths of the truths, so that both methods have the same blocks.
    lengths = [recording_duration_s(*documents) for documents in zip(truths, first, second, strict=True)]
    known = [{**truth, "duration_sec": length} for truth, length in zip(truths, lengths, strict=True)]
    counts = [
        block_counts(list(zip(known, method, strict=True)), metric, ignore=ignore, block_s=block_s)
        for method in (first, second)
    ]
    one, other = _resampled(counts, draws, seed)
    low, high = _middle(one - other, len(counts[0]))
    return Comparison(_f1(counts[0].sum(axis=0)), _f1(counts[1].sum(axis=0)), low, high, len(counts[0]))


def block_counts(
    recordings: Sequence[tuple[Document, Document]],
    metric: Metric,
    *,
    ignore: Sequence[str] = BACKGROUND_LABELS,
    block_s: float = BLOCK_S,
) -> NDArray[np.int64]:
    """int64[blocks, 2]: matched (true and predicted) and all (true and predicted) elements of each block.

    Raises:
        InputError: there are no recordings, the block is not above 0 s, or the metric needs segments and there are
            none.
    """
    if not recordings or not block_s > 0:
        raise InputError("there must be at least one recording and a block above 0 s")
    scored = [sides(truth, prediction, ignore=ignore) for truth, prediction in recordings]
    if metric.needs_segments and not all(one.have_segments for one in scored):
        raise InputError(f"the metric {metric.name} needs segments, but some recordings have only boundaries")
    return np.concatenate([_of_one(one, metric, block_s) for one in scored])


def _of_one(one: Sides, metric: Metric, block_s: float) -> NDArray[np.int64]:
    found = metric.match(one.truth, one.predicted)
    blocks = max(1, math.ceil(one.duration_s / block_s))
    counts = np.zeros((blocks, 2), np.int64)
    for side, times in enumerate((found.truth_s, found.predicted_s)):
        # What a document places outside of its recording belongs to the nearest block.
        own = np.clip(np.array(times, float) // block_s, 0, blocks - 1).astype(int)
        matched = own[[pair[side] for pair in found.pairs]]
        counts += np.stack([np.bincount(place, minlength=blocks) for place in (matched, own)], axis=1)
    return counts


def _resampled(counts: Sequence[NDArray[np.int64]], draws: int, seed: int) -> NDArray[np.float64]:
    """float64[methods, draws]: F1 of each method, in the same draws of blocks."""
    if draws < 1:
        raise InputError(f"there must be at least 1 draw, not {draws}")
    generator = np.random.default_rng(seed)
    blocks = len(counts[0])
    beside = np.concatenate(counts, axis=1)
    even = np.full(blocks, 1 / blocks)
    # One draw at a time: all of them together would take memory that grows with the recordings.
    sums = np.array([generator.multinomial(blocks, even) @ beside for _ in range(draws)])
    matched, total = sums[:, ::2].T, sums[:, 1::2].T
    return np.divide(matched, total, out=np.ones(matched.shape), where=total > 0)


def _f1(sums: NDArray[np.int64]) -> float:
    matched, total = sums.tolist()
    return matched / total if total else 1.0


def _middle(values: NDArray[np.float64], blocks: int) -> tuple[float | None, float | None]:
    if blocks < LEAST_BLOCKS:
        return None, None
    low, high = np.percentile(values, _PERCENTILES).tolist()
    return low, high
