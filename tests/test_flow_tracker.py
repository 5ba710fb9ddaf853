"""Flow advection: accuracy, visibility, and independence of batch, split and threads."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError
from laps.timegrid import SampleGrid
from laps.trackers.flow import PATCH_OFFSETS_PX, FlowTracker, _bilinear, _patches, tracker_from_id
from laps.tracks import TrackWindows, grid_points

GRID = SampleGrid()
WIDTH, HEIGHT = 160, 128
ENDS = np.arange(15)


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame that is already of the size that is tracked."""

    time_ns: int
    image: np.ndarray

    def gray(self, short_side: int) -> np.ndarray:
        assert short_side == min(self.image.shape)
        return self.image


@dataclass(frozen=True)
class Sample:
    index: int
    frame: Frame | None


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Float32 picture with detail at several scales, about 40..215 grey levels."""
    rng = np.random.default_rng(seed)
    scales = [cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), sigma) for sigma in (1.5, 4, 10)]
    picture = sum(scale / scale.std() for scale in scales)
    return (128 + 30 * picture / picture.std()).clip(0, 255).astype(np.float32)


def to_image(picture: np.ndarray) -> np.ndarray:
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def moved(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The middle WIDTH x HEIGHT of a larger picture after an affine motion given in image coordinates."""
    height, width = picture.shape
    offset = np.array([(width - WIDTH) / 2, (height - HEIGHT) / 2])
    inner = matrix.astype(np.float64).copy()
    inner[:, 2] -= matrix[:, :2] @ offset
    return to_image(cv2.warpAffine(picture, inner, (WIDTH, HEIGHT)))


def stream(images: list[np.ndarray | None], first: int = 0) -> list[Sample]:
    return [
        Sample(first + k, None if image is None else Frame(GRID.time_ns(first + k), image))
        for k, image in enumerate(images)
    ]


def tracker(**options) -> FlowTracker:
    return FlowTracker(**({"side": 8, "short_side_px": HEIGHT} | options))


def track_one(images: list[np.ndarray], **options) -> TrackWindows:
    (windows,) = tracker(**options).track(stream(images), GRID)
    return windows


def by_end(batches: Iterator[TrackWindows]) -> dict[int, tuple]:
    return {
        int(end): (
            batch.displacements[k].tobytes(),
            batch.visible[k].tobytes(),
            batch.frame_times_ns[k].tobytes(),
            batch.image_width_px,
        )
        for batch in batches
        for k, end in enumerate(batch.end_samples)
    }


def margin(positions: np.ndarray, width_px: float = 20) -> np.ndarray:
    """Points that stay well inside the image, over [T, N, 2]."""
    inside = (positions > width_px) & (positions < np.array([WIDTH, HEIGHT]) - width_px)
    return inside.all(axis=(0, 2))


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
def test_translation_is_recovered(preset):
    big = texture(400, 400)
    step = np.array([1.75, -1.25])
    images = [moved(big, np.array([[1, 0, k * step[0]], [0, 1, k * step[1]]])) for k in range(16)]
    windows = track_one(images, preset=preset)
    points = margin(windows.positions()[0])
    assert points.sum() >= 15
    velocity = windows.velocities(GRID)[0][:, points]
    np.testing.assert_allclose(np.median(velocity, axis=(0, 1)), step, atol=0.1)
    assert (np.abs(velocity - step).max(axis=-1) < 0.4).mean() > 0.95
    assert windows.visible[0][:, points].all()


@pytest.mark.parametrize(("preset", "drift_px"), [("ultrafast", 2), ("medium", 0.8)])
def test_rotation_is_recovered_over_a_whole_window(preset, drift_px):
    big = texture(400, 400, seed=1)
    centre = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    turns = [cv2.getRotationMatrix2D(centre, 1.5 * k, 1) for k in range(16)]
    windows = track_one([moved(big, turn) for turn in turns], preset=preset)
    start = grid_points(WIDTH, HEIGHT, 8)
    truth = np.stack([start @ turn[:, :2].T + turn[:, 2] for turn in turns])
    points = margin(truth, 12)
    error = np.linalg.norm(windows.positions()[0] - truth, axis=-1)[:, points]
    assert points.sum() >= 20
    assert np.median(error[-1]) < drift_px and error.max() < 3 * drift_px
    assert np.linalg.norm(truth[-1] - truth[0], axis=-1)[points].max() > 10


