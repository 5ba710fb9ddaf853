"""The one pass that makes tracks and keyframes, and the keyframes' pictures and table."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from laps import keyframes
from laps.errors import InputError
from laps.keyframes import Keyframe, read_picture
from laps.observe import observe
from laps.tables import KEYFRAMES
from laps.timegrid import SampleGrid
from laps.trackers.flow import FlowTracker
from laps.tracks import TrackWindows

GRID = SampleGrid()
HOUR = 495_000 * GRID.samples_per_hour
OFFSET_NS = 20_000_000


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture whose colours tell its sample; resized on request."""

    time_ns: int
    image: np.ndarray

    def rgb(self, short_side: int) -> np.ndarray:
        height, width, _ = self.image.shape
        scale = short_side / min(height, width)
        return cv2.resize(self.image, (round(width * scale), round(height * scale)))

    def gray(self, short_side: int) -> np.ndarray:
        return cv2.cvtColor(self.rgb(short_side), cv2.COLOR_RGB2GRAY)


@dataclass(frozen=True)
class Sample:
    index: int
    frame: Frame | None


def frame(index: int) -> Frame:
    image = np.zeros((120, 200, 3), np.uint8)
    image[:, :, 0] = 200
    image[:, :, 2] = index * 7 % 200
    image[40:80, index % 150 : index % 150 + 20] = 255
    return Frame(GRID.time_ns(index) - OFFSET_NS, image)


def stream(first: int, stop: int, missing: range = range(0)) -> Iterator[Sample]:
    for index in range(first, stop):
        yield Sample(index, None if index in missing else frame(index))


def run(first_sample: int, stop: int, *, missing: range = range(0), **options):
    tracks, pictures = [], []
    tracker = FlowTracker(side=5, short_side_px=64, batch_windows=4)
    for part in observe(stream(first_sample, stop, missing), tracker, GRID, first=HOUR, **options):
        if isinstance(part, TrackWindows):
            tracks.append(part)
        else:
            pictures += part
    return tracks, pictures


def test_one_pass_gives_the_tracks_and_the_pictures_of_the_hour():
    tracks, pictures = run(HOUR - GRID.preroll, HOUR + 100, missing=range(HOUR + 40, HOUR + 52))
    assert [picture.sample - HOUR for picture in pictures] == [*range(0, 40, 5), *range(55, 100, 5)]
    alone = FlowTracker(side=5, short_side_px=64, batch_windows=4).track(
        stream(HOUR - GRID.preroll, HOUR + 100, range(HOUR + 40, HOUR + 52)), GRID
    )
    for one, other in zip(tracks, alone, strict=True):
        np.testing.assert_array_equal(one.end_samples, other.end_samples)
        np.testing.assert_array_equal(one.displacements, other.displacements)
    assert tracks[0].end_samples[0] == HOUR + 3


def test_pictures_show_the_frame_of_their_sample():
    _, pictures = run(HOUR, HOUR + 30)
    for picture in pictures:
        shown = read_picture(picture.jpeg)
        assert shown.shape == (224, 373, 3) == (picture.height_px, picture.width_px, 3)
        red, green, blue = shown[:60].reshape(-1, 3).mean(axis=0)
        assert abs(red - 200) < 6 and green < 6 and abs(blue - picture.sample * 7 % 200) < 6
        assert picture.frame_time_ns == GRID.time_ns(picture.sample) - OFFSET_NS


def test_keyframes_are_the_same_wherever_the_stream_began():
    _, whole = run(HOUR, HOUR + 60)
    _, part = run(HOUR + 23, HOUR + 60)
    assert part == [picture for picture in whole if picture.sample >= HOUR + 23]


def test_the_rate_of_keyframes_is_an_option():
    _, pictures = run(HOUR, HOUR + 20, keyframe_hz=5, keyframe_short_side_px=64)
    assert [picture.sample - HOUR for picture in pictures] == list(range(0, 20, 2))
    assert pictures[0].height_px == 64
    with pytest.raises(InputError, match=r"3 keyframes a second.*divisor"):
        run(HOUR, HOUR + 20, keyframe_hz=3)


def test_pictures_come_even_where_no_window_is_whole():
    tracks, pictures = run(HOUR, HOUR + 12)
    assert tracks == []
    assert [picture.sample - HOUR for picture in pictures] == [0, 5, 10]


def test_frames_are_let_go_and_results_come_as_the_stream_goes_on():
    alive: weakref.WeakSet[Frame] = weakref.WeakSet()
    most = drawn = 0

    def samples() -> Iterator[Sample]:
        nonlocal most, drawn
        for index in range(HOUR, HOUR + 200):
            shown = frame(index)
            alive.add(shown)
            most, drawn = max(most, len(alive)), drawn + 1
            yield Sample(index, shown)
            del shown

    tracker = FlowTracker(side=5, short_side_px=64, batch_windows=4)
    parts = observe(samples(), tracker, GRID, first=HOUR)
    assert isinstance(next(parts), list)
    assert drawn < 40
    assert sum(1 for _ in parts) >= 20
    assert most <= 3


def test_keyframe_table():
    _, pictures = run(HOUR, HOUR + 30)
    table = KEYFRAMES.validate(keyframes.to_table(pictures, "cam1", GRID))
    assert table["sample"].to_pylist() == [HOUR + k for k in range(0, 30, 5)]
    assert table["time"][1].value == GRID.time_ns(HOUR + 5) // 1000
    assert table["frame_time"][1].value == (GRID.time_ns(HOUR + 5) - OFFSET_NS) // 1000
    assert read_picture(table["jpeg"][0].as_py()).shape == (224, 373, 3)
    assert KEYFRAMES.validate(keyframes.to_table([], "cam1", GRID)).num_rows == 0
    assert all(isinstance(picture, Keyframe) for picture in pictures)


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_bytes_that_are_no_picture_are_refused(data):
    with pytest.raises(InputError, match="no JPEG picture"):
        read_picture(data)
