"""Dense optical flow of a recording: as an energy, and as histograms for methods that compare features.

The paper's first baseline (section 4.1.2) sends the magnitude of optical flow through the detector that cuts by its own
energy. The flow here is that of the default tracker (dense inverse search, Kroeger et al., ECCV 2016), and with that
tracker the velocity energy is the same field read at 400 points: the two are **nearly the same signal, not two
independent baselines**. They part with another tracker, and where points are carried off or lost.

Everything is in px per nominal sample step (0.1 s at 10 Hz) of a picture whose short side has 320 px, scaled by the
true time between the two frames, as the tracks are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError
from laps.motion import without_common_mode
from laps.timegrid import SampleGrid
from laps.trackers.flow import PRESETS
from laps.tracks import SHORTEST_STEP

if TYPE_CHECKING:
    from laps.sampling import Sample

CELLS = 20
"""Cells along each axis of :attr:`FlowSeries.cells`: those of the tracker's 20 x 20 grid of points."""

BLOCKS = 4
ORIENTATIONS = 8
STILL_PX = 0.4
"""Slower pixels count as still: the threshold of the "no motion" bin of Wang et al., Action Recognition by Dense
Trajectories, CVPR 2011, whose eight orientations are also taken (they per frame, here per sample step)."""

_EVERY_PX = 2  # of the pixels along each axis that enter a histogram


