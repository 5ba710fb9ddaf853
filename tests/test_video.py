"""Times, pixels, seeking and damage of `laps.video`."""

from __future__ import annotations

import errno
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laps.errors import InputError, MediaError
from laps.video import decode, probe, scaled_size, scan_frames
from tests.videos import numbered_texture, read_number, write_video

S = 1_000_000_000
ALL = 10_000 * S
WIDTH, HEIGHT = 96, 72
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Open groups of pictures, B-frames, intra refresh, edit lists, no index, millisecond clocks, no timestamps at all.
VARIANTS = {
    "b-frames.mp4": {},
    "open-gop.ts": {"codec_options": {"preset": "medium", "bf": "3", "open-gop": "1", "sc_threshold": "0"}},
    "intra-refresh.ts": {"codec_options": {"intra-refresh": "1", "bf": "0"}, "gop": 45},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "late.mkv": {"start_pts_s": 3.5},
    "mpeg4.mp4": {"codec": "mpeg4", "codec_options": {"bf": "2"}},
    "h264.avi": {},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": {"deadline": "realtime", "cpu-used": "8"}},
}


class Clips(dict):
    """Hypothesis shows the arguments of a failing example; clips would be too long."""

    def __repr__(self) -> str:
        return f"<{len(self)} clips>"


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    draw = numbered_texture(WIDTH, HEIGHT)
    return Clips(
        (name, write_video(folder / name, seconds=14, width=WIDTH, height=HEIGHT, draw=draw, **how).read_bytes())
        for name, how in VARIANTS.items()
    )


@pytest.fixture(scope="session")
def whole(clips: dict[str, bytes]) -> dict[str, dict[int, bytes]]:
    return Clips((name, pictures(clip, 0, ALL)) for name, clip in clips.items())


def pictures(clip: bytes, from_ns: int, to_ns: int, *, threads: int = 1) -> dict[int, bytes]:
    frames = decode(io.BytesIO(clip), name="clip", recording_start_ns=0, from_ns=from_ns, to_ns=to_ns, threads=threads)
    return {frame.time_ns: frame.gray(HEIGHT).tobytes() for frame in frames}


def scan(clip: bytes, from_ns: int = 0, to_ns: int = ALL) -> list[int]:
    return scan_frames(io.BytesIO(clip), name="clip", from_ns=from_ns, to_ns=to_ns).times_ns.tolist()


@pytest.mark.parametrize("name", VARIANTS)
@SETTINGS
@given(from_ns=st.integers(0, 14 * S), length_ns=st.integers(1, 3 * S), threads=st.sampled_from([1, 1, 2]))
def test_any_range_gives_the_frames_of_one_pass(clips, whole, name, from_ns, length_ns, threads):
    to_ns = from_ns + length_ns
    expected = {time: picture for time, picture in whole[name].items() if from_ns <= time < to_ns}
    assert pictures(clips[name], from_ns, to_ns, threads=threads) == expected
    assert scan(clips[name], from_ns, to_ns) == list(expected)


