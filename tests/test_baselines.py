"""Boundary methods on features whose changes are known: what they find, and what they do not make up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from laps.baselines.abd import abd, boundaries
from laps.baselines.cutting import cut_energy
from laps.baselines.otas import LABEL, otas_global, prediction_error
from laps.baselines.variance import token_variance, variance_segments
from laps.errors import CalibrationError, InputError, ModelMismatchError
from laps.stretches import Segment, stretches
from laps.timegrid import SampleGrid

RATE_HZ = 10.0
CHANGES_S = [5.0, 11.0, 16.0, 24.0, 29.0]
DURATION_S = 35.0
VECTORS = np.random.default_rng(5).normal(size=(40, 12)).astype(np.float32)
VECTORS[1::2] = VECTORS[::2] + 0.2 * VECTORS[1::2]  # codes 2 i and 2 i + 1 mean nearly the same


def plateaus(seed: int = 0, noise: float = 0.2, width: int = 12) -> NDArray[np.float64]:
    """Features that are constant but for noise, with new values at CHANGES_S."""
    rng = np.random.default_rng(seed)
    count = round(DURATION_S * RATE_HZ)
    part = np.searchsorted(np.multiply(CHANGES_S, RATE_HZ), np.arange(count), side="right")
    levels = rng.normal(size=(len(CHANGES_S) + 1, width))
    return levels[part] + noise * rng.normal(size=(count, width))


def plateau_codes(seed: int = 0) -> NDArray[np.int64]:
    """Codes: each part draws from two codes of its own."""
    rng = np.random.default_rng(seed)
    count = round(DURATION_S * RATE_HZ)
    part = np.searchsorted(np.multiply(CHANGES_S, RATE_HZ), np.arange(count), side="right")
    return 2 * part + rng.integers(0, 2, count)


def by_abd(features: NDArray[np.float64]) -> list[Segment]:
    return abd(features, RATE_HZ)


def by_otas(features: NDArray[np.float64]) -> list[Segment]:
    return otas_global(features, RATE_HZ)


METHODS = pytest.mark.parametrize("method", [by_abd, by_otas])


def inner(segments: list[Segment]) -> list[float]:
    """Boundaries between segments that touch."""
    return [start for start, _ in segments[1:]]


def assert_near(found: list[float], expected: list[float], tolerance_s: float) -> None:
    assert len(found) == len(expected), found
    assert np.abs(np.subtract(found, expected)).max(initial=0) <= tolerance_s, found


@pytest.mark.parametrize(
    ("method", "tolerance_s", "share", "more"),
    [
        # Of the pieces that no change parts, ABD's threshold (a median) leaves some apart; equal weights in its
        # smoothing blur the place of a change.
        (lambda features: abd(features, RATE_HZ, kernel="gaussian"), 0.25, 1.0, 4),
        (lambda features: abd(features, RATE_HZ, kernel="average"), 0.75, 0.95, 4),
        (by_otas, 0.25, 1.0, 1),
    ],
)
def test_changes_of_level_are_found_where_they_are(method, tolerance_s, share, more):
    found = []
    surplus = []
    for seed in range(12):
        segments = method(plateaus(seed))
        assert segments[0][0] == 0 and segments[-1][1] == DURATION_S
        assert all(before[1] == after[0] for before, after in pairwise(segments))
        times = inner(segments)
        found += [min(abs(time - change) for time in times) <= tolerance_s for change in CHANGES_S]
        surplus.append(len(times) - len(CHANGES_S))
    assert np.mean(found) >= share
    assert np.mean(surplus) <= more, surplus


@pytest.mark.parametrize("seed", range(4))
def test_changes_of_the_tokens_are_found(seed):
    segments = variance_segments(plateau_codes(seed), VECTORS, RATE_HZ)
    assert_near(inner(segments), CHANGES_S, 0.2)


@METHODS
def test_noise_has_few_boundaries(method):
    counts = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=12) + rng.normal(size=(600, 12))
        counts.append(len(inner(method(features))))
    # One minute. OTAS always keeps about half of its maxima, at least 3 s apart; ABD merges most of its pieces.
    assert np.mean(counts) <= (5 if method is by_abd else 10), counts


def test_noise_has_few_variance_peaks():
    counts = []
    for seed in range(8):
        codes = np.random.default_rng(seed).integers(0, len(VECTORS), 600)
        counts.append(len(inner(variance_segments(codes, VECTORS, RATE_HZ))))
    assert np.mean(counts) <= 45, counts  # 120 would be possible: it is the weakest of them against noise


@METHODS
@settings(deadline=None, max_examples=20)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_segments_do_not_depend_on_the_features_scale_nor_axes(method, scale, seed):
    features = plateaus(seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(features.shape[1],) * 2))
    expected = method(features)
    assert method(features * scale) == expected
    assert method(features @ turn) == expected
    assert method(features.copy()) == expected


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_variance_segments_do_not_depend_on_the_vectors_scale_nor_origin(scale, seed):
    codes = np.random.default_rng(seed).integers(0, len(VECTORS), 300)
    expected = variance_segments(codes, VECTORS, RATE_HZ)
    assert variance_segments(codes, VECTORS.astype(np.float64) * scale, RATE_HZ) == expected
    assert variance_segments(codes, VECTORS.astype(np.float64) + 3, RATE_HZ) == expected


def test_token_variance_is_the_variance():
    codes = np.random.default_rng(0).integers(0, len(VECTORS), 60)
    codes[30] = -1
    variance = token_variance(codes, VECTORS, RATE_HZ, window_s=1.0)
    known = [*range(5, 26), *range(36, 56)]
    assert np.flatnonzero(np.isfinite(variance)).tolist() == known
    for seam in known:
        assert variance[seam] == pytest.approx(VECTORS[codes[seam - 5 : seam + 5]].var(axis=0).sum(), rel=1e-5)


@METHODS
@settings(deadline=None, max_examples=25)
@given(gaps=st.lists(st.tuples(st.integers(0, 349), st.integers(1, 40)), max_size=4), seed=st.integers(0, 50))
def test_no_segment_spans_a_gap_and_nothing_else_is_left_out(method, gaps, seed):
    features = plateaus(seed)
    for first, length in gaps:
        features[first : first + length, seed % features.shape[1]] = np.nan
    assert_covers(method(features), np.isfinite(features).all(axis=1))


@settings(deadline=None, max_examples=25)
@given(gaps=st.lists(st.tuples(st.integers(0, 349), st.integers(1, 40)), max_size=4), seed=st.integers(0, 50))
def test_no_variance_segment_spans_a_gap(gaps, seed):
    codes = plateau_codes(seed)
    for first, length in gaps:
        codes[first : first + length] = -1
    assert_covers(variance_segments(codes, VECTORS, RATE_HZ), codes >= 0)


def assert_covers(segments: list[Segment], present: NDArray[np.bool_]) -> None:
    rows = np.zeros(len(present), dtype=int)
    for start, end in segments:
        rows[round(start * RATE_HZ) : round(end * RATE_HZ)] += 1
    assert (rows == present).all()
    for first, stop in stretches(present):
        assert any(round(start * RATE_HZ) == first for start, _ in segments)
        assert any(round(end * RATE_HZ) == stop for _, end in segments)


@METHODS
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 19, 20, 21])
@pytest.mark.parametrize("fill", [0.0, 1.0, np.nan])
def test_short_constant_and_empty_features(method, count, fill):
    segments = method(np.full((count, 3), fill))
    assert segments == ([(0.0, count / RATE_HZ)] if count and np.isfinite(fill) else [])


@pytest.mark.parametrize("count", [0, 1, 2, 11])
def test_short_and_constant_codes(count):
    assert variance_segments(np.zeros(count, int), VECTORS, RATE_HZ) == ([(0.0, count / RATE_HZ)] if count else [])
    assert variance_segments(np.full(count, -1), VECTORS, RATE_HZ) == []


def test_perfect_rest_between_two_actions_is_no_boundary_of_its_own():
    features = np.repeat([[1.0, 0.0], [0.0, 1.0]], 100, axis=0)
    assert boundaries(features, 15.0, "gaussian").tolist() == [100]


def test_abd_merges_to_the_number_of_clusters_wherever_they_lie():
    # Three states, one of which comes back: four pieces, three clusters.
    states = np.eye(4)[[0, 1, 0, 2]]
    features = np.repeat(states, 60, axis=0) + 0.05 * np.random.default_rng(1).normal(size=(240, 4))
    assert_near(inner(abd(features, RATE_HZ, clusters=3)), [6.0, 12.0, 18.0], 0.2)
    assert len(inner(abd(features, RATE_HZ, clusters=2))) in (1, 2, 3)
    assert inner(abd(features, RATE_HZ, clusters=1)) == []
    assert abd(features, RATE_HZ, clusters=100) == abd(features, RATE_HZ, clusters=99)


def test_abd_window_follows_the_length_of_an_action():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 6)) + 1
    fine = boundaries(features, 5.0, "gaussian")
    coarse = boundaries(features, 40.0, "gaussian")
    assert len(coarse) < len(fine)
    assert np.diff(coarse).min() > 20 - 1 and np.diff(fine).min() > 2 - 1


def test_rows_at_another_rate_and_start():
    segments = abd(plateaus()[::5], RATE_HZ / 5, start_s=-0.25)
    assert segments[0][0] == 0.0
    assert_near(inner(segments), np.subtract(CHANGES_S, 0.25).tolist(), 0.5)


def test_otas_is_named_as_partial_and_predicts_what_can_be_predicted():
    assert "partial: global perception only" in LABEL and "partial: global perception only" in str(otas_global.__doc__)
    # A turning vector is a linear function of its past: no error, whatever the speed.
    angle = 0.3 * np.arange(200)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    error = prediction_error(circle, RATE_HZ)
    assert np.flatnonzero(np.isfinite(error)).tolist() == list(range(10, 191))
    assert np.nanmax(error) < 1e-6
    # Another direction of turning is a surprise, and only where it begins.
    circle[100:, 1] *= -1
    assert abs(int(np.nanargmax(prediction_error(circle, RATE_HZ))) - 100) <= 1


def test_otas_keeps_only_what_stands_out_among_the_maxima():
    rng = np.random.default_rng(2)
    features = np.repeat(rng.normal(size=(2, 8)), 300, axis=0) + 0.1 * rng.normal(size=(600, 8))
    assert_near(inner(otas_global(features, RATE_HZ)), [30.0], 0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: abd(np.zeros(5), RATE_HZ),
        lambda: abd(np.zeros((5, 2)), 0.0),
        lambda: abd(np.zeros((5, 2)), RATE_HZ, action_s=0.0),
        lambda: abd(np.zeros((5, 2)), RATE_HZ, alpha=-1.0),
        lambda: abd(np.zeros((5, 2)), RATE_HZ, clusters=0),
        lambda: abd(np.zeros((5, 2)), RATE_HZ, kernel="triangle"),
        lambda: otas_global(np.zeros((5, 2)), RATE_HZ, block_s=0.0),
        lambda: otas_global(np.zeros((5, 2)), RATE_HZ, order_s=float("nan")),
        lambda: token_variance(np.zeros((5, 2), int), VECTORS, RATE_HZ),
        lambda: token_variance(np.zeros(5, int), VECTORS * np.nan, RATE_HZ),
        lambda: token_variance(np.zeros(5, int), VECTORS, RATE_HZ, window_s=-1.0),
        lambda: cut_energy(np.zeros((5, 2)), SampleGrid()),
        lambda: cut_energy(np.full(50, -1.0), SampleGrid()),
    ],
)
def test_input_that_cannot_be_is_refused(call):
    with pytest.raises(InputError):
        call()


def test_codes_without_a_vector_are_refused():
    with pytest.raises(ModelMismatchError, match="40 vectors"):
        token_variance(np.array([0, 40]), VECTORS, RATE_HZ)


# --- energies ------------------------------------------------------------------------------------------------------


def bursts(seed: int = 0) -> NDArray[np.float64]:
    """An energy: two minutes, motion from 3 to 6 s of every 8 s."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(1200) / RATE_HZ % 8
    return np.where((seconds >= 3) & (seconds < 6), 1.0, 0.05) * np.exp(0.2 * rng.normal(size=1200))


