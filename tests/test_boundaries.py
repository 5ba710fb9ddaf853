"""Learned boundaries: what is found, that it depends on a bounded neighbourhood only, and how hours fit together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.boundaries import BoundaryModel, Lesson, learn, motion_components, peaks
from laps.cutting import cut, lessons_of_rests, lessons_of_segments, memory_samples
from laps.detector import DetectorTimes
from laps.errors import InputError

RATE_HZ = 10.0
SETTINGS = DetectorTimes().with_thresholds(1.0, 0.8)
N_CODES, FEATURES = 40, 6
REST = 0


def table(seed: int = 0) -> np.ndarray:
    """What codes stand for: 1-4 reach out, 5-8 come back, the others are work; 0 is rest."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 0.7, (N_CODES, FEATURES))
    rows[1:5, 0] += 2.0
    rows[5:9, 0] -= 2.0
    rows[REST] = 0.0
    return rows


def shift(seed: int, count: int, rest_chance: float) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Codes of a shift and its primitives: a reach, work, the way back; then a rest, or at once the next one."""
    rng = np.random.default_rng(seed)
    codes: list[int] = [REST] * 10
    primitives = []
    for _ in range(count):
        start = len(codes)
        codes += rng.integers(1, 5, int(rng.integers(6, 10))).tolist()
        codes += rng.integers(9, N_CODES, int(rng.integers(10, 30))).tolist()
        codes += rng.integers(5, 9, int(rng.integers(6, 10))).tolist()
        primitives.append((start, len(codes)))
        if rng.random() < rest_chance:
            codes += [REST] * int(rng.integers(8, 20))
    codes += [REST] * 10
    return np.array(codes), primitives


def energy_of(codes: np.ndarray) -> np.ndarray:
    return np.where(codes < 0, np.nan, np.where(codes == REST, 0.1, 3.0))


def found_by(how: str, model: BoundaryModel | None, codes: np.ndarray, first: int = 0) -> list[tuple[int, int]]:
    found = cut(energy_of(codes), codes, first, SETTINGS, how, model, ended=True)  # type: ignore[arg-type]
    return [(one.start_sample - first, one.end_sample - first) for one in found]


def recall(truth: list[tuple[int, int]], found: list[tuple[int, int]], within: int = 2) -> float:
    ends = np.array([stop for _, stop in found])
    return float(np.mean([np.abs(ends - stop).min() <= within for _, stop in truth]))


@pytest.fixture(scope="module")
def taught() -> BoundaryModel:
    """By the rests of shifts in which every second primitive follows the one before at once."""
    shifts = [shift(seed, 40, 0.5)[0] for seed in range(4)]
    lessons = [
        one for codes in shifts for one in lessons_of_rests(energy_of(codes), codes, 0, SETTINGS, touching=False)
    ]
    learned = learn(lessons, RATE_HZ, teacher="rests", touching=False, table=table())
    assert learned is not None
    assert min(learned.told_apart) > 0.9
    return learned.model


def test_what_rests_have_taught_is_found_where_there_is_no_rest(taught: BoundaryModel) -> None:
    codes, truth = shift(99, 60, 0.4)
    undivided, divided = found_by("energy", None, codes), found_by("rests", taught, codes)
    assert recall(truth, undivided) < 0.6
    assert recall(truth, divided) > 0.9
    assert len(divided) < 1.15 * len(truth)


def test_pieces_tile_what_the_detector_found(taught: BoundaryModel) -> None:
    codes, _ = shift(98, 60, 0.4)
    whole = cut(energy_of(codes), codes, 500, SETTINGS, "energy", None, ended=True)
    pieces = cut(energy_of(codes), codes, 500, SETTINGS, "rests", taught, ended=True)
    least = taught.apart_samples
    assert len(pieces) > len(whole)
    for one in whole:
        inside = [piece for piece in pieces if one.start_sample <= piece.start_sample < one.end_sample]
        assert (inside[0].start_sample, inside[-1].end_sample) == (one.start_sample, one.end_sample)
        assert (inside[0].start_reason, inside[-1].end_reason) == (one.start_reason, one.end_reason)
        assert all(piece.decided_sample == one.decided_sample for piece in inside)
        for piece, after in pairwise(inside):
            assert piece.end_sample == after.start_sample
            assert piece.end_reason == after.start_reason == "boundary"
        assert all(piece.end_sample - piece.start_sample >= least for piece in inside)


@pytest.mark.parametrize("teacher", ["rests", "pictures"])
def test_touching_primitives_are_learned_from_an_imperfect_teacher(teacher: str) -> None:
    rng = np.random.default_rng(5)
    lessons: list[Lesson] = []
    for seed in range(6):
        codes, truth = shift(seed, 40, 0.2 if teacher == "rests" else 0.0)
        if teacher == "rests":
            lessons += lessons_of_rests(energy_of(codes), codes, 0, SETTINGS, touching=True)
        else:
            # A third of the boundaries is missed, the others are up to 0.4 s off.
            kept = [stop + int(rng.integers(-4, 5)) for _, stop in truth if rng.random() < 0.67]
            lessons += lessons_of_segments(codes, 0, list(pairwise([0, *kept, len(codes)])))
    learned = learn(lessons, RATE_HZ, teacher=teacher, touching=True, table=table())  # type: ignore[arg-type]
    assert learned is not None
    codes, truth = shift(99, 60, 0.0)
    found = found_by("boundaries", learned.model, codes)
    assert recall(truth, found) > (0.6 if teacher == "rests" else 0.7)
    by_chance = [(a, b) for a, b in pairwise(np.linspace(0, len(codes), len(found) + 1).round().astype(int).tolist())]
    assert recall(truth, found) > recall(truth, by_chance) + 0.3


def test_too_little_teaches_nothing() -> None:
    codes, _ = shift(0, 3, 1.0)
    lessons = lessons_of_rests(energy_of(codes), codes, 0, SETTINGS, touching=False)
    assert learn(lessons[:1], RATE_HZ, teacher="rests", touching=False, table=table()) is None
    assert learn([], RATE_HZ, teacher="rests", touching=True, table=table()) is None
    same = np.zeros((N_CODES, 0))
    assert learn(lessons * 20, RATE_HZ, teacher="rests", touching=False, table=same) is None
    with pytest.raises(InputError, match="rests, pictures"):
        learn(lessons, RATE_HZ, teacher="books", touching=False, table=table())  # type: ignore[arg-type]


def random_model(seed: int, threshold: float = 2.0) -> BoundaryModel:
    weights = np.random.default_rng(seed).normal(0, 1, (N_CODES, 40)).astype(np.float32)
    return BoundaryModel(weights=weights, bias=0.3, threshold=threshold, apart_samples=8)


def test_a_score_is_the_sum_of_what_stands_around_a_seam() -> None:
    model = random_model(1)
    codes = np.random.default_rng(2).integers(0, N_CODES, 100)
    scores = model.scores(codes)
    for seam in (0, 7, 50, 100):
        places = [(place, seam - 20 + place) for place in range(40)]
        expected = 0.3 + sum(float(model.weights[codes[at], place]) for place, at in places if 0 <= at < 100)
        assert scores[seam] == pytest.approx(expected)
    rows = np.random.default_rng(3).normal(size=(N_CODES, 5))
    of_rows = BoundaryModel(np.random.default_rng(4).normal(size=(5, 40)).astype(np.float32), 0.0, 0.0, 8)
    np.testing.assert_allclose(of_rows.of_codes(rows).scores(codes), of_rows.scores(rows[codes]), atol=1e-4)


@given(st.integers(0, 200), st.integers(60, 140))
@settings(max_examples=30, deadline=None)
def test_scores_and_boundaries_depend_on_their_neighbourhood_to_the_bit(seed: int, at: int) -> None:
    model = random_model(seed)
    codes = np.random.default_rng(seed).integers(0, N_CODES, 200)
    part = codes[at - 30 :]
    np.testing.assert_array_equal(
        model.scores(codes)[at - 30 + 20 :], model.scores(part)[20:]
    )  # all but what the cut itself reaches
    whole = {int(seam) for seam in model.boundaries(codes) if seam >= at}
    assert whole == {int(seam) + at - 30 for seam in model.boundaries(part) if seam >= 30}


def test_peaks_by_hand() -> None:
    scores = np.array([0.0, 3.0, 1.0, 2.0, 0.0, 5.0, 5.0, 0.0, 0.0, 9.0])
    assert peaks(scores, 1, 0.5).tolist() == [1, 3, 5]  # of equals the first; the last seam is an end
    assert peaks(scores, 2, 0.5).tolist() == [1, 5]  # 3 is as high as 2 seams from 5 allow: ruled out by 5
    assert peaks(scores, 1, 2.5).tolist() == [1, 5]
    assert peaks(scores, 1, 0.5, from_ends=2).tolist() == [3, 5]
    assert peaks(scores, 1, 99.0).tolist() == []


def long_codes(seed: int, length: int) -> np.ndarray:
    """Work, rest, gaps, and stretches in which every sample is alike."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < length:
        kind = rng.random()
        if kind < 0.6:
            parts.append(rng.integers(1, N_CODES, int(rng.integers(20, 500))))
        elif kind < 0.8:
            parts.append(np.full(int(rng.integers(20, 900)), rng.integers(1, N_CODES)))
        elif kind < 0.95:
            parts.append(np.full(int(rng.integers(5, 700)), REST))
        else:
            parts.append(np.full(int(rng.integers(1, 60)), -1))
    return np.concatenate(parts)[:length]


