from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import av
import pytest

from laps.clip_set import PrimitiveClip, cut_primitives
from laps.sampling import Piece
from laps.timegrid import NS_PER_S, parse_utc, to_datetime
from tests.videos import numbered_texture, read_number, write_video

START = parse_utc("2026-11-21T05:00:00Z")
WIDTH, HEIGHT = 160, 96
SECONDS = 4
FPS = 30


def record(path: Path, *, second: int, **options: Any) -> Piece:
    """A recording that starts so many seconds after START, used from its first frame to its end."""
    how: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "seconds": SECONDS, "gop": FPS, **options}
    write_video(path, draw=numbered_texture(WIDTH, HEIGHT), **how)
    start_ns = START + second * NS_PER_S
    return Piece(str(path), path.stem, start_ns, start_ns, start_ns + SECONDS * NS_PER_S)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Piece]:
    """Recordings "one" of seconds 0 to 4 and "two" of seconds 4 to 8."""
    folder = tmp_path_factory.mktemp("clip_set")
    return [record(folder / "one.mp4", second=0), record(folder / "two.mp4", second=SECONDS)]


def primitive(segment_id: str, start_s: float, end_s: float) -> dict[str, Any]:
    """A row of `segments` whose borders lie just before frames."""
    start_ns, end_ns = (START + round(time_s * NS_PER_S) - 1_000_000 for time_s in (start_s, end_s))
    return {"segment_id": segment_id, "start_time": to_datetime(start_ns), "end_time": to_datetime(end_ns)}


def open_path(uri: str) -> BinaryIO:
    return Path(uri).open("rb")


def clips_of(primitives: Sequence[dict[str, Any]], pieces: Sequence[Piece], open: Any = open_path) -> dict:
    """Clips by primitive, of which there is one each."""
    clips = list(cut_primitives(primitives, pieces, open))
    assert sorted(clip.segment_id for clip in clips) == sorted(one["segment_id"] for one in primitives)
    return {clip.segment_id: clip for clip in clips}


