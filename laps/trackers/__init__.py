"""Point trackers: from sampled frames to the paths of every window's points.

Two stand behind one interface: :class:`laps.trackers.flow.FlowTracker` (dense optical flow, no weights, CPU;
the default) and :class:`laps.trackers.cotracker.CoTracker` (CoTracker3, weights under a non-commercial
licence, GPU).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from laps.timegrid import SampleGrid
from laps.tracks import TrackWindows

if TYPE_CHECKING:
    from laps.sampling import Sample


class Tracker(Protocol):
    """What a tracker offers.

    Windows start at the absolute samples that the grid fixes, each with a fresh grid of points, and each is
    the same, to the bit, wherever the stream of samples began and whatever batch it is yielded in.
    """

    @property
    def tracker_id(self) -> str:
        """Name and settings, for people and as part of a tokenizer's id."""

    @property
    def short_side_px(self) -> int:
        """Short side of the images that are tracked."""

    def track(self, samples: Iterable[Sample], grid: SampleGrid) -> Iterator[TrackWindows]:
        """Every window whose samples are all in the stream, in batches, in the order of their last samples.

        No window touches a missing sample (``frame is None``), a hole in the samples' numbers or a change of
        the image's size. Memory does not grow with the length of the stream.

        Args:
            samples: samples in ascending order of their index.
            grid: the sampling grid they stand on.
        """
