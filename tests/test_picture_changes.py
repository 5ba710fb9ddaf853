"""Changes of the picture as a teacher: where its segments lie, and that they never overlap."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from laps.errors import InputError
from laps.picture_changes import LAG_S, keyframe_segments, picture_segments
from laps.timegrid import SampleGrid

GRID = SampleGrid()
INTERVAL = 5


def scenes(lengths: list[int], seed: int = 0, noise: float = 0.05) -> np.ndarray:
    """Descriptors that change from each scene to the next."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.normal(size=(len(lengths), 24)), lengths, axis=0) + noise * rng.normal(size=(sum(lengths), 24))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_segments_end_a_lag_before_the_picture_has_changed() -> None:
    lengths = [12, 20, 9, 16, 25]
    rows = scenes(lengths)
    first = 7_200_000  # a multiple of two minutes
    found = picture_segments(first + INTERVAL * np.arange(len(rows)), rows, GRID)
    assert len(found) == len(lengths)
    # A change between two keyframes lies in the middle between them.
    changes = first + INTERVAL * (np.cumsum(lengths)[:-1] - 0.5)
    np.testing.assert_allclose([stop for _, stop in found[:-1]], changes - LAG_S * GRID.rate_hz, atol=1)
    assert all(a[1] == b[0] for a, b in pairwise(found))


def test_long_recordings_and_gaps_give_segments_in_order_that_never_overlap() -> None:
    rows = scenes(np.random.default_rng(1).integers(4, 20, 80).tolist())
    samples = 7_200_333 // INTERVAL * INTERVAL + INTERVAL * np.arange(len(rows))
    there = np.ones(len(rows), bool)
    there[300:340] = False
    found = picture_segments(samples[there], rows[there], GRID)
    assert len(found) > 40
    for (start, stop), (after, _) in pairwise(found):
        assert start < stop <= after
    gap = range(int(samples[300]), int(samples[339]))
    assert not [one for one in found if one[0] < gap.start and one[1] > gap.stop]


def test_keyframes_are_described_without_weights() -> None:
    pictures = [np.full((60, 80, 3), 30, np.uint8) for _ in range(3)]
    for place, picture in enumerate(pictures):
        cv2.rectangle(picture, (10 + 15 * place, 10), (40 + 15 * place, 50), (40, 90 * place, 200), -1)
    jpegs = [cv2.imencode(".jpg", pictures[place])[1].tobytes() for place in [0] * 10 + [1] * 12 + [2] * 10]
    found = keyframe_segments([5 * n for n in range(len(jpegs))], jpegs, GRID)
    assert len(found) == 3
    assert keyframe_segments([], [], GRID) == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="3 descriptors do not fit 2"):
        picture_segments(np.array([0, 5]), np.zeros((3, 4)), GRID)
    with pytest.raises(InputError, match="every 5 samples"):
        picture_segments(np.array([0, 7]), np.zeros((2, 4)), GRID)
