"""Where the picture changes most: a teacher for the boundaries of work that never rests.

Objects and postures change with the action, also where the hands do not rest. ABD (:mod:`laps.baselines.abd`) on the
keyframes finds such changes, but late and roughly: two pictures a second, and the largest change comes when the hands
are on their way to the next thing. Measured on simulated work without rest, the boundary lies half a second before it
(docs/method.md). That is enough to teach from.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from laps.baselines.abd import abd
from laps.errors import InputError
from laps.keyframes import KEYFRAME_HZ, keyframe_interval, read_picture
from laps.regions import Region, blank
from laps.timegrid import SampleGrid

LAG_S = 0.5
_BLOCK_S = 120.0  # ABD compares every piece with every other
_BATCH_PICTURES = 64


def keyframe_segments(
    samples: Sequence[int], jpegs: Sequence[bytes], grid: SampleGrid, regions: Sequence[Region] = ()
) -> list[tuple[int, int]]:
    """:func:`picture_segments` of keyframes, described without a trained model, by edges and colours.

    What changes in regions to ignore does not count.
    """
    from laps.vision import WeightFreeEncoder

    encoder = WeightFreeEncoder()
    features = [
        encoder.encode([blank(read_picture(jpeg), regions) for jpeg in jpegs[start : start + _BATCH_PICTURES]]).features
        for start in range(0, len(jpegs), _BATCH_PICTURES)
    ]
    described = np.concatenate(features) if features else np.zeros((0, 1), np.float32)
    return picture_segments(np.asarray(samples, np.int64), described, grid)


def picture_segments(
    samples: NDArray[np.int64], features: NDArray[np.floating], grid: SampleGrid
) -> list[tuple[int, int]]:
    """What lies between changes of the picture.

    Args:
        samples: int64[m], samples of the grid at which the keyframes stand, ascending.
        features: float[m, d], their descriptors.
        grid: the sampling grid; keyframes stand at the samples that :func:`laps.keyframes.keyframe_interval` divides.

    Returns:
        ``[first, stop)`` samples of touching segments, in order; none across missing keyframes.

    Raises:
        InputError: samples at which no keyframe can stand, or more or fewer than there are descriptors.
    """
    interval = keyframe_interval(grid, KEYFRAME_HZ)
    if len(samples) != len(features) or (samples % interval).any():
        raise InputError(f"{len(features)} descriptors do not fit {len(samples)} keyframes every {interval} samples")
    places = samples // interval
    length = round(_BLOCK_S * grid.rate_hz / interval)
    found: list[tuple[int, int]] = []
    for block in np.unique(places // length):
        inside = places // length == block
        rows = np.full((length, features.shape[1]), np.nan)
        rows[places[inside] - block * length] = features[inside]
        first = int(block) * length * interval
        # A picture shows a moment, the middle of its cell of time.
        cut = abd(rows, grid.rate_hz / interval, start_s=-interval / 2 / grid.rate_hz)
        edges = [(_seam(start_s, grid) + first, _seam(end_s, grid) + first) for start_s, end_s in cut]
        found += [(start, stop) for start, stop in edges if stop > start]
    # Rounding must not let neighbours overlap.
    return [(start, min(stop, after[0])) for (start, stop), after in pairwise([*found, (2**62, 0)])]


def _seam(time_s: float, grid: SampleGrid) -> int:
    """The sample before which a boundary at this time after sample 0 lies: it stands for half a step before itself."""
    return round((time_s - LAG_S) * grid.rate_hz + 0.5)
