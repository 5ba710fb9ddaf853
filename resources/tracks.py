"""Track windows of many hours from the store, one batch at a time, without what lies in regions to ignore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from laps.errors import ModelMismatchError
from laps.tables import KEYPOINT_TRACKS
from laps.timegrid import CameraHour
from resources.cameras import Cameras
from resources.store import Store

if TYPE_CHECKING:
    from laps.tracks import TrackWindows


def read_windows(store: Store, hours: Sequence[CameraHour]) -> Iterator[TrackWindows]:
    """The windows of the hours in order; ModelMismatchError when they were tracked in different ways.

    Points are invisible from where they come into one of the regions to ignore that their camera has now.
    """
    from laps.regions import hide_points
    from laps.tracks import unpack

    regions = {camera: Cameras(store).read(camera).ignore_regions for camera in {hour.camera for hour in hours}}
    tracker_id: str | None = None
    for hour in hours:
        for rows in store.iter_partition(KEYPOINT_TRACKS, hour):
            for windows in unpack(rows):
                if tracker_id is None:
                    tracker_id = windows.tracker_id
                if windows.tracker_id != tracker_id:
                    raise ModelMismatchError(
                        f"was tracked with {windows.tracker_id}, but hours before it with {tracker_id}",
                        where=hour.key,
                        fix="Choose hours of one tracker, or materialize keypoint_tracks of this hour again.",
                    )
                yield hide_points(windows, regions[hour.camera])
