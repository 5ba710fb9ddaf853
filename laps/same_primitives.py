"""Which primitives of two cuts of the same footage are the same action, told by their times alone.

Used where the models differ, so that neither codes nor embeddings can be compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError


def partners(
    starts: NDArray[np.int64], stops: NDArray[np.int64], other_starts: NDArray[np.int64], other_stops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each primitive the one of the other cut with which it shares more than half of the time of both together.

    More than half (intersection over union > 0.5) can only be shared with one, so that partners are mutual.

    Args:
        starts, stops: int64[n], half-open ranges of one camera, in any unit.
        other_starts, other_stops: int64[m], those of the other cut, rising and without overlap.

    Returns:
        int64[n], place in the other cut, -1 where there is no partner.

    Raises:
        InputError: the other cut's ranges overlap or are not in order.
    """
    if (other_starts[1:] < other_stops[:-1]).any() or (other_stops <= other_starts).any():
        raise InputError("the primitives of a cut overlap, or are not in order")
    if not len(other_starts):
        return np.full(len(starts), -1)
    # A partner covers more than half of a primitive, and so its middle (twice the middle is a whole number).
    places = np.searchsorted(2 * other_starts, starts + stops, side="right") - 1
    candidate = np.clip(places, 0, None)
    shared = np.minimum(stops, other_stops[candidate]) - np.maximum(starts, other_starts[candidate])
    together = np.maximum(stops, other_stops[candidate]) - np.minimum(starts, other_starts[candidate])
    return np.where((places >= 0) & (2 * shared > together), candidate, -1)
