"""What the boundary methods share: unbroken stretches of rows, and their seams as segments in seconds.

A row is the value of one sample and stands for a cell of time, ``1 / rate_hz`` long. Where row 0's cell begins is the
caller's ``start_s``: for motion (flow, codes), which happens in (t_{n-1}, t_n], one step before sample 0; for pictures,
which show a moment, half a step. A *seam* is the place before a row; a boundary is a seam.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError

Segment = tuple[float, float]


def stretches(present: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The unbroken runs of True as ``(first, stop)``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in zip(edges[::2], edges[1::2], strict=True)]


def checked_rows(features: NDArray[np.floating[Any]], rate_hz: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Features as float64[n, d], and which rows are present: all of whose values are finite.

    Raises:
        InputError: features of another shape, or a rate that is not above 0.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"the rate must be above 0 Hz, not {rate_hz}")
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2:
        raise InputError(f"features must be one row a sample, [n, d], not of shape {list(rows.shape)}")
    return rows, np.asarray(np.isfinite(rows).all(axis=1))


def checked_duration(name: str, duration_s: float) -> float:
    """The duration, or InputError where it is not above 0."""
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise InputError(f"{name} must be above 0 s, not {duration_s}")
    return duration_s


def segments_of(runs: Sequence[tuple[int, int]], seams: Iterable[int], rate_hz: float, start_s: float) -> list[Segment]:
    """The runs, cut at the seams that lie inside them, in seconds; nothing begins before 0 s."""
    seams = sorted(set(seams))
    segments = []
    for first, stop in runs:
        edges = [first, *(seam for seam in seams if first < seam < stop), stop]
        times_s = [max(0.0, start_s + edge / rate_hz) for edge in edges]
        segments += [(start, end) for start, end in pairwise(times_s) if end > start]
    return segments
