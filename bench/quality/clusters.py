"""Clusters of primitives against the kinds of primitive in truth, camera by camera."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from bench.quality import kept
from bench.quality.descriptors import DURATION, VISUAL, describe
from bench.quality.methods import Streams
from bench.quality.recordings import Recording
from bench.quality.sets import Camera, RecordingSet
from bench.quality.tokenizers import Say, Tokenizers
from laps.clustering import fit
from laps.evaluation import Document, agreement, true_labels
from laps.icss import icss
from laps.tokenizer import MotionTokenizer

CUTS = {"true": "as truth cuts them", "own": "as the product cuts them"}
_SOURCES = ("laps/**/*.py", "bench/quality/clusters.py", "bench/quality/descriptors.py", "bench/quality/recordings.py")


def clusters_of(
    recording_set: RecordingSet,
    predictions: Sequence[dict[str, Any]],
    tokenizers: Tokenizers,
    streams: Streams,
    folder: Path,
    say: Say,
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of each descriptor for each way to cut, means over the cameras of a set; kept in files.

    Args:
        recording_set: recordings with video whose truth has kinds of primitive.
        predictions: the product's, in the order of ``recording_set.scored``.
        tokenizers: gives the tokenizer.
        streams: gives the codes.
        folder: where results are kept.
        say: is told how it goes on.
    """
    cameras = []
    place = 0
    for camera in recording_set.cameras:
        own = predictions[place : place + len(camera.scored)]
        place += len(camera.scored)
        tokenizer = tokenizers.get(camera.tokenizer)
        key = kept.key_of(
            tokenizer.tokenizer_id,
            [item.content_id for item in camera.scored],
            [one["segments"] for one in own],
            kept.sources_key(*_SOURCES),
        )
        cameras.append(
            kept.kept(
                folder / f"{camera.name}.json",
                key,
                partial(_of_camera, camera, own, tokenizer, streams, say),
            )
        )
    return {cut: _mean([camera[cut] for camera in cameras]) for cut in CUTS}


def _of_camera(
    camera: Camera, predictions: Sequence[dict[str, Any]], tokenizer: MotionTokenizer, streams: Streams, say: Say
) -> dict[str, dict[str, dict[str, float]]]:
    say(f"  clusters of {camera.name}")
    recordings = [item.load() for item in camera.scored]
    truths = [item.truth for item in camera.scored]
    own = [[(one["start_sec"], one["end_sec"]) for one in prediction["segments"]] for prediction in predictions]
    true = [[(one["start_sec"], one["end_sec"]) for one in truth["segments"]] for truth in truths]
    return {
        "true": _figures(recordings, true, truths, tokenizer, streams),
        "own": _figures(recordings, own, truths, tokenizer, streams),
    }


def _figures(
    recordings: Sequence[Recording],
    segments: Sequence[Sequence[tuple[float, float]]],
    truths: Sequence[Document],
    tokenizer: MotionTokenizer,
    streams: Streams,
) -> dict[str, dict[str, float]]:
    """Figures of each descriptor; k is the number of kinds in truth. Empty where there are too few segments."""
    labels = [true_labels(own, truth) for own, truth in zip(segments, truths, strict=True)]
    described, order = describe(recordings, segments, tokenizer, streams)
    known = [labels[recording][segment] for recording, segment in order]
    k = len({one["label"] for truth in truths for one in truth["segments"]})
    found = {}
    for name, rows in described.items():
        if len(np.unique(rows, axis=0)) <= k:
            continue
        clusters, silhouette, ratio = _clustered(name, rows, k)
        agreed = agreement(known, clusters.tolist())
        if agreed is None:
            continue
        alike = icss(described[VISUAL].astype(np.float32), clusters, replicates=1)
        figures = {"n": agreed.n, "k": k, "excluded_share": agreed.excluded_share}
        for measure in ("purity", "nmi", "ari"):
            beside = getattr(agreed, measure)
            figures |= {measure: beside.value, f"{measure}_shuffled": beside.shuffled}
        more = {
            "silhouette": silhouette,
            "calinski_harabasz": ratio,
            "icss": alike.overall.mean,
            "icss_random": alike.baseline.mean,
        }
        found[name] = figures | {key: value for key, value in more.items() if value is not None}
    return found


def _clustered(name: str, rows: NDArray, k: int) -> tuple[NDArray, float | None, float | None]:
    """Clusters, silhouette and Calinski-Harabasz."""
    if name == DURATION:
        # One number has no direction, which is what the project's k-means goes by.
        with threadpool_limits(1):
            return KMeans(n_clusters=k, n_init=10, random_state=0).fit_predict(rows), None, None
    fitted = fit(rows, k, tokenizer_id="quality", embedder_id=name)
    return fitted.labels, fitted.quality.silhouette, fitted.quality.calinski_harabasz


def _mean(cameras: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the cameras of what all of them have."""
    names = [name for name in cameras[0] if all(name in camera for camera in cameras)]
    return {
        name: {
            figure: mean(camera[name][figure] for camera in cameras)
            for figure in cameras[0][name]
            if all(figure in camera[name] for camera in cameras)
        }
        for name in names
    }
