"""Action Boundary Detection, ABD: change points of the similarity of neighbouring samples, then merging.

Du, Wang, Zhou, *Fast and Unsupervised Action Boundary Detection for Action Segmentation*, CVPR 2022. No training:

1. *Smoothing*: each row becomes the weighted mean of the 2 k + 1 rows around it; 2 k + 1 = alpha N / K rows, for N rows
   and K actions (k is rounded down; fewer at the ends). The weights are equal, which the publication recommends, or
   Gaussian (of standard deviation k / 2), which served as well there and places a change more exactly: with equal
   weights neighbouring means differ by two single rows a window apart, all along the change.
2. *Similarity*: cosine of neighbouring smoothed rows.
3. *Boundaries*: non-maximum suppression; a place is a boundary where the similarity is the lowest within a window of
   alpha N / K rows around it.
4. *Merging*: each piece is the mean of its (unsmoothed) rows; the two most similar pieces, wherever they lie, become
   one, whose mean is the mean of the two, until K are left. Neighbours of one cluster are one segment.

alpha is between 0.2 and 0.8 in the publication's experiments, best at 0.4 to 0.6; 0.5 here, as in the comparison of the
LAPS paper's authors. The steps follow the descriptions of the method that its users published (that of the LAPS
authors above all); the publication itself was not at hand.

Where this differs:

- N / K, the mean length of an action, comes from labels there: the mean number of actions in a video of the data set
  (the comparison of the LAPS authors counts the segments of its own ground truth). Here it is ``action_s``, 3 s by
  default: the paper has 6,444 segments in one of two views, ten hours of video; where that counts both views, one
  segment every 2.8 s.
- Without ``clusters`` (K) merging ends by a threshold, as in the publication's online form. Its rule was not to be had;
  this one asks the signal how alike one piece is to itself: merging goes on while the two most similar pieces are at
  least as similar as the halves of a piece are to each other, in the median over the pieces. (The median was kept
  over the lower quartile because of scores on development recordings; the threshold itself is each signal's own.)
- A boundary needs higher similarity on both sides, so that neither the ends of a stretch nor perfect rest, where all
  are equal, become boundaries; similarities that differ by less than 1e-12 are equal.
- Null rows split the recording: nothing is smoothed or compared across them, and no segment spans one. Pieces of
  different stretches do merge into one cluster.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, minimum_filter1d

from laps.errors import InputError
from laps.stretches import Segment, checked_duration, checked_rows, segments_of, stretches

Kernel = Literal["average", "gaussian"]

ACTION_S = 3.0
ALPHA = 0.5

_DECIMALS = 12  # of a similarity


def abd(
    features: NDArray[np.floating[Any]],
    rate_hz: float,
    *,
    start_s: float = 0.0,
    action_s: float = ACTION_S,
    alpha: float = ALPHA,
    clusters: int | None = None,
    kernel: Kernel = "average",
) -> list[Segment]:
    """Cut a recording where its features change.

    Args:
        features: float[n, d], one row a sample; a row with a value that is not finite is null.
        rate_hz: rows a second.
        start_s: where row 0's cell of time begins, see :mod:`laps.stretches`.
        action_s: mean length of an action.
        alpha: width of smoothing and of suppression, as a share of ``action_s``.
        clusters: K, the publication's offline form; without it the threshold ends the merging.
        kernel: weights of the smoothing.

    Returns:
        (start_s, end_s) of segments that touch, except where rows are null.

    Raises:
        InputError: features of another shape, or settings out of range.
    """
    rows, present = checked_rows(features, rate_hz)
    checked_duration("the length of an action", action_s)
    if not (math.isfinite(alpha) and alpha > 0):
        raise InputError(f"alpha must be above 0, not {alpha}")
    if kernel not in get_args(Kernel):
        raise InputError(f"there is no kernel {kernel!r}", fix=f"The kernels are {', '.join(get_args(Kernel))}.")
    if clusters is not None and clusters < 1:
        raise InputError(f"there must be at least one cluster, not {clusters}")
    width = alpha * action_s * rate_hz
    runs = stretches(present)
    pieces = []
    for first, stop in runs:
        seams = first + boundaries(rows[first:stop], width, kernel)
        edges = [first, *seams.tolist(), stop]
        pieces += list(pairwise(edges))
    labels = _merge(rows, pieces, clusters)
    kept = [piece[0] for piece, label, before in zip(pieces, labels, [None, *labels], strict=False) if label != before]
    return segments_of(runs, kept, rate_hz, start_s)


def boundaries(rows: NDArray[np.float64], width: float, kernel: Kernel) -> NDArray[np.int64]:
    """Steps 1 to 3 on one unbroken stretch: the seams (row numbers) at which the similarity is lowest around.

    Args:
        rows: float64[n, d], finite.
        width: alpha N / K, in rows.
        kernel: weights of the smoothing.
    """
    if len(rows) < 3:
        return np.zeros(0, np.int64)
    similarity = np.round(_cosine_of_neighbours(_smoothed(rows, max(0, int((width - 1) // 2)), kernel)), _DECIMALS)
    reach = max(1, int(width // 2))
    lowest = similarity == minimum_filter1d(similarity, 2 * reach + 1, mode="nearest")
    found: list[int] = []
    for place in np.flatnonzero(lowest):
        before = similarity[max(0, place - reach) : place]
        after = similarity[place + 1 : place + 1 + reach]
        # Of equally low places the first, as long as it is no flat stretch that leads nowhere.
        if before.max(initial=-2) > similarity[place] < after.max(initial=-2) and (before > similarity[place]).all():
            found.append(int(place) + 1)
    return np.array(found, np.int64)


def _smoothed(rows: NDArray[np.float64], k: int, kernel: Kernel) -> NDArray[np.float64]:
    """Weighted mean of the up to 2 k + 1 rows around each; the Gaussian's standard deviation is k / 2."""
    offsets = np.arange(-k, k + 1)
    weights = np.exp(-0.5 * (2 * offsets / max(k, 1)) ** 2) if kernel == "gaussian" else np.ones(2 * k + 1)
    total = convolve1d(np.ones(len(rows)), weights, mode="constant")
    smoothed: NDArray[np.float64] = convolve1d(rows, weights, axis=0, mode="constant") / total[:, None]
    return smoothed


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)


