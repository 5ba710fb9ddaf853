"""Tracks that enter after tracking: projection, windows on the grid, files, and the tokenizer with N other than 400."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.benchmarks.kinematics import (
    KinematicRecording,
    Projection,
    halves,
    load_gear_assembly,
    load_npz,
    load_suturing,
    load_tracks,
    windows_of,
)
from laps.benchmarks.track_files import PointTracks, read_tracks
from laps.errors import InputError, ModelMismatchError
from laps.evaluation import evaluate
from laps.latent import LOST_TRACKS, WINDOW_START, encode_stream
from laps.single import START_NS
from laps.timegrid import SampleGrid
from laps.tokenizer import TokenizerConfig, from_tracks, train
from laps.tracks import TrackWindows

GRID = SampleGrid()
FLAT = Projection((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)), 1.0, 640, 320)


def trial(
    frames: int = 300, points: int = 6, dimensions: int = 3, *, fps: float = 30.0, seed: int = 0, name: str = "a_1"
) -> PointTracks:
    """Points that wander around places of their own."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-1, 1, (points, dimensions)) * np.array([4.0, 2.0, 0.5])[:dimensions]
    times_s = np.arange(frames) / fps
    sway = 0.3 * np.sin(2 * np.pi * 0.4 * times_s[:, None, None] + rng.uniform(0, 6, (points, dimensions)))
    return PointTracks(name, times_s, places + sway, 1 / fps, 0.0)


# --- projection ----------------------------------------------------------------------------------------------------


def test_the_picture_shows_the_two_widest_directions() -> None:
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    positions = rng.uniform(-1, 1, (2000, 6, 3)) * [8.0, 4.0, 0.1] @ turn
    projection = Projection.fit([PointTracks("a", np.arange(2000) / 30, positions, 1 / 30, 0.0)])
    assert np.allclose(np.abs(np.array(projection.axes) @ turn.T), [[1, 0, 0], [0, 1, 0]], atol=0.05)
    assert projection.height_px == 320
    assert projection.width_px == pytest.approx(640, rel=0.03)


@settings(deadline=None, max_examples=25)
@given(scale=st.sampled_from([0.001, 1.0, 1000.0]), shift=st.floats(-5, 5), dimensions=st.sampled_from([2, 3]))
def test_unit_and_origin_of_the_file_do_not_matter(scale: float, shift: float, dimensions: int) -> None:
    one = trial(dimensions=dimensions)
    other = PointTracks(one.name, one.times_s, (one.positions + shift) * scale, one.interval_s, 0.0)
    px = [Projection.fit([tracks]).to_px(tracks.positions) for tracks in (one, other)]
    assert np.allclose(*px, atol=0.01)


def test_the_working_area_spans_the_picture_and_mistakes_of_a_sensor_do_not() -> None:
    tracks = trial(dimensions=2, frames=3000)
    tracks.positions[5, 0] = 1e6
    projection = Projection.fit([tracks])
    px = projection.to_px(tracks.positions[10:])
    assert min(projection.width_px, projection.height_px) == 320
    inside = (px > -0.02 * 640).all(-1) & (px < 1.02 * np.array([projection.width_px, projection.height_px])).all(-1)
    assert inside.mean() > 0.98


def test_two_dimensions_keep_their_axes_and_a_line_does_not_explode() -> None:
    positions = np.zeros((100, 1, 2))
    positions[:, 0, 1] = np.linspace(0, 1, 100)
    projection = Projection.fit([PointTracks("a", np.arange(100) / 30, positions, 1 / 30, 0.0)])
    assert projection.axes == ((1.0, 0.0), (0.0, 1.0))
    assert (projection.width_px, projection.height_px) == (320, 1280)


def test_a_projection_needs_points_that_move_and_one_kind_of_them() -> None:
    still = PointTracks("a", np.arange(10) / 30, np.ones((10, 2, 3)), 1 / 30, 0.0)
    with pytest.raises(InputError, match="never move"):
        Projection.fit([still])
    with pytest.raises(InputError, match="no position"):
        Projection.fit([])
    with pytest.raises(InputError, match="two dimensions and some three"):
        Projection.fit([still, trial(dimensions=2)])
    with pytest.raises(InputError, match="2 dimensions"):
        FLAT.to_px(still.positions)


