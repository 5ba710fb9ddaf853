"""Regions to ignore: what lies in them does not reach the signal, and the rest is as without them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.cameras import Camera
from laps.latent import ENERGIES, LatentStream, encode_stream
from laps.picture_changes import keyframe_segments
from laps.regions import Region, blank, hide_points
from laps.tables import KEYPOINT_TRACKS
from laps.timegrid import CameraHour, SampleGrid
from laps.tokenizer import MotionTokenizer, TokenizerConfig
from laps.trackers.cotracker import quantize
from laps.trackers.flow import FlowTracker
from laps.tracks import UNITS_PER_PX, TrackWindows, grid_units
from resources.cameras import Cameras
from resources.settings import store_settings
from resources.store import Store
from resources.tracks import read_windows
from tests.test_flow_tracker import stream, texture, to_image

torch.set_num_threads(1)
GRID = SampleGrid()
WIDTH, HEIGHT, SIDE = 192, 128, 8
SAMPLES = 32
HOUR = CameraHour.parse("cam1|2026-01-05-08:00")
FIRST = GRID.hour_samples(HOUR.hour_ns)[0]
# The belt: the lower third, with a margin for what bleeds over its edge.
BELT: Region = (0.0, 0.6, 1.0, 1.0)
ABOVE = np.repeat(np.arange(SIDE) < 0.6 * SIDE - 0.5, SIDE)


def scene(*, belt: bool) -> list[np.ndarray]:
    """A hand that goes to and fro in the upper half and, where wanted, a belt that runs below."""
    background, hand, goods = texture(WIDTH, HEIGHT), texture(40, 32, seed=1), texture(4 * WIDTH, HEIGHT, seed=2)
    images = []
    for sample in range(SAMPLES):
        picture = background.copy()
        x = int(30 + 60 * abs(np.sin(sample / 4)))
        picture[12:44, x : x + 40] = hand
        if belt:
            picture[96:] = goods[96:, 7 * sample : 7 * sample + WIDTH]
        images.append(to_image(picture))
    return images


def tracked(*, belt: bool) -> TrackWindows:
    tracker = FlowTracker(side=SIDE, short_side_px=HEIGHT)
    (windows,) = tracker.track(stream(scene(belt=belt), FIRST), GRID)
    return windows


@cache
def tracked_once() -> TrackWindows:
    return tracked(belt=False)


@pytest.fixture(scope="module")
def tokenizer() -> MotionTokenizer:
    tracker_id = FlowTracker(side=SIDE, short_side_px=HEIGHT).tracker_id
    config = TokenizerConfig.small(tracker_id, points=SIDE**2, width=32, heads=4, head_width=16, precision="float32")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = MotionTokenizer(config)
        with torch.no_grad():
            tokenizer.train().latents(torch.randn(64, config.steps, config.points, 2) * 3)
    return tokenizer.freeze()


def encoded(tokenizer: MotionTokenizer, *windows: TrackWindows) -> LatentStream:
    covered = np.ones(SAMPLES, bool)
    return encode_stream(windows, tokenizer, GRID, first=FIRST, stop=FIRST + SAMPLES, covered=covered)


def test_a_belt_in_a_region_does_not_reach_the_energy(tokenizer):
    still, running = tracked(belt=False), tracked(belt=True)
    differ_px = np.abs(still.displacements - running.displacements.astype(np.float64))[:, :, ABOVE] / UNITS_PER_PX
    assert differ_px.mean() < 0.01, "the same tracks above, but for what the flow carries over"
    want = encoded(tokenizer, hide_points(still, [BELT])).velocity_energy
    got = encoded(tokenizer, hide_points(running, [BELT])).velocity_energy
    present = np.isfinite(want)
    assert present.sum() >= 16
    assert np.abs(got - want)[present].mean() < 0.03
    # Without the region the belt is in it: it moves 7 px a sample in the lower quarter.
    assert (encoded(tokenizer, running).velocity_energy - want)[present].min() > 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_that_moves_in_a_region_reaches_the_stream(tokenizer, seed):
    windows = tracked_once()
    rng = np.random.default_rng(seed)
    other = windows.displacements.copy()
    moves = rng.integers(-400, 400, other[:, :, ~ABOVE].shape).astype(np.int16)
    other[:, :, ~ABOVE] = moves
    want = encoded(tokenizer, hide_points(windows, [BELT]))
    got = encoded(tokenizer, hide_points(replace(windows, displacements=other), [BELT]))
    assert (want.code >= 0).sum() >= 16
    assert got.null_reason == want.null_reason
    for name in ("code", *ENERGIES):
        assert np.array_equal(getattr(got, name), getattr(want, name), equal_nan=name != "code"), name


def test_a_large_region_loses_no_window_and_the_whole_picture_loses_all(tokenizer):
    windows = tracked(belt=False)
    most = encoded(tokenizer, hide_points(windows, [(0.0, 0.3, 1.0, 1.0)]))
    assert (most.code >= 0).sum() == (encoded(tokenizer, windows).code >= 0).sum()
    nothing = encoded(tokenizer, hide_points(windows, [(0.0, 0.0, 1.0, 1.0)]))
    assert (nothing.code < 0).all()
    assert set(nothing.null_reason) == {"window_start", "lost_tracks"}


shares = st.integers(0, 20).map(lambda twentieth: twentieth / 20)
regions = st.tuples(shares, shares, shares, shares).filter(lambda r: r[0] < r[2] and r[1] < r[3])


@settings(max_examples=50, deadline=None)
@given(st.lists(regions, max_size=3), st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_points_are_hidden_from_where_they_enter_in_every_split_alike(found, seed, split):
    rng = np.random.default_rng(seed)
    windows = TrackWindows(
        end_samples=np.arange(6) * 4 + 15,
        displacements=rng.integers(-300, 300, (6, 15, 16, 2)).astype(np.int16),
        visible=rng.random((6, 16, 16)) < 0.9,
        frame_times_ns=np.arange(96, dtype=np.int64).reshape(6, 16),
        image_width_px=120,
        image_height_px=90,
        tracker_id="test/v1",
    )
    hidden = hide_points(windows, found)
    assert hidden.displacements is windows.displacements
    places = (windows.positions() + 0.5) / np.float32([120, 90])
    for w, n in np.ndindex(6, 16):
        inside = [
            any(left <= x < right and top <= y < bottom for left, top, right, bottom in found)
            for x, y in places[w, :, n]
        ]
        entered = inside.index(True) if any(inside) else 16
        assert not hidden.visible[w, entered:, n].any()
        assert np.array_equal(hidden.visible[w, :entered, n], windows.visible[w, :entered, n])
    parts = [hide_points(windows[:split], found), hide_points(windows[split:], found)]
    assert np.array_equal(np.concatenate([part.visible for part in parts]), hidden.visible)


def test_it_holds_for_the_paths_of_a_network_as_well():
    start = grid_units(64, 64, 4)
    paths = np.broadcast_to(start / 32, (16, 16, 2)).astype(np.float32) + np.arange(16)[:, None, None] * [1, 0]
    times = np.arange(16, dtype=np.int64)
    displacements, visible = quantize(paths, np.ones((16, 16), bool), times, start, 64, 64)
    windows = TrackWindows(np.array([15]), displacements[None], visible[None], times[None], 64, 64, "cotracker3/test")
    hidden = hide_points(windows, [(0.25, 0.0, 0.5, 1.0)]).visible[0].reshape(16, 4, 4)
    assert not hidden[:, :, 1].any(), "the second column starts in the region"
    assert hidden[0, :, 0].all() and not hidden[-1, :, 0].any(), "the first moves into it"
    assert np.array_equal(hidden[:, :, 2], visible.reshape(16, 4, 4)[:, :, 2])


@given(regions, st.integers(1, 40), st.integers(1, 40))
def test_what_is_blanked_is_what_hides_a_point(region, width, height):
    picture = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = region
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    inside = ((top <= y) & (y < bottom))[:, None] & ((left <= x) & (x < right))[None, :]
    # A middle on an edge may fall on either side by the last bit.
    near = (np.abs(x[None, :, None] - [left, right]) < 1e-9).any(-1) | (
        np.abs(y[:, None, None] - [top, bottom]) < 1e-9
    ).any(-1)
    assert np.array_equal((blank(picture, [region]) > 0).all(-1)[~near], inside[~near])


def test_changes_of_the_picture_in_a_region_do_not_count():
    samples = list(range(0, 400, 5))
    still = [to_image(texture(96, 64, seed=place // 20)) for place in range(len(samples))]
    # A monitor in the right half, that shows something else every five seconds.
    monitor = [
        np.hstack([picture[:, :48], to_image(texture(48, 64, 99 + place // 10))]) for place, picture in enumerate(still)
    ]

    def segments(pictures: list[np.ndarray], *regions: Region) -> list[tuple[int, int]]:
        files = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
        return keyframe_segments(samples, files, GRID, regions)

    right = (0.5, 0.0, 1.0, 1.0)
    assert segments(monitor, right) == segments(still, right)
    assert segments(monitor) != segments(still, right)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    store_settings(store)
    return store


def test_tracks_are_read_with_the_regions_of_their_own_camera(store):
    other = CameraHour.parse("cam2|2026-01-05-08:00")
    windows = tracked(belt=True)
    for hour in (HOUR, other):
        store.write_partition(KEYPOINT_TRACKS, hour, windows.to_table(hour.camera, GRID))
    Cameras(store).write(Camera("cam1", ignore_regions=(BELT,)))
    with_region, without = list(read_windows(store, [HOUR, other]))
    assert np.array_equal(with_region.visible, hide_points(windows, [BELT]).visible)
    assert with_region.visible.sum() < windows.visible.sum()
    assert np.array_equal(without.visible, windows.visible)


def test_only_other_regions_change_the_time_at_which_they_were_set(store):
    cameras = Cameras(store)
    assert cameras.regions_set_at("cam1") is None
    cameras.write(Camera("cam1", site="Ulm"))
    assert cameras.regions_set_at("cam1") is None
    cameras.write(Camera("cam1", ignore_regions=(BELT,)))
    first = cameras.regions_set_at("cam1")
    assert first is not None
    cameras.write(Camera("cam1", station="press 3", ignore_regions=(BELT,)))
    assert cameras.regions_set_at("cam1") == first
    cameras.write(Camera("cam1"))
    assert cameras.regions_set_at("cam1") > first
