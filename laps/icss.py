"""Intra-Cluster Semantic Similarity (ICSS): do the primitives of a cluster look alike? (Paper section 3.2.3.)

ICSS_k is the mean cosine of the visual descriptors over pairs of primitives in cluster k: all pairs when there are at
most 100,000, as many random ones otherwise. Beside it stands the baseline: as many pairs drawn from all primitives,
five times over. A score says nothing without it, because pictures of one workstation all look alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from laps.errors import InputError

MAX_PAIRS = 100_000
_CHUNK_PAIRS = 50_000
_CHUNK_REPLICATES = 50
_FEWEST_FOR_INTERVAL = 3


@dataclass(frozen=True)
class Coherence:
    """Likeness of primitives that belong together.

    Attributes:
        segment_count: primitives with visual features.
        pair_count: pairs compared.
        mean: mean cosine; None without a pair.
        std: standard deviation over the pairs.
        ci_low: low end of the 95% interval of the mean; None with fewer than 3 primitives.
        ci_high: high end.
    """

    segment_count: int
    pair_count: int
    mean: float | None
    std: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Baseline:
    """Likeness of random pairs of all primitives.

    Attributes:
        repeats: how often it was drawn.
        pair_count: pairs drawn each time.
        mean: mean cosine over all repeats; None with fewer than two primitives.
        std: standard deviation over the pairs.
        repeat_std: standard deviation of the repeats' means: how exact the mean is.
    """

    repeats: int
    pair_count: int
    mean: float | None
    std: float | None
    repeat_std: float | None


@dataclass(frozen=True)
class IcssReport:
    """ICSS of each cluster number, of all together, and of random pairs."""

    clusters: dict[int, Coherence]
    overall: Coherence
    baseline: Baseline


def icss(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
    max_pairs: int = MAX_PAIRS,
    repeats: int = 5,
    replicates: int = 1000,
) -> IcssReport:
    """Score clusters by what their primitives look like.

    The overall score weighs clusters by their primitives, not by their pairs: it is the expected likeness of a random
    primitive to another of its cluster. Pairs grow with the square of a cluster's size (and are cut off at
    ``max_pairs``), so that weighing by pairs would let the largest cluster speak for all. With labels dealt out at
    random both agree with the baseline.

    Intervals come from a bootstrap over primitives, because pairs that share a primitive are not independent: each
    replicate draws as many primitives with replacement and takes the mean over all pairs of different ones.

    Args:
        features: float [n, d], L2-normalised descriptors.
        labels: integers [n], cluster numbers.
        seed: seed of all draws; a cluster's draws depend on its number, not on the other clusters.
        max_pairs: pairs compared in a cluster at most.
        repeats: draws of the baseline.
        replicates: bootstrap replicates.

    Raises:
        InputError: the arrays do not fit each other.
    """
    vectors = np.asarray(features, dtype=np.float32)
    numbers = np.asarray(labels, dtype=np.int64)
    if vectors.ndim != 2 or len(vectors) != len(numbers):
        raise InputError(f"{len(numbers)} labels do not fit features of shape {list(vectors.shape)}")
    clusters: dict[int, Coherence] = {}
    weights, draws = [], []
    for number in np.unique(numbers).tolist():
        members = vectors[numbers == number]
        # Negative numbers cannot seed; they do not occur as clusters.
        rng = np.random.default_rng((seed, abs(number)))
        means = _bootstrap(members, replicates, rng)
        clusters[number] = _coherence(members, means, max_pairs, rng)
        if clusters[number].mean is not None:
            weights.append(len(members))
            draws.append(means)
    pair_count = sum(score.pair_count for score in clusters.values())
    return IcssReport(clusters, _overall(clusters, weights, draws), _baseline(vectors, pair_count, repeats, seed))


def cluster_rows(
    report: IcssReport,
    labels: np.ndarray,
    durations_s: np.ndarray,
    *,
    encoder_id: str,
    cluster_model_id: str,
    release: str,
    cluster_ids: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Rows of the table ``clusters``.

    Args:
        report: scores.
        labels: integers [n], cluster number of every primitive, also of those without visual features.
        durations_s: float [n], their lengths.
        encoder_id: vision encoder of the features.
        cluster_model_id: cluster model of the labels.
        release: release.
        cluster_ids: all numbers of the cluster model, so that empty clusters get a row too.
    """
    numbers = np.asarray(labels, dtype=np.int64)
    durations = np.asarray(durations_s, dtype=np.float64)
    nothing = Coherence(0, 0, None, None, None, None)
    scores: Mapping[int, Coherence] = report.clusters
    rows = []
    for number in sorted({*numbers.tolist(), *(int(number) for number in cluster_ids)}):
        score = scores.get(number, nothing)
        own = durations[numbers == number]
        rows.append(
            {
                "cluster_id": number,
                "segment_count": len(own),
                "median_duration_s": float(np.median(own)) if len(own) else None,
                "icss_mean": score.mean,
                "icss_std": score.std,
                "icss_ci_low": score.ci_low,
                "icss_ci_high": score.ci_high,
                "pair_count": score.pair_count,
                "baseline_mean": report.baseline.mean,
                "baseline_std": report.baseline.std,
                "encoder_id": encoder_id,
                "cluster_model_id": cluster_model_id,
                "release": release,
            }
        )
    return rows


