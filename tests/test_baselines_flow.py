"""Flow of a recording: speed, cleaning, histograms, and what happens where frames are missing or repeated."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from laps.baselines.flow import BLOCKS, CELLS, ORIENTATIONS, FlowSeries, flow_series
from laps.errors import InputError
from laps.timegrid import SampleGrid

GRID = SampleGrid()
STEP_NS = GRID.step_ns
WIDTH, HEIGHT = 160, 128


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame that is already of the size that is wanted."""

    time_ns: int
    image: NDArray[np.uint8]

    def gray(self, short_side: int) -> NDArray[np.uint8]:
        assert short_side == min(self.image.shape)
        return self.image


@dataclass(frozen=True)
class Sample:
    index: int
    frame: Frame | None


def picture(
    x_px: float, y_px: float = 0.0, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> NDArray[np.uint8]:
    """A texture that has moved by so many px to the right and down."""
    rng = np.random.default_rng(seed)
    scales = [cv2.GaussianBlur(rng.normal(size=(300, 300)), (0, 0), sigma) for sigma in (1.5, 4, 10)]
    texture = sum(scale / scale.std() for scale in scales)
    matrix = np.array([[1, 0, x_px - 60], [0, 1, y_px - 60]], np.float64)
    return np.clip(128 + 18 * cv2.warpAffine(texture, matrix, size, flags=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def flow(samples: list[Sample], **settings) -> FlowSeries:
    return flow_series(samples, GRID, short_side_px=HEIGHT, **settings)  # type: ignore[arg-type]


def moving(places_px: list[float | None], times: list[float] | None = None, first: int = 100) -> list[Sample]:
    """A texture at these places, or no frame; times in steps of the grid, by default one a sample."""
    times = times or [float(place) for place in range(len(places_px))]
    return [
        Sample(first + i, None if place is None else Frame(round((first + time) * STEP_NS), picture(place)))
        for i, (place, time) in enumerate(zip(places_px, times, strict=True))
    ]


def test_speed_is_in_px_a_step_and_the_first_sample_has_none():
    series = flow(moving([0.0, 2.0, 4.0, 4.0, 1.0]))
    assert series.first == 100 and series.magnitude.dtype == np.float64
    assert np.isnan(series.magnitude[0]) and np.isnan(series.cells[0]).all() and np.isnan(series.histograms[0]).all()
    np.testing.assert_allclose(series.magnitude[1:], [2, 2, 0, 3], atol=0.2)
    np.testing.assert_allclose(np.median(series.cells[4], axis=(0, 1)), [-3, 0], atol=0.2)
    assert series.cells.shape == (5, CELLS, CELLS, 2)


def test_displacements_are_scaled_by_the_true_time_between_frames():
    # 25 frames/s on a grid of 10 Hz: steps of 80 and 120 ms at one speed.
    times = [0.0, 0.8, 2.0, 2.8, 4.0]
    series = flow(moving([2 * time for time in times], times))
    np.testing.assert_allclose(series.magnitude[1:], 2, atol=0.15)


def test_a_repeated_frame_takes_the_value_of_the_step_that_it_is_part_of():
    # A camera of 5 frames/s: every second sample shows the frame before once more, the last two as well.
    places, times = [0, 0, 4, 4, 10, 10, 10], [0, 0, 2, 2, 4, 4, 4]
    series = flow(moving([float(place) for place in places], [float(time) for time in times]))
    assert np.isnan(series.magnitude[0])
    np.testing.assert_allclose(series.magnitude[1:], [2, 2, 3, 3, 3, 3], atol=0.2)
    assert np.isfinite(series.histograms[1:]).all() and np.isfinite(series.cells[1:]).all()


def test_missing_samples_and_new_sizes_are_null_and_what_follows_begins_anew():
    samples = moving([0.0, 2.0, None, 4.0, 4.0, 6.0, None, 6.0])
    repeated = samples[4].frame
    assert repeated is not None and samples[3].frame is not None
    samples[4] = Sample(104, samples[3].frame)  # repeats the first frame after the gap
    other = Sample(108, Frame(108 * STEP_NS, picture(0, size=(HEIGHT, WIDTH))))
    series = flow([*samples, other])
    # 104 is part of the step that ends at 105; 107 follows a gap, 108 has another size.
    assert np.isfinite(series.magnitude).tolist() == [False, True, False, False, True, True, False, False, False]
    np.testing.assert_allclose(series.magnitude[[4, 5]], 1, atol=0.2)


def test_repeats_of_a_frame_without_a_flow_stay_null():
    samples = moving([0.0])
    series = flow([*samples, Sample(101, samples[0].frame), Sample(102, None)])
    assert np.isnan(series.magnitude).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_recordings(count):
    series = flow(moving([0.0, 1.0][:count]))
    width = BLOCKS * BLOCKS * (ORIENTATIONS + 1)
    assert series.cells.shape == (count, CELLS, CELLS, 2) and series.histograms.shape == (count, width)
    assert np.isfinite(series.magnitude).sum() == max(0, count - 1)
    assert series.cleaned().shape == (count,)


def test_samples_must_follow_each_other():
    samples = moving([0.0, 1.0, 2.0])
    with pytest.raises(InputError, match="sample 102 came after sample 100"):
        flow([samples[0], samples[2]])
    with pytest.raises(InputError, match="preset"):
        flow(samples, preset="slow")


def test_common_mode_is_taken_off_and_a_part_that_moves_stays():
    shaken = flow(moving([0.0, 3.0, -2.0]))
    assert shaken.magnitude[1] > 2.5 and np.nanmax(shaken.cleaned()) < 0.3
    frames = []
    for i in range(3):
        image = picture(3.0 * i).copy()  # the camera moves
        image[40:90, 20:80] = picture(-2.0 * i, seed=1)[40:90, 20:80]  # and before it something else
        frames.append(Sample(i, Frame(i * STEP_NS, image)))
    cleaned = flow(frames).cleaned()
    share = 50 * 60 / (WIDTH * HEIGHT)
    assert cleaned[1:] == pytest.approx([5 * share] * 2, rel=0.4)


def with_belt(hand: list[float]) -> list[Sample]:
    """A belt runs at 3 px a step in the upper quarter; below, a part is at these places."""
    samples = []
    for i, place in enumerate(hand):
        image = picture(0).copy()
        image[:32] = picture(3.0 * i, seed=2)[:32]
        image[60:110, 30:100] = picture(place, seed=1)[60:110, 30:100]
        samples.append(Sample(i, Frame(i * STEP_NS, image)))
    return samples


def test_the_background_is_what_is_usual_in_each_cell():
    quiet = flow(with_belt([0.0] * 8))
    background = quiet.background()
    assert background.shape == (CELLS, CELLS, 2) and background[1, CELLS // 2, 0] == pytest.approx(3, abs=0.5)
    series = flow(with_belt([0, 0, 0, 4, 8, 12, 12, 12]), background=background)
    raw, cleaned = series.cleaned(), series.cleaned(background)
    active, resting = [3, 4, 5], [1, 2, 6, 7]
    assert cleaned[active].min() > 4 * cleaned[resting].max()
    assert raw[resting].min() > 0.4  # the belt
    # And of the histograms: rest is all still.
    still = series.histograms.reshape(8, BLOCKS * BLOCKS, ORIENTATIONS + 1)[:, :, ORIENTATIONS] ** 2
    assert still[resting].sum(axis=1).min() > 0.85 > still[active].sum(axis=1).max()


def test_a_background_of_another_kind_is_refused():
    series = flow(moving([0.0, 1.0]))
    with pytest.raises(InputError, match="20 x 20"):
        series.cleaned(np.zeros((3, 3, 2)))
    with pytest.raises(InputError, match="background"):
        flow(moving([0.0, 1.0]), background=np.full((CELLS, CELLS, 2), np.nan))
    with pytest.raises(InputError, match="no sample"):
        flow(moving([0.0])).background()


@pytest.mark.parametrize(("x_px", "y_px", "direction"), [(3, 0, 0), (3, 3, 1), (0, 3, 2), (-3, 0, 4), (0, -3, 6)])
def test_histograms_say_where_what_moves_and_whither(x_px, y_px, direction):
    still = picture(0)
    images = []
    for i in range(2):
        image = still.copy()
        image[:32, :40] = picture(x_px * i, y_px * i, seed=1)[:32, :40]
        images.append(image)
    series = flow([Sample(i, Frame(i * STEP_NS, image)) for i, image in enumerate(images)])
    histograms = series.histograms[1].reshape(BLOCKS * BLOCKS, ORIENTATIONS + 1)
    assert np.linalg.norm(histograms) == pytest.approx(1, abs=1e-5)
    assert histograms[0, :ORIENTATIONS].argmax() == direction
    assert (histograms[2:4].argmax(axis=1) == ORIENTATIONS).all() and (
        histograms[8:].argmax(axis=1) == ORIENTATIONS
    ).all()


def test_two_passes_and_any_number_of_threads_give_the_same():
    samples = moving([0.0, 1.5, 4.0, 4.5])
    threads = cv2.getNumThreads()
    first = flow(samples)
    try:
        cv2.setNumThreads(1)
        small = [Sample(i, Frame(i * STEP_NS, picture(i, size=(100, 64)))) for i in range(2)]
        flow_series(small, GRID, short_side_px=64)  # type: ignore[arg-type]
        again = flow(samples)
    finally:
        cv2.setNumThreads(threads)
    for name in ("magnitude", "cells", "histograms"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