# --- windows -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    frames=st.integers(2, 200),
    fps=st.sampled_from([7.5, 10.0, 25.0, 30.0, 100.0]),
    dropped=st.lists(st.integers(1, 199), max_size=20),
)
def test_windows_follow_the_rules_of_a_video(frames: int, fps: float, dropped: list[int]) -> None:
    whole = trial(frames, fps=fps, dimensions=2)
    keep = np.setdiff1d(np.arange(frames), dropped)
    tracks = PointTracks("a", whole.times_s[keep], whole.positions[keep], whole.interval_s, 0.0)
    windows, first, stop, covered = windows_of(tracks, FLAT, GRID)
    assert first == START_NS // GRID.step_ns and covered.shape == (stop - first,)
    assert ((windows.end_samples % 4) == 3).all() and (np.diff(windows.end_samples) >= 4).all()
    # Each sample shows the newest frame at or before it, by the definition of the grid.
    times_ns = START_NS + np.rint(tracks.times_s * 1e9).astype(np.int64)
    expected_ends = []
    for end in range(first, stop):
        samples = range(end - 15, end + 1)
        if end % 4 != 3 or samples[0] < first:
            continue
        newest = [times_ns[times_ns <= n * GRID.step_ns].max() for n in samples]
        limit_ns = max(250_000_000, round(2e9 / fps))
        if all(n * GRID.step_ns - time <= limit_ns for n, time in zip(samples, newest, strict=True)):
            expected_ends.append(end)
            assert (windows.frame_times_ns[len(expected_ends) - 1] == newest).all()
    assert windows.end_samples.tolist() == expected_ends


def test_velocities_are_those_of_the_points() -> None:
    times_s = np.arange(200) / 30
    velocity_px_s = np.array([[40.0, -10.0], [0.0, 5.0], [3.0, 0.0]])
    tracks = PointTracks("a", times_s, 100 + times_s[:, None, None] * velocity_px_s, 1 / 30, 0.0)
    windows, *_ = windows_of(tracks, FLAT, GRID)
    assert len(windows) > 10 and windows.visible.all()
    assert np.allclose(windows.velocities(GRID), velocity_px_s / 10, atol=1.01 / 32)
    # Rounding does not add up: over a window the displacement is right to a unit.
    assert np.allclose(windows.displacements.sum(axis=1) / 32, velocity_px_s * 1.5, atol=1.01 / 32)


def test_a_lost_point_is_not_visible_and_does_not_jump_when_it_comes_back() -> None:
    tracks = trial(300, dimensions=2)
    tracks.positions[60:90, 2] = np.nan  # samples 20 to 29
    tracks.positions[:30, 4] = np.nan
    tracks.positions[:, 5] = np.nan
    windows, first, _, covered = windows_of(tracks, FLAT, GRID)
    assert covered.all()
    samples = windows.end_samples[:, None] - 15 + np.arange(16) - first
    assert (windows.visible[..., 2] == ((samples < 20) | (samples >= 30))).all()
    assert (windows.visible[..., 4] == (samples >= 10)).all()
    assert not windows.visible[..., 5].any() and windows.visible[..., :2].all()
    velocities = windows.velocities(GRID)
    assert np.isfinite(velocities).all() and not velocities[..., 5, :].any()
    assert np.abs(velocities).max() < 0.3


def test_a_leap_beyond_what_can_be_stored_is_a_lost_point() -> None:
    tracks = trial(120, dimensions=2)
    tracks.positions[60:, 0] += 5000.0
    windows, first, *_ = windows_of(tracks, FLAT, GRID)
    samples = windows.end_samples[:, None] - 15 + np.arange(16) - first
    assert (windows.visible[..., 0] == (samples != 20)).all()
    assert np.abs(windows.velocities(GRID)).max() < 10


def test_windows_survive_their_table() -> None:
    windows, *_ = windows_of(trial(dimensions=2), FLAT, GRID)
    again = TrackWindows.from_table(windows.to_table("cam1", GRID))
    assert (again.displacements == windows.displacements).all() and (again.visible == windows.visible).all()


def test_a_trial_shorter_than_a_window_has_none() -> None:
    windows, first, stop, covered = windows_of(trial(20, dimensions=2), FLAT, GRID)
    assert len(windows) == 0 and stop - first == 7 == len(covered)


# --- files ---------------------------------------------------------------------------------------------------------


