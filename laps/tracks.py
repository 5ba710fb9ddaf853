"""Tracks of a window's points: the batch that trackers yield, its velocities, and its packed table.

A window holds the paths of a regular grid of points that starts anew at the window's first sample (paper
section 3.1; 20 x 20 points and 16 samples in the reference implementation). Displacements between
neighbouring samples are held in 1/32 px as int16: sums of them are exact, so that packing loses nothing, and
an hour fits in tens of megabytes after compression.

Legend: W windows, T samples in a window, S = T - 1 motion steps, N points, last axis x then y.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from laps.errors import InputError, ModelMismatchError, SchemaError
from laps.tables import KEYPOINT_TRACKS
from laps.timegrid import SampleGrid

UNITS_PER_PX = 32
MAX_DISPLACEMENT = 32_767
"""Largest displacement between neighbouring samples, in 1/32 px (1,023.97 px)."""

# Time stamps that jitter, or a second file that begins a moment after the first ended, can put two frames
# a millisecond apart; scaling by that would turn noise into a leap.
SHORTEST_STEP = 0.1


def grid_points(width_px: int, height_px: int, side: int = 20) -> np.ndarray:
    """The points that every window starts from: centres of side x side equal cells, row by row.

    Args:
        width_px: width of the tracked image.
        height_px: its height.
        side: points along each axis.

    Returns:
        float32 [side * side, 2], x then y, in px with pixel centres at whole numbers, multiples of 1/32 px.
    """
    return grid_units(width_px, height_px, side).astype(np.float32) / np.float32(UNITS_PER_PX)


def grid_units(width_px: int, height_px: int, side: int = 20) -> np.ndarray:
    """The same points as int32 in 1/32 px."""
    if side < 1 or side > min(width_px, height_px):
        raise InputError(f"a grid of {side} x {side} points does not fit an image of {width_px} x {height_px} px")
    x, y = (
        np.rint(((np.arange(side) + 0.5) * size / side - 0.5) * UNITS_PER_PX).astype(np.int32)
        for size in (width_px, height_px)
    )
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class TrackWindows:
    """A batch of windows that were tracked by one tracker at one image size.

    Attributes:
        end_samples: int64 [W], last sample of each window, ascending.
        displacements: int16 [W, S, N, 2] in 1/32 px, as tracked, whether the point was visible or not.
        visible: bool [W, T, N], the point was seen at the sample.
        frame_times_ns: int64 [W, T], true time of the frame shown at each sample.
        image_width_px: width of the tracked image.
        image_height_px: its height.
        tracker_id: name and settings of the tracker.
    """

    end_samples: np.ndarray
    displacements: np.ndarray
    visible: np.ndarray
    frame_times_ns: np.ndarray
    image_width_px: int
    image_height_px: int
    tracker_id: str

    def __post_init__(self) -> None:
        windows, samples, points = self.visible.shape
        expected = {
            "end_samples": ((windows,), np.int64),
            "displacements": ((windows, samples - 1, points, 2), np.int16),
            "visible": ((windows, samples, points), np.bool_),
            "frame_times_ns": ((windows, samples), np.int64),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise SchemaError(
                    f"{name} of track windows is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}"
                )

    def __len__(self) -> int:
        return len(self.end_samples)

    def __getitem__(self, windows: slice) -> TrackWindows:
        """A part of the batch, sharing its arrays."""
        return TrackWindows(
            self.end_samples[windows],
            self.displacements[windows],
            self.visible[windows],
            self.frame_times_ns[windows],
            self.image_width_px,
            self.image_height_px,
            self.tracker_id,
        )

    @property
    def side(self) -> int:
        """Points along each axis of the grid."""
        return math.isqrt(self.visible.shape[2])

    def positions(self) -> np.ndarray:
        """float32 [W, T, N, 2]: where each point is at each sample, in px; exact."""
        start = grid_units(self.image_width_px, self.image_height_px, self.side)
        units = np.empty((*self.visible.shape, 2), dtype=np.int32)
        units[:, 0] = start
        np.cumsum(self.displacements, axis=1, dtype=np.int32, out=units[:, 1:])
        units[:, 1:] += start
        return units.astype(np.float32) / np.float32(UNITS_PER_PX)

    def velocities(self, grid: SampleGrid, *, keep_invisible: bool = False) -> np.ndarray:
        """Motion of each point in each step, in px per nominal sample step (0.1 s at 10 Hz).

        The displacement is scaled by the true time between the two frames, without which a camera of 25
        frames/s on a grid of 10 Hz (steps of 80 and 120 ms) would seem to beat by a fifth; frames closer than
        a tenth of a step count as a tenth apart. A step that shows no new frame (a camera slower than the
        grid) takes the velocity, and the visibility, of the next step of its window that has one, because
        that step's displacement happened during both; after the window's last new frame, of the last step
        that has one.

        Args:
            grid: the sampling grid that the windows were made on.
            keep_invisible: leave the velocities of invisible steps as tracked instead of setting them to 0;
                a point that was lost is carried along by whatever covers it.

        Returns:
            float32 [W, S, N, 2], x then y; never NaN. :meth:`step_visible` tells a still point from a lost
            one.
        """
        intervals_ns = np.diff(self.frame_times_ns, axis=1)
        shortest_ns = SHORTEST_STEP * grid.step_ns
        scale = np.where(intervals_ns > 0, grid.step_ns / np.maximum(intervals_ns, shortest_ns) / UNITS_PER_PX, 0)
        velocities = self.displacements * scale.astype(np.float32)[:, :, None, None]
        velocities = _take_steps(velocities, self._measured_steps())
        if not keep_invisible:
            velocities *= self.step_visible()[..., None]
        return velocities

    def step_visible(self) -> np.ndarray:
        """bool [W, S, N]: the point was seen at both ends of the step.

        A step without a new frame is as visible as the one whose velocity it takes (see :meth:`velocities`).
        """
        return _take_steps(self.visible[:, :-1] & self.visible[:, 1:], self._measured_steps())

    def _measured_steps(self) -> np.ndarray:
        """int [W, S]: the step whose displacement tells the velocity of each step."""
        new_frame = np.diff(self.frame_times_ns, axis=1) > 0
        steps = np.arange(new_frame.shape[1])
        following = np.where(new_frame, steps, len(steps))
        following = np.minimum.accumulate(following[:, ::-1], axis=1)[:, ::-1]
        preceding = np.maximum.accumulate(np.where(new_frame, steps, 0), axis=1)
        return np.where(following < len(steps), following, preceding)

    def to_table(self, camera: str, grid: SampleGrid) -> pa.Table:
        """Rows of :data:`laps.tables.KEYPOINT_TRACKS`, one a window."""
        count = len(self)
        displacements = self.displacements.astype("<i2", copy=False)
        visible = np.packbits(self.visible.reshape(count, math.prod(self.visible.shape[1:])), axis=1)
        shares = self.visible.mean(axis=(1, 2), dtype=np.float64)
        schema = KEYPOINT_TRACKS.schema()
        columns = {
            "camera": [camera] * count,
            "end_sample": self.end_samples,
            "end_time": self.end_samples * grid.step_ns // 1000,
            "tracker_id": [self.tracker_id] * count,
            "image_width_px": np.full(count, self.image_width_px, dtype=np.int32),
            "image_height_px": np.full(count, self.image_height_px, dtype=np.int32),
            "frame_times_ns": list(self.frame_times_ns),
            "displacements": [window.tobytes() for window in displacements],
            "visible": [window.tobytes() for window in visible],
            "visible_share": shares.astype(np.float32),
        }
        return pa.Table.from_arrays([pa.array(columns[field.name], type=field.type) for field in schema], schema=schema)

    @classmethod
    def from_table(cls, rows: pa.Table) -> TrackWindows:
        """The windows of rows that share one tracker and one image size; inverse of :meth:`to_table`.

        Raises:
            ModelMismatchError: rows of several trackers. SchemaError: no rows, rows of several image sizes
            (use :func:`unpack`), or arrays of a wrong length.
        """
        tracker_id = _single_tracker(rows)
        if tracker_id is None:
            raise SchemaError("there are no rows to read track windows from")
        shapes = set(_shapes(rows))
        if len(shapes) > 1:
            sizes = ", ".join(sorted(f"{width} x {height} px" for width, height, _ in shapes))
            raise SchemaError(f"rows of several image sizes or lengths ({sizes})", fix="Read them with unpack.")
        return _from_rows(rows, tracker_id, *shapes.pop())


def unpack(rows: pa.Table, *, batch_windows: int = 256) -> Iterator[TrackWindows]:
    """The windows of rows of :data:`laps.tables.KEYPOINT_TRACKS`, in order, in batches of one image size.

    Raises:
        ModelMismatchError: rows of several trackers, whose windows must not be mixed.
        SchemaError: packed arrays of a wrong length.
    """
    tracker_id = _single_tracker(rows)
    if tracker_id is None:
        return
    shapes = _shapes(rows)
    start = 0
    while start < len(shapes):
        stop = start + 1
        while stop < min(len(shapes), start + batch_windows) and shapes[stop] == shapes[start]:
            stop += 1
        yield _from_rows(rows.slice(start, stop - start), tracker_id, *shapes[start])
        start = stop


class WindowBatcher:
    """Collects finished windows of one image size into batches (used by trackers)."""

    def __init__(self, tracker_id: str, batch_windows: int) -> None:
        self._tracker_id = tracker_id
        self._batch_windows = batch_windows
        self._windows: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        self._size_px = (0, 0)

    def add(
        self,
        end_sample: int,
        displacements: np.ndarray,
        visible: np.ndarray,
        frame_times_ns: np.ndarray,
        *,
        width_px: int,
        height_px: int,
    ) -> Iterator[TrackWindows]:
        """Take one window (arrays without the W axis), and yield the batch that it completes, if any."""
        if self._size_px != (width_px, height_px):
            yield from self.flush()
            self._size_px = (width_px, height_px)
        self._windows.append((end_sample, displacements, visible, frame_times_ns))
        if len(self._windows) == self._batch_windows:
            yield from self.flush()

    def flush(self) -> Iterator[TrackWindows]:
        """Yield what is left."""
        if self._windows:
            ends, displacements, visible, times_ns = zip(*self._windows, strict=True)
            self._windows = []
            yield TrackWindows(
                np.array(ends, dtype=np.int64),
                np.stack(displacements),
                np.stack(visible),
                np.stack(times_ns),
                *self._size_px,
                self._tracker_id,
            )


def _take_steps(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """``values[w, steps[w, s]]`` for every window and step."""
    if (steps == np.arange(steps.shape[1])).all():
        return values
    return np.take_along_axis(values, steps.reshape(steps.shape + (1,) * (values.ndim - 2)), axis=1)


def _single_tracker(rows: pa.Table) -> str | None:
    trackers = rows["tracker_id"].unique().to_pylist()
    if len(trackers) > 1:
        raise ModelMismatchError(
            f"tracks of several trackers ({', '.join(sorted(trackers))})",
            fix="Materialize keypoint_tracks of these hours again with one tracker.",
        )
    return trackers[0] if trackers else None


def _shapes(rows: pa.Table) -> list[tuple[int, int, int]]:
    """Width, height and samples of each row."""
    widths, heights = rows["image_width_px"].to_pylist(), rows["image_height_px"].to_pylist()
    lengths = [len(times) for times in rows["frame_times_ns"].to_pylist()]
    return list(zip(widths, heights, lengths, strict=True))


def _from_rows(rows: pa.Table, tracker_id: str, width_px: int, height_px: int, samples: int) -> TrackWindows:
    count = rows.num_rows
    packed: Sequence[bytes] = rows["displacements"].to_pylist()
    points = len(packed[0]) // ((samples - 1) * 4)
    displacements = _joined(packed, (samples - 1) * points * 4, "displacements").view("<i2")
    bits = _joined(rows["visible"].to_pylist(), -(-samples * points // 8), "visible")
    visible = np.unpackbits(bits.reshape(count, -1), axis=1, count=samples * points)
    return TrackWindows(
        rows["end_sample"].to_numpy(),
        displacements.astype(np.int16, copy=False).reshape(count, samples - 1, points, 2),
        visible.astype(np.bool_).reshape(count, samples, points),
        np.array(rows["frame_times_ns"].to_pylist(), dtype=np.int64),
        width_px,
        height_px,
        tracker_id,
    )


def _joined(values: Sequence[bytes], length: int, name: str) -> np.ndarray:
    if not length or any(len(value) != length for value in values):
        raise SchemaError(f"packed {name} of track windows do not all hold {length} bytes")
    return np.frombuffer(b"".join(values), dtype=np.uint8)
