"""Tracking by advection through dense optical flow: no weights, a CPU, one flow for all windows.

The flow between two neighbouring samples is computed once (Kroeger et al., Fast Optical Flow using Dense
Inverse Search, ECCV 2016; OpenCV's DISOpticalFlow) and carries the points of all windows that are under way.
Advection has no identity: a point that an arm passes over is carried off by it. A photometric check notices
that and marks the point invisible until its surroundings look again as they last did.

Every step is arithmetic whose result does not depend on what else is computed at the same time: positions are
integers (1/32 px), interpolation is elementwise, and a window always lies in the slot of the state arrays
that its start sample selects. OpenCV's flow is the same for any number of threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from laps.errors import InputError
from laps.timegrid import SampleGrid
from laps.tracks import MAX_DISPLACEMENT, UNITS_PER_PX, TrackWindows, WindowBatcher, grid_units

if TYPE_CHECKING:
    from laps.sampling import Sample

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

# OpenCV's flow refuses images below 12 px; under 64 its image pyramid is too low to find large motion.
MIN_SHORT_SIDE_PX = 64

# The surroundings of a point: its own place and four places around it, on the smoothed image.
PATCH_OFFSETS_PX = ((0, 0), (-3, -3), (3, -3), (-3, 3), (3, 3))
PATCH_MARGIN_PX = 4
SMOOTHING_PX = 5
# Mean absolute difference, in grey levels of 255, that a point's surroundings may show while it is seen. On
# real video of hands at work 16 loses 1.4 to 2 times as many of the moving points as 24 does.
PHOTOMETRIC_TOLERANCE = 24


class FlowTracker:
    """Optical flow advection.

    Points that leave the image stop at its border, with no further displacement, and are invisible for the
    rest of the window; so does a point whose displacement in one step would not fit (1,023 px, which only
    images wider than that could show). A point is also invisible while its surroundings differ from what they
    were when it was last seen by more than :data:`PHOTOMETRIC_TOLERANCE`, after the brightness change that is
    common to the window's points is taken off.

    Args:
        preset: ``ultrafast``, ``fast`` or ``medium`` (about 1.5, 2.5 and 13.5 ms of CPU a pair at 569 x 320).
        side: points along each axis of the grid.
        short_side_px: short side of the images that are tracked.
        batch_windows: windows in a yielded batch.
    """

    def __init__(
        self, preset: str = "ultrafast", *, side: int = 20, short_side_px: int = 320, batch_windows: int = 64
    ) -> None:
        if preset not in PRESETS:
            raise InputError(f"there is no flow preset {preset!r}", fix=f"Choose one of {', '.join(PRESETS)}.")
        if short_side_px < MIN_SHORT_SIDE_PX:
            raise InputError(f"a short side of {short_side_px} px is too small for flow", fix="Use at least 64.")
        if not 1 <= side <= short_side_px:
            raise InputError(f"a grid of {side} x {side} points does not fit a short side of {short_side_px} px")
        if batch_windows < 1:
            raise InputError(f"a batch cannot hold {batch_windows} windows")
        self.preset = preset
        self.side = side
        self._short_side_px = short_side_px
        self.batch_windows = batch_windows

    @property
    def tracker_id(self) -> str:
        """For example ``dis-flow/ultrafast/320/20x20/v1``; v1 counts changes of the method."""
        return f"dis-flow/{self.preset}/{self._short_side_px}/{self.side}x{self.side}/v1"

    @property
    def short_side_px(self) -> int:
        """Short side of the images that are tracked."""
        return self._short_side_px

    def track(self, samples: Iterable[Sample], grid: SampleGrid) -> Iterator[TrackWindows]:
        """See :meth:`laps.trackers.Tracker.track`."""
        batcher = WindowBatcher(self.tracker_id, self.batch_windows)
        windows: _OpenWindows | None = None
        index = time_ns = 0
        gray = np.empty((0, 0), np.uint8)
        for sample in samples:
            if sample.frame is None:
                windows = None
                continue
            if windows is not None and sample.index != index + 1:
                if sample.index <= index:
                    raise InputError(f"sample {sample.index} came after sample {index}")
                windows = None
            if windows is not None and sample.frame.time_ns == time_ns:
                windows.stay()
            else:
                previous_gray, gray = gray, np.ascontiguousarray(sample.frame.gray(self._short_side_px))
                if windows is None or gray.shape != previous_gray.shape:
                    height_px, width_px = gray.shape
                    windows = _OpenWindows(grid, width_px, height_px, self.side)
                elif windows:
                    windows.advect(self._flow(previous_gray, gray), gray)
            index, time_ns = sample.index, sample.frame.time_ns
            finished = windows.record(index, time_ns)
            if finished is not None:
                yield from batcher.add(index, *finished, width_px=gray.shape[1], height_px=gray.shape[0])
            if index % grid.stride == -grid.window % grid.stride:
                windows.open(index, time_ns, gray)
        yield from batcher.flush()

    def _flow(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Motion from one gray image to the next: float32 [h, w, 2] in px, x then y."""
        # A new object for every pair, which costs nothing measurable: one that has met a small image keeps the
        # scales that it chose for it, and gives another flow from then on.
        return cv2.DISOpticalFlow.create(PRESETS[self.preset]).calc(before, after, None)


