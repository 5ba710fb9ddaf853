from __future__ import annotations

import gc
import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import laps.clips
from laps.clips import MAX_LEAD_IN_S, ClipCutter, ClipInfo, choose_part, cut_clip
from laps.errors import InputError, MediaError
from laps.timegrid import NS_PER_S, parse_utc
from laps.video import VideoInfo, probe
from tests.videos import numbered_texture, read_number, write_video

START = parse_utc("2026-11-21T05:00:00Z")
WIDTH, HEIGHT = 160, 96
FRAMES = 120
GOP = 30
# Pyramids of B-frames: pictures that refer to ones shown after the end of a clip.
B_FRAMES = {"bf": "3", "preset": "veryfast", "threads": "1"}


def record(path: Path, **options: object) -> Path:
    settings: dict = {"width": WIDTH, "height": HEIGHT, "seconds": FRAMES / 30, "gop": GOP}
    settings["draw"] = numbered_texture(settings["width"], settings["height"])
    settings["codec_options"] = B_FRAMES
    return write_video(path, **{**settings, **options})


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("clips") / "cam1.mp4")


def before_frame(index: int, fps: float | Fraction = 30) -> int:
    """A time just before a frame: ranges between such times hold whole numbers of frames."""
    return START + int(index / Fraction(fps) * NS_PER_S) - 1_000_000


def cut(path: Path, first: int, stop: int, *, fps: float | Fraction = 30, **options: bool) -> tuple[ClipInfo, bytes]:
    out = io.BytesIO()
    with path.open("rb") as file:
        info = cut_clip(
            file,
            out,
            name=path.name,
            recording_start_ns=START,
            start_ns=before_frame(first, fps),
            end_ns=before_frame(stop, fps),
            **options,
        )
    return info, out.getvalue()


def shown(content: bytes) -> list[tuple[float, int]]:
    """Time and number of each frame that a player which honours the edit list shows."""
    with av.open(io.BytesIO(content)) as container:
        return [
            (float(frame.pts * frame.time_base), read_number(frame.to_ndarray(format="gray")))
            for frame in container.decode(video=0)
        ]


def numbers(content: bytes) -> list[int]:
    return [number for _, number in shown(content)]


@given(st.integers(0, FRAMES - 1), st.integers(1, FRAMES))
@settings(deadline=None, max_examples=40)
def test_a_clip_shows_exactly_the_frames_of_its_range(recording: Path, first: int, length: int) -> None:
    stop = min(FRAMES, first + length)
    info, content = cut(recording, first, stop)
    frames = shown(content)
    assert [number for _, number in frames] == list(range(first, stop))
    assert [time_s for time_s, _ in frames] == pytest.approx([i / 30 for i in range(stop - first)], abs=1e-6)
    assert info == ClipInfo(
        first_frame_time_ns=START + first * NS_PER_S // 30,
        last_frame_time_ns=START + (stop - 1) * NS_PER_S // 30,
        frame_count=stop - first,
        lead_in_s=pytest.approx(first % GOP / 30),
        size_bytes=len(content),
        reencoded=False,
    )


def test_the_file_is_a_copy_with_its_index_in_front_and_lasts_as_long_as_its_frames(recording: Path) -> None:
    _, content = cut(recording, 35, 47)
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(io.BytesIO(content)) as container:
        assert container.duration == pytest.approx(12 / 30 * av.time_base, abs=2)
    with av.open(str(recording)) as container:
        payloads = {bytes(packet) for packet in container.demux(video=0) if packet.size}
    with av.open(io.BytesIO(content), options={"ignore_editlist": "1"}) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert set(packets) <= payloads
    assert 17 <= len(packets) <= 21


def test_the_same_cut_gives_the_same_bytes(recording: Path) -> None:
    assert cut(recording, 35, 47) == cut(recording, 35, 47)


def test_one_cutter_gives_what_single_cuts_give_in_any_order(recording: Path) -> None:
    ranges = [(70, 90), (3, 9), (100, 119), (35, 47)]
    with (
        recording.open("rb") as file,
        ClipCutter(file, name="cam1.mp4", recording_start_ns=START) as cutter,
    ):
        for i, (first, stop) in enumerate(ranges):
            out = io.BytesIO()
            # Re-encoding in between must not disturb the demuxer.
            info = cutter.cut(out, start_ns=before_frame(first), end_ns=before_frame(stop), reencode=i == 1)
            assert numbers(out.getvalue()) == list(range(first, stop))
            assert info.reencoded == (i == 1)
            if i != 1:
                assert out.getvalue() == cut(recording, first, stop)[1]


