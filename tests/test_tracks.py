"""Track windows: grid, velocities on uneven frame times, packing."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError, ModelMismatchError, SchemaError
from laps.tables import KEYPOINT_TRACKS
from laps.timegrid import SampleGrid
from laps.tracks import UNITS_PER_PX, TrackWindows, grid_points, unpack

GRID = SampleGrid()
T = GRID.window
MS = 1_000_000


def windows_of(frame_times_ns, displacements=None, visible=None, *, points=4, first_end=15, **fields) -> TrackWindows:
    times = np.atleast_2d(np.asarray(frame_times_ns, dtype=np.int64))
    count = len(times)
    if displacements is None:
        displacements = np.zeros((count, T - 1, points, 2), np.int16)
    if visible is None:
        visible = np.ones((count, T, points), bool)
    ends = first_end + GRID.stride * np.arange(count)
    settings = {"image_width_px": 569, "image_height_px": 320, "tracker_id": "test/1"} | fields
    return TrackWindows(ends, displacements, visible, times, **settings)


def random_windows(seed: int, count: int, *, side: int = 3, **fields) -> TrackWindows:
    rng = np.random.default_rng(seed)
    points = side * side
    return windows_of(
        np.cumsum(rng.integers(0, 150 * MS, (count, T)), axis=1),
        rng.integers(-32_768, 32_768, (count, T - 1, points, 2)).astype(np.int16),
        rng.random((count, T, points)) < 0.7,
        **fields,
    )


def steady_motion(fps: float, speed_px_s: float) -> TrackWindows:
    """A point that moves evenly, filmed at ``fps`` and sampled at 10 Hz; every possible phase is a window."""
    times, displacements = [], []
    for phase in range(7):
        shown = np.floor((np.arange(T) / 10 + phase / 70) * fps + 1e-9) / fps
        units = np.rint(shown * speed_px_s * UNITS_PER_PX)
        times.append(np.rint(shown * 1e9))
        displacements.append(np.diff(units))
    packed = np.zeros((7, T - 1, 1, 2), np.int16)
    packed[..., 0, 0] = displacements
    return windows_of(np.array(times), packed, points=1)


def test_grid_points_are_centres_of_equal_cells_on_whole_units():
    points = grid_points(569, 320)
    assert points.shape == (400, 2) and points.dtype == np.float32
    assert (points * UNITS_PER_PX == np.rint(points * UNITS_PER_PX)).all()
    np.testing.assert_allclose(points[0], [569 / 40 - 0.5, 320 / 40 - 0.5], atol=1 / 64)
    np.testing.assert_allclose(points[1] - points[0], [569 / 20, 0], atol=1 / 32)
    np.testing.assert_allclose(points[20] - points[0], [0, 16], atol=1 / 32)
    np.testing.assert_allclose(points + points[::-1], np.broadcast_to([568, 319], (400, 2)), atol=1 / 16)
    with pytest.raises(InputError, match="does not fit"):
        grid_points(10, 320)


def test_velocity_at_the_nominal_rate_is_the_displacement_in_px():
    windows = random_windows(0, 3)
    windows = windows_of(np.arange(T) * GRID.step_ns + np.zeros((3, 1)), windows.displacements, points=9)
    velocities = windows.velocities(GRID)
    assert velocities.dtype == np.float32
    np.testing.assert_array_equal(velocities, windows.displacements / np.float32(32))


@pytest.mark.parametrize("fps", [30, 25, 24, 15, 12.5, 10, 5])
def test_steady_motion_gives_steady_velocity_at_any_frame_rate(fps):
    windows = steady_motion(fps, speed_px_s=64)
    np.testing.assert_allclose(windows.velocities(GRID)[..., 0, 0], 6.4, atol=0.08)
    if fps == 25:  # what it would be without the true times
        unscaled = windows.displacements[..., 0, 0] / 32
        assert unscaled.min() < 5.2 and unscaled.max() > 7.6


def test_a_step_without_a_new_frame_takes_the_next_then_the_last_velocity():
    shown = np.array([0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 14]) * GRID.step_ns
    displacements = np.zeros((1, T - 1, 1, 2), np.int16)
    displacements[0, 1, 0] = [640, 64]  # over two steps, the first of which shows nothing new
    displacements[0, 13, 0] = [32, -32]
    visible = np.ones((1, T, 1), bool)
    windows = windows_of(shown, displacements, visible, points=1)
    velocities = windows.velocities(GRID)[0, :, 0]
    np.testing.assert_array_equal(velocities[[0, 1, 2, 13, 14]], [[10, 1], [10, 1], [0, 0], [1, -1], [1, -1]])
    visible[0, 2] = False  # the step that measures both is lost at its end
    lost = windows_of(shown, displacements, visible, points=1)
    np.testing.assert_array_equal(lost.step_visible()[0, :4, 0], [False, False, False, True])
    np.testing.assert_array_equal(lost.velocities(GRID)[0, :3], 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=T - 1, max_size=T - 1), st.integers(0, 2**32 - 1))
def test_velocities_follow_the_rule_for_any_frame_times(intervals_ms, seed):
    """Against the rule written out step by step; never NaN."""
    base = random_windows(seed, 1)
    times = np.concatenate([[0], np.cumsum(intervals_ms)]) * MS
    windows = windows_of(times, base.displacements, base.visible, points=9)
    velocities, seen = windows.velocities(GRID)[0], windows.step_visible()[0]
    assert np.isfinite(velocities).all()
    measured = [step for step, interval in enumerate(intervals_ms) if interval > 0]
    for step in range(T - 1):
        later = [other for other in measured if other >= step]
        if not measured:
            continue
        source = later[0] if later else measured[-1]
        both_ends = base.visible[0, source] & base.visible[0, source + 1]
        expected = base.displacements[0, source] / 32 * 100 / max(intervals_ms[source], 10)
        np.testing.assert_array_equal(seen[step], both_ends)
        np.testing.assert_allclose(velocities[step], expected * both_ends[:, None], rtol=1e-5)


def test_a_frame_a_moment_after_another_does_not_leap():
    shown = np.arange(T) * GRID.step_ns
    shown[1] = shown[0] + MS // 10
    displacements = np.full((1, T - 1, 1, 2), 32, np.int16)
    assert windows_of(shown, displacements, points=1).velocities(GRID).max() == 10


def test_invisible_steps_are_zero_unless_asked_for():
    base = random_windows(1, 5)
    seen = base.step_visible()
    np.testing.assert_array_equal(seen.shape, (5, T - 1, 9))
    assert 0.3 < seen.mean() < 0.7
    assert (base.velocities(GRID)[~seen] == 0).all()
    kept = base.velocities(GRID, keep_invisible=True)
    np.testing.assert_array_equal(kept[seen], base.velocities(GRID)[seen])
    assert (kept[~seen] != 0).any()


def test_positions_are_exact_sums():
    displacements = np.full((1, T - 1, 400, 2), 1, np.int16)
    windows = windows_of(np.arange(T) * GRID.step_ns, displacements, points=400)
    positions = windows.positions()
    np.testing.assert_array_equal(positions[0, 0], grid_points(569, 320))
    np.testing.assert_array_equal(positions[0, -1], grid_points(569, 320) + 15 / 32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(1, 4))
def test_packing_loses_nothing(seed, count, side):
    windows = random_windows(seed, count, side=side)
    table = KEYPOINT_TRACKS.validate(windows.to_table("cam1", GRID))
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    read = pq.read_table(file)
    if not count:
        assert list(unpack(read)) == []
        return
    back = TrackWindows.from_table(read)
    for name in ("end_samples", "displacements", "visible", "frame_times_ns"):
        np.testing.assert_array_equal(getattr(back, name), getattr(windows, name))
        assert getattr(back, name).dtype == getattr(windows, name).dtype
    assert (back.image_width_px, back.image_height_px, back.tracker_id) == (569, 320, "test/1")
    np.testing.assert_allclose(table["visible_share"], windows.visible.mean(axis=(1, 2)), atol=1e-6)
    assert table["end_time"][0].value == 15 * 100_000


def test_unpack_splits_where_the_image_size_changes():
    parts = [
        random_windows(0, 5),
        random_windows(1, 3, first_end=35, image_width_px=320, image_height_px=320),
        random_windows(2, 4, first_end=47),
    ]
    table = pa.concat_tables([part.to_table("cam1", GRID) for part in parts])
    back = list(unpack(table, batch_windows=4))
    assert [len(part) for part in back] == [4, 1, 3, 4]
    assert [part.image_width_px for part in back] == [569, 569, 320, 569]
    for name in ("end_samples", "displacements", "visible"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(part, name) for part in back]),
            np.concatenate([getattr(part, name) for part in parts]),
        )
    with pytest.raises(SchemaError, match=r"320 x 320 px, 569 x 320 px.*unpack"):
        TrackWindows.from_table(table)


def test_tracks_of_two_trackers_are_refused():
    one = random_windows(0, 2).to_table("cam1", GRID)
    other = random_windows(1, 2, first_end=23, tracker_id="test/2").to_table("cam1", GRID)
    with pytest.raises(ModelMismatchError, match=r"test/1, test/2.*again"):
        list(unpack(pa.concat_tables([one, other])))


@pytest.mark.parametrize("column", ["displacements", "visible"])
def test_packed_arrays_of_a_wrong_length_are_refused(column):
    table = random_windows(0, 3).to_table("cam1", GRID)
    values = table[column].to_pylist()
    values[1] = values[1][:-1]
    broken = table.set_column(table.column_names.index(column), table.field(column), pa.array([values]).flatten())
    with pytest.raises(SchemaError, match=f"packed {column}"):
        TrackWindows.from_table(broken)
    with pytest.raises(SchemaError, match="no rows"):
        TrackWindows.from_table(table[:0])


def test_arrays_that_do_not_fit_together_are_refused():
    with pytest.raises(SchemaError, match="displacements of track windows is int64"):
        windows_of(np.arange(T), np.zeros((1, T - 1, 4, 2), np.int64))


def test_a_slice_of_a_batch_is_a_batch():
    windows = random_windows(0, 5)
    part = windows[1:3]
    assert len(part) == 2
    np.testing.assert_array_equal(part.displacements, windows.displacements[1:3])
