"""Mean average precision: hand-worked curves, ranking, confidences that are not there, chance beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.evaluation import Candidates, average_precision, evaluate, evaluate_recordings, render

Ranked = tuple[float, float, float]  # start, end, confidence


def document(*segments: Ranked, duration_s: float = 100.0) -> dict[str, Any]:
    rows = [{"start_sec": start, "end_sec": end, "confidence": sure} for start, end, sure in segments]
    return {"duration_sec": duration_s, "segments": rows}


def truth(*segments: tuple[float, float], duration_s: float = 100.0) -> dict[str, Any]:
    return {"duration_sec": duration_s, "segments": [{"start_sec": a, "end_sec": b} for a, b in segments]}


def value(true: dict[str, Any], predicted: dict[str, Any], iou: float = 0.5) -> Any:
    (item,) = evaluate(true, predicted, [1.0], ious=[], map_ious=[iou], draws=1)["average_precision"]
    return item["value"]


FOUR = truth((0, 10), (20, 30), (40, 50), (60, 70))


def test_the_area_under_the_envelope_is_hand_worked() -> None:
    # By falling confidence: hit, miss, hit, hit; one of four is not found.
    predicted = document((0, 10, 0.9), (12, 18, 0.8), (20, 30, 0.7), (40, 50, 0.6))
    # Precision 1, 1/2, 2/3, 3/4 at recall 1/4, 1/4, 2/4, 3/4; the envelope is 1, 3/4, 3/4.
    assert value(FOUR, predicted) == pytest.approx(0.25 * 1 + 0.25 * 0.75 + 0.25 * 0.75)


def test_what_is_surest_counts_most() -> None:
    hits = [(0.0, 10.0), (20.0, 30.0)]
    good = document(*[(a, b, 2.0) for a, b in hits], (80, 90, 1.0))
    bad = document(*[(a, b, 1.0) for a, b in hits], (80, 90, 2.0))
    assert value(FOUR, good) == pytest.approx(0.5)
    assert value(FOUR, bad) == pytest.approx(0.5 * 2 / 3)


def test_a_second_prediction_of_the_same_segment_is_a_miss() -> None:
    twice = document((0, 10, 0.9), (0, 9, 0.8), (20, 30, 0.7))
    # hit, miss, hit: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2.
    assert value(FOUR, twice) == pytest.approx(0.25 + 0.25 * 2 / 3)


def test_of_those_not_taken_the_one_with_the_highest_overlap_is_taken() -> None:
    # The first overlaps both; it takes the nearer, and leaves the other to the second.
    true = truth((0, 10), (4, 14))
    assert value(true, document((3, 13, 0.9), (0, 10, 0.5))) == pytest.approx(1.0)


def test_the_same_confidence_everywhere_ranks_nothing() -> None:
    # Two of four, three predicted: precision 2/3 at recall 1/2, and no other point, whatever the order in the file.
    for order in ((0, 1, 2), (2, 1, 0)):
        rows = [(0.0, 10.0, 0.3), (20.0, 30.0, 0.3), (80.0, 90.0, 0.3)]
        assert value(FOUR, document(*[rows[place] for place in order])) == pytest.approx(0.5 * 2 / 3)


def test_the_threshold_is_an_iou() -> None:
    predicted = document((0, 6, 1.0))
    assert value(truth((0, 10)), predicted, 0.6) == 1.0
    assert value(truth((0, 10)), predicted, 0.61) == 0.0


def test_nothing_to_find() -> None:
    assert value(truth(), document()) == 1.0
    assert value(truth(), document((1, 2, 0.5))) == 0.0
    assert value(FOUR, document()) == 0.0
    assert value(truth(*[(10.0 * n, 10.0 * n + 9) for n in range(5)]), document((40, 49, -3.0))) == pytest.approx(0.2)


def test_the_ranking_goes_across_recordings() -> None:
    sure = (truth((0, 10)), document((0, 10, 5.0)))
    unsure = (truth((0, 10)), document((50, 60, 1.0)))
    (item,) = evaluate_recordings([sure, unsure], map_ious=[0.5])["average_precision"]
    assert item["value"] == pytest.approx(0.5)
    swapped = (truth((0, 10)), document((50, 60, 9.0)))
    (item,) = evaluate_recordings([sure, swapped], map_ious=[0.5])["average_precision"]
    assert item["value"] == pytest.approx(0.25), "the miss now comes first"


@pytest.mark.parametrize("missing", [None, float("nan"), "high"])
def test_without_confidences_there_is_no_value(missing: Any) -> None:
    predicted = document((0, 10, 1.0), (20, 30, 1.0))
    if missing is None:
        del predicted["segments"][1]["confidence"]
    else:
        predicted["segments"][1]["confidence"] = missing
    result = evaluate(FOUR, predicted)
    for item in result["average_precision"]:
        assert item["value"] is None and item["above_chance"] is None
        assert "confidence" in item["reason"]
    text = render(result)
    assert [line.split()[:4] for line in text.splitlines() if line.startswith("mAP")] == [
        ["mAP", "IoU", "0.5", "-"],
        ["mAP", "IoU", "0.75", "-"],
    ]
    assert "No mAP: not every predicted segment has a confidence" in text


def test_chance_stands_beside_it() -> None:
    grid = truth(*[(4.0 * n, 4.0 * n + 4) for n in range(25)])
    predicted = document(*[(4.0 * n, 4.0 * n + 4, float(n)) for n in range(25)])
    result = evaluate(grid, predicted)
    assert [item["iou"] for item in result["average_precision"]] == [0.5, 0.75]
    for item in result["average_precision"]:
        assert item["value"] == pytest.approx(1.0)
        # Equal spacing at this count is the truth itself, and so is a metronome of 4 s.
        assert item["chance"]["equal_true"] == item["chance"]["equal_predicted"] == pytest.approx(1.0)
        assert item["chance"]["metronome"] == pytest.approx(1.0)
        assert item["chance"]["metronome_period_s"] == 4.0
        assert 0 <= item["chance"]["random_true"] < 0.3
        assert item["above_chance"] == pytest.approx(0.0)
        assert item["reason"] is None
    assert evaluate(grid, predicted) == result, "seeded"


segments = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 6)).map(lambda pair: (float(pair[0]), float(sum(pair)))), max_size=6
)


@settings(max_examples=50, deadline=None)
@given(true=segments, predicted=segments, seed=st.integers(0, 99), iou=st.sampled_from([0.3, 0.5, 0.8]))
def test_the_area_is_that_of_the_curve_drawn_point_by_point(
    true: list[tuple[float, float]], predicted: list[tuple[float, float]], seed: int, iou: float
) -> None:
    confidences = np.random.default_rng(seed).permutation(len(predicted)).astype(float)
    candidates = Candidates.of(true, predicted, iou)
    area = average_precision([candidates], [confidences])
    assert 0 <= area <= 1
    if not true or not predicted:
        return
    hits = candidates.hits(confidences)[np.argsort(-confidences)]
    curve = [(sum(hits[: n + 1]) / len(true), sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    steps = np.arange(1, len(true) + 1) / len(true)
    best = [max((p for r, p in curve if r >= step - 1e-9), default=0.0) for step in steps]
    assert area == pytest.approx(float(np.mean(best)))
    # Only the order of the confidences counts.
    assert average_precision([candidates], [np.exp(confidences)]) == area
