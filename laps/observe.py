"""The one pass over an hour's samples that makes both its tracks and its keyframes.

Each frame is decoded once in its life: the tracker pulls the samples, and the keyframes are taken as they go
by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from laps.keyframes import KEYFRAME_HZ, Keyframe, keyframe_interval, make_keyframe
from laps.regions import Region
from laps.timegrid import SampleGrid
from laps.trackers import Tracker
from laps.tracks import TrackWindows

if TYPE_CHECKING:
    from laps.sampling import Sample


def observe(
    samples: Iterable[Sample],
    tracker: Tracker,
    grid: SampleGrid,
    *,
    first: int,
    keyframe_hz: int = KEYFRAME_HZ,
    keyframe_short_side_px: int = 224,
    covered: Sequence[Region] = (),
) -> Iterator[TrackWindows | list[Keyframe]]:
    """Track the samples and take keyframes from them, in one pass.

    Keyframes stand at the absolute samples that ``rate_hz / keyframe_hz`` divides, from ``first`` on, so that
    the pre-roll of an hour gives none; a missing sample has none. No pixels are held beyond what the tracker
    needs: keyframes wait as JPEG until the tracker next yields a batch.

    Args:
        samples: samples in ascending order, pre-roll included.
        tracker: any tracker.
        grid: the sampling grid.
        first: first sample of which keyframes are wanted (the hour's first).
        keyframe_hz: keyframes a second; must divide the sampling rate.
        keyframe_short_side_px: short side of the pictures.
        covered: regions of the pictures that nobody may see. The tracker sees them.

    Yields:
        batches of windows in the order of their last samples, and lists of keyframes in order.
    """
    interval = keyframe_interval(grid, keyframe_hz)
    waiting: list[Keyframe] = []

    def watched() -> Iterator[Sample]:
        for sample in samples:
            if sample.frame is not None and sample.index >= first and sample.index % interval == 0:
                waiting.append(
                    make_keyframe(sample.index, sample.frame, short_side_px=keyframe_short_side_px, covered=covered)
                )
            yield sample

    for windows in tracker.track(watched(), grid):
        if waiting:
            yield waiting[:]
            waiting.clear()
        yield windows
    if waiting:
        yield waiting