def test_an_energy_is_cut_by_its_own_calibration():
    cut = cut_energy(bursts(), SampleGrid(), first=7_200)
    assert cut.calibration.ok, cut.calibration.message
    starts, ends = zip(*cut.segments, strict=True)
    # The value at a sample is the motion of the step before it: half a step earlier, as the pipeline counts.
    assert_near(list(starts), [8.0 * turn + 2.95 for turn in range(15)], 0.15)
    assert_near(list(ends), [8.0 * turn + 5.95 for turn in range(15)], 0.3)
    assert len(cut.confidences) == 15 and min(cut.confidences) > 0


@settings(deadline=None, max_examples=10)
@given(scale=st.floats(1e-2, 1e2))
def test_an_energys_unit_does_not_matter(scale):
    expected, scaled = cut_energy(bursts(), SampleGrid()), cut_energy(bursts() * scale, SampleGrid())
    assert scaled.segments == expected.segments


def test_a_null_ends_a_segment_and_an_energy_without_values_has_no_thresholds():
    energy = bursts()
    energy[45:47] = np.nan
    segments = cut_energy(energy, SampleGrid()).segments
    assert not any(start < 4.5 < end - 0.1 for start, end in segments)
    with pytest.raises(CalibrationError):
        cut_energy(np.full(600, np.nan), SampleGrid())
