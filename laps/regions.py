"""Regions of a camera's picture: those to ignore, and those that nobody may see.

A region is ``(left, top, right, bottom)`` as shares of the picture's width and height, half-open. The two kinds have
nothing to do with each other:

- *To ignore* is what is no work (a burned-in clock, a belt, a monitor). Tracks are stored as they were tracked, and
  these regions are applied when tracks are read (:func:`hide_points`): so one may be added, moved or taken away without
  decoding the video again. What lies in one is decided by the middles of pixels. Pictures show it.
- *To cover* is what nobody may see (faces, a neighbour's place). It is grey in every picture that is stored
  (:func:`cover`), so nothing of it is to be had back without the video. Tracks are no pictures, and follow what moves
  there; whoever wants neither names the region twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from laps.tracks import TrackWindows

Region = tuple[float, float, float, float]

# What a region shows instead: mid-grey, and always the same.
_BLANK = 128
# Scaling and the coarser colours of video carry what is in a region so far over its edges, px of the picture.
_MARGIN_PX = 2


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


def cover(picture: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """A picture, uint8 [h, w, 3], in which nothing of the regions can be seen.

    They are filled with grey, 2 px beyond their edges. The fill depends on nothing in the picture: what is blurred can
    be guessed back in part, and told apart in any case.
    """
    if not regions:
        return picture
    height, width = picture.shape[:2]
    covered = picture.copy()
    for left, top, right, bottom in regions:
        rows = slice(max(0, int(top * height) - _MARGIN_PX), int(np.ceil(bottom * height)) + _MARGIN_PX)
        columns = slice(max(0, int(left * width) - _MARGIN_PX), int(np.ceil(right * width)) + _MARGIN_PX)
        covered[rows, columns] = _BLANK
    return covered


def _edges_px(region: Region, width_px: int, height_px: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a region, in px with pixel centres at whole numbers."""
    left, top, right, bottom = region
    return left * width_px - 0.5, top * height_px - 0.5, right * width_px - 0.5, bottom * height_px - 0.5