def write_suturing(folder: Path, trials: list[PointTracks], *, first_frame: int = 0) -> Path:
    """A pair of files like the suturing set's."""
    rows: dict[str, list[object]] = {"trial": [], "frame": []}
    rows |= {f"p{point}_{axis}": [] for point in range(6) for axis in "xyz"}
    segments: dict[str, list[object]] = {"trial": [], "start_frame": [], "end_frame": [], "label": []}
    for one in trials:
        count = len(one.times_s)
        rows["trial"] += [one.name] * count
        rows["frame"] += list(range(first_frame, first_frame + count))
        for point in range(6):
            for place, axis in enumerate("xyz"):
                rows[f"p{point}_{axis}"] += one.positions[:, point, place].tolist()
        cut = count // 3
        edges = [first_frame, first_frame + cut, first_frame + 2 * cut, first_frame + count]
        for start, end, label in zip(edges, edges[1:], ["G0", "G1", "G2"], strict=False):
            for column, value in zip(segments, [one.name, start, end, label], strict=True):
                segments[column].append(value)
    pyarrow.parquet.write_table(pa.table(rows), folder / "set.tracks.parquet")
    pyarrow.parquet.write_table(pa.table(segments), folder / "set.segments.parquet")
    return folder / "set.tracks.parquet"


def test_suturing_is_one_recording_a_trial_with_its_truth(tmp_path: Path) -> None:
    trials = [trial(300, seed=1, name="P1_a"), trial(240, seed=2, name="P2_a")]
    write_suturing(tmp_path, trials, first_frame=90)
    found = load_suturing(tmp_path)
    assert [one.name for one in found] == ["P1_a", "P2_a"]
    assert [one.duration_s for one in found] == [10.0, 8.0]
    assert found[0].truth["segments"][1] == {"start_sec": pytest.approx(100 / 30), "end_sec": pytest.approx(200 / 30),
                                             "label": "G1"}  # fmt: skip
    # Windows do not reach from one trial into the next, and both start at the same sample.
    for one, original in zip(found, trials, strict=True):
        alone, *_ = windows_of(original, one.projection, GRID)
        assert (one.windows.displacements == alone.displacements).all()
    assert found[0].first == found[1].first
    # G0 does not count.
    perfect = {"segments": [s for s in found[0].truth["segments"] if s["label"] != "G0"]}
    assert evaluate(found[0].truth, perfect)["counts"]["truth"] == 2
    assert all(score["f1"] == 1 for score in evaluate(found[0].truth, perfect)["scores"])


def test_the_projection_of_one_half_serves_the_other(tmp_path: Path) -> None:
    trials = [trial(120, seed=seed, name=f"P{seed}_a") for seed in range(4)]
    trials[3].positions[:] *= 7
    write_suturing(tmp_path, trials)
    learn, score = halves([one.name for one in trials])
    assert not {name.split("_")[0] for name in learn} & {name.split("_")[0] for name in score}
    first = load_suturing(tmp_path, trials=learn)
    second = load_suturing(tmp_path, trials=score, projection=first[0].projection)
    both = load_suturing(tmp_path, fit_on=learn)
    assert first[0].projection == second[0].projection == both[0].projection != load_suturing(tmp_path)[0].projection
    assert first[0].windows.tracker_id == second[0].windows.tracker_id
    with pytest.raises(InputError, match="one person"):
        halves(["P1_a", "P1_b"])
    with pytest.raises(InputError, match="no trial nobody"):
        load_suturing(tmp_path, fit_on=["nobody"])


def test_gear_assembly_has_a_label_a_frame_of_which_zero_is_none(tmp_path: Path) -> None:
    one = trial(240, points=23)
    labels = np.repeat([0, 1, 2, 0], 60)
    np.savez(tmp_path / "gear_1.npz", positions_mm=one.positions.astype(np.float32), fps=np.int64(30), label=labels)
    (found,) = load_gear_assembly(tmp_path)
    assert found.name == "gear_1" and found.windows.visible.shape[2] == 23
    assert [segment["label"] for segment in found.truth["segments"]] == ["0", "1", "2", "0"]
    perfect = {"segments": [{"start_sec": 2.0, "end_sec": 4.0}, {"start_sec": 4.0, "end_sec": 6.0}]}
    assert evaluate(found.truth, perfect)["counts"]["truth"] == 2
    assert all(score["f1"] == 1 for score in evaluate(found.truth, perfect)["scores"])


