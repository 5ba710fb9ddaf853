"""Velocity fields: common mode and mean speed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.motion import mean_speed, without_common_mode


@given(points=st.integers(1, 8), seed=st.integers(0, 1000), share=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_median_and_the_mean_are_of_what_was_seen(points: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    field, visible = rng.normal(0, 5, (points, 2)).astype(np.float32), rng.random(points) < share
    apart = without_common_mode(field, visible)
    assert (apart[~visible] == 0).all()
    if not visible.any():
        assert np.isnan(mean_speed(field, visible))
        return
    np.testing.assert_allclose(apart[visible], field[visible] - np.median(field[visible], axis=0), atol=1e-5)
    assert mean_speed(field, visible) == pytest.approx(np.hypot(*field[visible].T).mean(), rel=1e-5)


@given(shift=st.tuples(st.floats(-20, 20), st.floats(-20, 20)))
@settings(max_examples=20, deadline=None)
def test_a_shaking_camera_changes_nothing(shift: tuple[float, float]) -> None:
    field = np.random.default_rng(0).normal(0, 2, (7, 20, 2)).astype(np.float32)
    for visible in (None, np.ones(field.shape[:-1], bool)):
        still = without_common_mode(field, visible)
        np.testing.assert_allclose(without_common_mode(field + np.float32(shift), visible), still, atol=1e-4)


def test_not_seen_and_seen_points_agree_without_visibility() -> None:
    field = np.random.default_rng(1).normal(size=(3, 15, 11, 2)).astype(np.float32)
    np.testing.assert_allclose(
        without_common_mode(field), without_common_mode(field, np.ones(field.shape[:-1], bool)), atol=1e-6
    )
