"""Intervals and comparisons: hand-worked blocks, ties, coverage, and blind predictions as methods."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError
from laps.evaluation import (
    METRONOME_PERIODS_S,
    Metric,
    best_metronome,
    block_counts,
    compare,
    equal_spacing,
    evaluate,
    evaluate_recordings,
    interval,
    metronome,
    random_segments,
)
from laps.evaluation.bootstrap import LEAST_BLOCKS

Document = dict[str, Any]
TYPED = Metric("typed", 0.5)


def document(*segments: tuple[float, float], duration_s: float = 60.0) -> Document:
    rows = [{"start_sec": start, "end_sec": end} for start, end in segments]
    return {"duration_sec": duration_s, "segments": rows}


def work(seed: int, *, minutes: float = 10.0, jitter_s: float = 0.0, share: float = 1.0) -> Document:
    """Actions of about 3 s with rests, the same for a seed; each boundary moved, each action kept with ``share``."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(seed)
    turns = np.cumsum(rng.uniform(1.5, 3.5, 2 * int(minutes * 12)))
    moved = np.sort(turns + noise.normal(0, jitter_s, len(turns)))
    pairs = [pair for pair in zip(moved[::2], moved[1::2], strict=True) if noise.random() < share]
    return document(*[(float(a), float(b)) for a, b in pairs], duration_s=minutes * 60)


# --- blocks -------------------------------------------------------------------------------------------------


def test_elements_belong_to_the_block_of_their_own_time() -> None:
    truth = document((10, 29.9), (31, 55))
    predicted = document((10.2, 30.1), (45, 55))
    # Starts 10-10.2 and ends 29.9-30.1, 55-55 match. 29.9 stands in the first block, its partner 30.1 in the second.
    counts = block_counts([(truth, predicted)], TYPED)
    assert counts.tolist() == [[1 + 1 + 1, 2 + 1], [1 + 2, 2 + 3]]
    # Segments by their middles: 19.95 and 20.15 in the first; 43 in the second, 50 as well, not matched at IoU 0.5.
    assert block_counts([(truth, predicted)], Metric("segment", 0.5)).tolist() == [[2, 2], [0, 2]]
    # Pooled boundaries: 10, 29.9 | 31, 55 and 10.2 | 30.1, 45, 55.
    assert block_counts([(truth, predicted)], Metric("boundary", 0.5)).tolist() == [[3, 3], [3, 5]]


def test_every_recording_has_blocks_of_its_own() -> None:
    pair = (document((10, 20), duration_s=45.0), document((10, 20), duration_s=45.0))
    assert block_counts([pair, pair], TYPED).tolist() == [[4, 4], [0, 0]] * 2
    assert block_counts([pair], TYPED, block_s=5.0).shape == (9, 2)
    outside = (document((10, 20), duration_s=45.0), document((44, 50), (-5, 3), duration_s=45.0))
    assert block_counts([outside], Metric("segment", 0.5)).tolist() == [[0, 2], [0, 1]]


segments = st.lists(st.tuples(st.integers(0, 110), st.integers(1, 12)), max_size=8).map(
    lambda pairs: document(
        *[(start * 1.0, min(120.0, start + length * 1.0)) for start, length in pairs], duration_s=120.0
    )
)


@settings(max_examples=40, deadline=None)
@given(
    truths=st.lists(segments, min_size=2, max_size=2),
    predicted=st.lists(segments, min_size=2, max_size=2),
    metric=st.sampled_from([TYPED, Metric("boundary", 1.0), Metric("boundary_greedy", 2.0), Metric("segment", 0.25)]),
    block_s=st.sampled_from([3.0, 30.0, 500.0]),
)
def test_pooled_over_blocks_is_the_score_over_the_whole(
    truths: list[Document], predicted: list[Document], metric: Metric, block_s: float
) -> None:
    recordings = list(zip(truths, predicted, strict=True))
    matched, total = block_counts(recordings, metric, block_s=block_s).sum(axis=0).tolist()
    level = {"ious": [metric.level]} if metric.name == "segment" else {"tolerances_s": [metric.level]}
    result = evaluate_recordings(recordings, draws=1, **level)
    whole = next(item for item in result["scores"] if item["metric"] == metric.name)
    assert (matched, total) == (2 * whole["matched"], whole["truth"] + whole["predicted"])
    assert interval(recordings, metric, block_s=block_s, draws=2).f1 == pytest.approx(whole["f1"])


