"""Mean average precision (mAP) of segments at an IoU threshold, without classes.

Segments have no class, so that the mean is over one class. Predictions of all recordings stand in one list by falling
confidence; in that order each takes the true segment of its recording, among those not yet taken, with the highest
IoU, if that reaches the threshold. Average precision is the area under the precision envelope: precision at a recall
is the highest at this or any greater recall (interpolation at every point, as Pascal VOC since 2010).

The reference implementation matches and interpolates in the same way (the paper reports no mAP). It differs in three
points. Its confidence is the mean energy inside a segment, or the segment's length where there is no energy; here it
is what the detector wrote, the mean of ln(energy / theta_on), and where it is missing there is no mAP. Of predictions
with the same confidence it counts one after the other, in the order of the file; here they enter together, so that a
confidence that is always the same ranks nothing. It knows no background labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laps.evaluation.matching import Segment, alike


@dataclass(frozen=True)
class Candidates:
    """One recording, before its predictions are ranked.

    Attributes:
        truth_count: true segments.
        alike: for each predicted segment, the true ones that reach the threshold, with the IoU.
    """

    truth_count: int
    alike: list[list[tuple[int, float]]]

    @classmethod
    def of(cls, truth: Sequence[Segment], predicted: Sequence[Segment], iou: float) -> Candidates:
        return cls(len(truth), alike(truth, predicted, iou))

    def hits(self, confidences: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool[n]: whether each prediction gets a true segment of its own."""
        hits = np.zeros(len(self.alike), bool)
        taken: set[int] = set()
        for place in np.argsort(-confidences, kind="stable").tolist():
            free = [(overlap, target) for target, overlap in self.alike[place] if target not in taken]
            if free:
                taken.add(max(free)[1])
                hits[place] = True
        return hits


def average_precision(recordings: Sequence[Candidates], confidences: Sequence[NDArray[np.float64]]) -> float:
    """Average precision over recordings.

    Args:
        recordings: what could match in each.
        confidences: float64[n] of each recording's predictions; higher is surer.

    Returns:
        0 to 1; without any true segment 1 if nothing was predicted, else 0.
    """
    truth_count = sum(one.truth_count for one in recordings)
    hits = np.concatenate(
        [np.zeros(0, bool), *(one.hits(sure) for one, sure in zip(recordings, confidences, strict=True))]
    )
    if truth_count == 0 or not len(hits):
        return 1.0 if truth_count == len(hits) else 0.0
    sure = np.concatenate([np.zeros(0), *confidences])
    order = np.argsort(-sure, kind="stable")
    # The curve has a point only where the confidence changes.
    last_of_its_kind = np.append(np.flatnonzero(np.diff(sure[order])), len(order) - 1)
    found = np.cumsum(hits[order])[last_of_its_kind]
    precision, recall = found / (last_of_its_kind + 1), found / truth_count
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
