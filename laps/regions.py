"""Regions to ignore: parts of a camera's picture that are no work (a burned-in clock, a belt, a monitor).

A region is ``(left, top, right, bottom)`` as shares of the picture's width and height, half-open; what lies in it is
decided by the middles of pixels. Tracks are stored as they were tracked, and regions are applied when tracks are read:
so a region may be added, moved or taken away without decoding the video again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from laps.tracks import TrackWindows

Region = tuple[float, float, float, float]

# What a region shows instead: mid-grey, and always the same.
_BLANK = 128


def hide_points(windows: TrackWindows, regions: Sequence[Region]) -> TrackWindows:
    """The windows with the points that come into a region invisible from then on.

    A point that starts in a region stays invisible throughout its window: it follows what is to be ignored, also where
    that leads out of the region. One that comes into a region does not come back, because what moves there may have
    carried it off. Neither depends on anything but the window itself.

    Args:
        windows: windows as tracked.
        regions: the camera's regions.

    Returns:
        the windows with less of ``visible``; the displacements are the same.
    """
    if not regions or not len(windows):
        return windows
    x, y = np.moveaxis(windows.positions(), -1, 0)
    inside = np.zeros(windows.visible.shape, bool)
    for region in regions:
        left, top, right, bottom = _edges_px(region, windows.image_width_px, windows.image_height_px)
        inside |= (left <= x) & (x < right) & (top <= y) & (y < bottom)
    return replace(windows, visible=windows.visible & ~np.logical_or.accumulate(inside, axis=1))


def blank(picture: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """A copy of a picture, uint8 [h, w, 3], whose regions are grey."""
    blanked = picture.copy()
    for region in regions:
        left, top, right, bottom = (int(np.ceil(edge)) for edge in _edges_px(region, *picture.shape[1::-1]))
        blanked[top:bottom, left:right] = _BLANK
    return blanked


def _edges_px(region: Region, width_px: int, height_px: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a region, in px with pixel centres at whole numbers."""
    left, top, right, bottom = region
    return left * width_px - 0.5, top * height_px - 0.5, right * width_px - 0.5, bottom * height_px - 0.5