@pytest.mark.parametrize("preset", ["ultrafast", "fast"])
def test_a_still_picture_does_not_move_at_all(preset):
    image = to_image(texture(WIDTH, HEIGHT))
    windows = track_one([image.copy() for _ in range(24)], preset=preset)
    assert list(windows.end_samples) == [15, 19, 23]
    assert not windows.displacements.any()
    assert windows.visible.all()


def test_samples_that_show_the_same_frame_do_not_move():
    big = texture(400, 400)
    images = [moved(big, np.array([[1, 0, 2 * k], [0, 1, 0]])) for k in range(16)]
    shown = stream(images)
    shown[5] = Sample(5, shown[4].frame)
    shown[6] = Sample(6, Frame(shown[4].frame.time_ns, images[4]))  # the same moment in another object
    (windows,) = tracker().track(shown, GRID)
    assert not windows.displacements[0, 4:6].any()
    np.testing.assert_array_equal(windows.visible[0, 4], windows.visible[0, 6])
    points = margin(windows.positions()[0], 30)
    np.testing.assert_allclose(np.median(windows.displacements[0, 6, points, 0]) / 32, 6, atol=0.3)
    np.testing.assert_array_equal(windows.frame_times_ns[0, 4:7], 4 * GRID.step_ns)
    np.testing.assert_allclose(np.median(windows.velocities(GRID)[0][:, points, 0], axis=1), 2, atol=0.15)


def test_points_under_something_that_passes_become_invisible_and_the_others_do_not():
    """A bright board slides in from the right and stays; what it covers is not seen again."""
    still = 0.6 * texture(WIDTH, HEIGHT, seed=2)
    board = 235 - 0.2 * texture(WIDTH, HEIGHT, seed=3)
    images = []
    for k in range(16):
        picture = still.copy()
        edge = WIDTH - max(0, min(k - 4, 6)) * 10
        picture[:, edge:] = board[:, : WIDTH - edge]
        images.append(to_image(picture))
    windows = track_one(images)
    start = grid_points(WIDTH, HEIGHT, 8)
    covered = start[:, 0] > WIDTH - 35
    far = start[:, 0] < WIDTH - 85
    seen = windows.visible[0]
    assert seen[:5].all()
    assert seen[-1, covered].mean() < 0.15
    assert seen[:, far].mean() > 0.97
    steps = windows.step_visible()[0, -1]
    assert (windows.velocities(GRID)[0, -1][~steps] == 0).all()


