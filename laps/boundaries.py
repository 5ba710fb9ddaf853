"""Boundaries without rest: what the end and the beginning of a primitive look like, learned without labels.

Where one primitive follows the other without a pause, the energy does not fall (paper section 3.1.2 cuts nowhere
there). But the hands end and begin their work in recurring ways: they let go and come back, they reach out. What that
looks like can be learned where it is known that something ends and begins, and is then found elsewhere.

*Teacher.* Where boundaries are taken from at first, unlabelled and imperfect: ``rests``, the primitives between two
rests; or ``pictures``, where keyframes change most (:mod:`laps.baselines.abd`), for work that never rests.

*Student.* Two logistic regressions on the tokens. One tells the 2 s before an end from the 2 s before other moments,
the other the 2 s after a beginning; a seam between two samples scores the sum of both log-odds. What a token says is
the motion that it stands for, as its first principal components. These are odd in the motion (turned around, they
change their sign), so that no linear score of them is a speed: a student that sees speed copies its teacher (*slow* is
an end) and learns nothing of what ends look like.

*Self-training.* Where primitives touch, the student cuts anew what it was not taught on (two halves take turns), and
the next student is taught by that.

A score is a sum over the samples around a seam of one number for each code and place: a table, which a calibration
keeps. It depends on 2 s on either side and nothing else, so that hours can be cut apart. docs/method.md has the
measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from laps.errors import InputError

Teacher = Literal["rests", "pictures"]
TEACHERS: tuple[Teacher, ...] = ("rests", "pictures")

REACH_S = 2.0
APART_S = 0.8  # no two boundaries lie closer
SPLIT_THRESHOLD = 1.0  # log-odds, inside of what two rests enclose
ROUNDS = 3
# Boundaries of touching primitives for each one of the teacher's: rests miss boundaries, changes of pictures do not.
DENSITY = {"rests": 1.25, "pictures": 1.0}
JITTER_S = {"rests": 0.1, "pictures": 0.4}  # how far off a boundary of the teacher may be

_MOMENTS = 6  # on either side of a seam
_MOMENT_S = 0.3  # apart
_MOMENT_WIDTH_S = 0.15  # standard deviation of the weights around a moment
_COMPONENTS = 16
_SCALE_PX = 0.2
_MARGIN_S = 0.5  # seams nearer to a boundary of the teacher's are neither boundaries nor others
_INVERSE_REGULARISATION = 0.003
_ITERATIONS = 400
_MOST_ROWS = 150_000  # of all lessons; more are thinned evenly (four hours at 10 Hz: 120 MB)
_MOST_SEAMS = 30_000  # of either kind in a regression
_BLOCK_S = 120.0  # teaching alternates between halves in blocks of this length, shorter where there are few
_LEAST_BLOCKS = 4
_LEAST_BOUNDARIES = 8  # of the teacher's, in either half, for anything to be learned


@dataclass(frozen=True, eq=False)
class BoundaryModel:
    """Scores seams: how much more likely an end and a beginning are there than elsewhere.

    Attributes:
        weights: float32[f, k]: what value j of a row contributes at each of the k places around a seam, from the first
            sample before it on; f is the number of codes, and a row is a code, or f is a number of features.
        bias: added to every sum.
        threshold: a seam must score more to be a boundary.
        apart_samples: and more than every other seam so near.
    """

    weights: NDArray[np.float32] = field(repr=False)
    bias: float
    threshold: float
    apart_samples: int

    @property
    def reach_samples(self) -> int:
        """Samples on either side that a score depends on."""
        return self.weights.shape[1] // 2

    @property
    def lookahead_samples(self) -> int:
        """Samples from a seam on that must be known to tell whether it is a boundary."""
        return self.reach_samples + self.apart_samples

    def of_codes(self, table: NDArray[np.floating[Any]]) -> BoundaryModel:
        """The same model reading codes instead of the features float[n_codes, f] that they stand for."""
        return replace(self, weights=(np.asarray(table, np.float64) @ self.weights).astype(np.float32))

    def scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Scores of all seams of an unbroken stretch.

        Args:
            rows: int[n], codes; or float[n, f], features.

        Returns:
            float64[n + 1]: seam i lies before row i; 0 and n are the ends of the stretch. What lies outside of it
            contributes nothing.
        """
        values = self.weights[rows] if rows.ndim == 1 else rows @ self.weights
        total = np.full(len(rows) + 1, self.bias)
        reach = self.reach_samples
        # One fixed order of additions for every seam, so that a score is the same however a recording is cut up.
        for place in range(2 * reach):
            first = max(0, reach - place)  # seam whose sample at this place is the stretch's first
            stop = min(len(rows) + 1, len(rows) + reach - place)
            if first < stop:
                at = first - reach + place
                total[first:stop] += values[at : at + stop - first, place]
        return total

    def boundaries(self, rows: NDArray[Any], *, from_ends: int = 0) -> NDArray[np.int64]:
        """The seams of an unbroken stretch that are boundaries, in order.

        Args:
            rows: as for :meth:`scores`.
            from_ends: seams nearer to the stretch's ends are none.
        """
        return peaks(self.scores(rows), self.apart_samples, self.threshold, from_ends=max(1, from_ends))


