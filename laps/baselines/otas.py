"""OTAS, partial: global perception only.

Li, Xue, Xu, *OTAS: Unsupervised Boundary Detection for Object-Centric Temporal Action Segmentation*, WACV 2024, joins
three detectors of boundaries: one of the whole picture (global perception), one of human-object interaction and one of
the relations between objects. The last two need the boxes of a trained object detector (Faster R-CNN) and are **left
out**, and with them the vote that joins the three. What is here must be shown under :data:`LABEL`, never as OTAS.

*Global perception* is trained, without labels, to predict what comes next from a short block of frames; at a boundary
the prediction fails. At every seam the block before and the block after are compared, and the mean squared error is the
signal. *Selection*, as in the published program: local maxima of the error within ``order_s`` on either side (of equal
neighbours the first); kept is what exceeds 0.51 times the mean error of these maxima plus 0.49 times the mean of all.

Blocks are 5 frames, 0.2 s apart (every third frame of Breakfast's 15 a second), and the maxima are sought within 15
such steps: 1 s and 3 s, which are the defaults here at any rate.

Where this differs, beside what is left out:

- The network (ResNet-50, one Transformer layer, a decoder to pixels) is replaced by the linear predictor that fits the
  recording best by least squares: each row of the block after is a weighted sum of the rows of the block before, with
  the same weights for all features (as attention weighs frames). It takes any features, of pictures or of motion. In
  the published program the pixels serve for training only; at a seam it, too, compares features.
- The error is of the prediction against the features of the block after; the published program compares the encodings
  of the two blocks.
- An error has to exceed the threshold, not reach it, so that a recording in which nothing changes has no boundary.
- Null rows split the recording; the predictor and the threshold are shared by all its stretches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import argrelextrema

from laps.stretches import Segment, checked_duration, checked_rows, segments_of, stretches

LABEL = "OTAS (partial: global perception only)"
BLOCK_S = 1.0
ORDER_S = 3.0

_MAXIMA_WEIGHT = 0.51
_NOTHING = 1e-12  # an error below this share of the features' variance is rounding
_CHUNK = 256  # seams whose blocks are held at a time


def otas_global(
    features: NDArray[np.floating[Any]],
    rate_hz: float,
    *,
    start_s: float = 0.0,
    block_s: float = BLOCK_S,
    order_s: float = ORDER_S,
) -> list[Segment]:
    """Cut a recording where the next second is hard to predict. OTAS, partial: global perception only.

    Args:
        features: float[n, d], one row a sample; a row with a value that is not finite is null.
        rate_hz: rows a second.
        start_s: where row 0's cell of time begins, see :mod:`laps.stretches`.
        block_s: length of the blocks before and after a seam.
        order_s: a boundary has the largest error within this on either side.

    Returns:
        (start_s, end_s) of segments that touch, except where rows are null.

    Raises:
        InputError: features of another shape, or settings out of range.
    """
    error = prediction_error(features, rate_hz, block_s=block_s)
    order = max(1, round(checked_duration("the distance of boundaries", order_s) * rate_hz))
    runs = stretches(checked_rows(features, rate_hz)[1])
    known = np.isfinite(error)
    seams: list[int] = []
    for first, stop in stretches(known):
        maxima = argrelextrema(error[first:stop], np.greater_equal, order=order)[0]
        seams += [first + int(place) for place in maxima if place - 1 not in maxima]
    if not seams:
        return segments_of(runs, [], rate_hz, start_s)
    threshold = _MAXIMA_WEIGHT * error[seams].mean() + (1 - _MAXIMA_WEIGHT) * error[known].mean()
    return segments_of(runs, [seam for seam in seams if error[seam] > threshold], rate_hz, start_s)


def prediction_error(
    features: NDArray[np.floating[Any]], rate_hz: float, *, block_s: float = BLOCK_S
) -> NDArray[np.float64]:
    """Mean squared error of predicting the block after each seam from the block before.

    Args:
        features: float[n, d], one row a sample; a row with a value that is not finite is null.
        rate_hz: rows a second.
        block_s: length of a block; at least one row.

    Returns:
        float64[n], in the features' unit squared: at row i the error at the seam before it; NaN where either block is
        not whole.

    Raises:
        InputError: features of another shape, or settings out of range.
    """
    rows, present = checked_rows(features, rate_hz)
    block = max(1, round(checked_duration("a block", block_s) * rate_hz))
    error = np.full(len(rows), np.nan)
    if not present.any() or rows.shape[1] == 0:
        return error
    rows = rows - rows[present].mean(axis=0)
    seams = np.concatenate([np.arange(first + block, stop - block + 1) for first, stop in stretches(present)])
    if len(seams) == 0:
        return error
    chunks = np.array_split(seams, -(-len(seams) // _CHUNK))

    def blocks(chunk: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The blocks before and after some seams, [seams, rows, d]."""
        return rows[chunk[:, None] + np.arange(-block, 0)], rows[chunk[:, None] + np.arange(block)]

    gram, cross = np.zeros((block, block)), np.zeros((block, block))
    for chunk in chunks:
        before, after = blocks(chunk)
        gram += np.tensordot(before, before, ((0, 2), (0, 2)))
        cross += np.tensordot(before, after, ((0, 2), (0, 2)))
    weights = np.linalg.lstsq(gram, cross, rcond=None)[0].T
    for chunk in chunks:
        before, after = blocks(chunk)
        error[chunk] = np.square(after - weights @ before).mean(axis=(1, 2))
    error[error < _NOTHING * np.square(rows[present]).mean()] = 0.0
    return error