def test_cutting_at_the_end_of_a_recording_reads_a_small_part_of_it(tmp_path: Path) -> None:
    class Counting(io.BytesIO):
        bytes_read = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.bytes_read += len(data)
            return data

    noise = {"x264-params": "qp=4", **B_FRAMES}
    path = record(tmp_path / "long.mp4", seconds=40, codec_options=noise, container_options={"movflags": "faststart"})
    file = Counting(path.read_bytes())
    with ClipCutter(file, name=path.name, recording_start_ns=START) as cutter:
        before = file.bytes_read
        cutter.cut(io.BytesIO(), start_ns=before_frame(1000), end_ns=before_frame(1010))
        assert file.bytes_read - before < path.stat().st_size / 10


def test_reencoding_does_not_disturb_later_copies(tmp_path: Path) -> None:
    path = record(tmp_path / "long.mp4", seconds=8, codec_options={"x264-params": "qp=4", **B_FRAMES})
    with path.open("rb") as file, ClipCutter(file, name=path.name, recording_start_ns=START) as cutter:
        for first, reencode in ((20, False), (200, True), (60, False), (10, True), (95, False), (130, False)):
            out = io.BytesIO()
            cutter.cut(out, start_ns=before_frame(first), end_ns=before_frame(first + 8), reencode=reencode)
            assert numbers(out.getvalue()) == list(range(first, first + 8))
            if not reencode:
                assert out.getvalue() == cut(path, first, first + 8)[1]


class PacketCounting(io.BytesIO):
    """Counts, whenever it is read, the packets that are held in memory."""

    most_packets = 0

    def read(self, size: int | None = -1, /) -> bytes:
        held = sum(type(one) is av.Packet for one in gc.get_objects())
        self.most_packets = max(self.most_packets, held)
        return super().read(size)


def most_packets(path: Path, first: int, stop: int, **options: bool) -> int:
    file = PacketCounting(path.read_bytes())
    gc.freeze()  # what is there already is not looked through at every read
    try:
        with ClipCutter(file, name=path.name, recording_start_ns=START) as cutter:
            out = io.BytesIO()
            cutter.cut(out, start_ns=before_frame(first), end_ns=before_frame(stop), **options)
    finally:
        gc.unfreeze()
    assert numbers(out.getvalue()) == list(range(first, stop))
    return file.most_packets


LONG_GOP = 600
CLOSED = {"x264-params": "scenecut=0", **B_FRAMES}


@pytest.fixture(scope="module")
def few_keyframes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "screen.mp4"
    return record(path, seconds=40, gop=LONG_GOP, codec_options=CLOSED)


@pytest.mark.parametrize(
    ("first", "reencoded"),
    [(450, False), (451, True), (590, True), (599, True), (600, False), (1000, False), (1100, True)],
)
def test_a_clip_far_from_its_keyframe_is_reencoded_instead_of_carrying_a_long_lead_in(
    few_keyframes: Path, first: int, reencoded: bool
) -> None:
    info, content = cut(few_keyframes, first, first + 20)
    assert numbers(content) == list(range(first, first + 20))
    assert info.reencoded == reencoded
    assert info.lead_in_s == pytest.approx(0 if reencoded else first % LONG_GOP / 30)
    assert info.lead_in_s <= MAX_LEAD_IN_S
    if reencoded:
        with av.open(io.BytesIO(content), options={"ignore_editlist": "1"}) as container:
            assert sum(packet.size > 0 for packet in container.demux(video=0)) == 20


def test_memory_depends_neither_on_the_distance_between_keyframes_nor_on_the_length_reencoded(tmp_path: Path) -> None:
    single = record(tmp_path / "single.mp4", seconds=40, gop=100_000, codec_options=CLOSED)
    assert most_packets(single, 1100, 1110) < MAX_LEAD_IN_S * 30 + 50
    # Large pictures, so that reading goes on while frames are encoded.
    noisy = record(tmp_path / "noisy.mp4", seconds=20, codec_options={"x264-params": "qp=4", **B_FRAMES})
    assert most_packets(noisy, 10, 590, reencode=True) < 200