@pytest.mark.parametrize("name", ["intra-refresh.ts", "open-gop.ts", "b-frames.mp4"])
def test_a_range_that_begins_just_after_a_keyframe_is_right_from_its_first_frame(clips, whole, name):
    for from_ns in range(6 * S, 13 * S, S // 10):
        expected = {time: picture for time, picture in whole[name].items() if from_ns <= time < from_ns + S // 10}
        assert pictures(clips[name], from_ns, from_ns + S // 10) == expected


@pytest.mark.parametrize("name", VARIANTS)
def test_frames_come_in_order_and_none_is_lost(clips, whole, name):
    assert len(whole[name]) == 420
    numbers = [read_number(np.frombuffer(p, np.uint8).reshape(HEIGHT, WIDTH)) for p in whole[name].values()]
    assert numbers == list(range(420))
    assert scan(clips[name]) == list(whole[name])


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(25), Fraction(15)])
def test_times_are_timestamps_and_no_frame_numbers(tmp_path, rate):
    pts = [i / rate for i in range(12) if i not in (3, 4, 8)]
    path = write_video(tmp_path / "dropped.mp4", fps=rate, pts_s=[float(t) for t in pts], start_pts_s=2.0)
    start = 1_800_000_000 * S + 7
    with path.open("rb") as file:
        frames = list(decode(file, name="x", recording_start_ns=start, from_ns=start, to_ns=start + ALL))
        info = probe(file, name="x")
    # The container counts 1/60000 s; from there on everything is exact and rounded down.
    expected = [start + round(t * 60_000) * S // 60_000 for t in pts]
    assert [frame.time_ns for frame in frames] == expected
    assert info.pts_offset_s == 2.0


@pytest.mark.parametrize("name", ["still.mp4", "still.mkv", "still.mov"])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_pictures_are_rotated_as_displayed(tmp_path, name, rotation):
    def draw(index, time_s):
        picture = np.full((64, 96, 3), 60, np.uint8)
        picture[:16, :24] = (250, 20, 20)  # red, top left
        return picture

    path = write_video(tmp_path / name, seconds=0.2, width=96, height=64, draw=draw, rotation=rotation)
    with path.open("rb") as file:
        info = probe(file, name="x")
        frame = next(decode(file, name="x", recording_start_ns=0, from_ns=0, to_ns=ALL))
    turns = rotation // 90 % 4
    upright = np.rot90(draw(0, 0), turns)
    assert (info.height_px, info.width_px) == upright.shape[:2]
    assert info.rotation_deg == 90 * turns
    rgb = frame.rgb(64)
    assert rgb.shape == upright.shape
    assert frame.gray(64).shape == upright.shape[:2]
    assert np.abs(rgb.astype(int) - upright).mean() < 6


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name"),
    [
        ("libx264", "yuv420p", "a.mp4"),
        ("libx264", "yuv444p", "a.mp4"),
        ("libx264", "yuv420p10le", "a.mp4"),
        ("libx264", "nv12", "a.mp4"),
        ("mjpeg", "yuvj420p", "a.mov"),
        ("ffv1", "yuv422p", "a.mkv"),
        ("ffv1", "bgr0", "a.mkv"),
        ("ffv1", "gray", "a.mkv"),
    ],
)
def test_pixel_formats_show_the_same_picture(tmp_path, codec, pixel_format, name):
    # Odd sizes where the format can hold them.
    width, height = (131, 97) if pixel_format in ("yuv444p", "bgr0", "gray") else (132, 98)
    draw = numbered_texture(width, height)
    path = write_video(
        tmp_path / name, seconds=0.2, width=width, height=height, codec=codec, pixel_format=pixel_format, draw=draw
    )
    with path.open("rb") as file:
        frame = next(decode(file, name="x", recording_start_ns=0, from_ns=0, to_ns=ALL))
    gray, rgb = frame.gray(height), frame.rgb(height)
    assert gray.shape == (height, width)
    assert gray.dtype == rgb.dtype == np.uint8
    truth = draw(0, 0.0).astype(float)
    luma = truth @ [0.299, 0.587, 0.114]
    assert np.corrcoef(gray.ravel(), luma.ravel())[0, 1] > 0.98
    if pixel_format != "gray":
        assert np.corrcoef(rgb.ravel(), truth.ravel())[0, 1] > 0.95
    assert gray is frame.gray(height)
    assert frame.gray(320).shape == (320, scaled_size(width, height, 320)[0])


@given(st.integers(2, 8000), st.integers(2, 8000), st.sampled_from([224, 320]))
def test_scaled_size_keeps_the_shape(width, height, short_side):
    scaled = scaled_size(width, height, short_side)
    assert min(scaled) == short_side
    long_side = max(width, height) * short_side / min(width, height)
    assert abs(max(scaled) - long_side) <= 0.5
    assert (scaled[0] > scaled[1]) == (width > height) or scaled[0] == scaled[1]


def test_scaled_size_of_hd():
    assert scaled_size(1280, 720, 320) == (569, 320)
    assert scaled_size(720, 1280, 320) == (320, 569)


def test_a_scan_reads_only_its_part_of_the_file(tmp_path):
    path = write_video(tmp_path / "long.mp4", seconds=60, fps=10, codec_options={"b": "2M"})
    counted = CountingFile(path.read_bytes())
    times = scan_frames(counted, name="x", from_ns=50 * S, to_ns=52 * S).times_ns
    assert len(times) == 20
    assert counted.bytes_read < len(counted.getvalue()) / 2 + 300_000


class CountingFile(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.ts"])
def test_a_truncated_file_says_so_and_keeps_what_it_has(tmp_path, name):
    path = write_video(tmp_path / name, seconds=4, container_options={"movflags": "faststart"} if "mp4" in name else {})
    data = path.read_bytes()
    clip = data[: len(data) * 6 // 10 // 188 * 188 + 77]
    result = scan_frames(io.BytesIO(clip), name="x", from_ns=0, to_ns=ALL)
    assert result.truncated
    assert "ends" in result.problem
    assert 30 < len(result.times_ns) < 110
    assert set(result.times_ns.tolist()) <= set(scan(data))
    shown = pictures(clip, 0, ALL)
    assert set(shown) <= set(result.times_ns.tolist())
    assert len(shown) >= len(result.times_ns) - 2


def test_a_whole_file_is_not_called_truncated(clips):
    for clip in clips.values():
        result = scan_frames(io.BytesIO(clip), name="x", from_ns=0, to_ns=ALL)
        assert (result.problem, result.truncated) == (None, False)


def damage(clip: bytes, from_s: float, to_s: float) -> bytes:
    """Overwrite the head of every packet that is shown in a range, so that no decoder accepts it."""
    broken = bytearray(clip)
    with av.open(io.BytesIO(clip)) as container:
        for packet in container.demux(video=0):
            if packet.size and from_s <= packet.pts * packet.time_base < to_s:
                broken[packet.pos : packet.pos + 8] = b"\xff" * 8
    return bytes(broken)


def test_damage_costs_the_rest_of_its_group_of_pictures_and_is_reported(clips, whole):
    clip = damage(clips["b-frames.mp4"], 7.19, 7.21)
    problems: list[str] = []
    frames = list(
        decode(io.BytesIO(clip), name="x.mp4", recording_start_ns=0, from_ns=0, to_ns=ALL, on_problem=problems.append)
    )
    numbers = [read_number(frame.gray(HEIGHT)) for frame in frames]
    # Keyframes stand at 0, 15, 30 …, and frames 214 and 215 lean on the damaged 216.
    assert set(range(420)) - set(numbers) == set(range(214, 225))
    assert problems == [
        "x.mp4: damaged data at 1970-01-01T00:00:07.200000Z; the frames up to the next keyframe are missing"
    ]
    good = {
        frame.time_ns: frame.gray(HEIGHT).tobytes() for frame in frames if not 210 <= read_number(frame.gray(72)) < 225
    }
    assert good.items() <= whole["b-frames.mp4"].items()


def test_a_range_without_any_good_frame_is_an_error_that_names_file_and_time(clips):
    clip = damage(clips["b-frames.mp4"], 9, 14)
    with pytest.raises(MediaError, match=r"x\.mp4: no frame can be decoded from 1970-01-01T00:00:12Z"):
        list(decode(io.BytesIO(clip), name="x.mp4", recording_start_ns=0, from_ns=12 * S, to_ns=13 * S))
    assert max(pictures(clip, 0, ALL)) < 9 * S


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"these are words\n" * 500, "no video file"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "no video file"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "no video"),
    ],
)
def test_what_is_no_video_is_refused(content, message):
    with pytest.raises(MediaError, match=message) as caught:
        probe(io.BytesIO(content), name="cam/x.mp4")
    assert str(caught.value).startswith("cam/x.mp4: ")


