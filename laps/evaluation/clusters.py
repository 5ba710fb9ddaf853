"""Clusters against labels of the truth, each figure beside what shuffled labels give.

A predicted segment has the label that it overlaps most; none, when less than half of it lies in labelled time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from laps.errors import InputError
from laps.evaluation.documents import BACKGROUND_LABELS, Document, labelled_segments
from laps.evaluation.matching import Segment


@dataclass(frozen=True)
class BesideShuffled:
    """A figure, and its mean over shuffles of the labels."""

    value: float
    shuffled: float


@dataclass(frozen=True)
class Agreement:
    """How far clusters are the labels of the truth.

    Attributes:
        purity: share of the segments that carry the commonest label of their cluster. Grows with the number of
            clusters: read it only beside the shuffled one.
        nmi: normalised mutual information, arithmetic mean.
        ari: adjusted Rand index; 0 is chance.
        n: segments that went in.
        excluded_share: share of the segments that have no label.
    """

    purity: BesideShuffled
    nmi: BesideShuffled
    ari: BesideShuffled
    n: int
    excluded_share: float


def true_labels(
    segments: Sequence[Segment], truth: Document, *, ignore: Sequence[str] = BACKGROUND_LABELS
) -> list[str | None]:
    """The label of each predicted segment of a recording.

    Args:
        segments: start and end in seconds.
        truth: segments with ``label``; those without one, and labels to ignore, are no labelled time.
        ignore: labels (or their names) that are no action.

    Returns:
        The label that a segment overlaps longest (of equals the one that comes first in truth); None where less than
        half of it lies in labelled time.
    """
    known = [one for one in labelled_segments(truth, ignore=ignore, where="truth") if one.get("label") is not None]
    starts = np.array([float(one["start_sec"]) for one in known])
    ends = np.array([float(one["end_sec"]) for one in known])
    found: list[str | None] = []
    for start, end in segments:
        places = np.flatnonzero((starts < end) & (ends > start))
        overlaps: dict[str, float] = {}
        covered, reached = 0.0, start
        for place in places[np.argsort(starts[places], kind="stable")].tolist():
            low, high = max(start, float(starts[place])), min(end, float(ends[place]))
            label = str(known[place]["label"])
            overlaps[label] = overlaps.get(label, 0.0) + high - low
            # True segments may overlap, of two hands say: their time counts once.
            covered += max(0.0, high - max(low, reached))
            reached = max(reached, high)
        enough = bool(overlaps) and covered >= 0.5 * (end - start)
        found.append(max(overlaps, key=overlaps.__getitem__) if enough else None)
    return found


def agreement(
    labels: Sequence[str | None], clusters: Sequence[int], *, shuffles: int = 20, seed: int = 0
) -> Agreement | None:
    """Purity, NMI and ARI of clusters against labels; None where no segment has a label.

    Args:
        labels: of the segments, of all recordings together; those without one are left out.
        clusters: of the same segments.
        shuffles: of the labels, for the level that no knowledge of them reaches.
        seed: of the shuffles.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if len(labels) != len(clusters) or shuffles < 1:
        raise InputError(f"{len(labels)} labels do not fit {len(clusters)} clusters, or there is no shuffle")
    kept = [place for place, label in enumerate(labels) if label is not None]
    if not kept:
        return None
    known = np.array([str(labels[place]) for place in kept])
    own = np.array([clusters[place] for place in kept])
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(kept)) for _ in range(shuffles)]

    def beside(measure: Callable[[np.ndarray, np.ndarray], float]) -> BesideShuffled:
        return BesideShuffled(
            float(measure(known, own)), float(np.mean([measure(known[order], own) for order in orders]))
        )

    return Agreement(
        purity=beside(_purity),
        nmi=beside(normalized_mutual_info_score),
        ari=beside(adjusted_rand_score),
        n=len(kept),
        excluded_share=1 - len(kept) / len(labels),
    )


def _purity(labels: np.ndarray, clusters: np.ndarray) -> float:
    commonest = [Counter(labels[clusters == one].tolist()).most_common(1)[0][1] for one in np.unique(clusters)]
    return sum(commonest) / len(labels)
