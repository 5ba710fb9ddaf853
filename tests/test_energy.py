"""Energy forms and the cleaning of decoded motion."""

from __future__ import annotations

import numpy as np
import pytest

from laps.energy import cleaned_code_energy, code_counts, form_series, weighted_median
from laps.errors import InputError, ModelMismatchError
from laps.latent import LatentStream


def make_stream(code: list[int], *, first: int = 0) -> LatentStream:
    codes = np.array(code, dtype=np.int32)
    null = codes < 0

    def column(scale: float) -> np.ndarray:
        return np.where(null, np.nan, scale * np.maximum(codes, 0)).astype(np.float32)

    return LatentStream(
        first=first,
        code=codes,
        latent_action_energy=column(1),
        decoded_motion_energy=column(2),
        velocity_energy=column(3),
        prequantized_energy=column(4),
        null_reason=["no_footage" if value else None for value in null],
        tokenizer_id="t000000000000",
    )


def test_each_form_is_its_column_with_nan_for_null() -> None:
    stream = make_stream([1, -1, 2])
    for form, scale in (("latent_action", 1), ("decoded_motion", 2), ("velocity", 3), ("prequantized", 4)):
        values = form_series(stream, form)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, [scale, np.nan, 2 * scale])
    with pytest.raises(InputError, match="latent_action"):
        form_series(stream, "optical_flow")


def test_decoded_motion_is_a_lookup_by_code() -> None:
    table = np.array([0.5, 0.25, 4.0], dtype=np.float32)
    np.testing.assert_array_equal(form_series(make_stream([2, -1, 0]), "decoded_motion", table), [4.0, np.nan, 0.5])
    with pytest.raises(ModelMismatchError, match="code 3"):
        form_series(make_stream([3]), "decoded_motion", table)


def test_codes_are_counted_over_streams() -> None:
    streams = [make_stream([1, 1, -1]), make_stream([0, 1])]
    assert code_counts(streams, 3).tolist() == [1, 3, 0]
    with pytest.raises(ModelMismatchError, match="1 codes"):
        code_counts(streams, 1)


def test_weighted_median_equals_the_median_of_repeated_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(size=(6, 3, 2))
        weights = rng.integers(0, 5, 6)
        weights[0] += 1 - weights.sum() % 2  # an odd total has one middle
        expected = np.median(np.repeat(values, weights, axis=0), axis=0)
        np.testing.assert_allclose(weighted_median(values, weights), expected)


def test_the_background_is_removed() -> None:
    points = 25
    belt = np.zeros((1, points, 2))
    belt[0, :4, 0] = 5.0  # four points lie on a belt that always runs
    hand = np.zeros((6, points, 2))
    hand[4, 10:15, 0] = 8.0
    hand[5, 10:15, 1] = 4.0
    counts = np.array([40, 30, 20, 10, 30, 30])
    energy = cleaned_code_energy(belt + hand, counts)
    assert energy.dtype == np.float32
    np.testing.assert_allclose(energy, [0, 0, 0, 0, 8 * 5 / points, 4 * 5 / points], atol=1e-6)


def test_codes_that_never_occur_do_not_shape_the_background() -> None:
    motion = np.zeros((3, 9, 2))
    motion[1, 0, 0] = 1.0
    motion[2, 0, 0] = 100.0
    energy = cleaned_code_energy(motion, np.array([3, 2, 0]))
    np.testing.assert_allclose(energy, [0, 1 / 9, 100 / 9], rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="codes, points, 2"):
        cleaned_code_energy(np.zeros((3, 9, 3)), np.ones(3, dtype=int))
    with pytest.raises(InputError, match="no sample"):
        cleaned_code_energy(np.zeros((3, 9, 2)), np.zeros(3, dtype=int))