def test_a_point_is_visible_again_when_its_surroundings_are_back():
    still = to_image(texture(WIDTH, HEIGHT, seed=4))
    flash = still.copy()
    flash[:, : WIDTH // 2] = 255 - flash[:, : WIDTH // 2] // 8
    windows = track_one([still.copy() for _ in range(6)] + [flash] + [still.copy() for _ in range(9)])
    hidden = grid_points(WIDTH, HEIGHT, 8)[:, 0] < WIDTH / 2 - 15
    assert windows.visible[0, 6, hidden].mean() < 0.3
    # What was not carried away by the leap is recognised.
    returned = np.abs(windows.positions()[0, -1] - windows.positions()[0, 0]).max(axis=-1) < 1
    assert windows.visible[0, -1, hidden & returned].all()


@pytest.mark.parametrize(
    ("gain", "offset", "mean", "contrast"),
    [(1, 60, 128, 1), (1, -60, 128, 1), (2, 0, 60, 1.2), (0.5, 0, 128, 1.6)],
    ids=["lighter", "darker", "longer exposure", "shorter exposure"],
)
def test_a_step_of_brightness_does_not_hide_the_points(gain, offset, mean, contrast):
    picture = (texture(WIDTH, HEIGHT, seed=5) - 128) * contrast + mean
    rng = np.random.default_rng(0)
    images = [
        to_image((picture * gain + offset if k >= 8 else picture) + rng.normal(scale=2, size=picture.shape))
        for k in range(16)
    ]
    assert track_one(images).visible[0, 8:].mean() > 0.97


def test_fields_and_pictures_are_read_at_fractions_of_a_pixel():
    y, x = np.mgrid[0:40, 0:60]
    units = np.random.default_rng(0).integers(0, [59 * 32 + 1, 39 * 32 + 1], (500, 2)).astype(np.int32)
    units[:4] = [[0, 0], [59 * 32, 0], [0, 39 * 32], [59 * 32, 39 * 32]]
    place = units / 32
    field = np.stack([0.5 * x - 2 * y, 3 * x + y], axis=-1).astype(np.float32)
    truth = np.stack([0.5 * place[:, 0] - 2 * place[:, 1], 3 * place[:, 0] + place[:, 1]], axis=-1)
    np.testing.assert_allclose(_bilinear(field, units), truth, atol=1e-3)
    inside = ((place > 6) & (place < [53, 33])).all(axis=-1)
    patches = _patches((3 * x + y).astype(np.uint8), units).T[inside] / 1024
    for number, (dx, dy) in enumerate(PATCH_OFFSETS_PX):
        expected = 3 * (place[inside, 0] + dx) + place[inside, 1] + dy
        np.testing.assert_allclose(patches[:, number], expected, atol=1e-3)


def test_points_that_leave_stop_at_the_border_and_stay_invisible():
    big = texture(900, 400, seed=6)
    back_and_forth = [6 * min(k, 15 - k) for k in range(16)]
    images = [moved(big, np.array([[1, 0, dx], [0, 1, 0]])) for dx in back_and_forth]
    windows = track_one(images)
    positions = windows.positions()[0]
    assert positions.min() >= 0
    assert (positions <= [WIDTH - 1, HEIGHT - 1]).all()
    at_border = positions[..., 0] == WIDTH - 1
    assert at_border[-1].sum() >= 8
    for point in np.flatnonzero(at_border.any(axis=0)):
        left = at_border[:, point].argmax()
        assert not windows.visible[0, left:, point].any()
        assert not windows.displacements[0, left:, point].any()


POOL = [to_image(texture(96, 64, seed)) for seed in range(5)] + [to_image(texture(80, 64, 9))]


def random_stream(seed: int, count: int, first: int) -> list[Sample]:
    """Pictures that drift, cut, repeat, go missing and change size."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    picture, shift, last = 0, 0.0, None
    for index in range(first, first + count):
        event = rng.random()
        if event < 0.04:
            picture = int(rng.integers(len(POOL)))
        shift += rng.normal(scale=1.5)
        if event > 0.97:
            samples.append(Sample(index, None))
            continue
        if last is None or not 0.7 < event < 0.8:
            matrix = np.array([[1, 0, shift], [0, 1, -shift / 2]])
            height, width = POOL[picture].shape
            image = cv2.warpAffine(POOL[picture], matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
            last = Frame(GRID.time_ns(index) - int(rng.integers(0, 40_000_000)), image)
        samples.append(Sample(index, last))
    return samples


def expected_ends(samples: list[Sample]) -> list[int]:
    """Brute force: windows whose 16 samples are there, in one size."""
    return [
        samples[k].index
        for k in range(15, len(samples))
        if samples[k].index % 4 == 3
        and all(sample.frame is not None for sample in samples[k - 15 : k + 1])
        and len({sample.frame.image.shape for sample in samples[k - 15 : k + 1]}) == 1
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(30, 120), st.integers(0, 7), st.data())
def test_windows_do_not_depend_on_where_tracking_starts_or_stops(seed, count, first, data):
    samples = random_stream(seed, count, 1_000_000 + first)
    small = {"side": 4, "short_side_px": 64}
    whole = by_end(FlowTracker(**small).track(samples, GRID))
    assert list(whole) == expected_ends(samples)
    cut = data.draw(st.integers(0, count), label="start of the second part")
    stop = data.draw(st.integers(cut, count), label="end of the first part")
    one = by_end(FlowTracker(**small, batch_windows=1).track(samples[:stop], GRID))
    other = by_end(FlowTracker(**small, batch_windows=7).track(samples[cut:], GRID))
    assert list(one) == expected_ends(samples[:stop])
    assert list(other) == expected_ends(samples[cut:])
    for part in (one, other):
        assert all(whole[end] == window for end, window in part.items())


def test_the_number_of_threads_does_not_change_a_bit():
    rng = np.random.default_rng(0)
    big = texture(700, 420, seed=7)
    images = [
        to_image(big[50 + k : 370 + k, 60 - k : 629 - k] + rng.normal(scale=3, size=(320, 569))) for k in range(24)
    ]
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 2, 4):
            cv2.setNumThreads(threads)
            results.append(by_end(FlowTracker().track(stream(images), GRID)))
    finally:
        cv2.setNumThreads(before)
    assert len(results[0]) == 3
    assert results[0] == results[1] == results[2]


def test_batches_hold_what_was_asked_for_and_one_image_size():
    images = [POOL[0]] * 60 + [POOL[5]] * 60
    batches = list(FlowTracker(side=4, short_side_px=64, batch_windows=5).track(stream(images), GRID))
    assert [len(batch) for batch in batches] == [5, 5, 2, 5, 5, 2]
    assert [batch.image_width_px for batch in batches] == [96] * 3 + [80] * 3
    assert {batch.tracker_id for batch in batches} == {"dis-flow/ultrafast/64/4x4/v1"}


def test_a_hole_in_the_samples_breaks_windows():
    samples = stream([POOL[0]] * 40)
    holed = samples[:18] + samples[19:]
    assert list(by_end(FlowTracker(side=4, short_side_px=64).track(holed, GRID))) == [15, 35, 39]


def test_frames_are_let_go_as_the_stream_goes_on():
    alive: weakref.WeakSet[Frame] = weakref.WeakSet()
    most = 0

    def samples() -> Iterator[Sample]:
        nonlocal most
        for index in range(200):
            frame = Frame(GRID.time_ns(index), np.roll(POOL[0], index, axis=1))
            alive.add(frame)
            most = max(most, len(alive))
            yield Sample(index, frame)
            del frame

    consumed = sum(len(batch) for batch in FlowTracker(side=4, short_side_px=64).track(samples(), GRID))
    assert consumed == 47
    assert most <= 3


def test_options_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"preset 'best'.*ultrafast, fast, medium"):
        FlowTracker("best")
    with pytest.raises(InputError, match="too small for flow"):
        FlowTracker(short_side_px=32)
    with pytest.raises(InputError, match="does not fit a short side"):
        FlowTracker(side=400)
    samples = stream([POOL[0]] * 3)
    with pytest.raises(InputError, match="sample 1 came after sample 2"):
        list(FlowTracker(side=4, short_side_px=64).track([*samples, samples[1]], GRID))


def test_a_tracker_is_made_again_from_its_identity():
    for made in (FlowTracker(), FlowTracker("medium", side=7, short_side_px=96)):
        again = tracker_from_id(made.tracker_id)
        assert (again.preset, again.side, again.short_side_px) == (made.preset, made.side, made.short_side_px)
        assert again.tracker_id == made.tracker_id
    for other in ("dis-flow/ultrafast/320/20x20/v0", "dis-flow/ultrafast/320/20x10/v1", "cotracker3-online/1/x"):
        with pytest.raises(InputError, match="cannot be made from its name"):
            tracker_from_id(other)