# --- comparing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [TYPED, Metric("boundary", 0.5), Metric("segment", 0.5)])
def test_a_method_against_itself_gives_exactly_nothing(metric: Metric) -> None:
    truth, predicted = work(0), work(1, jitter_s=0.5)
    found = compare([truth], [predicted], [predicted], metric)
    assert found.first == found.second == evaluate_f1(truth, predicted, metric)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.better and not found.worse


def evaluate_f1(truth: Document, predicted: Document, metric: Metric) -> float:
    result = evaluate(truth, predicted, [0.5], ious=[0.5])
    return float(next(item["f1"] for item in result["scores"] if item["metric"] == metric.name))


@pytest.mark.parametrize("metric", [TYPED, Metric("boundary", 0.5), Metric("segment", 0.5)])
def test_a_clearly_better_method_is_better_and_the_other_worse(metric: Metric) -> None:
    truth, good, bad = work(0), work(1, jitter_s=0.2), work(2, jitter_s=1.0)
    found = compare([truth], [good], [bad], metric)
    assert found.low is not None and found.high is not None
    assert 0 < found.low < found.difference < found.high
    assert found.better and not found.worse
    back = compare([truth], [bad], [good], metric)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low)), "the same draws for both"
    assert back.worse and not back.better
    assert compare([truth], [good], [bad], metric) == found, "seeded"
    assert compare([truth], [good], [bad], metric, seed=1) != found


def test_two_equally_good_methods_are_a_tie() -> None:
    found = compare([work(0)], [work(1, jitter_s=0.5)], [work(2, jitter_s=0.5)], TYPED)
    assert found.difference != 0
    assert not found.better and not found.worse


def test_comparing_in_the_same_draws_is_sharper_than_two_intervals() -> None:
    # Half of the recording is hopeless for both; the second loses a little of what the first has.
    truth = work(0, minutes=20)
    easy = [segment for segment in work(1, minutes=20, jitter_s=0.2)["segments"] if segment["start_sec"] < 600]
    first = {"duration_sec": 1200.0, "segments": easy}
    second = {"duration_sec": 1200.0, "segments": [one for n, one in enumerate(easy) if n % 6]}
    alone = [interval([(truth, method)], TYPED) for method in (first, second)]
    assert alone[0].low is not None and alone[1].high is not None
    assert alone[0].low < alone[1].high, "the intervals of the two overlap"
    assert compare([truth], [first], [second], TYPED).better


