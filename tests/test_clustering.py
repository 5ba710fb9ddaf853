from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from laps.clustering import ClusterFit, ClusterModel, fit, project, quality, render_scan, scan_k
from laps.errors import InputError, ModelMismatchError

WIDTH = 16


def planted(counts: list[int], *, seed: int = 0, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings around random centres (the same ones for every seed), and the group of each."""
    centres = np.random.default_rng(99).standard_normal((len(counts), WIDTH)) * 2 + 5
    groups = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).standard_normal((len(groups), WIDTH))
    return (centres[groups] + spread * noise).astype(np.float32), groups


def fitted(embeddings: np.ndarray, k: int, **options: object) -> ClusterFit:
    return fit(embeddings, k, **{"tokenizer_id": "t1", "embedder_id": "e1", **options})


def names(labels: np.ndarray, groups: np.ndarray) -> dict[int, int]:
    """The cluster number of each planted group; every group must be one cluster."""
    found = {int(group): set(labels[groups == group].tolist()) for group in np.unique(groups)}
    assert all(len(numbers) == 1 for numbers in found.values())
    return {group: numbers.pop() for group, numbers in found.items()}


def test_planted_groups_are_found_and_numbered_by_size() -> None:
    embeddings, groups = planted([20, 60, 40])
    found = fitted(embeddings, 3)
    assert names(found.labels, groups) == {1: 0, 2: 1, 0: 2}
    assert found.quality.silhouette is not None
    assert found.quality.silhouette > 0.7
    assert (found.kept_ids, found.new_ids, found.retired_ids) == ((), (0, 1, 2), ())


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(6, 40))
@settings(deadline=None, max_examples=25)
def test_assigning_what_was_fitted_gives_the_fitted_labels(seed: int, k: int, count: int) -> None:
    embeddings = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    found = fitted(embeddings, k, seed=seed)
    labels, distances = found.model.assign(embeddings)
    np.testing.assert_array_equal(labels, found.labels)
    assert labels.dtype == np.int32
    assert distances.dtype == np.float32
    assert set(labels.tolist()) == set(range(k))
    assert np.all((distances >= -1e-6) & (distances <= 2 + 1e-6))
    # One at a time as well.
    assert [int(found.model.assign(row[None])[0][0]) for row in embeddings] == labels.tolist()


def test_the_distance_is_that_of_cosine() -> None:
    embeddings, _ = planted([30, 30], spread=1.0)
    model = fitted(embeddings, 2).model
    labels, distances = model.assign(embeddings)
    points = model.transform(embeddings)
    for i in range(0, 60, 7):
        centroid = model.centroids[np.flatnonzero(model.cluster_ids == labels[i])[0]]
        cosine = points[i] @ centroid / (np.linalg.norm(points[i]) * np.linalg.norm(centroid))
        assert distances[i] == pytest.approx(1 - cosine, abs=1e-6)


def test_the_same_seed_gives_the_same_model() -> None:
    embeddings, _ = planted([30, 25, 20, 50], spread=2.0)
    assert fitted(embeddings, 4).model.cluster_model_id == fitted(embeddings, 4).model.cluster_model_id
    assert fitted(embeddings, 4).model.cluster_model_id != fitted(embeddings, 3).model.cluster_model_id


def test_numbers_stay_when_the_data_changes() -> None:
    first, groups = planted([50, 40, 30, 20])
    old = fitted(first, 4)
    meaning = names(old.labels, groups)
    # Other primitives of the same kinds, in other proportions and another seed of k-means.
    second, new_groups = planted([15, 30, 45, 60], seed=7)
    new = fitted(second, 4, seed=5, previous=old.model)
    assert names(new.labels, new_groups) == meaning
    assert new.kept_ids == (0, 1, 2, 3)


def test_a_new_kind_gets_a_new_number_and_a_retired_one_is_never_given_again() -> None:
    embeddings, groups = planted([40, 40, 40, 40])
    three = fitted(embeddings[groups < 3], 3)
    meaning = names(three.labels, groups[groups < 3])
    four = fitted(embeddings, 4, previous=three.model)
    assert names(four.labels, groups) == {**meaning, 3: 3}
    assert (four.kept_ids, four.new_ids, four.retired_ids) == ((0, 1, 2), (3,), ())
    without = groups != 3
    again = fitted(embeddings[without], 3, previous=four.model)
    assert again.retired_ids == (3,)
    back = fitted(embeddings, 4, previous=again.model)
    assert names(back.labels, groups) == {**meaning, 3: 4}


def test_other_embeddings_are_matched_by_the_primitives_they_share() -> None:
    embeddings, groups = planted([50, 40, 30])
    old = fitted(embeddings, 3)
    turned = embeddings[:, ::-1] * 3 + 1
    by_primitives = fitted(
        turned, 3, embedder_id="e2", previous=old.model, previous_labels=np.where(groups == 2, -1, old.labels)
    )
    named, before = names(by_primitives.labels, groups), names(old.labels, groups)
    assert (named[0], named[1]) == (before[0], before[1])
    assert named[2] == 3
    # Without shared primitives nothing ties the old numbers to the new clusters.
    assert fitted(turned, 3, embedder_id="e2", previous=old.model).new_ids == (3, 4, 5)


def test_a_saved_model_is_the_same(tmp_path: Path) -> None:
    embeddings, _ = planted([20, 20], spread=1.0)
    model = fitted(embeddings, 2).model
    assert model.save(tmp_path) == model.cluster_model_id
    loaded = ClusterModel.load(tmp_path)
    assert loaded.cluster_model_id == model.cluster_model_id
    assert (loaded.tokenizer_id, loaded.embedder_id, loaded.k) == ("t1", "e1", 2)
    np.testing.assert_array_equal(loaded.assign(embeddings)[1], model.assign(embeddings)[1])
    (tmp_path / "clusters.json").write_text("{}")
    with pytest.raises(InputError, match="holds no cluster model"):
        ClusterModel.load(tmp_path)


def test_a_k_that_does_not_fit_says_so() -> None:
    embeddings, _ = planted([3, 2])
    with pytest.raises(InputError, match=r"5 primitives cannot form 6 clusters.*at most 5"):
        fitted(embeddings, 6)
    with pytest.raises(InputError, match="0 clusters"):
        fitted(embeddings, 0)
    with pytest.raises(InputError, match=r"only 2 different embeddings cannot form 3 clusters.*at most 2"):
        fitted(embeddings[[0, 0, 1, 1]], 3)
    with pytest.raises(InputError, match="Segment some video first"):
        fitted(embeddings[:0], 1)
    with pytest.raises(InputError, match="not finite"):
        fitted(np.full((4, 3), np.nan), 2)
    with pytest.raises(ModelMismatchError, match="width 16"):
        fitted(embeddings, 2).model.assign(embeddings[:, :5])


def test_one_cluster_has_no_silhouette_and_constant_columns_do_no_harm() -> None:
    embeddings, _ = planted([10, 10])
    assert fitted(embeddings, 1).quality.silhouette is None
    embeddings[:, 3] = 8.0
    found = fitted(embeddings, 2)
    assert np.isfinite(found.model.centroids).all()
    assert fitted(embeddings[:1], 1).labels.tolist() == [0]


def test_the_scan_prefers_the_planted_number(capsys: pytest.CaptureFixture[str]) -> None:
    embeddings, _ = planted([30, 30, 30, 30])
    table = scan_k(embeddings, [1, 2, 3, 4, 5, 6])
    scores = {row.k: row.silhouette for row in table}
    assert max((score, k) for k, score in scores.items() if score is not None)[1] == 4
    inertia = [row.inertia for row in table]
    assert inertia == sorted(inertia, reverse=True)
    lines = render_scan(table).splitlines()
    assert len(lines) == 7
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4", "5", "6"]
    assert [line.endswith("best silhouette") for line in lines] == [k == 4 for k in range(7)]


def test_a_model_is_scored_on_other_primitives_too() -> None:
    embeddings, _ = planted([30, 30, 30])
    found = fitted(embeddings, 3)
    assert quality(found.model, embeddings) == found.quality
    others = quality(found.model, planted([10, 20, 30], seed=8)[0])
    assert others.silhouette == pytest.approx(found.quality.silhouette, abs=0.1)
    assert quality(found.model, embeddings[:30]).silhouette is None
    assert quality(found.model, embeddings[:0]).calinski_harabasz is None


def test_large_sets_are_sampled_for_the_silhouette(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, _ = planted([150, 150])
    whole = fitted(embeddings, 2).quality.silhouette
    monkeypatch.setattr("laps.clustering._SILHOUETTE_SAMPLE", 100)
    sampled = fitted(embeddings, 2).quality.silhouette
    assert whole is not None
    assert sampled == pytest.approx(whole, abs=0.05)
    assert sampled != whole


def test_the_map_keeps_groups_apart_and_repeats() -> None:
    embeddings, groups = planted([40, 40, 40])
    model = fitted(embeddings, 3).model
    places, method = project(model, embeddings, seed=4)
    assert method == "umap"
    assert places.shape == (120, 2)
    assert places.dtype == np.float32
    centres = np.stack([places[groups == group].mean(axis=0) for group in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres[None], axis=2).argmin(axis=1)
    assert adjusted_rand_score(groups, nearest) == 1
    np.testing.assert_array_equal(project(model, embeddings, seed=4)[0], places)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 99])
def test_few_primitives_are_mapped_by_principal_components(count: int) -> None:
    embeddings, _ = planted([50, 50])
    places, method = project(fitted(embeddings, 2).model, embeddings[:count])
    assert method == "pca"
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
