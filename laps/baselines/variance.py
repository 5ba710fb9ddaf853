"""The variance form of the energy: how much the tokens vary within a moment.

A summary of the paper describes its energy as the variance of the token embeddings over a sliding window, whose peaks
are changes of action. The paper itself defines another (section 3.1.1, :mod:`laps.energy`) and gives no window and no
rule for a peak, so both are chosen here: a window of 1 s, and peaks that stand out by the standard deviation of the
variance over the recording, at least half a window apart. The signal's own scale is the only threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from laps.errors import InputError, ModelMismatchError
from laps.stretches import Segment, checked_duration, checked_rows, segments_of, stretches

WINDOW_S = 1.0

# Digits of a variance, as a share of the recording's. Codes repeat, so windows often vary by exactly the same: peaks
# must not be decided by how sums were rounded.
_DECIMALS = 9


def token_variance(
    codes: NDArray[np.integer[Any]],
    code_vectors: NDArray[np.floating[Any]],
    rate_hz: float,
    *,
    window_s: float = WINDOW_S,
) -> NDArray[np.float64]:
    """Mean squared distance of the tokens around a seam to their mean.

    Args:
        codes: int[n], one a sample, -1 where null.
        code_vectors: float[n_codes, d], z_q of each code (:meth:`laps.tokenizer.MotionTokenizer.code_vectors`).
        rate_hz: samples a second.
        window_s: half of it lies before the seam, half after it; at least one sample each.

    Returns:
        float64[n]: at sample i the variance at the seam before it; NaN where the window is not whole.

    Raises:
        InputError: arrays of other shapes, or settings out of range. ModelMismatchError: a code without a vector.
    """
    codes = np.asarray(codes)
    if codes.ndim != 1:
        raise InputError(f"there must be one code a sample, not the shape {list(codes.shape)}")
    vectors, known = checked_rows(code_vectors, rate_hz)
    if not known.all():
        raise InputError("a code's vector has values that are not finite")
    if codes.max(initial=-1) >= len(vectors):
        raise ModelMismatchError(
            f"the stream holds code {codes.max()} but there are {len(vectors)} vectors",
            fix="Take the vectors of the tokenizer that made the stream.",
        )
    half = max(1, round(checked_duration("the window", window_s) * rate_hz / 2))
    present = codes >= 0
    variance = np.full(len(codes), np.nan)
    if not present.any():
        return variance
    centre = vectors[codes[present]].mean(axis=0)  # sums of small numbers keep their digits
    overall = float(np.square(vectors[codes[present]] - centre).sum(axis=1).mean()) or 1.0
    for first, stop in stretches(present):
        tokens = vectors[codes[first:stop]] - centre
        mean = _sliding_mean(tokens, 2 * half)
        square = _sliding_mean(np.square(tokens).sum(axis=1, keepdims=True), 2 * half)[:, 0]
        values = square - np.square(mean).sum(axis=1)
        variance[first + half : first + half + len(values)] = np.abs(np.round(values / overall, _DECIMALS)) * overall
    return variance


def variance_segments(
    codes: NDArray[np.integer[Any]],
    code_vectors: NDArray[np.floating[Any]],
    rate_hz: float,
    *,
    start_s: float = 0.0,
    window_s: float = WINDOW_S,
) -> list[Segment]:
    """Cut a recording at the peaks of :func:`token_variance`.

    Args:
        codes, code_vectors, rate_hz, window_s: as there.
        start_s: where sample 0's cell of time begins, see :mod:`laps.stretches`.

    Returns:
        (start_s, end_s) of segments that touch, except where codes are null.
    """
    variance = token_variance(codes, code_vectors, rate_hz, window_s=window_s)
    known = np.isfinite(variance)
    seams: list[int] = []
    prominence = float(variance[known].std()) if known.any() else 0.0
    if prominence > 0:
        apart = max(1, round(window_s * rate_hz / 2))
        for first, stop in stretches(known):
            peaks, _ = find_peaks(variance[first:stop], prominence=prominence, distance=apart)
            seams += (first + peaks).tolist()
    return segments_of(stretches(np.asarray(codes) >= 0), seams, rate_hz, start_s)


def _sliding_mean(rows: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean of every ``width`` neighbouring rows: [n - width + 1, d], or nothing where there are fewer rows."""
    if len(rows) < width:
        return np.zeros((0, rows.shape[1]))
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    return (sums[width:] - sums[:-width]) / width
