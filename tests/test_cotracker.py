"""The CoTracker3 adapter. What needs the package runs with random weights where ``cotracker`` is importable."""

from __future__ import annotations

import importlib.util
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from laps.errors import InputError, MissingDependencyError
from laps.timegrid import SampleGrid
from laps.trackers.cotracker import CHECKPOINTS, CoTracker, quantize
from laps.tracks import UNITS_PER_PX, TrackWindows, grid_units

GRID = SampleGrid()
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("cotracker") is None,
    reason="the package cotracker is not installed: its code and licence (CC BY-NC 4.0) are not ours to ship",
)


@dataclass(frozen=True, eq=False)
class Frame:
    time_ns: int
    image: np.ndarray

    def rgb(self, short_side: int) -> np.ndarray:
        assert short_side == min(self.image.shape[:2])
        return self.image


@dataclass(frozen=True)
class Sample:
    index: int
    frame: Frame | None


def images(count: int, seed: int = 0, width: int = 96) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (64, width + count, 3), dtype=np.uint8)
    return [np.ascontiguousarray(wide[:, count - k : count - k + width]) for k in range(count)]


def stream(pictures: list[np.ndarray], first: int = 0, missing: tuple[int, ...] = ()) -> list[Sample]:
    return [
        Sample(first + k, None if first + k in missing else Frame(GRID.time_ns(first + k), picture))
        for k, picture in enumerate(pictures)
    ]


# ---- without the package


def test_options_that_do_not_exist_are_refused():
    for options, message in [
        ({"variant": "sideways"}, "online or offline"),
        ({"precision": "float16"}, "float32 or bfloat16"),
        ({"batch_windows": 0}, "0 windows"),
        ({"side": 500}, "does not fit"),
        ({"network_size_px": (100, 100)}, "multiples of 32"),
    ]:
        with pytest.raises(InputError, match=message):
            CoTracker(**options)


@pytest.mark.parametrize("use", ["tracker_id", "track"])
def test_a_missing_package_is_an_error_that_says_how_to_get_it(monkeypatch, use):
    monkeypatch.setitem(sys.modules, "cotracker", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "cotracker.predictor", raising=False)
    tracker = CoTracker(side=4, short_side_px=64)
    with pytest.raises(MissingDependencyError) as caught:
        if use == "track":
            list(tracker.track(stream(images(16)), GRID))
        else:
            _ = tracker.tracker_id
    for part in ("laps-dagster[cotracker]", "https://github.com/facebookresearch/co-tracker", "CC BY-NC 4.0"):
        assert part in str(caught.value)


def test_windows_longer_than_the_network_are_refused():
    with pytest.raises(InputError, match="at most 16 samples"):
        list(CoTracker().track([], SampleGrid(window=20)))


def paths(step_px: float, points: np.ndarray) -> np.ndarray:
    """float32 [16, N, 2]: points that move right by the same each sample."""
    shift = np.arange(16)[:, None, None] * np.array([step_px, 0])
    return (points / UNITS_PER_PX + shift).astype(np.float32)


def test_predicted_paths_become_exact_displacements():
    start = grid_units(96, 64, 4)
    times = np.arange(16) * GRID.step_ns
    seen = np.ones((16, 16), bool)
    seen[5:8, 3] = False
    predicted = paths(0.3, start)
    displacements, visible = quantize(predicted, seen, times, start, 96, 64)
    assert displacements.dtype == np.int16
    position = start + np.cumsum(displacements, axis=0)
    # Rounding does not add up: every position is within half a unit of the prediction.
    assert np.abs(position - predicted[1:] * UNITS_PER_PX).max() <= 0.51
    np.testing.assert_array_equal(visible, seen)


def test_points_outside_are_held_at_the_border_and_come_back():
    start = grid_units(96, 64, 4)
    times = np.arange(16) * GRID.step_ns
    predicted = paths(0, start)
    predicted[4:9, 0, 0] = -30
    predicted[4:9, 15] = [1e6, 70]
    displacements, visible = quantize(predicted, np.ones((16, 16), bool), times, start, 96, 64)
    position = start + np.cumsum(displacements, axis=0)
    assert (position[3:8, 0, 0] == 0).all()
    assert (position[3:8, 15] == np.array([95, 63]) * UNITS_PER_PX).all()
    assert not visible[4:9, [0, 15]].any() and visible[9:, [0, 15]].all() and visible[:, 1:15].all()
    np.testing.assert_array_equal(position[-1], start)


def test_predictions_that_are_no_numbers_stay_and_are_invisible():
    start = grid_units(96, 64, 4)
    times = np.arange(16) * GRID.step_ns
    predicted = paths(0.5, start)
    predicted[6, 1] = np.nan
    predicted[7, 5, 1] = np.inf
    predicted[9, 7, 0] = 3e38
    displacements, visible = quantize(predicted, np.ones((16, 16), bool), times, start, 96, 64)
    assert (displacements[5, 1] == 0).all() and (displacements[6, 1] == [32, 0]).all()
    assert not visible[6, 1] and not visible[7, 5] and visible.sum() == 16 * 16 - 3


def test_predictions_at_a_sample_without_a_new_frame_are_not_used():
    start = grid_units(96, 64, 4)
    times = np.arange(16) * GRID.step_ns
    times[5] = times[4]
    seen = np.ones((16, 16), bool)
    seen[5] = False
    displacements, visible = quantize(paths(0.5, start), seen, times, start, 96, 64)
    assert not displacements[4].any()
    assert (displacements[5] == [32, 0]).all()
    assert visible.all()


