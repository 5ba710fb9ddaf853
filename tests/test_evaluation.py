"""Scores against hand-worked cases, matchings against brute force, and chance beside every score."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError
from laps.evaluation import (
    Marks,
    evaluate,
    evaluate_recordings,
    intersection_over_union,
    match_greedy,
    match_points,
    match_segments,
    render,
    truth_from_cycle_ends,
)


def document(*segments: tuple[float, float], duration_s: float = 100.0, label: str | None = None) -> dict[str, Any]:
    rows = [{"start_sec": start, "end_sec": end} | ({"label": label} if label else {}) for start, end in segments]
    return {"duration_sec": duration_s, "segments": rows}


def score(result: dict[str, Any], metric: str, level: float) -> dict[str, Any]:
    return next(
        item
        for item in result["scores"]
        if item["metric"] == metric and level in (item.get("tolerance_s"), item.get("iou"))
    )


# --- matching -----------------------------------------------------------------------------------------------


def test_greedy_lets_a_true_boundary_take_another_s_only_match() -> None:
    # 10.0 looks first and takes 10.4, its nearest; 10.9 is then left with 9.5. One to one, both have a partner.
    truth, predicted = [10.0, 10.9], [9.5, 10.4]
    assert match_greedy(truth, predicted, 0.5) == [(0, 1)]
    assert match_points(truth, predicted, 0.5) == [(0, 0), (1, 1)]


def test_greedy_takes_the_earlier_of_two_equally_near() -> None:
    assert match_greedy([10.0, 11.5], [9.0, 11.0], 1.0) == [(0, 0), (1, 1)]
    assert match_greedy([10.0, 8.5], [9.0, 11.0], 1.0) == [(0, 0)]


def one_to_one(pairs: list[tuple[int, int]]) -> bool:
    return all(len({pair[side] for pair in pairs}) == len(pairs) for side in (0, 1))


times = st.lists(st.integers(0, 12).map(lambda step: step / 2), max_size=6).map(sorted)


@settings(max_examples=50, deadline=None)
@given(truth=times, predicted=times, tolerance=st.sampled_from([0.5, 1.0, 2.5]))
def test_matching_of_points_is_the_best_there_is(truth: list[float], predicted: list[float], tolerance: float) -> None:
    short, long = sorted([truth, predicted], key=len)
    best = max(
        sum(abs(a - b) <= tolerance for a, b in zip(short, chosen, strict=True))
        for chosen in permutations(long, len(short))
    )
    pairs = match_points(truth, predicted, tolerance)
    assert len(pairs) == best
    assert one_to_one(pairs)
    assert all(abs(truth[at] - predicted[other]) <= tolerance for at, other in pairs)
    assert len(match_greedy(truth, predicted, tolerance)) <= best


@settings(max_examples=50, deadline=None)
@given(truth=times, predicted=times, tolerance=st.sampled_from([0.5, 1.0, 2.5]))
def test_greedy_is_what_the_plain_loop_gives(truth: list[float], predicted: list[float], tolerance: float) -> None:
    used: set[int] = set()
    pairs = []
    for at, time in enumerate(truth):
        open_places = [place for place in range(len(predicted)) if place not in used]
        if open_places:
            nearest = min(open_places, key=lambda place: abs(predicted[place] - time))
            if abs(predicted[nearest] - time) <= tolerance:
                used.add(nearest)
                pairs.append((at, nearest))
    # Of predictions at the same time it does not matter which is taken.
    found = match_greedy(truth, predicted, tolerance)
    assert [(at, predicted[other]) for at, other in found] == [(at, predicted[other]) for at, other in pairs]
    assert one_to_one(found)


pieces = st.lists(
    st.tuples(st.integers(0, 10), st.integers(1, 6)).map(lambda pair: (float(pair[0]), float(pair[0] + pair[1]))),
    max_size=5,
)


@settings(max_examples=50, deadline=None)
@given(truth=pieces, predicted=pieces, iou=st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_matching_of_segments_is_the_best_there_is(
    truth: list[tuple[float, float]], predicted: list[tuple[float, float]], iou: float
) -> None:
    short, long = sorted([truth, predicted], key=len)
    best = max(
        sum(intersection_over_union(a, b) >= iou for a, b in zip(short, chosen, strict=True))
        for chosen in permutations(long, len(short))
    )
    pairs = match_segments(truth, predicted, iou)
    assert len(pairs) == best
    assert one_to_one(pairs)
    assert all(intersection_over_union(truth[at], predicted[other]) >= iou for at, other in pairs)


def test_intersection_over_union() -> None:
    assert intersection_over_union((0, 4), (2, 6)) == pytest.approx(2 / 6)
    assert intersection_over_union((0, 4), (4, 6)) == 0


# --- scores -------------------------------------------------------------------------------------------------


def test_hand_worked_case() -> None:
    truth = document((0, 10), (10, 20), (30, 40), (90, 100))
    predicted = document((9.8, 20.6), (30.4, 35), (60, 70))
    result = evaluate(truth, predicted, [0.5, 1.0])

    # True boundaries: starts 10, 30, 90 and ends 10, 20, 40; those at 0 and 100 do not count.
    # Predicted: starts 9.8, 30.4, 60; ends 20.6, 35, 70.
    greedy = score(result, "boundary_greedy", 0.5)
    assert (greedy["truth"], greedy["predicted"], greedy["matched"]) == (6, 6, 2)
    assert greedy["f1"] == pytest.approx(2 * 2 / 12)

    pooled = score(result, "boundary", 0.5)  # 10 counts once
    assert (pooled["truth"], pooled["predicted"], pooled["matched"]) == (5, 6, 2)
    assert pooled["precision"] == pytest.approx(2 / 6)
    assert pooled["recall"] == pytest.approx(2 / 5)
    assert pooled["f1"] == pytest.approx(4 / 11)
    assert score(result, "boundary", 1.0)["matched"] == 3

    typed = score(result, "typed", 1.0)  # starts 10 and 30, end 20
    assert (typed["truth"], typed["predicted"], typed["matched"]) == (6, 6, 3)

    # (10, 20) overlaps (9.8, 20.6) by 10 of 10.8; (30, 40) overlaps (30.4, 35) by 4.6 of 10.
    assert score(result, "segment", 0.25)["matched"] == 2
    assert score(result, "segment", 0.5)["matched"] == 1
    assert score(result, "segment", 0.5)["f1"] == pytest.approx(2 / 7)
    assert result["counts"]["over_segmentation"] == pytest.approx(3 / 4)


def test_typed_does_not_take_a_start_for_an_end() -> None:
    result = evaluate(document((10, 20)), document((5, 10), (20, 30)), [1.0])
    assert score(result, "boundary", 1.0)["matched"] == 2
    assert score(result, "typed", 1.0)["matched"] == 0


def test_a_perfect_and_an_empty_prediction() -> None:
    truth = document((3, 7), (11, 30), (52, 60))
    for item in evaluate(truth, truth)["scores"]:
        assert item["f1"] == item["precision"] == item["recall"] == 1
    for item in evaluate(truth, document())["scores"]:
        assert item["f1"] == item["precision"] == item["recall"] == 0
    for item in evaluate(document(), document())["scores"]:
        assert item["f1"] == 1


def test_background_is_ignored_by_label_or_by_its_name() -> None:
    truth = document((10, 20), label="G1")
    truth["segments"] += document((0, 10), (20, 30), label="G0")["segments"]
    truth["labels"] = {"G0": "no gesture", "G1": "needle passing"}
    assert evaluate(truth, document())["counts"]["truth"] == 1
    assert evaluate(truth, document(), ignore=())["counts"]["truth"] == 3
    assert evaluate(truth, document(), ignore=("g1",))["counts"]["truth"] == 2


def test_cycle_ends_are_boundaries_without_segments() -> None:
    truth = truth_from_cycle_ends("30\n60 90\n", fps=30, duration_s=4.0)
    assert truth["boundaries"] == [1.0, 2.0, 3.0]
    result = evaluate(truth, {"segments": [{"start_sec": 0.9, "end_sec": 2.1}]}, [0.25])
    assert {item["metric"] for item in result["scores"]} == {"boundary_greedy", "boundary"}
    assert score(result, "boundary", 0.25)["matched"] == 2
    assert result["counts"]["unit"] == "boundaries"
    with pytest.raises(InputError, match="'x'"):
        truth_from_cycle_ends("12 x", fps=30, duration_s=4.0)


# --- chance -------------------------------------------------------------------------------------------------


def test_no_score_without_chance_beside_it() -> None:
    result = evaluate(document((3, 7), (11, 30)), document((3, 8)))
    for item in result["scores"]:
        assert set(item["chance"]) == {
            "equal_true",
            "equal_predicted",
            "random_true",
            "random_predicted",
            "metronome",
            "metronome_period_s",
        }
        assert item["above_chance"] == item["f1"] - max(
            value for kind, value in item["chance"].items() if kind != "metronome_period_s"
        )
    text = render(result)
    assert "metronome" in text
    assert len([line for line in text.splitlines() if line.startswith("typed")]) == 5


def test_chance_of_equal_spacing_is_hand_worked() -> None:
    # Truth: boundaries at 10, 20, …, 90. Nine at equal spacing stand at 100 / 18 * (1, 3, 5, …): the middle one is 50.
    truth = {"duration_sec": 100.0, "boundaries": [10.0 * n for n in range(1, 10)]}
    result = evaluate(truth, document((25, 75)), [0.25, 2.0, 5.0])
    assert score(result, "boundary", 0.25)["chance"]["equal_true"] == pytest.approx(1 / 9)
    assert score(result, "boundary", 5.0)["chance"]["equal_true"] == pytest.approx(1.0)
    # Two at equal spacing, as many as predicted: 25 and 75, which miss 20, 30, 70 and 80 by 5.
    assert score(result, "boundary", 2.0)["chance"]["equal_predicted"] == 0
    assert score(result, "boundary", 5.0)["chance"]["equal_predicted"] == pytest.approx(2 * 2 / 11)
    assert score(result, "boundary", 0.25)["chance"]["metronome"] == pytest.approx(1.0)
    assert score(result, "boundary", 0.25)["chance"]["metronome_period_s"] == 10.0


def test_a_metronome_is_scored_as_touching_segments() -> None:
    truth = document(*[(4.0 * n, 4.0 * n + 4) for n in range(25)])
    result = evaluate(truth, document((0, 4)), [0.5])
    for metric, level in (("typed", 0.5), ("segment", 0.5)):
        assert score(result, metric, level)["chance"]["metronome"] == pytest.approx(1.0)
        assert score(result, metric, level)["chance"]["metronome_period_s"] == 4.0
        # Equal spacing at the true count is the same metronome here.
    assert score(result, "segment", 0.5)["chance"]["equal_true"] == pytest.approx(1.0)


def test_random_chance_is_seeded_and_near_its_expectation() -> None:
    rng = np.random.default_rng(0)
    turns = np.sort(rng.uniform(0, 600, 200)).tolist()
    truth = document(*zip(turns[::2], turns[1::2], strict=True), duration_s=600.0)
    first, again, other = (evaluate(truth, truth, [0.5], ious=[0.5], seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    # A point within 0.5 s of one of 100 starts: 1 - exp(-100 / 600) = 0.15; competition takes a little away.
    typed = score(first, "typed", 0.5)["chance"]["random_true"]
    assert 0.10 < typed < 0.17


def test_boundaries_shared_by_touching_segments_count_once() -> None:
    marks = Marks.of_segments([(0.0, 5.0), (5.0, 9.0), (9.0, 20.0)], 20.0)
    assert marks.boundaries == [5.0, 5.0, 9.0, 9.0]
    assert marks.distinct == [5.0, 9.0]


def test_shared_boundaries_count_once_in_the_pooled_score_and_twice_in_the_others() -> None:
    truth = document((0, 5), (5, 9), (9, 20), duration_s=20.0)  # boundaries 5 and 9, each an end and a start
    predicted = document((0, 5.2), (5.2, 14), (14, 20), duration_s=20.0)  # 5.2 and 14
    result = evaluate(truth, predicted, [0.5])
    for metric, counts in {"boundary": (2, 2, 1), "boundary_greedy": (4, 4, 2), "typed": (4, 4, 2)}.items():
        item = score(result, metric, 0.5)
        assert (item["truth"], item["predicted"], item["matched"]) == counts, metric
        assert item["f1"] == pytest.approx(0.5)
    # Two predictions at one shared boundary are one; at a boundary of their own, a rest apart, they are two.
    apart = document((0, 4.8), (5.2, 9), (9, 20), duration_s=20.0)
    item = score(evaluate(truth, apart, [0.5]), "boundary", 0.5)
    assert (item["truth"], item["predicted"], item["matched"]) == (2, 3, 2)


def test_the_chance_of_the_pooled_score_has_the_counts_of_distinct_boundaries() -> None:
    truth = document(*[(10.0 * n, 10.0 * n + 10) for n in range(10)])  # 9 distinct boundaries, 18 with both sides
    item = score(evaluate(truth, document((25, 75)), [0.25]), "boundary", 0.25)
    assert item["truth"] == 9
    assert item["chance"]["equal_true"] == pytest.approx(1 / 9), "nine at equal spacing: only the middle one is met"


# --- several recordings -------------------------------------------------------------------------------------


def test_counts_of_several_recordings_are_added() -> None:
    one = (document((10, 20), (30, 40)), document((10, 20)))
    other = (document((50, 60), duration_s=80.0), document((50, 60), (1, 2), (3, 4), duration_s=80.0))
    result = evaluate_recordings([one, other], [0.5])
    assert (result["recordings"], result["duration_s"]) == (2, 180.0)
    typed = score(result, "typed", 0.5)
    assert (typed["truth"], typed["predicted"], typed["matched"]) == (6, 8, 4)
    assert typed["f1"] == pytest.approx(8 / 14)
    segment = score(result, "segment", 0.5)
    assert (segment["truth"], segment["predicted"], segment["matched"]) == (3, 4, 2)
    assert result["counts"]["over_segmentation"] == pytest.approx(4 / 3)
    assert "2 recordings of 180.0 s, 3 true and 4 predicted segments (over-segmentation 1.33)" in render(result)


def test_a_match_is_never_across_recordings() -> None:
    one, other = document((10, 20)), document((50, 60))
    assert score(evaluate_recordings([(one, other), (other, one)]), "segment", 0.1)["matched"] == 0


def test_one_metronome_ticks_in_all_recordings() -> None:
    fast = document(*[(4.0 * n, 4.0 * n + 4) for n in range(25)])
    slow = document(*[(5.0 * n, 5.0 * n + 5) for n in range(20)])
    both = score(evaluate_recordings([(fast, fast), (slow, slow)], [0.25], ious=[0.9]), "segment", 0.9)
    alone = [score(evaluate(one, one, [0.25], ious=[0.9]), "segment", 0.9)["chance"] for one in (fast, slow)]
    assert [chance["metronome"] for chance in alone] == pytest.approx([1.0, 1.0])
    assert both["chance"]["metronome"] < 0.7
    assert both["chance"]["equal_true"] == pytest.approx(1.0), "equal spacing knows the count of each"


def test_one_recording_with_boundaries_only_leaves_the_boundary_scores_of_all() -> None:
    pairs = [(document((1, 9)), document((1, 9))), ({"duration_sec": 9.0, "boundaries": [3.0]}, document((3, 9)))]
    result = evaluate_recordings(pairs, [0.5])
    assert [item["metric"] for item in result["scores"]] == ["boundary_greedy", "boundary"]
    assert result["average_precision"] == []
    assert result["counts"] == {"unit": "boundaries", "truth": 3, "predicted": 3, "over_segmentation": 1.0}


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ({"duration_sec": 10.0}, document(), "neither"),
        ({"segments": []}, {"segments": []}, "length"),
        ({"duration_sec": -1.0, "segments": []}, document(), "above 0"),
        (document((1, 2)), {"segments": [{"start_sec": 2, "end_sec": 1}]}, "prediction"),
    ],
)
def test_unusable_documents_are_refused(truth: dict[str, Any], prediction: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(truth, prediction)
    with pytest.raises(InputError, match="tolerances"):
        evaluate(document(), document(), [0.0])
    for wrong in ({"ious": [1.5]}, {"map_ious": [0.0]}, {"draws": 0}):
        with pytest.raises(InputError):
            evaluate(document(), document(), **wrong)