def _coherence(members: np.ndarray, means: np.ndarray, max_pairs: int, rng: np.random.Generator) -> Coherence:
    count = len(members)
    all_pairs = count * (count - 1) // 2
    if all_pairs == 0:
        return Coherence(count, 0, None, None, None, None)
    if all_pairs <= max_pairs:
        first, second = np.triu_indices(count, 1)
    else:
        first, second = _random_pairs(count, max_pairs, rng)
    mean, std = _mean_and_std(members, first, second)
    low, high = _interval(means) if count >= _FEWEST_FOR_INTERVAL else (None, None)
    return Coherence(count, len(first), mean, std, low, high)


def _overall(clusters: Mapping[int, Coherence], weights: Sequence[int], draws: Sequence[np.ndarray]) -> Coherence:
    scored = [score for score in clusters.values() if score.mean is not None and score.std is not None]
    if not scored:
        return Coherence(sum(score.segment_count for score in clusters.values()), 0, None, None, None, None)
    share = np.asarray(weights, dtype=np.float64) / sum(weights)
    means = np.array([score.mean for score in scored], dtype=np.float64)
    stds = np.array([score.std for score in scored], dtype=np.float64)
    mean = float(share @ means)
    std = math.sqrt(float(share @ (stds**2 + (means - mean) ** 2)))
    low, high = _interval(share @ np.stack(draws)) if sum(weights) >= _FEWEST_FOR_INTERVAL else (None, None)
    return Coherence(sum(weights), sum(score.pair_count for score in scored), mean, std, low, high)


def _baseline(vectors: np.ndarray, pair_count: int, repeats: int, seed: int) -> Baseline:
    if len(vectors) < 2 or pair_count == 0 or repeats < 1:
        return Baseline(repeats, 0, None, None, None)
    rng = np.random.default_rng((seed, len(vectors), pair_count))
    results = np.array([_mean_and_std(vectors, *_random_pairs(len(vectors), pair_count, rng)) for _ in range(repeats)])
    means, stds = results[:, 0], results[:, 1]
    mean = float(means.mean())
    std = math.sqrt(float(np.mean(stds**2 + (means - mean) ** 2)))
    return Baseline(repeats, pair_count, mean, std, float(means.std(ddof=1)) if repeats > 1 else None)


def _random_pairs(count: int, pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of different members, each as likely as any other, drawn with replacement."""
    first = rng.integers(0, count, pairs)
    second = rng.integers(0, count - 1, pairs)
    return first, second + (second >= first)


def _mean_and_std(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    cosines = np.empty(len(first), dtype=np.float64)
    for start in range(0, len(first), _CHUNK_PAIRS):
        stop = start + _CHUNK_PAIRS
        cosines[start:stop] = np.einsum("pd,pd->p", vectors[first[start:stop]], vectors[second[start:stop]])
    return float(cosines.mean()), float(cosines.std())


def _bootstrap(members: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """Mean cosine over the pairs of different members in each replicate, float64 [replicates]; NaN without a pair.

    With w_i copies of member i, the sum over pairs of different members is |sum w_i v_i|^2 - sum w_i^2 |v_i|^2.
    """
    count = len(members)
    means = np.full(replicates, np.nan)
    if count < 2:
        return means
    values = members.astype(np.float64)
    squares = np.square(values).sum(axis=1)
    for start in range(0, replicates, _CHUNK_REPLICATES):
        rows = min(_CHUNK_REPLICATES, replicates - start)
        copies = rng.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)
        pairs = count**2 - np.square(copies).sum(axis=1)
        sums = np.square(copies @ values).sum(axis=1) - np.square(copies) @ squares
        means[start : start + rows] = np.where(pairs > 0, sums / np.maximum(pairs, 1), np.nan)
    return means


def _interval(means: np.ndarray) -> tuple[float | None, float | None]:
    known = means[np.isfinite(means)]
    if known.size == 0:
        return None, None
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)
