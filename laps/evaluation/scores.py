"""Precision, recall and F1 of one metric at one level."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from laps.errors import InputError
from laps.evaluation.documents import Marks
from laps.evaluation.matching import Pair, Segment, match_greedy, match_points, match_segments

METRICS = ("boundary_greedy", "boundary", "typed", "segment")


@dataclass(frozen=True)
class Score:
    """Counts of a matching and what follows from them."""

    matched: int
    truth: int
    predicted: int

    @property
    def precision(self) -> float:
        if self.predicted == 0:
            return 1.0 if self.truth == 0 else 0.0
        return self.matched / self.predicted

    @property
    def recall(self) -> float:
        return self.matched / self.truth if self.truth else 1.0

    @property
    def f1(self) -> float:
        """2 m / (truth + predicted); 1 when there is nothing to find and nothing was found."""
        total = self.truth + self.predicted
        return 2 * self.matched / total if total else 1.0


@dataclass(frozen=True)
class Matching:
    """The elements that a metric counts, each by its time, and which of them belong together.

    Attributes:
        truth_s, predicted_s: times in seconds; of a segment its middle.
        pairs: place in ``truth_s``, place in ``predicted_s``.
    """

    truth_s: list[float]
    predicted_s: list[float]
    pairs: list[Pair]


@dataclass(frozen=True)
class Metric:
    """What is matched with what, and how near it must be.

    Attributes:
        name: ``boundary_greedy``, ``boundary``, ``typed`` or ``segment``.
        level: tolerance in seconds; of ``segment`` the least IoU.
    """

    name: str
    level: float

    def __post_init__(self) -> None:
        if self.name not in METRICS:
            raise InputError(f"there is no metric {self.name!r}", fix=f"Choose one of {', '.join(METRICS)}.")
        if not self.level > 0 or (self.name == "segment" and self.level > 1):
            raise InputError("tolerances must be above 0 s, IoUs in (0, 1]")

    @property
    def needs_segments(self) -> bool:
        return self.name in ("typed", "segment")

    def points(self, side: Marks) -> list[float]:
        """The pooled boundaries that this metric counts on a side."""
        return side.boundaries if self.name == "boundary_greedy" else side.distinct

    def match(self, truth: Marks, predicted: Marks) -> Matching:
        """Match one recording."""
        if self.name == "segment":
            a, b = truth.segments or [], predicted.segments or []
            return Matching(_middles(a), _middles(b), match_segments(a, b, self.level))
        if self.name == "typed":
            starts = match_points(truth.starts, predicted.starts, self.level)
            ends = match_points(truth.ends, predicted.ends, self.level)
            shifted = [(at + len(truth.starts), other + len(predicted.starts)) for at, other in ends]
            return Matching(truth.starts + truth.ends, predicted.starts + predicted.ends, starts + shifted)
        matcher = match_greedy if self.name == "boundary_greedy" else match_points
        points, others = self.points(truth), self.points(predicted)
        return Matching(points, others, matcher(points, others, self.level))

    def score(self, recordings: Iterable[tuple[Marks, Marks]]) -> Score:
        """The score over recordings, each given as truth and prediction; their counts are added (micro average)."""
        matched = truth = predicted = 0
        for true, other in recordings:
            found = self.match(true, other)
            matched += len(found.pairs)
            truth += len(found.truth_s)
            predicted += len(found.predicted_s)
        return Score(matched, truth, predicted)


def _middles(segments: list[Segment]) -> list[float]:
    return [(start + end) / 2 for start, end in segments]
