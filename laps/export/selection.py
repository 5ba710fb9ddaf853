"""Which primitives go into a data set: balance over clusters, near-duplicates, and the split for validation.

Every choice depends on the seed and the primitives alone, not on the order in which they come.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError
from laps.timegrid import NS_PER_S

_BLOCK = 1024
_TIME_BLOCKS = 20


class Primitive(Protocol):
    """What selection needs to know; :class:`laps.export.items.ExportItem` knows it."""

    @property
    def segment_id(self) -> str: ...
    @property
    def camera(self) -> str: ...
    @property
    def recording_id(self) -> str | None: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...
    @property
    def cluster_id(self) -> int | None: ...


P = TypeVar("P", bound=Primitive)


def balance(items: Sequence[P], *, per_cluster: int, seed: int) -> list[P]:
    """At most so many primitives of each cluster, drawn at random; in the order in which they came.

    Primitives without a cluster count as one cluster. Who is drawn from a cluster stays drawn when other clusters
    change, or when ``per_cluster`` grows.
    """
    if per_cluster < 1:
        raise InputError(f"at most {per_cluster} primitives of a cluster would leave nothing", fix="Give 1 or more.")
    clusters: dict[int | None, list[P]] = defaultdict(list)
    for item in items:
        clusters[item.cluster_id].append(item)
    chosen: set[str] = set()
    for members in clusters.values():
        drawn = sorted(members, key=lambda item: _lot(seed, item.segment_id))[:per_cluster]
        chosen.update(item.segment_id for item in drawn)
    return [item for item in items if item.segment_id in chosen]


@dataclass(frozen=True)
class Duplicates(Generic[P]):
    """Attributes:
    kept: the primitives kept, in the order in which they came.
    dropped: id of each one dropped, with the id of the kept one that it resembles.
    """

    kept: list[P]
    dropped: dict[str, str]


def drop_near_duplicates(items: Sequence[P], embeddings: NDArray[np.floating], *, min_distance: float) -> Duplicates[P]:
    """Drop each primitive that is nearer than ``min_distance`` to an earlier one that is kept.

    Args:
        items: n primitives.
        embeddings: float[n, d], one for each, none of them zero.
        min_distance: cosine distance, 1 - cos, in (0, 2].

    Raises:
        InputError: the embeddings do not fit, or one has no direction.
    """
    if len(items) != len(embeddings) or embeddings.ndim != 2:
        raise InputError(f"embeddings of shape {embeddings.shape} do not fit {len(items)} primitives")
    if not 0 < min_distance <= 2:
        raise InputError(f"a cosine distance lies between 0 and 2, so {min_distance} cannot be the least")
    if not items:
        return Duplicates([], {})
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(wrong):
        raise InputError(f"the embedding of primitive {items[wrong[0]].segment_id} has no direction")
    order = sorted(range(len(items)), key=lambda place: (items[place].start_ns, items[place].segment_id))
    unit = (embeddings / norms[:, None]).astype(np.float32)[order]
    most = np.float32(1 - min_distance)
    kept: list[int] = []  # places in `unit`
    dropped: dict[str, str] = {}
    directions = np.empty_like(unit)  # of the kept ones
    for begin in range(0, len(unit), _BLOCK):
        block = unit[begin : begin + _BLOCK]
        before = len(kept)
        # Against what was kept before the block at once; within the block one by one.
        nearest = np.full(len(block), -2.0, dtype=np.float32)
        whose = np.zeros(len(block), dtype=np.int64)
        for first in range(0, before, 8 * _BLOCK):
            likeness = block @ directions[first : min(before, first + 8 * _BLOCK)].T
            best = likeness.argmax(axis=1)
            value = likeness[np.arange(len(block)), best]
            closer = value > nearest
            nearest[closer], whose[closer] = value[closer], best[closer] + first
        for row, direction in enumerate(block):
            near, who = nearest[row], int(whose[row])
            if near <= most and len(kept) > before:
                likeness_here = directions[before : len(kept)] @ direction
                who = before + int(likeness_here.argmax())
                near = likeness_here.max()
            if near > most:
                dropped[items[order[begin + row]].segment_id] = items[order[kept[who]]].segment_id
            else:
                directions[len(kept)] = direction
                kept.append(begin + row)
    return Duplicates([item for item in items if item.segment_id not in dropped], dropped)


@dataclass(frozen=True)
class Split(Generic[P]):
    """Attributes:
    train: primitives to train on.
    validation: primitives to validate on.
    dropped: primitives left out, because they are neighbours of one of the validation set.
    """

    train: list[P]
    validation: list[P]
    dropped: list[P]


def split(
    items: Sequence[P], *, by: Literal["time", "recording"], validation_share: float, guard_s: float, seed: int
) -> Split[P]:
    """Training and validation primitives, of which no two are neighbours.

    Neighbours are primitives of one camera (so also of one recording) with less than ``guard_s`` between them.
    Whole blocks are drawn for validation until the share is reached: recordings; or stretches of time, the same
    for all cameras, so that what two cameras saw at once is not torn apart. Then those left that are neighbours of
    a drawn one are dropped.

    Args:
        items: the primitives.
        by: what is drawn as a whole.
        validation_share: share of the primitives wanted for validation, in (0, 1).
        guard_s: least time between a training and a validation primitive of a camera, seconds.
        seed: of the draw.

    Raises:
        InputError: a value is out of range, a recording is not known, or one of the two sets would be empty.
    """
    if not 0 < validation_share < 1:
        raise InputError(f"the share for validation must lie between 0 and 1, not {validation_share}")
    if guard_s < 0:
        raise InputError(f"the guard time cannot be negative ({guard_s} s)")
    blocks = _by_recording(items) if by == "recording" else _by_time(items, validation_share)
    if len(blocks) < 2:
        raise InputError(
            f"{len(items)} primitives make {len(blocks)} {by} block(s), which cannot be split",
            fix="Split by time." if by == "recording" else "Select more primitives.",
        )
    wanted = validation_share * len(items)
    drawn: set[str] = set()
    for _, members in sorted(blocks.items(), key=lambda block: _lot(seed, block[0]))[:-1]:
        # A block goes in when that comes nearer to the share than leaving it out, and one always goes in.
        if drawn and len(drawn) + len(members) / 2 > wanted:
            continue
        drawn.update(item.segment_id for item in members)
    validation = [item for item in items if item.segment_id in drawn]
    rest = [item for item in items if item.segment_id not in drawn]
    guarded = _guarded(validation, round(guard_s * NS_PER_S))
    train = [item for item in rest if not _touches(guarded[item.camera], item)]
    if not train:
        raise InputError(
            f"no primitive is left to train on: all are within {guard_s} s of one for validation",
            fix="Take a shorter guard time or a smaller share.",
        )
    kept = {item.segment_id for item in train}
    return Split(train, validation, [item for item in rest if item.segment_id not in kept])


def _lot(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\n{name}".encode(), digest_size=16).digest()


def _by_recording(items: Sequence[P]) -> dict[str, list[P]]:
    blocks: dict[str, list[P]] = defaultdict(list)
    for item in items:
        if item.recording_id is None:
            raise InputError(f"the recording of primitive {item.segment_id} is not known", fix="Split by time.")
        blocks[item.recording_id].append(item)
    return blocks


def _by_time(items: Sequence[P], share: float) -> dict[str, list[P]]:
    """Stretches of time with about as many primitives each; fewer and longer ones where a guard would cost too much."""
    ordered = sorted(items, key=lambda item: (item.start_ns, item.segment_id))
    count = min(len(ordered), max(2, min(_TIME_BLOCKS, round(2 / min(share, 1 - share)))))
    edges = [round(place * len(ordered) / count) for place in range(count + 1)] if count else [0]
    return {ordered[first].segment_id: ordered[first:stop] for first, stop in pairwise(edges) if stop > first}


def _guarded(items: Sequence[P], guard_ns: int) -> dict[str, list[tuple[int, int]]]:
    """For each camera the times, as half-open ranges in order, that a training primitive may not touch."""
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.start_ns):
        merged = ranges[item.camera]
        start_ns, stop_ns = item.start_ns - guard_ns, item.end_ns + guard_ns
        if merged and start_ns <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop_ns))
        else:
            merged.append((start_ns, stop_ns))
    return ranges


def _touches(ranges: Sequence[tuple[int, int]], item: Primitive) -> bool:
    # Ranges are apart and in order, so their ends are in order too: the first that ends after the start decides.
    place = bisect_left(ranges, item.start_ns, key=lambda one: one[1])
    place += place < len(ranges) and ranges[place][1] == item.start_ns
    return place < len(ranges) and ranges[place][0] < item.end_ns