@dataclass(frozen=True, eq=False)
class FlowSeries:
    """The flow of n samples. The value at a sample is the motion since the sample before; NaN where null.

    Attributes:
        first: number of the first sample on the absolute grid.
        magnitude: float64[n], mean length of the flow vectors, px a sample step: the paper's baseline.
        cells: float32[n, 20, 20, (x, y)], mean flow vector of each cell, rows from the top, px a sample step.
        histograms: float32[n, 144], square roots of the shares of the moving pixels' way in each of 8 directions, and
            of the still pixels, in 4 x 4 blocks; of length 1 (so the cosine of two is their Bhattacharyya coefficient).
    """

    first: int
    magnitude: NDArray[np.float64]
    cells: NDArray[np.float32]
    histograms: NDArray[np.float32]

    def background(self) -> NDArray[np.float32]:
        """Each cell's median over time, common mode taken off (belts, screens): float32[20, 20, 2].

        Belongs to a camera's calibration: take it from the hours that the thresholds come from.

        Raises:
            InputError: no sample has a flow.
        """
        present = np.isfinite(self.magnitude)
        if not present.any():
            raise InputError("no sample has a flow, so there is no background to take from it")
        return np.median(_without_common_mode(self.cells[present]), axis=0).astype(np.float32)

    def cleaned(self, background: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        """Mean speed of the cells, cleaned as every other energy: float64[n], px a sample step, NaN where null.

        Common mode (camera shake): for each sample the median vector over the cells. Background: what
        :meth:`background` gave, of this series or another of the same camera; without one it stays in.
        """
        rest = _without_common_mode(self.cells)
        if background is not None:
            rest -= _checked_background(background)
        return np.hypot(rest[..., 0], rest[..., 1]).mean(axis=(1, 2), dtype=np.float64)


def flow_series(
    samples: Iterable[Sample],
    grid: SampleGrid,
    *,
    preset: str = "ultrafast",
    short_side_px: int = 320,
    background: NDArray[np.floating] | None = None,
) -> FlowSeries:
    """Flow between neighbouring samples, in one pass.

    A sample that shows no new frame (a camera slower than the grid) takes the value of the next that does, since that
    displacement happened during both; after the last new frame, that of the last: what
    :meth:`laps.tracks.TrackWindows.velocities` does, so that a slow camera is not cut to pieces by nulls. Null are the
    missing samples and the first after a gap or a change of the picture's size.

    Args:
        samples: neighbouring samples of the grid, in order.
        grid: the sampling grid.
        preset: of the flow, see :class:`laps.trackers.flow.FlowTracker`.
        short_side_px: of the pictures.
        background: float[20, 20, 2], taken off before the histograms are made, after the common mode.

    Raises:
        InputError: an unknown preset, or samples that do not follow each other.
    """
    if preset not in PRESETS:
        raise InputError(f"there is no flow preset {preset!r}", fix=f"Choose one of {', '.join(PRESETS)}.")
    steady = None if background is None else _checked_background(background)
    values: list[tuple[float, NDArray[np.float32], NDArray[np.float32]] | None] = []
    first = index = time_ns = 0
    gray: np.ndarray | None = None
    repeated = 0  # newest samples that still wait for the value of the next new frame
    for sample in samples:
        if not values:
            first = sample.index
        elif sample.index != index + 1:
            raise InputError(f"sample {sample.index} came after sample {index}", fix="Leave no sample out.")
        index = sample.index
        values.append(None)
        frame = sample.frame
        if frame is None:
            gray, repeated = None, _fill(values, repeated, before=1)
            continue
        if gray is not None and frame.time_ns == time_ns:
            repeated += 1
            continue
        before, gray = gray, np.ascontiguousarray(frame.gray(short_side_px))
        if before is None or before.shape != gray.shape:
            repeated = _fill(values, repeated, before=1)
        else:
            scale = grid.step_ns / max(frame.time_ns - time_ns, SHORTEST_STEP * grid.step_ns)
            # A new object for every pair: one that has met a small picture keeps the scales that it chose for it.
            flow = cv2.DISOpticalFlow.create(PRESETS[preset]).calc(before, gray, None) * np.float32(scale)
            values[-1 - repeated :] = [_describe(flow, steady)] * (repeated + 1)
            repeated = 0
        time_ns = frame.time_ns
    _fill(values, repeated, before=0)

    width = BLOCKS * BLOCKS * (ORIENTATIONS + 1)
    nothing = (math.nan, np.full((CELLS, CELLS, 2), np.nan, np.float32), np.full(width, np.nan, np.float32))
    rows = [nothing if value is None else value for value in values]
    return FlowSeries(
        first=first,
        magnitude=np.array([row[0] for row in rows], dtype=np.float64),
        cells=np.array([row[1] for row in rows], dtype=np.float32).reshape(len(rows), CELLS, CELLS, 2),
        histograms=np.array([row[2] for row in rows], dtype=np.float32).reshape(len(rows), width),
    )


def _fill(values: list, repeated: int, *, before: int) -> int:
    """Give the repeated samples that end ``before`` places from the end the last value known; returns 0."""
    stop = len(values) - before
    if repeated and stop > repeated:
        values[stop - repeated : stop] = [values[stop - repeated - 1]] * repeated
    return 0


def _describe(
    flow: NDArray[np.float32], background: NDArray[np.float32] | None
) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """Mean magnitude, cells and histograms of one flow field, float32 [h, w, 2]."""
    height, width, _ = flow.shape
    # Not cv2.magnitude, whose last bit depends on the number of threads.
    magnitude = float(np.hypot(flow[..., 0], flow[..., 1]).mean(dtype=np.float64))
    cells = cv2.resize(flow, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    common = np.median(cells.reshape(-1, 2), axis=0)
    rest = flow - common
    if background is not None:
        rest -= cv2.resize(background, (width, height), interpolation=cv2.INTER_NEAREST)
    return magnitude, cells, _histograms(rest[::_EVERY_PX, ::_EVERY_PX])


def _histograms(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Histograms of oriented flow in 4 x 4 blocks; a still pixel weighs as much as one at the threshold's speed."""
    height, width, _ = flow.shape
    speed = np.hypot(flow[..., 0], flow[..., 1])
    turn = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) * ORIENTATIONS
    # Each direction is the middle of its bin, so that noise around "right" does not flip between two.
    bins = np.where(speed < STILL_PX, ORIENTATIONS, np.rint(turn).astype(np.int64) % ORIENTATIONS)
    row = np.arange(height) * BLOCKS // height
    column = np.arange(width) * BLOCKS // width
    block = row[:, None] * BLOCKS + column[None, :]
    place = block * (ORIENTATIONS + 1) + bins
    weight = np.maximum(speed, STILL_PX)
    sums = np.bincount(place.ravel(), weight.ravel(), BLOCKS * BLOCKS * (ORIENTATIONS + 1))
    sums = sums.reshape(BLOCKS * BLOCKS, ORIENTATIONS + 1)
    shares = sums / sums.sum(axis=1, keepdims=True) / (BLOCKS * BLOCKS)
    return np.sqrt(shares).ravel().astype(np.float32)


def _without_common_mode(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cells [n, 20, 20, 2] without each sample's median vector; rows of NaN stay NaN."""
    return without_common_mode(cells.reshape(-1, CELLS * CELLS, 2)).reshape(cells.shape)


def _checked_background(background: NDArray[np.floating]) -> NDArray[np.float32]:
    values = np.asarray(background, dtype=np.float32)
    if values.shape != (CELLS, CELLS, 2) or not np.isfinite(values).all():
        raise InputError(
            f"a background must be {CELLS} x {CELLS} vectors, not {list(values.shape)}",
            fix="Take it from FlowSeries.background().",
        )
    return values
