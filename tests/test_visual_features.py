"""Descriptors of primitives: from their own keyframes, each picture encoded once, absences said."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from laps.keyframes import Keyframe, to_table
from laps.timegrid import SampleGrid, to_datetime
from laps.vision import FrameFeatures, WeightFreeEncoder
from laps.visual_features import describe_primitives

GRID = SampleGrid()
FIRST = 17_000_000_000


def keyframe(sample: int, level: int) -> Keyframe:
    picture = np.full((24, 32, 3), level, np.uint8)
    picture[:, : level % 32] = 255 - level
    _, jpeg = cv2.imencode(".jpg", picture)
    return Keyframe(sample, GRID.time_ns(sample), 32, 24, jpeg.tobytes())


def primitive(name: str, start: int, stop: int) -> dict[str, object]:
    return {
        "segment_id": name,
        "start_time": to_datetime(GRID.time_ns(FIRST + start)),
        "end_time": to_datetime(GRID.time_ns(FIRST + stop)),
    }


class Counting:
    """The real descriptor, counting the pictures that it is given."""

    encoder_id = WeightFreeEncoder().encoder_id

    def __init__(self) -> None:
        self.pictures = 0

    def encode(self, images: Sequence[np.ndarray]) -> FrameFeatures:
        self.pictures += len(images)
        return WeightFreeEncoder().encode(images)


def test_each_primitive_is_described_by_its_own_frames() -> None:
    frames = to_table([keyframe(FIRST + n, 40 if n < 50 else 200) for n in range(0, 100, 5)], "cam1", GRID)
    encoder = Counting()
    rows = list(
        describe_primitives(
            [primitive("dark", 0, 40), primitive("dark again", 10, 40), primitive("light", 60, 99)], frames, encoder
        )
    )
    assert [row["status"] for row in rows] == ["ok"] * 3
    dark, again, light = (np.array(row["feature"]) for row in rows)
    assert np.allclose(np.linalg.norm(dark), 1, atol=1e-5)
    assert dark @ again > 0.999
    assert dark @ light < 0.9
    # 8 frames lie in the dark half's first primitive, 6 of them in its second: shared pictures are encoded once.
    assert encoder.pictures == 16


def test_a_primitive_without_keyframes_is_a_failed_row() -> None:
    frames = to_table([keyframe(FIRST, 40)], "cam1", GRID)
    rows = list(describe_primitives([primitive("far", 500, 520)], frames, WeightFreeEncoder()))
    assert rows == [
        {
            "segment_id": "far",
            "frames_used": 0,
            "status": "failed",
            "reason": "no keyframe lies in or near the primitive",
        }
    ]


def test_an_hour_without_primitives_has_no_rows() -> None:
    assert list(describe_primitives([], to_table([], "cam1", GRID), WeightFreeEncoder())) == []
