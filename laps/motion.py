"""Velocity fields of tracked points: what the whole picture does in common, and how much the points move."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def without_common_mode(
    velocities: NDArray[np.floating[Any]], visible: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Velocities less their median over the points: what a shaking camera or flickering light does to all of them.

    The median is the picture's own motion as long as most points lie on things that stand still.

    Args:
        velocities: [..., N, 2], px a sample step.
        visible: bool [..., N]; points that were not seen do not count in the median, and get 0.

    Returns:
        float32 [..., N, 2], px a sample step.
    """
    values = np.asarray(velocities, dtype=np.float32)
    if visible is None:
        return values - np.median(values, axis=-2, keepdims=True)
    count = visible.sum(axis=-1)
    hidden = np.where(visible[..., None], values, np.float32(np.inf))
    ordered = np.sort(np.moveaxis(hidden, -2, -1), axis=-1)
    last = np.maximum(count - 1, 0)
    middle = [np.take_along_axis(ordered, place[..., None, None], axis=-1) for place in (last // 2, (last + 1) // 2)]
    median = np.moveaxis((middle[0] + middle[1]) / 2, -1, -2)
    # Where no point was seen the median is infinite, and nobody takes it.
    return np.subtract(values, median, out=np.zeros_like(values), where=visible[..., None])


def mean_speed(velocities: NDArray[np.floating[Any]], visible: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Mean speed of the points that were seen.

    Args:
        velocities: [..., N, 2], px a sample step.
        visible: bool [..., N]; default: all.

    Returns:
        float32 [...], px a sample step; NaN where no point was seen.
    """
    values = np.asarray(velocities, dtype=np.float32)
    speed = np.sqrt(values[..., 0] ** 2 + values[..., 1] ** 2)
    seen = np.ones(speed.shape, bool) if visible is None else visible
    count = seen.sum(axis=-1)
    mean = np.where(seen, speed, 0).sum(axis=-1, dtype=np.float64) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan).astype(np.float32)
