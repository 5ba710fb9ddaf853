"""Keyframes: small JPEG pictures on the absolute sampling grid, made while the video is decoded for tracking.

The vision encoder, the report and the contact sheets use them, so that no frame is decoded a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyarrow as pa

from laps.errors import InputError
from laps.regions import Region, cover
from laps.tables import KEYFRAMES
from laps.timegrid import SampleGrid

if TYPE_CHECKING:
    from laps.video import TimedFrame

JPEG_QUALITY = 80
KEYFRAME_HZ = 2


@dataclass(frozen=True)
class Keyframe:
    """One picture.

    Attributes:
        sample: sample since the epoch at which it stands.
        frame_time_ns: time of the frame shown there.
        width_px: width of the picture.
        height_px: its height.
        jpeg: the picture as a JPEG file.
    """

    sample: int
    frame_time_ns: int
    width_px: int
    height_px: int
    jpeg: bytes


def keyframe_interval(grid: SampleGrid, keyframe_hz: int) -> int:
    """Samples between keyframes; they stand at the samples that it divides."""
    if keyframe_hz < 1 or grid.rate_hz % keyframe_hz:
        raise InputError(
            f"{keyframe_hz} keyframes a second do not fit a grid of {grid.rate_hz} samples a second",
            fix="Choose a divisor of the sampling rate.",
        )
    return grid.rate_hz // keyframe_hz


def make_keyframe(
    sample: int, frame: TimedFrame, *, short_side_px: int = 224, covered: Sequence[Region] = ()
) -> Keyframe:
    """Encode the frame that is shown at a sample; regions that nobody may see are grey."""
    picture = cover(frame.rgb(short_side_px), covered)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    height_px, width_px = picture.shape[:2]
    return Keyframe(sample, frame.time_ns, width_px, height_px, jpeg.tobytes())


def read_picture(jpeg: bytes) -> np.ndarray:
    """The picture of a keyframe: uint8 [h, w, 3], RGB."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    if picture is None:
        raise InputError(f"{len(jpeg)} bytes that should be a keyframe are no JPEG picture")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def to_table(keyframes: Iterable[Keyframe], camera: str, grid: SampleGrid) -> pa.Table:
    """Rows of :data:`laps.tables.KEYFRAMES`, one a picture."""
    pictures: Sequence[Keyframe] = list(keyframes)
    columns = {
        "camera": [camera] * len(pictures),
        "sample": [picture.sample for picture in pictures],
        "time": [grid.time_ns(picture.sample) // 1000 for picture in pictures],
        "frame_time": [picture.frame_time_ns // 1000 for picture in pictures],
        "width_px": [picture.width_px for picture in pictures],
        "height_px": [picture.height_px for picture in pictures],
        "jpeg": [picture.jpeg for picture in pictures],
    }
    schema = KEYFRAMES.schema()
    return pa.Table.from_arrays([pa.array(columns[field.name], type=field.type) for field in schema], schema=schema)