def _cosine_of_neighbours(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = _unit(rows)
    return np.einsum("ij,ij->i", unit[:-1], unit[1:])


def _merge(rows: NDArray[np.float64], pieces: list[tuple[int, int]], clusters: int | None) -> list[int]:
    """Step 4: the cluster of each piece."""
    labels = list(range(len(pieces)))
    if len(pieces) < 2:
        return labels
    means = np.stack([rows[first:stop].mean(axis=0) for first, stop in pieces])
    threshold = _self_similarity(rows, pieces) if clusters is None else -math.inf
    least = 1 if clusters is None else clusters
    unit = _unit(means)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    alive = np.ones(len(pieces), dtype=bool)
    for _ in range(len(pieces) - least):
        a, b = sorted(divmod(int(np.argmax(similarity)), len(pieces)))
        if similarity[a, b] < threshold:
            break
        labels = [a if label == b else label for label in labels]
        means[a] = (means[a] + means[b]) / 2
        unit[a] = _unit(means[a])
        alive[b] = False
        similarity[b] = similarity[:, b] = -np.inf
        similarity[a] = similarity[:, a] = np.where(alive, unit @ unit[a], -np.inf)
        similarity[a, a] = -np.inf
    return labels


def _self_similarity(rows: NDArray[np.float64], pieces: list[tuple[int, int]]) -> float:
    """Median over the pieces of the cosine of a piece's halves; above 1 when no piece has two rows."""
    halves = [
        np.stack([rows[first : (first + stop) // 2].mean(axis=0), rows[(first + stop) // 2 : stop].mean(axis=0)])
        for first, stop in pieces
        if stop - first >= 2
    ]
    if not halves:
        return math.inf
    return float(np.median([_cosine_of_neighbours(half)[0] for half in halves]))