def test_only_the_packets_from_the_last_keyframe_on_are_held(tmp_path: Path) -> None:
    # MPEG-TS has no index: from frame 1045 the keyframe at 980 is found by looking 10 s back.
    path = record(tmp_path / "cam.ts", seconds=40, gop=70, codec_options=CLOSED)
    assert most_packets(path, 1045, 1050) < 150


def test_a_file_that_loses_its_video_while_it_is_opened_is_a_media_error(
    tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file = io.BytesIO(recording.read_bytes())

    def probe_before_it_is_replaced(file: io.BytesIO, *, name: str) -> VideoInfo:
        info = probe(file, name=name)
        file.seek(0)
        file.truncate()
        file.write(sound.read_bytes())
        return info

    monkeypatch.setattr(laps.clips, "probe", probe_before_it_is_replaced)
    with pytest.raises(MediaError, match=r"cam1\.mp4: there is no video stream"):
        ClipCutter(file, name="cam1.mp4", recording_start_ns=START)


@pytest.mark.parametrize(
    ("name", "options", "reencoded"),
    [
        ("a.mkv", {}, False),
        ("a.ts", {}, False),
        ("a.flv", {}, False),
        ("a.mov", {"start_pts_s": 5.5}, False),
        ("ntsc.mp4", {"fps": Fraction(30000, 1001)}, False),
        ("vp9.webm", {"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8", "deadline": "realtime"}}, False),
        ("hevc.mp4", {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}}, True),
        ("part2.mp4", {"codec": "mpeg4", "codec_options": {}}, True),
        ("vp8.webm", {"codec": "libvpx", "codec_options": {}}, True),
        ("counted.avi", {}, True),
        ("ten_bit.mp4", {"pixel_format": "yuv420p10le"}, True),
        ("open_gop.mp4", {"codec_options": {**B_FRAMES, "x264-params": "open-gop=1:scenecut=0"}}, True),
        ("refresh.mp4", {"codec_options": {**B_FRAMES, "x264-params": "intra-refresh=1"}}, True),
    ],
)
def test_every_container_and_codec_gives_a_clip_of_the_right_frames(
    tmp_path: Path, name: str, options: dict, reencoded: bool
) -> None:
    path = record(tmp_path / name, **options)
    fps = options.get("fps", 30)
    info, content = cut(path, 41, 55, fps=fps)
    frames = shown(content)
    assert [number for _, number in frames] == list(range(41, 55))
    # Matroska and FLV hold whole milliseconds.
    assert [time_s for time_s, _ in frames] == pytest.approx([float(i / fps) for i in range(14)], abs=1.1e-3)
    assert info.reencoded == reencoded
    assert info.first_frame_time_ns == pytest.approx(START + float(41 / fps) * NS_PER_S, abs=1.1e6)
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name in ("h264", "vp9")
        assert stream.codec_context.pix_fmt == "yuv420p"


def test_reencoding_on_request_keeps_uneven_times_and_starts_at_its_first_frame(tmp_path: Path) -> None:
    times_s = [0.0, 0.04, 0.12, 0.13, 0.5, 0.54, 0.7, 0.71, 0.9, 1.4]
    path = record(tmp_path / "uneven.mp4", pts_s=times_s)
    out = io.BytesIO()
    with path.open("rb") as file:
        info = cut_clip(
            file, out, name="uneven.mp4", recording_start_ns=START,
            start_ns=START + NS_PER_S // 10, end_ns=START + NS_PER_S * 8 // 10, reencode=True,
        )  # fmt: skip
    assert shown(out.getvalue()) == [(pytest.approx(times_s[i] - 0.12, abs=1e-6), i) for i in range(2, 8)]
    assert (info.reencoded, info.lead_in_s, info.frame_count) == (True, 0.0, 6)