def test_a_users_own_csv_with_times_and_lost_points(tmp_path: Path) -> None:
    path = tmp_path / "hand.csv"
    lines = ["time_s,p0_x,p0_y,p1_x,p1_y"]
    lines += [f"{n / 20:.3f},{n},{n % 7},{'' if n < 50 else 3 * n},{2}" for n in range(100)]
    path.write_text("\n".join(lines))
    (found,) = load_tracks(path)
    assert found.name == "hand" and found.duration_s == pytest.approx(5.0)
    assert found.truth["segments"] == []
    assert found.windows.visible[..., 0].all() and not found.windows.visible[0, :, 1].all()
    assert found.windows.visible[-1, -1, 1]


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    def csv(text: str) -> Path:
        path = tmp_path / "x.csv"
        path.write_text(text)
        return path

    with pytest.raises(InputError, match=r"missing\.csv"):
        read_tracks(tmp_path / "missing.csv")
    with pytest.raises(InputError, match="rate is needed"):
        read_tracks(csv("frame,p0_x,p0_y\n0,1,2\n1,1,2\n"))
    with pytest.raises(InputError, match='neither a column "frame"'):
        read_tracks(csv("p0_x,p0_y\n1,2\n"))
    with pytest.raises(InputError, match="without a gap"):
        read_tracks(csv("time_s,p0_x,p0_y,p2_x,p2_y\n0,1,2,3,4\n"))
    with pytest.raises(InputError, match="without a gap"):
        read_tracks(csv("time_s,p0_x,p0_y,p0_z,p1_x,p1_y\n0,1,2,3,4,5\n"))
    with pytest.raises(InputError, match="does not rise"):
        read_tracks(csv("frame,p0_x,p0_y\n1,1,2\n1,1,2\n"), fps=30)
    with pytest.raises(InputError, match="p0_x does not hold numbers"):
        read_tracks(csv("time_s,p0_x,p0_y\n0,here,2\n1,there,2\n"))
    with pytest.raises(InputError, match="there is no trial b"):
        read_tracks(csv("trial,time_s,p0_x,p0_y\na,0,1,2\na,1,1,2\n"), trials=["b"])
    (tmp_path / "x.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"x\.npz"):
        load_npz([tmp_path / "x.npz"])
    np.savez(tmp_path / "y.npz", positions=np.ones((5, 3)), fps=30)
    with pytest.raises(InputError, match="shape"):
        load_npz([tmp_path / "y.npz"])
    np.savez(tmp_path / "z.npz", positions=np.ones((5, 3, 2)), fps=30, label=np.zeros(4, int))
    with pytest.raises(InputError, match="5 frames"):
        load_npz([tmp_path / "z.npz"])
    tracks = write_suturing(tmp_path, [trial(60, name="P1_a")])
    pyarrow.parquet.write_table(
        pa.table({"trial": ["P1_a"], "start_frame": [5], "end_frame": [5], "label": ["G1"]}),
        tmp_path / "set.segments.parquet",
    )
    with pytest.raises(InputError, match="does not end after it starts"):
        load_suturing(tracks)


# --- tokenizer and energies ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def suturing(tmp_path_factory: pytest.TempPathFactory) -> list[KinematicRecording]:
    folder = tmp_path_factory.mktemp("suturing")
    trials = [trial(900, seed=seed, name=f"P{seed}_a") for seed in range(2)]
    trials[1].positions[300:450] = np.nan  # all points lost for 5 s
    write_suturing(folder, trials)
    return load_suturing(folder, fit_on=["P0_a"])


def test_tokenizer_and_energies_take_six_points(suturing: list[KinematicRecording]) -> None:
    learn, score = suturing
    config = TokenizerConfig.small(learn.windows.tracker_id, points=6, remove_common_mode=False, precision="float32")
    tokenizer = train(from_tracks([learn.windows], GRID, config), config, max_steps=20, seed=0).tokenizer
    assert tokenizer.decoded_motion().shape == (1920, 6, 2)
    stream = encode_stream([score.windows], tokenizer, GRID, first=score.first, stop=score.stop, covered=score.covered)
    reasons = np.array(stream.null_reason, dtype=object)
    assert (reasons[:12] == WINDOW_START).all()
    lost = reasons == LOST_TRACKS
    assert 40 <= lost.sum() <= 60 and lost[104:148].all()
    # All else has values: codes, and energies that are finite.
    present = ~lost
    present[:12] = False
    assert (stream.code[present] >= 0).all() and np.isfinite(stream.velocity_energy[present]).all()
    assert (stream.velocity_energy[present] > 0).all()


def test_tracks_of_another_projection_are_refused(suturing: list[KinematicRecording], tmp_path: Path) -> None:
    learn, _ = suturing
    config = TokenizerConfig.small(learn.windows.tracker_id, points=6, remove_common_mode=False, precision="float32")
    tokenizer = train(from_tracks([learn.windows], GRID, config), config, max_steps=2, seed=0).tokenizer
    write_suturing(tmp_path, [trial(300, seed=5, name="P5_a")])
    (other,) = load_suturing(tmp_path)
    with pytest.raises(ModelMismatchError, match="was trained on tracks of points/6/"):
        encode_stream([other.windows], tokenizer, GRID, first=other.first, stop=other.stop, covered=other.covered)
