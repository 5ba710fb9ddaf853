"""Clusters against labels: hand-worked assignments and figures, each beside shuffled labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from laps.errors import InputError
from laps.evaluation import agreement, true_labels


def truth(*segments: tuple[float, float, str | None], **more: Any) -> dict[str, Any]:
    rows = [{"start_sec": a, "end_sec": b} | ({"label": label} if label else {}) for a, b, label in segments]
    return {"duration_sec": 100.0, "segments": rows, **more}


def test_a_segment_has_the_label_it_overlaps_most() -> None:
    known = truth((0, 10, "reach"), (10, 20, "screw"), (30, 40, "reach"))
    assert true_labels([(2, 8), (8, 14), (4, 13), (29, 36)], known) == ["reach", "screw", "reach", "reach"]
    # Twice a little of the same is more than once a little more of another.
    known = truth((0, 2, "a"), (2, 5, "b"), (5, 7, "a"))
    assert true_labels([(0, 7)], known) == ["a"]


def test_a_segment_mostly_in_unlabelled_time_has_none() -> None:
    known = truth((10, 20, "reach"), (20, 30, "rest"), (40, 44, None))
    assert true_labels([(0, 10), (5, 15), (4, 15), (18, 24), (40, 44)], known) == [None, "reach", None, None, None]
    assert true_labels([(18, 24)], known, ignore=()) == ["rest"]
    named = truth((10, 20, "G0"), labels={"G0": "No Gesture"})
    assert true_labels([(11, 15)], named) == [None]
    assert true_labels([(11, 15)], truth()) == [None]


def test_time_that_two_labels_share_counts_once() -> None:
    both_hands = truth((0, 4, "hold"), (0, 4, "screw"), (1, 3, "screw"))
    assert true_labels([(0, 9)], both_hands) == [None], "4 of 9 s are labelled, not 10"
    assert true_labels([(0, 8)], both_hands) == ["screw"]


def test_purity_nmi_and_ari_are_hand_worked() -> None:
    # Clusters 1: a a b; 2: b b b. One segment has no label.
    found = agreement(["a", "a", "b", "b", "b", "b", None], [1, 1, 1, 2, 2, 2, 2])
    assert found is not None
    assert found.n == 6
    assert found.excluded_share == pytest.approx(1 / 7)
    assert found.purity.value == pytest.approx(5 / 6)
    # Pairs: 1 within (1, a), 3 within (2, b); 1 + 3 + 0 = 4; rows C(2,2) + C(4,2) = 7, columns 3 + 3 = 6, all 15.
    assert found.ari.value == pytest.approx((4 - 7 * 6 / 15) / ((7 + 6) / 2 - 7 * 6 / 15))
    # Of 6: how many carry a label in a cluster, with that label, in that cluster.
    joint = [(2, 2, 3), (1, 4, 3), (3, 4, 3)]
    information = sum(both / 6 * np.log(6 * both / (label * cluster)) for both, label, cluster in joint)
    entropies = [-sum(p * np.log(p) for p in shares) for shares in ((2 / 6, 4 / 6), (0.5, 0.5))]
    assert found.nmi.value == pytest.approx(information / np.mean(entropies))


def test_perfect_clusters_stand_out_of_shuffled_labels() -> None:
    labels = ["reach", "screw", "place"] * 30
    found = agreement(labels, [labels.index(label) + 7 for label in labels])
    assert found is not None
    assert found.purity.value == found.nmi.value == found.ari.value == pytest.approx(1.0)
    assert abs(found.ari.shuffled) < 0.05
    assert found.nmi.shuffled < 0.1
    assert 1 / 3 < found.purity.shuffled < 0.55
    assert agreement(labels, list(range(90))) is not None
    assert found == agreement(labels, [labels.index(label) + 7 for label in labels]), "seeded"


def test_clusters_of_one_are_pure_and_so_are_shuffled_ones() -> None:
    found = agreement(["a", "b", "a", "b"], [1, 2, 3, 4])
    assert found is not None
    assert found.purity.value == found.purity.shuffled == 1.0
    assert found.ari.value == pytest.approx(0.0)


def test_without_labels_there_is_nothing_to_say() -> None:
    assert agreement([None, None], [1, 2]) is None
    assert agreement([], []) is None
    with pytest.raises(InputError, match="1 labels do not fit 2 clusters"):
        agreement(["a"], [1, 2])