@pytest.mark.parametrize("reencode", [False, True])
def test_rotation_is_kept(tmp_path: Path, reencode: bool) -> None:
    path = record(tmp_path / "turned.mp4", rotation=90, seconds=1)
    _, content = cut(path, 5, 12, reencode=reencode)

    def upright(file: Path | io.BytesIO) -> list:
        with av.open(file if isinstance(file, io.BytesIO) else str(file)) as container:
            pictures = [(frame.to_ndarray(format="gray"), frame.rotation) for frame in container.decode(video=0)]
        return [np.rot90(picture, rotation // 90 % 4) for picture, rotation in pictures]

    before, after = upright(path)[5:12], upright(io.BytesIO(content))
    assert len(after) == 7
    for expected, picture in zip(before, after, strict=True):
        assert picture.shape == expected.shape == (WIDTH, HEIGHT)
        assert abs(picture.astype(float) - expected).mean() < 4


def test_odd_sizes_are_reencoded_to_even_ones(tmp_path: Path) -> None:
    path = record(tmp_path / "odd.mp4", width=161, height=97, pixel_format="yuv444p", seconds=1)
    info, content = cut(path, 5, 12)
    assert info.reencoded
    assert numbers(content) == list(range(5, 12))


def test_a_range_that_reaches_beyond_the_recording_gives_what_there_is(recording: Path) -> None:
    info, content = cut(recording, 110, 500)
    assert numbers(content) == list(range(110, FRAMES))
    assert info.frame_count == 10
    assert cut(recording, -50, 4)[0].frame_count == 4


def test_clips_are_written_to_paths_too(recording: Path, tmp_path: Path) -> None:
    with recording.open("rb") as file:
        info = cut_clip(
            file, tmp_path / "clip.mp4", name="cam1.mp4", recording_start_ns=START,
            start_ns=before_frame(40), end_ns=before_frame(50),
        )  # fmt: skip
    content = (tmp_path / "clip.mp4").read_bytes()
    assert info.size_bytes == len(content)
    assert numbers(content) == list(range(40, 50))


def test_errors_name_the_file_and_the_time(recording: Path) -> None:
    out = io.BytesIO()
    with recording.open("rb") as file, pytest.raises(MediaError, match=r"cam1\.mp4 at 2026-11-21T05:00:3.*no frame"):
        cut_clip(
            file, out, name="cam1.mp4", recording_start_ns=START,
            start_ns=START + 30 * NS_PER_S, end_ns=START + 31 * NS_PER_S,
        )  # fmt: skip
    assert out.getvalue() == b""
    with pytest.raises(InputError, match=r"cam1\.mp4: a clip cannot end"):
        cut(recording, 50, 50)
    with pytest.raises(MediaError, match=r"notes\.mp4"):
        cut_clip(
            io.BytesIO(b"no video at all" * 100), out, name="notes.mp4", recording_start_ns=START,
            start_ns=START, end_ns=START + NS_PER_S,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    recording_id: str
    start_ns: int
    stop_ns: int


def test_a_clip_is_cut_from_the_recording_that_holds_more_of_it() -> None:
    early, late = Part("a", 0, 100), Part("b", 100, 200)
    assert choose_part([late, early], start_ns=90, end_ns=105) is early
    assert choose_part([late, early], start_ns=95, end_ns=115) is late
    assert choose_part([late, early], start_ns=90, end_ns=110) is early
    assert choose_part([late, early], start_ns=200, end_ns=210) is None
    # The parts of one recording, with another between them, count together.
    split = [Part("a", 0, 40), Part("b", 40, 100), Part("a", 100, 140)]
    assert choose_part(split, start_ns=0, end_ns=140) is split[0]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 15)), max_size=6),
    st.integers(0, 30),
    st.integers(1, 20),
)
@settings(deadline=None)
def test_time_that_several_parts_of_a_recording_hold_counts_once(
    spans: list[tuple[str, int, int]], start: int, length: int
) -> None:
    parts = [Part(recording, begin, begin + size) for recording, begin, size in spans]
    chosen = choose_part(parts, start_ns=start, end_ns=start + length)
    held = {
        recording: sum(
            any(part.recording_id == recording and part.start_ns <= t < part.stop_ns for part in parts)
            for t in range(start, start + length)
        )
        for recording in "ab"
    }
    if chosen is None:
        assert not any(held.values())
    else:
        assert held[chosen.recording_id] == max(held.values()) > 0


def test_the_preroll_that_two_hours_list_does_not_decide_for_the_wrong_recording() -> None:
    # The end of one hour's footage is listed again as the next hour's pre-roll.
    parts = [Part("a", 0, 100), Part("a", 90, 100), Part("b", 100, 200)]
    assert choose_part(parts, start_ns=90, end_ns=115) is parts[2]