@pytest.mark.parametrize("how", ["rests", "boundaries"])
@pytest.mark.parametrize("threshold", [2.0, 14.0, 1e9])
@pytest.mark.parametrize("seed", range(4))
def test_parts_with_warm_up_equal_one_pass(how: str, threshold: float, seed: int) -> None:
    model = random_model(seed, threshold)
    memory = memory_samples(SETTINGS, how, model)  # type: ignore[arg-type]
    part = memory + 137
    codes = long_codes(seed, 6 * part)
    energy, first = energy_of(codes), 12_345

    def found(start: int, stop: int) -> list:
        return cut(energy[start:stop], codes[start:stop], first + start, SETTINGS, how, model, ended=False)  # type: ignore[arg-type]

    together = []
    for start in range(0, len(codes), part):
        here = found(max(0, start - part), start + part)
        together += [one for one in here if first + start <= one.decided_sample < first + start + part]
    whole = found(0, len(codes))
    assert together == whole
    assert len(whole) > 10
    longest = max(one.end_sample - one.start_sample for one in whole)
    assert longest <= SETTINGS.max_duration_s * RATE_HZ
    assert min(one.end_sample - one.start_sample for one in whole) >= SETTINGS.min_samples


def test_where_nothing_moves_there_is_no_touching_primitive() -> None:
    codes = np.concatenate([long_codes(1, 600), np.full(5000, REST), long_codes(2, 600)])
    codes[codes < 0] = REST
    found = found_by("boundaries", random_model(3), codes)
    asleep = [one for one in found if one[0] > 700 and one[1] < 5500]
    assert found and not asleep


def test_components_are_centred_of_unit_variance_and_odd_in_the_motion() -> None:
    rng = np.random.default_rng(0)
    motion, counts = rng.normal(0, 2, (50, 9, 2)), rng.integers(0, 9, 50)
    rows = motion_components(motion, counts)
    share = counts / counts.sum()
    np.testing.assert_allclose(share @ rows, 0, atol=1e-9)
    np.testing.assert_allclose((rows.T * share) @ rows, np.eye(rows.shape[1]), atol=1e-6)
    assert rows.shape[1] == 16
    # Of motions that come with their opposites, the opposites are opposite: no component is a speed.
    both = motion_components(np.concatenate([motion, -motion]), np.concatenate([counts, counts]))
    np.testing.assert_allclose(both[:50], -both[50:], atol=1e-6)
    assert motion_components(np.zeros((5, 3, 2)), np.ones(5)).shape == (5, 0)
