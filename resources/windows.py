"""Samples of track windows from the store, for training: bounded in memory, spread evenly, and described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from laps.errors import ModelMismatchError
from laps.tables import KEYPOINT_TRACKS
from laps.timegrid import CameraHour, SampleGrid
from resources.store import Store

if TYPE_CHECKING:
    import numpy as np

# Neighbouring windows overlap; whole runs of them are taken, so that the sample still shows whole actions.
BLOCK_WINDOWS = 64


@dataclass(frozen=True)
class WindowSample:
    """Windows to train on.

    Attributes:
        velocities: float16 [W, T-1, N, 2], px per sample step.
        visible: bool [W, T-1, N], whether the point was seen at both ends of the step.
        tracker_id: the tracker of all of them.
        description: which hours, and how much of them.
    """

    velocities: np.ndarray
    visible: np.ndarray
    tracker_id: str
    description: str

    @property
    def count(self) -> int:
        return len(self.velocities)

    @property
    def points(self) -> int:
        return int(self.velocities.shape[2])


def training_windows(store: Store, hours: list[CameraHour], grid: SampleGrid, *, sample_hours: float) -> WindowSample:
    """Read at most ``sample_hours`` of windows, in blocks spread evenly over the hours.

    Raises ModelMismatchError when the hours were tracked in different ways.
    """
    import numpy as np

    from laps.tracks import TrackWindows

    available = {hour: store.partition_rows(KEYPOINT_TRACKS, hour) for hour in hours}
    total = sum(available.values())
    wanted = min(total, round(sample_hours * grid.samples_per_hour / grid.stride))
    keep_every = max(1.0, total / wanted) if wanted else 1.0
    velocities: list[np.ndarray] = []
    visible: list[np.ndarray] = []
    trackers: set[str] = set()
    block = 0
    kept = 0
    for hour in hours:
        for rows in store.iter_partition(KEYPOINT_TRACKS, hour, batch_rows=BLOCK_WINDOWS):
            # Block b is taken when the running quota passes a whole number: even, and the same every time.
            if int((block + 1) / keep_every) > int(block / keep_every) and kept < wanted:
                windows = TrackWindows.from_table(rows)
                trackers.add(windows.tracker_id)
                velocities.append(windows.velocities(grid).astype(np.float16))
                visible.append(windows.step_visible())
                kept += len(windows.end_samples)
            block += 1
    if len(trackers) > 1:
        raise ModelMismatchError(
            f"the hours were tracked in different ways: {', '.join(sorted(trackers))}",
            fix="Choose hours of one tracker, or materialize keypoint_tracks of the others again.",
        )
    seconds = kept * grid.stride * grid.step_s
    cameras = sorted({hour.camera for hour in hours})
    return WindowSample(
        velocities=np.concatenate(velocities) if velocities else np.zeros((0, grid.window - 1, 0, 2), np.float16),
        visible=np.concatenate(visible) if visible else np.zeros((0, grid.window - 1, 0), bool),
        tracker_id=next(iter(trackers), ""),
        description=f"{kept} of {total} windows ({seconds / 60:.1f} min) from {len(hours)} hours of "
        f"{', '.join(cameras)}, in blocks of {BLOCK_WINDOWS}, one of every {keep_every:.1f} blocks",
    )