def test_an_mp4_without_its_index_is_refused(tmp_path):
    data = write_video(tmp_path / "a.mp4").read_bytes()
    with pytest.raises(MediaError, match="cut off"):
        probe(io.BytesIO(data[: len(data) // 2]), name="a.mp4")


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with (tmp_path / "sound.mp4").open("rb") as file, pytest.raises(MediaError, match="no video stream"):
        probe(file, name="sound.mp4")


def test_one_frame_is_a_video(tmp_path):
    path = write_video(tmp_path / "one.mp4", seconds=1 / 30)
    assert list(pictures(path.read_bytes(), 0, ALL)) == [0]


def test_probe_says_what_the_container_says(tmp_path):
    path = write_video(tmp_path / "a.mp4", seconds=2, fps=25, creation_time="2026-11-21T05:00:00Z")
    with path.open("rb") as file:
        info = probe(file, name="a.mp4")
    assert (info.codec, info.nominal_fps, info.duration_s, info.exact_times) == ("h264", 25.0, 2.0, True)
    assert info.creation_time_ns == 1_795_237_200 * S


def test_avi_with_h264_is_timed_by_counting_and_says_so(clips, whole):
    info = probe(io.BytesIO(clips["h264.avi"]), name="x.avi")
    assert not info.exact_times
    assert list(whole["h264.avi"]) == [i * S // 30 for i in range(420)]


def test_no_decoder_threads_is_an_error(clips):
    with pytest.raises(InputError, match="thread"):
        pictures(clips["b-frames.mp4"], 0, S, threads=0)


@SETTINGS
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(list(VARIANTS)))
def test_mutated_files_never_crash_or_hang(clips, seed, name):
    rng = np.random.default_rng(seed)
    clip = bytearray(clips[name])
    where = int(rng.integers(len(clip)))
    match int(rng.integers(4)):
        case 0:
            for place in rng.integers(len(clip), size=int(rng.integers(1, 30))):
                clip[place] ^= 1 << int(rng.integers(8))
        case 1:
            clip = clip[:where]
        case 2:
            del clip[where : where + int(rng.integers(1, 5000))]
        case 3:
            clip = clip[where:]
    try:
        times = scan(bytes(clip))
        shown = list(pictures(bytes(clip), 0, ALL))
    except MediaError as error:
        assert str(error).startswith("clip: ")
    else:
        assert times == sorted(set(times))
        assert shown == sorted(set(shown))


def test_the_file_stays_open(tmp_path: Path):
    with write_video(tmp_path / "a.mp4").open("rb") as file:
        probe(file, name="a")
        assert len(scan_frames(file, name="a", from_ns=0, to_ns=ALL).times_ns) == 60
        assert not file.closed


class FailingFile(io.BytesIO):
    """A connection that breaks after some bytes."""

    left = 150_000

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ConnectionResetError("the connection broke")
        return data


def test_a_broken_connection_is_no_damaged_file(tmp_path):
    path = write_video(tmp_path / "a.mkv", seconds=20, width=320, height=240)
    assert path.stat().st_size > 2 * FailingFile.left
    for use in (
        lambda file: scan_frames(file, name="x", from_ns=0, to_ns=ALL),
        lambda file: list(decode(file, name="x", recording_start_ns=0, from_ns=0, to_ns=ALL)),
    ):
        with pytest.raises(ConnectionResetError, match="the connection broke"):
            use(FailingFile(path.read_bytes()))


@pytest.mark.parametrize("error", [OSError(errno.EINVAL, "Invalid argument"), ValueError("negative seek value -7")])
def test_a_position_that_cannot_be_is_the_files_fault(tmp_path, error):
    """A damaged index leads there; files on disks and in object storage refuse it each in its way."""

    class Refusing(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            if whence == 0 and offset > 0:
                raise error
            return super().seek(offset, whence)

    content = write_video(tmp_path / "a.mp4", seconds=2, fps=10, width=64, height=48).read_bytes()
    with pytest.raises(MediaError, match=r"a\.mp4: .*leads to a position before its start"):
        probe(Refusing(content), name="a.mp4")