def test_few_blocks_give_no_interval_and_nothing_is_better() -> None:
    truth, empty = document((10, 20)), document()
    found = compare([truth], [truth], [empty], TYPED)
    assert (found.difference, found.low, found.high, found.blocks) == (1.0, None, None, 2)
    assert not found.better
    many = [truth] * (LEAST_BLOCKS // 2)
    assert compare(many, many, [empty] * len(many), TYPED).better


def test_both_methods_have_the_blocks_of_the_recording() -> None:
    truth = {"segments": [{"start_sec": 1.0, "end_sec": 9.0}]}
    methods = [[{"video_duration_sec": length, **truth}] for length in (400.0, 401.0)]
    assert compare([truth], *methods, TYPED).blocks == 14
    with pytest.raises(InputError, match="1 recordings, but 1 and 2"):
        compare([truth], methods[0], methods[0] * 2, TYPED)
    with pytest.raises(InputError, match="needs segments"):
        interval([({"duration_sec": 9.0, "boundaries": [1.0]}, document())], TYPED)
    with pytest.raises(InputError, match="no metric 'f1'"):
        Metric("f1", 0.5)


def test_the_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    """Recordings whose blocks are easy or hard, independently: 95% intervals of 40 blocks."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        segments, found = [], []
        for block in range(40):
            hit = rng.random() < 0.6
            for place in range(4):
                segment = (30 * block + 7.0 * place + 1, 30 * block + 7.0 * place + 4)
                segments.append(segment)
                found.append(segment if rng.random() < (0.9 if hit else 0.3) else (segment[1] + 0.5, segment[1] + 2))
        recording = (document(*segments, duration_s=1200.0), document(*found, duration_s=1200.0))
        # As many predicted as true: F1 is the share that is hit.
        result = interval([recording], Metric("segment", 0.5), draws=200)
        assert result.low is not None and result.high is not None
        covered += result.low <= 0.6 * 0.9 + 0.4 * 0.3 <= result.high
    assert 88 <= covered <= 99


# --- blind predictions as methods ---------------------------------------------------------------------------


def times(made: Document) -> list[tuple[float, float]]:
    return [(segment["start_sec"], segment["end_sec"]) for segment in made["segments"]]


def test_equal_spacing_as_a_prediction() -> None:
    touching = times(equal_spacing(3, 100.0))
    assert touching[0][0] == 0 and touching[-1][1] == 100.0
    assert np.allclose(touching, [(0, 100 / 3), (100 / 3, 200 / 3), (200 / 3, 100)])
    assert times(equal_spacing(2, 100.0, covered=0.4)) == [(15, 35), (65, 85)]
    assert times(equal_spacing(0, 100.0)) == []
    for count in range(1, 40):
        result = evaluate({"duration_sec": 97.3, "boundaries": [1.0]}, equal_spacing(count, 97.3), [0.25])
        assert result["counts"]["predicted"] == count - 1, "neither start nor end of the recording is a boundary"


def test_a_metronome_and_random_segments_as_predictions() -> None:
    assert times(metronome(4.0, 10.0)) == [(0, 4), (4, 8), (8, 10)]
    drawn = times(random_segments(50, 100.0, seed=1))
    assert len(drawn) == 50 and drawn != times(random_segments(50, 100.0, seed=2))
    assert all(0 <= a < b <= 100 for a, b in drawn)
    assert all(before[1] <= after[0] for before, after in pairwise(drawn))
    for made in (metronome(4.0, 10.0), random_segments(5, 9.0), equal_spacing(5, 9.0)):
        assert all(0 <= segment["confidence"] < 1 for segment in made["segments"]), "ranked at random"
    with pytest.raises(InputError, match="period"):
        metronome(0.0, 10.0)


def test_the_best_metronome_is_the_one_that_stands_beside_the_score() -> None:
    truth = work(0)
    for metric in (TYPED, Metric("segment", 0.5)):
        period, made = best_metronome([truth], metric)
        assert period in METRONOME_PERIODS_S
        result = evaluate(truth, made[0], [0.5], ious=[0.5])
        item = next(item for item in result["scores"] if item["metric"] == metric.name)
        assert item["chance"]["metronome_period_s"] == period
        assert item["f1"] == pytest.approx(item["chance"]["metronome"])


def test_a_method_can_be_compared_with_chance() -> None:
    truth, good = work(0), work(1, jitter_s=0.3)
    count = len(truth["segments"])
    blind = [equal_spacing(count, 600.0), random_segments(count, 600.0), *best_metronome([truth], TYPED)[1]]
    for other in blind:
        assert compare([truth], [good], [other], TYPED).better
    # One blind guess is no better than another.
    assert not compare([truth], [random_segments(count, 600.0, seed=1)], [blind[1]], TYPED).better
