"""One frame for each sample of the absolute grid, whatever range, hour or file split asks for it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laps.errors import MediaError
from laps.recordings import describe_hour, describe_range, registration_row
from laps.sampling import Piece, covered, pieces_of, sample_frames
from laps.timegrid import HOUR_NS, CameraHour, SampleGrid, parse_utc
from tests.videos import numbered_texture, read_number, write_video

S = 1_000_000_000
GRID = SampleGrid()
SIX = parse_utc("2026-11-21T06:00:00Z")
N6 = SIX // GRID.step_ns
WIDTH, HEIGHT = 96, 72


def register(path: Path, start_ns: int) -> dict:
    with path.open("rb") as file:
        return registration_row(
            file,
            camera="cam1",
            uri=str(path),
            size_bytes=path.stat().st_size,
            modified_ns=1,
            etag=None,
            registered_ns=SIX + 24 * HOUR_NS,
            option_ns=start_ns,
        )


def open_file(uri: str):
    return Path(uri).open("rb")


def make(path: Path, start_ns: int, **how) -> dict:
    how = {"width": WIDTH, "height": HEIGHT, "draw": numbered_texture(WIDTH, HEIGHT), **how}
    return register(write_video(path, **how), start_ns)


def shown(pieces: list[Piece], first: int, stop: int) -> list[tuple[int, bytes] | None]:
    samples = list(sample_frames(pieces, open_file, GRID, first, stop))
    assert [sample.index for sample in samples] == list(range(first, stop))
    return [
        None if sample.frame is None else (sample.frame.time_ns, sample.frame.gray(HEIGHT).tobytes())
        for sample in samples
    ]


class Pictures(dict):
    """Hypothesis shows the arguments of a failing example; pictures would be too long."""

    def __repr__(self) -> str:
        return f"<{len(self)} pictures>"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Around 06:00: dropped frames, an overlap, a seam, another container and rate, a gap, a slow camera."""
    folder = tmp_path_factory.mktemp("recordings")
    kept = [i / 30 for i in range(330) if i % 7 and not 100 <= i < 130]
    start = SIX - 12 * S
    return [
        make(folder / "a.mp4", start, pts_s=kept),
        make(folder / "b.mkv", start + 10 * S + 123_456_789, fps=25, seconds=6, start_pts_s=2.0),
        make(folder / "c.ts", start + 16 * S + 130_000_000, seconds=5),
        make(folder / "d.mp4", start + 24 * S, fps=2, seconds=6),
    ]


@pytest.fixture(scope="module")
def whole(recordings) -> dict[int, tuple[int, bytes] | None]:
    """One pass over everything."""
    first, stop = N6 - 150, N6 + 250
    rows = describe_range("cam1", GRID.time_ns(first) - S, GRID.time_ns(stop), GRID, recordings, open_file)
    return Pictures(zip(range(first, stop), shown(pieces_of(rows), first, stop), strict=True))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=st.integers(N6 - 150, N6 + 200), length=st.integers(1, 50))
def test_any_range_shows_the_frames_of_one_pass(recordings, whole, first, length):
    start_ns, stop_ns = GRID.time_ns(first) - GRID.max_age_ns, GRID.time_ns(first + length)
    rows = describe_range("cam1", start_ns, stop_ns, GRID, recordings, open_file)
    expected = [whole[n] for n in range(first, first + length)]
    frames = shown(pieces_of(rows), first, first + length)
    assert [frame and frame[0] for frame in frames] == [frame and frame[0] for frame in expected]
    assert frames == expected
    assert covered(rows, GRID, first, first + length).tolist() == [frame is not None for frame in expected]


def test_an_hour_and_the_one_before_show_the_same_frames(recordings, whole):
    for hour_ns, first, stop in ((SIX - HOUR_NS, N6 - 150, N6), (SIX, N6 - GRID.preroll, N6 + 250)):
        rows = describe_hour(CameraHour("cam1", hour_ns), GRID, recordings, open_file)
        assert shown(pieces_of(rows), first, stop) == [whole[n] for n in range(first, stop)]