@dataclass(frozen=True, eq=False)
class Learned:
    """A model, and how it was come by.

    Attributes:
        model: the model.
        taught: boundaries that it was taught by: ends, beginnings.
        told_apart: of ends and of beginnings, the probability that a student scores one that it was not taught higher
            than another moment (area under the curve): 0.5 is chance.
    """

    model: BoundaryModel
    taught: tuple[int, int]
    told_apart: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Lesson:
    """An unbroken stretch of rows with what the teacher says of it.

    Attributes:
        rows: float[n, f], features; or int[n], codes, with the features in a table of their own.
        segments: ``[first, stop)`` rows of the teacher's primitives, in order.
        ends_are_boundaries: whether a primitive that begins or ends where the stretch does was seen to do so there.
    """

    rows: NDArray[Any]
    segments: Sequence[tuple[int, int]]
    ends_are_boundaries: bool


def peaks(
    scores: NDArray[np.float64], apart_samples: int, threshold: float, *, from_ends: int = 1
) -> NDArray[np.int64]:
    """Places that score more than a threshold and than all within ``apart_samples``; of equals the first."""
    reach = max(1, apart_samples)
    highest = maximum_filter1d(scores, 2 * reach + 1, mode="nearest")
    found: list[int] = []
    for place in np.flatnonzero((scores >= highest) & (scores > threshold)).tolist():
        inside = from_ends <= place <= len(scores) - 1 - from_ends
        # Of equal neighbours the first; what it rules out is decided by the scores alone, never by earlier choices.
        if inside and not (scores[max(0, place - reach) : place] == scores[place]).any():
            found.append(place)
    return np.array(found, np.int64)


def motion_components(
    motion: NDArray[np.floating[Any]], counts: NDArray[np.number[Any]], components: int = _COMPONENTS
) -> NDArray[np.float64]:
    """What the tokens say: principal components of the motion that they stand for.

    Args:
        motion: float[n_codes, N, 2], px a sample step, background removed.
        counts: number[n_codes], occurrences of the codes; how much each counts.
        components: at most as many.

    Returns:
        float64[n_codes, d]: linear in asinh(motion / 0.2 px), centred on what occurs, of unit variance.
    """
    values = np.arcsinh(np.asarray(motion, np.float64).reshape(len(motion), -1) / _SCALE_PX)
    share = np.asarray(counts, np.float64) / np.sum(counts)
    apart = values - share @ values
    variances, axes = np.linalg.eigh((apart * share[:, None]).T @ apart)
    order = np.argsort(-variances, kind="stable")[: min(components, values.shape[1])]
    order = order[variances[order] > 1e-9 * max(float(variances.max()), 1e-12)]
    axes = axes[:, order]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return (apart @ (axes * np.sign(largest))) / np.sqrt(variances[order])


def learn(
    lessons: Sequence[Lesson],
    rate_hz: float,
    *,
    teacher: Teacher,
    touching: bool,
    table: NDArray[np.floating[Any]] | None = None,
) -> Learned | None:
    """Learn what ends and beginnings look like.

    Args:
        lessons: stretches with the teacher's primitives.
        rate_hz: rows a second.
        teacher: which one it was.
        touching: primitives are to touch, so that a boundary may be anywhere: self-training, and as many boundaries as
            :data:`DENSITY` says. Else the model divides what rests enclose, by :data:`SPLIT_THRESHOLD`.
        table: float[n_codes, f], features of the codes, when rows are codes. Features are centred, of unit variance.

    Returns:
        The model, which reads what the rows are. None when the teacher knows too few boundaries.

    Raises:
        InputError: an unknown teacher.
    """
    if teacher not in TEACHERS:
        raise InputError(f"there is no teacher {teacher!r}", fix=f"The teachers are {', '.join(TEACHERS)}.")
    if table is not None and not table.shape[1]:  # every code stands for the same motion
        return None
    course = _Course(lessons, rate_hz, teacher, table)
    if not course.enough():
        return None
    taught, told_apart = course.count(), course.told_apart()
    threshold = SPLIT_THRESHOLD
    if touching:
        wanted = round(DENSITY[teacher] * course.segments())
        for turn in range(ROUNDS):
            scores = course.scores_by_the_other_half()
            threshold = course.threshold_for(scores, wanted)
            if turn == ROUNDS - 1:
                break
            course.cut_anew(scores, threshold)
            if not course.enough():
                return None
    model = BoundaryModel(*course.student().by_place(course.basis), threshold, course.apart)
    return Learned(model if table is None else model.of_codes(table), taught, told_apart)