def numbers(clip: PrimitiveClip) -> list[int]:
    assert clip.content is not None
    with av.open(io.BytesIO(clip.content)) as container:
        return [read_number(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def is_failed(clip: PrimitiveClip, reason: str) -> bool:
    return clip.content is None and clip.info is None and clip.reason is not None and reason in clip.reason


def test_each_primitive_is_cut_from_the_recording_that_holds_more_of_it(pieces: list[Piece]) -> None:
    primitives = [
        primitive("s0", 1, 1.5),
        primitive("s1", 3.5, 4.3),
        primitive("s2", 3.9, 4.3),
        primitive("s3", 7, 7.2),
        primitive("s4", 0.5, 0.9),
    ]
    clips = clips_of(primitives, pieces)
    assert {key: clip.recording_id for key, clip in clips.items()} == {
        "s0": "one", "s1": "one", "s2": "two", "s3": "two", "s4": "one",
    }  # fmt: skip
    assert numbers(clips["s0"]) == list(range(30, 45))
    assert numbers(clips["s1"]) == list(range(105, 120))
    assert numbers(clips["s2"]) == list(range(9))
    assert numbers(clips["s3"]) == list(range(90, 96))
    assert numbers(clips["s4"]) == list(range(15, 27))
    for clip in clips.values():
        assert clip.reason is None
        assert clip.info.size_bytes == len(clip.content)
    assert clips["s2"].info.first_frame_time_ns == START + 4 * NS_PER_S


def test_a_recording_is_opened_once_even_where_two_hours_list_it(pieces: list[Piece]) -> None:
    opened = []

    def open_counted(uri: str) -> BinaryIO:
        opened.append(uri)
        return open_path(uri)

    one, two = pieces
    halves = [
        replace(one, stop_ns=START + 2 * NS_PER_S),
        replace(one, start_ns=START + NS_PER_S),  # a second of it is listed twice
        two,
    ]
    primitives = [primitive("s0", 0.5, 0.8), primitive("s1", 1.5, 1.8), primitive("s2", 3, 3.5), primitive("s3", 5, 6)]
    clips = clips_of(primitives, halves, open_counted)
    assert all(clip.reason is None for clip in clips.values())
    assert opened == [one.uri, two.uri]


def test_the_preroll_that_two_hours_list_counts_once(pieces: list[Piece]) -> None:
    one, two = pieces
    preroll = replace(one, start_ns=one.stop_ns - 3 * NS_PER_S // 2)
    clips = clips_of([primitive("s0", 3, 5.5)], [one, preroll, two])
    assert clips["s0"].recording_id == "two"
    assert numbers(clips["s0"]) == list(range(45))


def test_a_primitive_without_footage_fails_with_its_reason_and_the_others_go_on(pieces: list[Piece]) -> None:
    clips = clips_of([primitive("gap", 60, 61), primitive("s0", 1, 1.5), primitive("s1", 5, 5.5)], pieces)
    assert is_failed(clips["gap"], "raw_video shows no footage between 2026-11-21T05:00:59.999")
    assert clips["gap"].recording_id is None
    assert len(numbers(clips["s0"])) == len(numbers(clips["s1"])) == 15


def test_a_range_without_a_frame_fails_alone(pieces: list[Piece]) -> None:
    # raw_video says more than the file holds, as after it was cut off.
    longer = replace(pieces[0], stop_ns=START + 60 * NS_PER_S)
    clips = clips_of([primitive("s0", 1, 1.5), primitive("late", 30, 31), primitive("s1", 2, 2.5)], [longer])
    assert is_failed(clips["late"], "one.mp4 at 2026-11-21T05:00:29.999")
    assert clips["late"].recording_id == "one"
    assert len(numbers(clips["s0"])) == len(numbers(clips["s1"])) == 15


@pytest.mark.parametrize("content", [None, b"", b"no video at all" * 100])
def test_a_file_that_is_gone_or_unreadable_fails_its_own_primitives_only(
    tmp_path: Path, pieces: list[Piece], content: bytes | None
) -> None:
    bad = tmp_path / "one.mp4"
    if content is not None:
        bad.write_bytes(content)
    primitives = [primitive("s0", 1, 1.5), primitive("s1", 2, 2.5), primitive("s2", 5, 5.5)]
    clips = clips_of(primitives, [replace(pieces[0], uri=str(bad)), pieces[1]])
    for key in ("s0", "s1"):
        assert is_failed(clips[key], str(bad))
        assert clips[key].recording_id == "one"
    assert len(numbers(clips["s2"])) == 15


class Breakable(io.BytesIO):
    """A file on a disk that can be pulled out."""

    is_broken = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.is_broken:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_a_file_that_breaks_midway_fails_only_what_was_not_cut_yet(tmp_path: Path, pieces: list[Piece]) -> None:
    noisy = record(tmp_path / "one.mp4", second=0, codec_options={"x264-params": "qp=1", "preset": "ultrafast"})
    file = Breakable(Path(noisy.uri).read_bytes())

    def open_breakable(uri: str) -> BinaryIO:
        return file if uri == noisy.uri else open_path(uri)

    primitives = [primitive("s0", 0.5, 0.9), primitive("s1", 2.1, 2.5), primitive("s2", 3.1, 3.5)]
    clips = []
    for clip in cut_primitives([*primitives, primitive("s3", 5, 5.5)], [noisy, pieces[1]], open_breakable):
        clips.append(clip)
        file.is_broken = True
    assert [clip.segment_id for clip in clips] == ["s0", "s1", "s2", "s3"]
    assert len(numbers(clips[0])) == 12
    for clip in clips[1:3]:
        assert is_failed(clip, noisy.uri)
        assert "Input/output error" in clip.reason
    assert len(numbers(clips[3])) == 15
