"""Small videos that the tests write themselves.

`write_video` makes a moving texture (or whatever ``draw`` returns) with a chosen codec, frame times, rotation
and start. Everything is deterministic, so two calls with the same arguments give the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

NUMBER_BITS = 12


def texture(width: int, height: int, *, seed: int = 7) -> np.ndarray:
    """A smooth random colour picture, uint8 [height, width, 3], that wraps around at its edges."""
    rng = np.random.default_rng(seed)
    picture = rng.standard_normal((height, width, 3)).astype(np.float32)
    tiled = np.tile(picture, (3, 3, 1))
    sigma = max(1.5, min(width, height) / 40)
    smooth = cv2.GaussianBlur(tiled, (0, 0), sigma)[height : 2 * height, width : 2 * width]
    smooth = (smooth - smooth.mean()) / smooth.std()
    return np.clip(128 + 50 * smooth, 0, 255).astype(np.uint8)


def moving_texture(width: int, height: int, *, speed_px_s: float = 60.0) -> Callable[[int, float], np.ndarray]:
    """A ``draw`` function: a texture that moves to the right and, at half the speed, downwards."""
    still = texture(width, height)

    def draw(index: int, time_s: float) -> np.ndarray:
        shift = round(speed_px_s * time_s)
        return np.roll(still, (shift // 2 % height, shift % width), axis=(0, 1))

    return draw


def numbered_texture(width: int, height: int) -> Callable[[int, float], np.ndarray]:
    """A ``draw`` function: the moving texture with the frame's index as black and white blocks at the top."""
    background = moving_texture(width, height)

    def draw(index: int, time_s: float) -> np.ndarray:
        picture = background(index, time_s).copy()
        strip = max(8, height // 5)
        edges = np.linspace(0, width, NUMBER_BITS + 1).round().astype(int)
        for bit in range(NUMBER_BITS):
            picture[:strip, edges[bit] : edges[bit + 1]] = 255 * (index >> bit & 1)
        return picture

    return draw


def read_number(gray: np.ndarray) -> int:
    """The frame index that `numbered_texture` drew, from a picture of any size, uint8 [h, w]."""
    height, width = gray.shape
    row = gray[max(1, height // 14)]
    centres = ((np.arange(NUMBER_BITS) + 0.5) * width / NUMBER_BITS).astype(int)
    return sum(1 << bit for bit in range(NUMBER_BITS) if row[centres[bit]] > 127)


def write_video(
    path: Path,
    *,
    seconds: float = 2.0,
    fps: float | Fraction = 30,
    width: int = 128,
    height: int = 96,
    codec: str = "libx264",
    pts_s: Sequence[float] | None = None,
    start_pts_s: float = 0.0,
    rotation: int = 0,
    gop: int = 15,
    draw: Callable[[int, float], np.ndarray] | None = None,
    creation_time: datetime | str | None = None,
    pixel_format: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video and return its path; the suffix chooses the container.

    Args:
        path: where to write (.mp4, .mov, .mkv, .webm, .avi, .ts …).
        seconds: length, used where ``pts_s`` is not given.
        fps: frame rate; with ``pts_s`` only the nominal rate.
        pts_s: presentation time of every frame before ``start_pts_s`` is added, increasing.
        start_pts_s: presentation time of the first frame.
        rotation: counter-clockwise rotation in degrees (ffmpeg's sign) written into the display matrix.
        gop: longest distance between keyframes, frames.
        draw: ``draw(index, time_s)`` gives RGB uint8 [height, width, 3]; default `moving_texture`.
        creation_time: written into the container's metadata.
        pixel_format: pixel format to encode.
        codec_options: private options of the encoder, for example ``{"bf": "3"}``.
        container_options: options of the muxer, for example ``{"movflags": "faststart"}``.
    """
    rate = Fraction(fps).limit_denominator(1001)
    if pts_s is None:
        pts_s = [float(i / rate) for i in range(round(seconds * rate))]
    # AVI has only a frame rate, MPEG-2 only standard ones; elsewhere 1/60000 s holds all common rates.
    time_base = 1 / rate if path.suffix == ".avi" or codec == "mpeg2video" else Fraction(1, 60_000)
    draw = draw or moving_texture(width, height)
    options = {"preset": "ultrafast", "bf": "2", "threads": "1"} if codec == "libx264" else {}
    options.update(codec_options or {})
    with av.open(str(path), "w", options=container_options or {}) as container:
        if creation_time is not None:
            text = creation_time if isinstance(creation_time, str) else creation_time.isoformat()
            container.metadata["creation_time"] = text
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.time_base = time_base
        stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = gop
        if rotation:
            stream.set_display_rotation(rotation)
        for index, time_s in enumerate(pts_s):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(draw(index, time_s)), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts = round(Fraction(time_s + start_pts_s) / time_base)
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
