"""Cuts where features change: known change points, gaps, nothing to cut, and independence of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.baselines.change import change_score, change_segments, motion_features
from laps.errors import InputError, ModelMismatchError

RATE_HZ = 10.0


def steps(lengths: list[int], seed: int = 0, noise: float = 0.05, width: int = 6) -> np.ndarray:
    """Features that are constant but for noise, and other ones from each length to the next."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(0, 1, (len(lengths), width))
    levels[:, 0] = np.arange(len(lengths)) % 2 * 2.0  # neighbours always differ
    return np.repeat(levels, lengths, axis=0) + rng.normal(0, noise, (sum(lengths), width))


@given(st.lists(st.integers(25, 60), min_size=2, max_size=6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_changes_are_found_where_they_are(lengths: list[int], seed: int) -> None:
    found = np.array([end for _, end in change_segments(steps(lengths, seed), RATE_HZ)])
    for change in np.cumsum(lengths)[:-1] / RATE_HZ:
        assert np.abs(found - change).min() <= 0.11


@given(st.integers(0, 50), st.integers(60, 120))
@settings(max_examples=20, deadline=None)
def test_boundaries_do_not_depend_on_what_is_far_away(seed: int, at: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(200, 3)).cumsum(axis=0)
    other = one.copy()
    other[at:] = rng.normal(size=(200 - at, 3))
    far = at - 40  # window, smoothing and the neighbours that a seam competes with, chained twice
    first, second = ([end for _, end in change_segments(rows, RATE_HZ) if end < far / RATE_HZ] for rows in (one, other))
    assert first == second


def test_a_gap_ends_a_segment_and_nothing_is_compared_across_it() -> None:
    rows = np.concatenate([np.zeros((40, 2)), np.full((10, 2), np.nan), np.ones((40, 2))])
    assert change_segments(rows, RATE_HZ) == [(0.0, 4.0), (5.0, 9.0)]
    assert np.nanmax(change_score(rows, RATE_HZ)) == 0


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_short_recordings_are_one_segment_or_none(length: int) -> None:
    rows = np.random.default_rng(0).normal(size=(length, 2))
    assert len(change_segments(rows, RATE_HZ)) <= 1 + (length >= 5)


def test_no_two_boundaries_lie_closer_than_asked() -> None:
    rows = np.random.default_rng(0).normal(size=(2000, 4))
    for apart_s in (0.5, 1.0, 2.0):
        ends = [end for _, end in change_segments(rows, RATE_HZ, apart_s=apart_s)][:-1]
        assert len(ends) > 100 / apart_s / 4
        assert np.diff(ends).min() > apart_s


def test_motion_features_are_of_regions_and_null_with_the_code() -> None:
    motion = np.zeros((3, 400, 2))
    motion[1].reshape(20, 20, 2)[:4, :4] = 1.0  # the first region
    motion[2] = 7.0
    rows = motion_features(np.array([0, 1, -1]), motion)
    assert rows.shape == (3, 50)
    assert np.isnan(rows[2]).all() and (rows[0] == 0).all()
    assert np.flatnonzero(rows[1]).tolist() == [0, 1]
    assert motion_features(np.array([0]), np.zeros((1, 6, 2))).shape == (1, 12)
    with pytest.raises(ModelMismatchError, match="code 3"):
        motion_features(np.array([3]), motion)
    with pytest.raises(InputError, match="points, 2"):
        motion_features(np.array([0]), np.zeros((1, 6)))