def test_each_sample_shows_the_newest_frame_at_or_before_it(recordings, whole):
    """Against the definition, from the frame times that the files were written with."""
    a, b, c, d = (row["start_time"].timestamp() for row in recordings)
    kept = np.array([i / 30 for i in range(330) if i % 7 and not 100 <= i < 130])
    times_a = a + kept - kept[0]
    times_b = b + np.arange(150) / 25
    times_c = c + np.arange(150) / 30
    used = np.concatenate(
        [
            times_a,
            times_b[times_b > times_a[-1]],
            times_c[times_c > times_b[-1]],
            d + np.arange(12) / 2,
        ]
    )
    for n, frame in whole.items():
        t = n / 10
        before = used[used <= t + 1e-6]
        age = t - before[-1] if before.size else np.inf
        slow = before.size and before[-1] >= d - 1e-6
        if age > (0.5 if slow else 0.25) + 1e-3:
            assert frame is None, n
        elif age < (0.5 if slow else 0.25) - 1e-3:
            assert frame is not None, n
            assert frame[0] / S == pytest.approx(before[-1], abs=1.5e-3), n


def test_a_frame_is_shared_until_a_newer_one_comes(tmp_path):
    row = make(tmp_path / "slow.mp4", SIX, fps=5, seconds=1)
    rows = describe_hour(CameraHour("cam1", SIX), GRID, [row], open_file)
    samples = list(sample_frames(pieces_of(rows), open_file, GRID, N6, N6 + 10))
    assert [read_number(sample.frame.gray(HEIGHT)) for sample in samples] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert samples[0].frame is samples[1].frame


def test_samples_hold_the_last_frame_for_the_maximum_age_only(tmp_path):
    row = make(tmp_path / "a.mp4", SIX + 10_000_000, seconds=1)
    rows = describe_hour(CameraHour("cam1", SIX), GRID, [row], open_file)
    frames = shown(pieces_of(rows), N6, N6 + 20)
    # First frame at 0.01 s, last at 0.9767 s; 0.9767 + 0.25 = 1.2267 s.
    assert [frame is not None for frame in frames] == [False] + [True] * 12 + [False] * 7


def test_no_footage_gives_missing_samples(tmp_path):
    assert shown([], N6, N6 + 3) == [None] * 3
    assert list(sample_frames([], open_file, GRID, N6, N6)) == []


def test_damage_inside_footage_gives_missing_samples_and_a_report(tmp_path):
    row = make(tmp_path / "a.mp4", SIX, seconds=6)
    rows = describe_hour(CameraHour("cam1", SIX), GRID, [row], open_file)
    path = tmp_path / "a.mp4"
    clip = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size and 2 <= packet.pts * packet.time_base < 4:
                clip[packet.pos : packet.pos + 8] = b"\xff" * 8
    path.write_bytes(clip)
    problems: list[str] = []
    samples = list(sample_frames(pieces_of(rows), open_file, GRID, N6, N6 + 60, on_problem=problems.append))
    seen = [sample.frame is not None for sample in samples]
    assert seen == [True] * 23 + [False] * 17 + [True] * 20
    assert problems


def test_one_undecodable_piece_leaves_its_neighbour_alone_but_nothing_at_all_is_an_error(tmp_path):
    good, bad = make(tmp_path / "good.mp4", SIX, seconds=1), make(tmp_path / "bad.mp4", SIX + 2 * S, seconds=1)
    rows = describe_hour(CameraHour("cam1", SIX), GRID, [good, bad], open_file)
    (tmp_path / "bad.mp4").write_bytes(b"rubbish" * 500)
    pieces = pieces_of(rows)
    problems: list[str] = []
    samples = list(sample_frames(pieces, open_file, GRID, N6, N6 + 30, on_problem=problems.append))
    assert [sample.frame is not None for sample in samples] == [True] * 13 + [False] * 17
    assert "bad.mp4" in problems[0]
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        list(sample_frames(pieces[1:], open_file, GRID, N6, N6 + 30))


def test_a_recording_that_is_gone_is_an_error_that_says_what_to_do(tmp_path):
    row = make(tmp_path / "a.mp4", SIX, seconds=1)
    rows = describe_hour(CameraHour("cam1", SIX), GRID, [row], open_file)
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(MediaError, match="materialize raw_video again"):
        list(sample_frames(pieces_of(rows), open_file, GRID, N6, N6 + 10))


def test_files_are_closed_and_memory_does_not_grow(tmp_path):
    row = make(tmp_path / "a.mp4", SIX, seconds=40)
    rows = describe_hour(CameraHour("cam1", SIX), GRID, [row], open_file)
    opened = []

    def remember(uri: str):
        opened.append(open_file(uri))
        return opened[-1]

    peaks = []
    for seconds in (8, 40):
        tracemalloc.start()
        for sample in sample_frames(pieces_of(rows), remember, GRID, N6, N6 + 10 * seconds):
            assert sample.frame.gray(320).shape == (320, 427)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2 + 500_000
    assert all(file.closed for file in opened)
