"""Cuts where the kind of motion changes, for work that never rests.

The Latent Action Energy falls when an action ends (paper section 3.1.2), if the hands rest then. Where one action flows
into the next, and hands hold still inside actions, no energy separates them. What is left is *what* moves: here the
motion that the codes stand for, compared between the moments before and after every sample.

1. The decoded motion of each sample's code, averaged over regions of the picture (5 x 5; single points where there are
   few), on an asinh scale, so that a large swing does not hide a small turn.
2. Score of a seam between two samples: distance of the means over ``window_s`` before and after it.
3. Boundaries: seams whose smoothed score is the highest within ``apart_s`` on either side.

Everything depends on a bounded neighbourhood of a seam, on no threshold and on no statistics of the recording. How far
this gets, and how far not, is in docs/quality.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from laps.errors import InputError, ModelMismatchError
from laps.stretches import Segment, checked_duration, checked_rows, segments_of, stretches

WINDOW_S = 0.5
APART_S = 1.0

_REGIONS = 5  # an axis
_SCALE_PX = 0.2
_SMOOTHING_S = 0.2


def motion_features(codes: NDArray[np.integer[Any]], decoded_motion: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """What moves where, for each sample.

    Args:
        codes: int[n], -1 where null.
        decoded_motion: float[n_codes, N, 2], px a sample step
            (:meth:`laps.tokenizer.MotionTokenizer.decoded_motion`). N a square number that a multiple of 5 divides
            by rows is averaged over 5 x 5 regions.

    Returns:
        float64[n, d]; NaN where null.

    Raises:
        InputError: arrays of other shapes. ModelMismatchError: a code without motion.
    """
    motion = np.asarray(decoded_motion, dtype=np.float64)
    if motion.ndim != 3 or motion.shape[2] != 2 or codes.ndim != 1:
        raise InputError(f"decoded motion must be [codes, points, 2], not {list(motion.shape)}, and codes a row")
    if codes.max(initial=-1) >= len(motion):
        raise ModelMismatchError(
            f"the stream holds code {codes.max()} but {len(motion)} codes have motion",
            fix="Take the decoded motion of the tokenizer that made the stream.",
        )
    side = math.isqrt(motion.shape[1])
    if side * side == motion.shape[1] and side % _REGIONS == 0:
        cell = side // _REGIONS
        motion = motion.reshape(-1, _REGIONS, cell, _REGIONS, cell, 2).mean(axis=(2, 4))
    table = np.arcsinh(motion / _SCALE_PX).reshape(len(motion), -1)
    return np.where(codes[:, None] >= 0, table[np.maximum(codes, 0)], np.nan)


def change_score(
    features: NDArray[np.floating[Any]], rate_hz: float, *, window_s: float = WINDOW_S
) -> NDArray[np.float64]:
    """How different the rows after a seam are from those before it.

    Args:
        features: float[n, d], one row a sample; a row that is not finite is null.
        rate_hz: samples a second.
        window_s: length of either side; a side that a null or an end cuts short is as long as it is.

    Returns:
        float64[n]: at sample i the score of the seam before it; NaN where a side has less than half its length.
    """
    rows, present = checked_rows(features, rate_hz)
    width = max(1, round(checked_duration("the window", window_s) * rate_hz))
    score = np.full(len(rows), np.nan)
    for first, stop in stretches(present):
        sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows[first:stop], axis=0)])
        length = stop - first
        seams = np.arange((width + 1) // 2, length - (width + 1) // 2 + 1)
        if not len(seams):
            continue
        low, high = np.maximum(seams - width, 0), np.minimum(seams + width, length)
        before = (sums[seams] - sums[low]) / (seams - low)[:, None]
        after = (sums[high] - sums[seams]) / (high - seams)[:, None]
        inside = seams < length  # the seam behind the last row has no sample
        distance = np.sqrt(np.square(after - before).sum(axis=1))
        score[first + seams[inside]] = gaussian_filter1d(distance, _SMOOTHING_S * rate_hz)[inside]
    return score


def change_segments(
    features: NDArray[np.floating[Any]],
    rate_hz: float,
    *,
    start_s: float = 0.0,
    window_s: float = WINDOW_S,
    apart_s: float = APART_S,
) -> list[Segment]:
    """Cut a recording where its features change most.

    Args:
        features, rate_hz, window_s: as for :func:`change_score`.
        start_s: where sample 0's cell of time begins, see :mod:`laps.stretches`.
        apart_s: no two boundaries lie closer.

    Returns:
        (start_s, end_s) of segments that touch, except where rows are null.
    """
    rows, present = checked_rows(features, rate_hz)
    score = change_score(rows, rate_hz, window_s=window_s)
    reach = max(1, round(checked_duration("apart_s", apart_s) * rate_hz))
    seams: list[int] = []
    for first, stop in stretches(np.isfinite(score)):
        part = score[first:stop]
        highest = maximum_filter1d(part, 2 * reach + 1, mode="nearest")
        last = -reach - 1
        for place in np.flatnonzero((part >= highest) & (part > part.min())):
            if place - last > reach:  # of equals, the first
                seams.append(first + int(place))
                last = int(place)
    return segments_of(stretches(present), seams, rate_hz, start_s)