def tracker_from_id(tracker_id: str) -> FlowTracker:
    """The flow tracker of that identity.

    Raises:
        InputError: it names another tracker, or another version of this one, which cannot be made from its name.
    """
    match = re.fullmatch(r"dis-flow/([a-z]+)/(\d+)/(\d+)x(\d+)/v1", tracker_id)
    if match is None or match[3] != match[4]:
        raise InputError(
            f"the tracker {tracker_id} cannot be made from its name",
            fix="Configure it: only dis-flow/…/v1 needs nothing but its name, CoTracker3 its weights.",
        )
    return FlowTracker(match[1], short_side_px=int(match[2]), side=int(match[3]))


class _OpenWindows:
    """The windows that are under way: where their points are and what they have recorded so far.

    A window lies in slot ``start // stride mod slots``. The arithmetic is done for all slots, whether a
    window is under way in them or not, so that it is the same for a window whatever its neighbours are.

    Legend: K slots, N points, P patch samples.
    """

    def __init__(self, grid: SampleGrid, width_px: int, height_px: int, side: int) -> None:
        self._grid = grid
        self._start_units = grid_units(width_px, height_px, side)  # int32 [N, 2]
        self._limit_units = np.array([width_px - 1, height_px - 1], np.int32) * UNITS_PER_PX
        slots = -(-grid.window // grid.stride)
        shape = (slots, len(self._start_units))
        self._records: list[_Record | None] = [None] * slots
        self._units = np.zeros((*shape, 2), np.int32)  # positions, 1/32 px
        self._step_units = np.zeros((*shape, 2), np.int16)  # displacement since the sample before
        self._stopped = np.zeros(shape, np.bool_)  # left the image
        self._visible = np.zeros(shape, np.bool_)
        # Surroundings in 1/1024 grey levels: as they are at the sample, and as they were when last seen.
        self._patches = np.zeros((len(PATCH_OFFSETS_PX), *shape), np.int32)
        self._remembered = np.zeros_like(self._patches)

    def __bool__(self) -> bool:
        return any(record is not None for record in self._records)

    def open(self, index: int, time_ns: int, gray: np.ndarray) -> None:
        """Start a window at a sample, all of its points on the grid and visible."""
        slot = index // self._grid.stride % len(self._records)
        patches = _patches(gray, self._start_units)
        self._units[slot] = self._start_units
        self._stopped[slot] = False
        self._visible[slot] = True
        self._patches[:, slot] = patches
        self._remembered[:, slot] = patches
        record = _Record(index, self._grid.window, len(self._start_units))
        record.see(index, time_ns, None, self._visible[slot])
        self._records[slot] = record

    def stay(self) -> None:
        """The next sample shows the same frame: nothing moves."""
        self._step_units[:] = 0

    def advect(self, flow: np.ndarray, gray: np.ndarray) -> None:
        """Carry the points to the next frame.

        Args:
            flow: float32 [h, w, 2], motion in px from the frame before to this one.
            gray: uint8 [h, w], this frame.
        """
        step = np.rint(_bilinear(flow, self._units) * UNITS_PER_PX)
        too_far = (np.abs(step) > MAX_DISPLACEMENT).any(axis=-1)
        target = self._units + np.clip(step, -MAX_DISPLACEMENT, MAX_DISPLACEMENT).astype(np.int32)
        target[self._stopped] = self._units[self._stopped]
        clamped = np.clip(target, 0, self._limit_units)
        self._stopped |= too_far | (clamped != target).any(axis=-1)
        self._step_units[:] = clamped - self._units
        self._units = clamped
        self._check(_patches(gray, clamped))

    def _check(self, patches: np.ndarray) -> None:
        """Update visibility from the surroundings at the new positions, int32 [P, K, N]."""
        points = patches.shape[-1]
        change = patches[0] - self._patches[0]
        brightness = np.partition(change, points // 2, axis=1)[:, points // 2, None]
        expected = self._remembered + brightness
        difference = np.abs(patches - expected).sum(axis=0)
        # A change of exposure is a gain, not an offset: bright and dark places depart from the common change
        # by up to its own size.
        tolerance = PHOTOMETRIC_TOLERANCE * UNITS_PER_PX**2 + np.abs(brightness)
        self._visible = (difference <= tolerance * len(patches)) & ~self._stopped
        self._remembered = np.where(self._visible, patches, expected)
        self._patches = patches

    def record(self, index: int, time_ns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Note the sample in every window under way; return the arrays of the one that it completes."""
        finished = None
        for slot, record in enumerate(self._records):
            if record is not None and record.see(index, time_ns, self._step_units[slot], self._visible[slot]):
                finished = record.displacements, record.visible, record.frame_times_ns
                self._records[slot] = None
        return finished


class _Record:
    """What one window has recorded: arrays of :class:`TrackWindows` without the W axis."""

    def __init__(self, start: int, window: int, points: int) -> None:
        self.start = start
        self.displacements = np.empty((window - 1, points, 2), np.int16)
        self.visible = np.empty((window, points), np.bool_)
        self.frame_times_ns = np.empty(window, np.int64)

    def see(self, index: int, time_ns: int, step_units: np.ndarray | None, visible: np.ndarray) -> bool:
        """Note one sample; True when it is the window's last. Only the first has no step."""
        sample = index - self.start
        if step_units is not None:
            self.displacements[sample - 1] = step_units
        self.visible[sample] = visible
        self.frame_times_ns[sample] = time_ns
        return sample == len(self.frame_times_ns) - 1


def _corners(units: np.ndarray, width: int, height: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Flat index of the pixel up left of each position, and the four bilinear weights (sum 1024).

    Args:
        units: int32 [..., 2], positions in 1/32 px within the image.
        width: of the image, as is its height.
    """
    x, y = units[..., 0], units[..., 1]
    column = np.minimum(x // UNITS_PER_PX, width - 2)
    row = np.minimum(y // UNITS_PER_PX, height - 2)
    right, down = x - column * UNITS_PER_PX, y - row * UNITS_PER_PX
    left, up = UNITS_PER_PX - right, UNITS_PER_PX - down
    # Indices of the machine's own width: others would be converted at each of the four corners.
    return row.astype(np.intp) * width + column, [left * up, right * up, left * down, right * down]


def _bilinear(flow: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The flow at positions in 1/32 px: float32 [..., 2]."""
    height, width, _ = flow.shape
    corner, weights = _corners(units, width, height)
    # Both parts of a vector at once, as one complex number: a real factor multiplies each by itself.
    vectors = flow.view(np.complex64).ravel()
    total = np.zeros(corner.shape, np.complex64)
    for offset, weight in zip((0, 1, width, width + 1), weights, strict=True):
        total += vectors.take(corner + offset) * weight.astype(np.float32)
    return total.view(np.float32).reshape(units.shape) / np.float32(UNITS_PER_PX**2)


def _patches(gray: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Smoothed surroundings of positions in 1/32 px: int32 [P, ...], in 1/1024 grey levels."""
    smooth = cv2.GaussianBlur(gray, (SMOOTHING_PX, SMOOTHING_PX), 0)
    margin = PATCH_MARGIN_PX
    smooth = cv2.copyMakeBorder(smooth, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    height, width = smooth.shape
    corner, weights = _corners(units + margin * UNITS_PER_PX, width, height)
    flat = smooth.ravel()
    steps = np.array([dy * width + dx for dx, dy in PATCH_OFFSETS_PX])
    places = corner + steps.reshape(-1, *[1] * corner.ndim)
    total = np.zeros(places.shape, np.int32)
    for offset, weight in zip((0, 1, width, width + 1), weights, strict=True):
        total += flat.take(places + offset) * weight
    return total