# ---- with the package, random weights, and a network small enough for a CPU


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    from cotracker.models.build_cotracker import build_cotracker

    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for variant, length in (("online", 16), ("offline", 60)):
        torch.manual_seed(7)
        model = build_cotracker(None, offline=variant == "offline", window_len=length)
        found[variant] = folder / CHECKPOINTS[variant]
        torch.save({"model": model.state_dict()} if variant == "online" else model.state_dict(), found[variant])
    return found


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(checkpoints, variant: str = "online", **options) -> CoTracker:
    settings = {"side": 4, "short_side_px": 64, "network_size_px": (64, 96), "device": "cpu"} | options
    return CoTracker(checkpoints[variant], variant=variant, **settings)


def by_end(batches: Iterator[TrackWindows]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    return {
        int(end): (batch.displacements[k], batch.visible[k])
        for batch in batches
        for k, end in enumerate(batch.end_samples)
    }


@needs_package
@pytest.mark.parametrize("variant", ["online", "offline"])
def test_batched_windows_equal_single_ones_window_by_window(checkpoints, variant):
    samples = stream(images(24))
    one = by_end(small(checkpoints, variant, batch_windows=1).track(samples, GRID))
    three = by_end(small(checkpoints, variant, batch_windows=3).track(samples, GRID))
    assert list(one) == list(three) == [15, 19, 23]
    worst = max(np.abs(one[end][0].astype(int) - three[end][0]).max() for end in one)
    assert worst <= 1, f"{worst} units of 1/32 px"
    assert any(one[end][0].any() for end in one)
    assert one[15][0].shape == (15, 16, 2)


@needs_package
def test_windows_do_not_depend_on_where_tracking_starts(checkpoints):
    samples = stream(images(40), first=400, missing=(419,))
    tracker = small(checkpoints, batch_windows=2)
    whole = by_end(tracker.track(samples, GRID))
    part = by_end(tracker.track(samples[10:], GRID))
    assert list(whole) == [415, 435, 439]
    assert list(part) == [435, 439]
    for end, window in part.items():
        np.testing.assert_array_equal(window[0], whole[end][0])
        np.testing.assert_array_equal(window[1], whole[end][1])


@needs_package
def test_the_predictor_of_the_package_gives_the_same_tracks(checkpoints):
    """Against the package used by hand, as its README shows."""
    from cotracker.predictor import CoTrackerOnlinePredictor

    pictures = images(16, seed=3)
    tracker = small(checkpoints, batch_windows=2)
    (ours,) = tracker.track(stream(pictures), GRID)
    predictor = CoTrackerOnlinePredictor(checkpoint=str(checkpoints["online"]))
    predictor.interp_shape = predictor.model.model_resolution = (64, 96)
    video = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[None].float()
    queries = torch.zeros(1, 16, 3)
    queries[0, :, 1:] = torch.from_numpy(grid_units(96, 64, 4) / UNITS_PER_PX)
    predictor(video_chunk=video, is_first_step=True, queries=queries)
    theirs, _ = predictor(video_chunk=video)
    inside = ours.visible[0, 1:] | (ours.positions()[0, 1:] > 0).all(axis=-1)
    error = np.abs(ours.positions()[0, 1:] - theirs[0, 1:].numpy()).max(axis=-1)
    limits = (theirs[0, 1:].numpy() > 0).all(-1) & (theirs[0, 1:].numpy() < [95, 63]).all(-1)
    assert (inside & limits).sum() > 100
    assert error[inside & limits].max() < 1 / 32


@needs_package
def test_sizes_and_frames_are_let_go(checkpoints):
    alive: weakref.WeakSet[Frame] = weakref.WeakSet()
    most = 0

    def samples() -> Iterator[Sample]:
        nonlocal most
        for index, picture in enumerate([*images(20), *images(20, width=112)]):
            frame = Frame(GRID.time_ns(index), picture)
            alive.add(frame)
            most = max(most, len(alive))
            yield Sample(index, frame)
            del frame

    batches = list(small(checkpoints, batch_windows=2).track(samples(), GRID))
    assert [(int(batch.end_samples[0]), len(batch), batch.image_width_px) for batch in batches] == [
        (15, 1, 96),
        (19, 1, 96),
        (35, 2, 112),
    ]
    assert most <= 3


@needs_package
def test_identity_names_the_weights_and_loading_leaves_the_random_state_alone(checkpoints, monkeypatch, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tracker = small(checkpoints)
    name = tracker.tracker_id
    assert torch.equal(torch.rand(3), expected)
    assert name.startswith("cotracker3-online/") and name.endswith("/float32/64x96/64/4x4/v1")
    assert small(checkpoints).tracker_id == name
    # Torch hub's cache holds the same file: no download, the same identity.
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / CHECKPOINTS["online"]).write_bytes(checkpoints["online"].read_bytes())
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    hub = CoTracker(side=4, short_side_px=64, network_size_px=(64, 96), device="cpu")
    assert hub.tracker_id == name


@needs_package
def test_checkpoints_that_are_not_there_or_do_not_fit(checkpoints, tmp_path):
    with pytest.raises(MissingDependencyError, match=r"no such checkpoint.*scaled_online\.pth.*CC BY-NC 4\.0"):
        _ = CoTracker(tmp_path / "none.pth").tracker_id
    with pytest.raises(InputError, match="does not fit CoTracker3 offline"):
        _ = CoTracker(checkpoints["online"], variant="offline", device="cpu").tracker_id
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="no checkpoint that torch can read"):
        _ = CoTracker(broken).tracker_id
