from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError
from laps.icss import cluster_rows, icss
from laps.tables import CLUSTERS


def looks(groups: np.ndarray, *, seed: int = 0, spread: float = 0.5) -> np.ndarray:
    """L2-normalised descriptors: all alike, as pictures of one place are, and more so within a group."""
    centres = np.random.default_rng(3).standard_normal((int(groups.max()) + 1, 32)) + 1.5
    noise = np.random.default_rng(seed).standard_normal((len(groups), 32))
    features = centres[groups] + spread * noise
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


GROUPS = np.repeat(np.arange(4), (30, 80, 50, 40))
FEATURES = looks(GROUPS)


def test_planted_clusters_stand_out_from_the_baseline() -> None:
    report = icss(FEATURES, GROUPS)
    assert report.baseline.mean is not None
    assert report.baseline.repeat_std is not None
    assert report.baseline.repeat_std < 0.02
    for score in report.clusters.values():
        assert score.mean is not None
        assert score.ci_low is not None
        assert score.ci_high is not None
        assert score.ci_low < score.mean < score.ci_high
        assert score.mean > report.baseline.mean + 0.1
        assert score.pair_count == score.segment_count * (score.segment_count - 1) // 2
    assert report.overall.mean is not None
    assert report.overall.mean > report.baseline.mean + 0.1
    assert report.baseline.pair_count == report.overall.pair_count


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=10)
def test_labels_dealt_at_random_score_like_the_baseline(seed: int) -> None:
    report = icss(FEATURES, np.random.default_rng(seed).permutation(GROUPS), seed=seed, replicates=50)
    assert report.overall.mean == pytest.approx(report.baseline.mean, abs=0.02)
    assert report.overall.std == pytest.approx(report.baseline.std, abs=0.02)


def test_a_small_cluster_is_scored_over_all_its_pairs() -> None:
    report = icss(FEATURES, GROUPS)
    members = FEATURES[GROUPS == 0].astype(np.float64)
    cosines = [members[i] @ members[j] for i, j in itertools.combinations(range(len(members)), 2)]
    score = report.clusters[0]
    assert score.mean == pytest.approx(np.mean(cosines), abs=1e-6)
    assert score.std == pytest.approx(np.std(cosines), abs=1e-6)


def test_a_large_cluster_is_sampled_without_bias() -> None:
    whole = icss(FEATURES, GROUPS).clusters[1]
    sampled = icss(FEATURES, GROUPS, max_pairs=2_000).clusters[1]
    assert sampled.pair_count == 2_000
    assert sampled.mean == pytest.approx(whole.mean, abs=4 * whole.std / 2_000**0.5)
    assert sampled.mean != whole.mean


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    groups = np.zeros(4000, dtype=int)
    truth = icss(looks(groups, seed=1), groups, replicates=10).clusters[0].mean
    covered = 0
    for seed in range(60):
        score = icss(looks(np.zeros(25, dtype=int), seed=100 + seed), np.zeros(25, dtype=int), replicates=200)
        low, high = score.clusters[0].ci_low, score.clusters[0].ci_high
        assert low is not None
        assert high is not None
        assert truth is not None
        covered += low <= truth <= high
    assert 48 <= covered <= 60


def test_the_overall_score_weighs_clusters_by_their_primitives() -> None:
    report = icss(FEATURES, GROUPS)
    expected = sum(score.segment_count * (score.mean or 0) for score in report.clusters.values()) / len(GROUPS)
    assert report.overall.mean == pytest.approx(expected)
    assert report.overall.ci_low is not None
    assert report.overall.ci_low < expected


def test_draws_repeat_by_seed_and_do_not_depend_on_the_other_clusters() -> None:
    report = icss(FEATURES, GROUPS, seed=5)
    assert report == icss(FEATURES, GROUPS, seed=5)
    some = GROUPS != 2
    assert icss(FEATURES[some], GROUPS[some], seed=5).clusters[1] == report.clusters[1]


def test_clusters_too_small_for_a_pair_have_no_score() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    report = icss(FEATURES[:6], labels)
    assert (report.clusters[0].mean, report.clusters[0].pair_count) == (None, 0)
    assert report.clusters[1].mean is not None
    assert report.clusters[1].ci_low is None
    assert report.clusters[2].ci_low is not None
    assert report.overall.segment_count == 5
    nothing = icss(FEATURES[:2], np.array([0, 1]))
    assert (nothing.overall.mean, nothing.baseline.mean) == (None, None)
    empty = icss(np.zeros((0, 8)), np.zeros(0, dtype=int))
    assert (empty.clusters, empty.overall.mean, empty.baseline.mean) == ({}, None, None)


def test_rows_fit_the_table() -> None:
    labels = np.append(GROUPS, [7, 0])
    durations = np.linspace(1, 3, len(labels))
    rows = cluster_rows(
        icss(FEATURES, GROUPS), labels, durations,
        encoder_id="weight_free:x", cluster_model_id="k1", release="r1", cluster_ids=[0, 1, 2, 3, 7, 9],
    )  # fmt: skip
    table = CLUSTERS.validate(pa.Table.from_pylist(rows, schema=CLUSTERS.schema()))
    by_number = {row["cluster_id"]: row for row in table.to_pylist()}
    assert list(by_number) == [0, 1, 2, 3, 7, 9]
    assert by_number[0]["segment_count"] == 31
    assert by_number[1]["median_duration_s"] == pytest.approx(np.median(durations[30:110]))
    # A cluster whose primitives have no visual features, and an empty one.
    assert (by_number[7]["segment_count"], by_number[7]["icss_mean"]) == (1, None)
    assert (by_number[9]["segment_count"], by_number[9]["median_duration_s"]) == (0, None)


def test_labels_must_fit_the_features() -> None:
    with pytest.raises(InputError, match="3 labels"):
        icss(FEATURES, GROUPS[:3])
