"""Which true and predicted boundaries or segments belong together, one to one.

Each function gives the pairs as (place in truth, place in predicted).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

Segment = tuple[float, float]
Pair = tuple[int, int]


def match_greedy(truth: Sequence[float], predicted: Sequence[float], tolerance_s: float) -> list[Pair]:
    """Matches as the reference implementation counts them.

    In order of time each true boundary looks at its nearest prediction that is not yet used (the earlier one of two
    equally near) and takes it if it lies within the tolerance. Both lists are sorted.
    """
    used = [False] * len(predicted)
    pairs = []
    for place, time in enumerate(truth):
        right = bisect.bisect_left(predicted, time)
        left = right - 1
        while right < len(predicted) and used[right]:
            right += 1
        while left >= 0 and used[left]:
            left -= 1
        candidates = [candidate for candidate in (left, right) if 0 <= candidate < len(predicted)]
        if not candidates:
            continue
        nearest = min(candidates, key=lambda candidate: abs(predicted[candidate] - time))
        if abs(predicted[nearest] - time) <= tolerance_s:
            used[nearest] = True
            pairs.append((place, nearest))
    return pairs


def match_points(truth: Sequence[float], predicted: Sequence[float], tolerance_s: float) -> list[Pair]:
    """As many one-to-one matches within the tolerance as there can be. Both lists are sorted.

    One sweep finds them: when the earliest open points of both sides lie within the tolerance of each other, some best
    matching pairs them (whatever else either could take lies later, and what lies later can take the other's place);
    otherwise the earlier of the two can match nothing.
    """
    pairs = []
    at = predicted_at = 0
    while at < len(truth) and predicted_at < len(predicted):
        difference = predicted[predicted_at] - truth[at]
        if abs(difference) <= tolerance_s:
            pairs.append((at, predicted_at))
            at, predicted_at = at + 1, predicted_at + 1
        elif difference < 0:
            predicted_at += 1
        else:
            at += 1
    return pairs


def intersection_over_union(a: Segment, b: Segment) -> float:
    """Overlap of two segments over the time that either covers."""
    overlap = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return overlap / (a[1] - a[0] + b[1] - b[0] - overlap)


def alike(truth: Sequence[Segment], predicted: Sequence[Segment], iou: float) -> list[list[tuple[int, float]]]:
    """For each predicted segment the true ones that it overlaps with at least this IoU (above 0), and the IoU."""
    order = sorted(range(len(truth)), key=lambda place: truth[place])
    starts = [truth[place][0] for place in order]
    longest = max((end - start for start, end in truth), default=0.0)
    found = []
    for segment in predicted:
        low = bisect.bisect_left(starts, segment[0] - longest)
        high = bisect.bisect_right(starts, segment[1])
        overlaps = [(place, intersection_over_union(truth[place], segment)) for place in order[low:high]]
        found.append([(place, overlap) for place, overlap in overlaps if overlap >= iou])
    return found


def match_segments(truth: Sequence[Segment], predicted: Sequence[Segment], iou: float) -> list[Pair]:
    """As many one-to-one matches with at least this IoU (above 0) as there can be, by augmenting paths."""
    candidates = alike(truth, predicted, iou)
    owner: dict[int, int] = {}  # true segment -> predicted segment
    taken: dict[int, int] = {}  # and the reverse
    for root in range(len(predicted)):
        # Breadth-first search for a chain of re-assignments that frees a true segment for this prediction.
        reached_from: dict[int, int] = {}
        queue = [root]
        free: int | None = None
        for place in queue:
            for target, _ in candidates[place]:
                if target in reached_from:
                    continue
                reached_from[target] = place
                if target not in owner:
                    free = target
                    break
                queue.append(owner[target])
            if free is not None:
                break
        step = free
        while step is not None:
            place = reached_from[step]
            before = taken.get(place)
            owner[step], taken[place] = place, step
            step = before
    return sorted(owner.items())
