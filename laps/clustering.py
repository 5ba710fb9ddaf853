"""Group primitives into clusters by the direction of their embeddings (paper section 3.2.2).

Embeddings are standardized, L2-normalised and grouped by k-means: on the unit sphere the squared distance is
2 (1 - cos), so k-means there groups by cosine. The number of clusters is given; :func:`scan_k` helps to choose it.

Cluster numbers are names that analysts write into queries. A new model therefore takes over the number of the old
cluster that holds the same primitives, and a cluster without a predecessor gets a number that was never used.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import calinski_harabasz_score, silhouette_score
from threadpoolctl import threadpool_limits

from laps.errors import InputError, ModelMismatchError

ARRAYS_FILE = "clusters.safetensors"
CONFIG_FILE = "clusters.json"
FIGURES_FILE = "fit.json"
_FORMAT = 1
_STARTS = 10
# A new cluster is the old one's successor when they share at least this part of the primitives of both.
_SAME_CLUSTER = 0.25
_SILHOUETTE_SAMPLE = 5_000
_UMAP_NEIGHBOURS = 15
# Fewer points have too few neighbourhoods for umap to show more than principal components do, and it compiles for ten
# seconds in each process.
_FEWEST_FOR_UMAP = 100


@dataclass(frozen=True)
class ClusterModel:
    """What assigns a primitive to a cluster.

    Attributes:
        mean: float64 [d], of the embeddings that it was fitted to.
        scale: float64 [d], their standard deviation (1 where they do not vary).
        centroids: float64 [k, d], means of the standardized, normalised embeddings of each cluster.
        cluster_ids: int64 [k], the number of the cluster of each centroid.
        next_id: the lowest number that no cluster has ever had.
        tokenizer_id: tokenizer of the embeddings.
        embedder_id: embedder of the embeddings.
        previous_id: the model whose numbers were matched, None where there was none. A number that both have is the
            same cluster: new clusters get numbers that no model of this line has used.
    """

    mean: np.ndarray
    scale: np.ndarray
    centroids: np.ndarray
    cluster_ids: np.ndarray
    next_id: int
    tokenizer_id: str
    embedder_id: str
    previous_id: str | None = None

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centroids)

    @property
    def cluster_model_id(self) -> str:
        """``"k"`` and 12 hex digits of the SHA-256 of the content."""
        digest = hashlib.sha256(self._config_json().encode())
        for array in self._arrays().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return "k" + digest.hexdigest()[:12]

    def transform(self, embeddings: np.ndarray) -> np.ndarray:
        """Standardized and L2-normalised embeddings, float64 [n, d]; an embedding equal to the mean stays zero."""
        values = np.asarray(embeddings, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise ModelMismatchError(
                f"the cluster model takes embeddings of width {len(self.mean)}, not {list(values.shape)}",
                fix="Embed the primitives with the release's embedder.",
            )
        return _transform(values, self.mean, self.scale)

    def assign(self, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clusters of primitives, also of those that the model was not fitted to.

        Args:
            embeddings: float [n, d].

        Returns:
            cluster numbers, int32 [n], and cosine distances 1 - cos to the centroid, float32 [n] in 0..2.
        """
        points = self.transform(embeddings)
        index = _nearest(points, self.centroids)
        lengths = np.linalg.norm(self.centroids, axis=1)
        directions = self.centroids / np.where(lengths > 0, lengths, 1.0)[:, None]
        distances = 1.0 - np.einsum("nd,nd->n", points, directions[index])
        return self.cluster_ids[index].astype(np.int32), distances.astype(np.float32)

    def save(self, folder: Path) -> str:
        """Write the model into a folder; return its id."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        (folder / ARRAYS_FILE).write_bytes(save(arrays))
        (folder / CONFIG_FILE).write_text(self._config_json(), encoding="utf-8")
        return self.cluster_model_id

    @classmethod
    def load(cls, folder: Path) -> ClusterModel:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the folder does not hold a cluster model.
        """
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            arrays = load_file(folder / ARRAYS_FILE)
            if config.pop("format") != _FORMAT:
                raise ValueError("another format")
            return cls(**arrays, **config)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(
                f"holds no cluster model ({error})", where=str(folder), fix="Make the cluster model again."
            ) from error

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "mean": self.mean,
            "scale": self.scale,
            "centroids": self.centroids,
            "cluster_ids": self.cluster_ids,
        }

    def _config_json(self) -> str:
        config: dict[str, str | int] = {
            "format": _FORMAT,
            "next_id": self.next_id,
            "tokenizer_id": self.tokenizer_id,
            "embedder_id": self.embedder_id,
        }
        if self.previous_id is not None:  # left out, so that a first model has the id that it always had
            config["previous_id"] = self.previous_id
        return json.dumps(config, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Quality:
    """How well clusters are set apart; a score is None where it is not defined (a single cluster, say).

    Attributes:
        k: number of clusters.
        silhouette: mean silhouette by cosine distance, -1..1, over at most 5,000 primitives.
        calinski_harabasz: ratio of the variance between clusters to that within.
        inertia: sum of squared distances to the centroids on the unit sphere.
    """

    k: int
    silhouette: float | None
    calinski_harabasz: float | None
    inertia: float


@dataclass(frozen=True)
class ClusterFit:
    """A fitted model with what happened on the way.

    Attributes:
        model: the model.
        labels: int32 [n], cluster numbers of the embeddings it was fitted to.
        quality: scores on them.
        kept_ids: numbers taken over from the previous model.
        new_ids: numbers given for the first time.
        retired_ids: numbers of the previous model that no cluster has now.
    """

    model: ClusterModel
    labels: np.ndarray
    quality: Quality
    kept_ids: tuple[int, ...]
    new_ids: tuple[int, ...]
    retired_ids: tuple[int, ...]


def fit(
    embeddings: np.ndarray,
    k: int,
    *,
    tokenizer_id: str,
    embedder_id: str,
    seed: int = 0,
    previous: ClusterModel | None = None,
    previous_labels: np.ndarray | None = None,
) -> ClusterFit:
    """Fit k clusters.

    Numbers are matched to the previous model's by the primitives that the clusters share. Where the previous model
    knows embeddings of this kind it assigns these ones itself; after a change of the tokenizer or embedder the
    primitives' earlier numbers, ``previous_labels``, are needed for that, without which all numbers are new.
    Without a previous model, clusters are numbered from 0 by falling size.

    Args:
        embeddings: float [n, d].
        k: number of clusters.
        tokenizer_id: tokenizer of the embeddings.
        embedder_id: embedder of the embeddings.
        seed: seed of the starts of k-means; the same input and seed give the same model.
        previous: model whose numbers are to be kept.
        previous_labels: integers [n], number that each primitive had, -1 where it had none.

    Raises:
        InputError: k does not fit the number of (distinct) primitives.
    """
    values = np.asarray(embeddings, dtype=np.float64)
    mean, scale = _moments(values, k)
    points = _transform(values, mean, scale)
    centroids = _k_means(points, k, seed)
    index = _nearest(points, centroids)
    if previous is not None and previous_labels is None:
        if (previous.tokenizer_id, previous.embedder_id) == (tokenizer_id, embedder_id):
            previous_labels, _ = previous.assign(values)
        else:
            previous_labels = np.full(len(values), -1)
    ids, next_id, kept = _numbers(index, k, previous, previous_labels)
    previous_id = None if previous is None else previous.cluster_model_id
    model = ClusterModel(mean, scale, centroids, ids, next_id, tokenizer_id, embedder_id, previous_id)
    old_ids = set() if previous is None else set(previous.cluster_ids.tolist())
    return ClusterFit(
        model=model,
        labels=ids[index].astype(np.int32),
        quality=_quality(points, index, centroids, seed),
        kept_ids=tuple(sorted(kept)),
        new_ids=tuple(sorted(set(ids.tolist()) - kept)),
        retired_ids=tuple(sorted(old_ids - kept)),
    )


def fit_figures(fitted: ClusterFit, embeddings: np.ndarray) -> dict[str, Any]:
    """What later primitives are compared with: each cluster's share, and the distance within which 95% lie.

    Kept beside the model (:data:`FIGURES_FILE`), and no part of it: it decides nothing and does not enter the id.
    """
    _, distances = fitted.model.assign(embeddings)
    numbers, counts = np.unique(fitted.labels, return_counts=True)
    return {
        "primitives": len(embeddings),
        "shares": {str(number): int(count) / len(embeddings) for number, count in zip(numbers, counts, strict=True)},
        "distance_95": float(np.quantile(distances, 0.95)),
    }


def quality(model: ClusterModel, embeddings: np.ndarray, *, seed: int = 0) -> Quality:
    """How well a model sets primitives apart, also such as it was not fitted to; no scores without any."""
    if len(embeddings) == 0:
        return Quality(model.k, None, None, 0.0)
    points = model.transform(embeddings)
    return _quality(points, _nearest(points, model.centroids), model.centroids, seed)


def scan_k(embeddings: np.ndarray, ks: Sequence[int], *, seed: int = 0) -> list[Quality]:
    """Scores of the clusters for each k; a k that does not fit the number of primitives is an InputError."""
    values = np.asarray(embeddings, dtype=np.float64)
    table = []
    for k in ks:
        points = _transform(values, *_moments(values, k))
        centroids = _k_means(points, k, seed)
        table.append(_quality(points, _nearest(points, centroids), centroids, seed))
    return table


def render_scan(table: Sequence[Quality]) -> str:
    """The scan as a table in plain text, with the k of the best silhouette marked.

    The best score is a hint: k is a statement about the work that is filmed, and coarse groups score high.
    """
    scored = [row for row in table if row.silhouette is not None]
    best = max(scored, key=lambda row: row.silhouette or 0.0).k if scored else None
    lines = [f"{'k':>4}  {'silhouette':>10}  {'Calinski-Harabasz':>17}  {'inertia':>12}"]
    for row in table:
        silhouette = "-" if row.silhouette is None else f"{row.silhouette:.3f}"
        ratio = "-" if row.calinski_harabasz is None else f"{row.calinski_harabasz:.1f}"
        mark = "  <- best silhouette" if row.k == best else ""
        lines.append(f"{row.k:>4}  {silhouette:>10}  {ratio:>17}  {row.inertia:>12.2f}{mark}")
    return "\n".join(lines)


def project(
    model: ClusterModel, embeddings: np.ndarray, *, method: Literal["umap", "pca"] = "umap", seed: int = 0
) -> tuple[np.ndarray, str]:
    """Places of primitives on a map, for the eye only: distances between far groups mean little.

    Args:
        model: the cluster model.
        embeddings: float [n, d].
        method: ``umap``, which compiles for ten seconds in each process, or ``pca``, which is quick and coarser.
        seed: seed of umap.

    Returns:
        float32 [n, 2], and how they were found: ``"umap"``, or ``"pca"`` (always for fewer than 100 primitives).
    """
    points = model.transform(embeddings).astype(np.float32)
    if method == "pca" or len(points) < _FEWEST_FOR_UMAP:
        flat = np.zeros((len(points), 2), dtype=np.float32)
        components = min(2, len(points) - 1, points.shape[1])
        if components > 0 and np.ptp(points, axis=0).any():
            flat[:, :components] = PCA(n_components=components, svd_solver="full").fit_transform(points)
        return flat, "pca"
    with warnings.catch_warnings():
        # umap announces at import that a variant which is not used here would need TensorFlow.
        warnings.simplefilter("ignore", ImportWarning)
        # Slow to import (it compiles), and needed for the map only.
        from umap import UMAP
    # Starting from principal components avoids the spectral start, which fails for groups without a link. One job,
    # because only that is repeatable.
    mapper = UMAP(n_neighbors=_UMAP_NEIGHBOURS, metric="cosine", init="pca", random_state=seed, n_jobs=1)
    return np.asarray(mapper.fit_transform(points), dtype=np.float32), "umap"


def _moments(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if k < 1:
        raise InputError(f"there cannot be {k} clusters", fix="Give k of 1 or more.")
    if values.ndim != 2 or len(values) < k:
        count = len(values)
        raise InputError(
            f"{count} primitives cannot form {k} clusters",
            fix=f"Give a k of at most {count}, or more hours of video." if count else "Segment some video first.",
        )
    if not np.isfinite(values).all():
        raise InputError("some embeddings are not finite numbers", fix="Embed the primitives again.")
    scale = values.std(axis=0)
    return values.mean(axis=0), np.where(scale > 0, scale, 1.0)


def _transform(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    standardized = (values - mean) / scale
    lengths = np.linalg.norm(standardized, axis=1, keepdims=True)
    points: np.ndarray = standardized / np.where(lengths > 0, lengths, 1.0)
    return points


def _k_means(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    distinct = len(np.unique(points, axis=0))
    if distinct < k:
        raise InputError(
            f"{len(points)} primitives with only {distinct} different embeddings cannot form {k} clusters",
            fix=f"Give a k of at most {distinct}, or more hours of video.",
        )
    # With several threads the sums, and so the last bits of the centroids, would depend on which thread is first.
    with threadpool_limits(limits=1):
        centroids: np.ndarray = KMeans(n_clusters=k, n_init=_STARTS, random_state=seed).fit(points).cluster_centers_
    return centroids


def _nearest(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Index of the nearest centroid, the first of equals, int64 [n]."""
    half_distance = 0.5 * np.square(centroids).sum(axis=1) - points @ centroids.T
    nearest: np.ndarray = half_distance.argmin(axis=1)
    return nearest


def _numbers(
    index: np.ndarray, k: int, previous: ClusterModel | None, previous_labels: np.ndarray | None
) -> tuple[np.ndarray, int, set[int]]:
    """Number of each of the k clusters, the next free number, and the numbers that were taken over."""
    sizes = np.bincount(index, minlength=k)
    by_size = np.argsort(-sizes, kind="stable")
    ids = np.full(k, -1, dtype=np.int64)
    next_id = 0 if previous is None else previous.next_id
    kept: set[int] = set()
    if previous is not None and previous_labels is not None:
        old_ids = np.sort(previous.cluster_ids)
        shared = np.array([[np.sum((index == new) & (previous_labels == old)) for old in old_ids] for new in range(k)])
        old_sizes = np.array([np.sum(previous_labels == old) for old in old_ids])
        # The clusters that still have a number, counted where the primitives had one at all.
        known = np.array([np.sum((index == new) & (previous_labels >= 0)) for new in range(k)])
        union = known[:, None] + old_sizes[None, :] - shared
        likeness = shared / np.maximum(union, 1)
        for new, old in zip(*linear_sum_assignment(-likeness), strict=True):
            if likeness[new, old] >= _SAME_CLUSTER:
                ids[new] = old_ids[old]
                kept.add(int(old_ids[old]))
    for new in by_size:
        if ids[new] < 0:
            ids[new] = next_id
            next_id += 1
    return ids, next_id, kept


def _quality(points: np.ndarray, index: np.ndarray, centroids: np.ndarray, seed: int) -> Quality:
    inertia = float(np.square(points - centroids[index]).sum())
    used = len(np.unique(index))
    silhouette = ratio = None
    if 1 < used < len(points):
        ratio = float(calinski_harabasz_score(points, index))
        some = np.arange(len(points))
        if len(points) > _SILHOUETTE_SAMPLE:
            some = np.random.default_rng(seed).choice(len(points), _SILHOUETTE_SAMPLE, replace=False)
        if 1 < len(np.unique(index[some])) < len(some):
            silhouette = float(silhouette_score(points[some], index[some], metric="cosine"))
    return Quality(k=len(centroids), silhouette=silhouette, calinski_harabasz=ratio, inertia=inertia)