@dataclass(frozen=True, eq=False)
class _Student:
    """Weights [moments * f] and intercept of two regressions: what is before an end, what is after a beginning."""

    before: tuple[NDArray[np.float64], float]
    after: tuple[NDArray[np.float64], float]

    def scores(self, sides: tuple[NDArray[np.float32], NDArray[np.float32]]) -> NDArray[np.float64]:
        (ends, end_bias), (starts, start_bias) = self.before, self.after
        total: NDArray[np.float64] = sides[0] @ ends + sides[1] @ starts + (end_bias + start_bias)
        return total

    def by_place(self, basis: NDArray[np.float64]) -> tuple[NDArray[np.float32], float]:
        """Weights [f, places] and bias of a :class:`BoundaryModel`."""
        ends, starts = [basis.T @ weights.reshape(len(basis), -1) for weights, _ in (self.before, self.after)]
        # The first place is the farthest before the seam, so the lags of what is before it run backwards.
        return np.concatenate([ends[::-1], starts]).T.astype(np.float32), self.before[1] + self.after[1]


class _Course:
    """The lessons, cut into blocks that alternate between two halves, and the boundaries as they stand."""

    def __init__(
        self, lessons: Sequence[Lesson], rate_hz: float, teacher: Teacher, table: NDArray[np.floating[Any]] | None
    ) -> None:
        self.apart = max(1, round(APART_S * rate_hz))
        self.basis = _moments(rate_hz)
        self._margin = max(1, round(_MARGIN_S * rate_hz))
        self._jitter = round(JITTER_S[teacher] * rate_hz)
        rows_in_all = sum(len(lesson.rows) for lesson in lessons)
        block = max(1, min(round(_BLOCK_S * rate_hz), rows_in_all // _LEAST_BLOCKS))
        self._parts = _thinned([part for one in lessons for part in _blocks(one, block)])
        rows = [part.rows if table is None else np.asarray(table)[part.rows] for part in self._parts]
        self._sides = [_sides(one, self.basis) for one in rows]
        self._marks = [self._marked(part) for part in self._parts]

    def count(self) -> tuple[int, int]:
        """Ends and beginnings that the lessons hold."""
        found = [_boundaries_of(part) for part in self._parts]
        return sum(len(ends) for ends, _ in found), sum(len(starts) for _, starts in found)

    def segments(self) -> int:
        """The teacher's primitives."""
        return sum(len(part.segments) for part in self._parts)

    def enough(self) -> bool:
        """Whether either half holds enough ends, beginnings and other moments."""
        return all(
            sum(int(marks[kind].sum()) for marks in self._marks[half::2]) >= _LEAST_BOUNDARIES
            for half in (0, 1)
            for kind in (0, 1, 2)
        )

    def student(self, half: int | None = None) -> _Student:
        """One that is taught on everything, or on one half."""
        chosen = slice(None) if half is None else slice(half, None, 2)
        pairs = list(zip(self._sides[chosen], self._marks[chosen], strict=True))
        before, after = (
            _fitted([side[kind][marks[kind]] for side, marks in pairs], [side[kind][marks[2]] for side, marks in pairs])
            for kind in (0, 1)
        )
        return _Student(before, after)

    def told_apart(self) -> tuple[float, float]:
        """Area under the curve of ends and of beginnings against other moments, each by the other half's student."""
        from sklearn.metrics import roc_auc_score

        students = [self.student(1), self.student(0)]
        found = []
        for kind in (0, 1):
            truth, values = [], []
            for place, (sides, marks) in enumerate(zip(self._sides, self._marks, strict=True)):
                weights, _ = (students[place % 2].before, students[place % 2].after)[kind]
                for is_boundary, chosen in ((True, marks[kind]), (False, marks[2])):
                    truth += [is_boundary] * int(chosen.sum())
                    values.append(sides[kind][chosen] @ weights)
            found.append(float(roc_auc_score(truth, np.concatenate(values))))
        return found[0], found[1]

    def scores_by_the_other_half(self) -> list[NDArray[np.float64]]:
        """Scores of the seams of each block, by a student that was not taught on it."""
        students = [self.student(1), self.student(0)]
        return [students[place % 2].scores(sides) for place, sides in enumerate(self._sides)]

    def threshold_for(self, scores: Sequence[NDArray[np.float64]], wanted: int) -> float:
        """The threshold above which so many peaks lie."""
        heights = np.sort(np.concatenate([one[peaks(one, self.apart, -math.inf)] for one in scores]))[::-1]
        return float(heights[min(max(wanted, 1), len(heights) - 1)]) if len(heights) else 0.0

    def cut_anew(self, scores: Sequence[NDArray[np.float64]], threshold: float) -> None:
        """Touching primitives between the seams that score more take the place of the teacher's."""
        parts = []
        for part, one in zip(self._parts, scores, strict=True):
            seams = peaks(one, self.apart, threshold)
            edges = [0, *seams.tolist(), len(part.rows)]
            parts.append(Lesson(part.rows, list(pairwise(edges)), ends_are_boundaries=False))
        self._parts = parts
        self._marks = [self._marked(part) for part in parts]

    def _marked(self, part: Lesson) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Which seams of a block are ends, beginnings, and neither: bool[n + 1] each."""
        count = len(part.rows)
        ends, starts, inside, near = [np.zeros(count + 1, bool) for _ in range(4)]
        for first, stop in part.segments:
            inside[first : stop + 1] = True
            for seam in (first, stop):
                near[max(0, seam - self._margin) : seam + self._margin + 1] = True
        for marked, seams in zip((ends, starts), _boundaries_of(part), strict=True):
            for seam in seams:
                marked[max(0, seam - self._jitter) : seam + self._jitter + 1] = True
        return ends, starts, inside & ~near


def _boundaries_of(part: Lesson) -> tuple[list[int], list[int]]:
    """Seams at which the teacher's primitives end, and begin."""
    edges = () if part.ends_are_boundaries else (0, len(part.rows))
    ends = [stop for _, stop in part.segments if stop not in edges]
    starts = [first for first, _ in part.segments if first not in edges]
    return ends, starts


def _blocks(lesson: Lesson, length: int) -> list[Lesson]:
    """A lesson in blocks; where one is cut, nothing ends or begins."""
    count = len(lesson.rows)
    if count <= length:
        return [lesson]
    blocks = []
    for low in range(0, count, length):
        high = min(low + length, count)
        inside = [(max(first, low) - low, min(stop, high) - low) for first, stop in lesson.segments]
        # Not even at the lesson's own ends: in blocks this long two boundaries more or less teach nothing.
        blocks.append(
            Lesson(lesson.rows[low:high], [one for one in inside if one[1] > one[0]], ends_are_boundaries=False)
        )
    return blocks


def _moments(rate_hz: float) -> NDArray[np.float64]:
    """Weights of the samples behind a seam in each moment: float64[moments, lags], each summing to 1."""
    lags_s = (np.arange(round(REACH_S * rate_hz)) + 0.5) / rate_hz
    centres_s = (np.arange(_MOMENTS) + 0.5) * _MOMENT_S
    weights = np.exp(-0.5 * ((lags_s - centres_s[:, None]) / _MOMENT_WIDTH_S) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _sides(rows: NDArray[np.float64], basis: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The moments before and after every seam, float32[n + 1, moments * f] each; what lies outside counts as 0."""
    count, features = rows.shape
    before, after = (np.zeros((count + 1, len(basis), features), np.float32) for _ in range(2))
    for lag, weights in enumerate(basis.T):
        inside = max(0, count - lag)
        before[lag + 1 :] += weights[:, None] * rows[:inside, None]
        after[:inside] += weights[:, None] * rows[count - inside :, None]
    return before.reshape(count + 1, -1), after.reshape(count + 1, -1)


def _fitted(
    boundaries: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float64], float]:
    """Logistic regression of boundaries against other moments, either kind as if as frequent: weights, intercept."""
    from sklearn.linear_model import LogisticRegression

    sides = [_at_most(np.concatenate(kind), _MOST_SEAMS) for kind in (boundaries, others)]
    model = LogisticRegression(C=_INVERSE_REGULARISATION, class_weight="balanced", max_iter=_ITERATIONS)
    model.fit(np.concatenate(sides).astype(np.float64), np.repeat([1, 0], [len(side) for side in sides]))
    return model.coef_[0], float(model.intercept_[0])


def _at_most(rows: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    return rows[:: -(-len(rows) // most)] if len(rows) > most else rows


def _thinned(parts: list[Lesson]) -> list[Lesson]:
    """Every second, third … pair of neighbours, so that both halves keep their share."""
    total = sum(len(part.rows) for part in parts)
    every = -(-total // _MOST_ROWS)
    return [part for place, part in enumerate(parts) if place // 2 % every == 0] if every > 1 else parts
