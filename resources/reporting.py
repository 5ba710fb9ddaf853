"""Coherence and the HTML report of a release, from what lies in the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from laps.tables import CLUSTER_ASSIGNMENTS, CLUSTERS, LATENT_STREAM, SEGMENTS, VISUAL_FEATURES
from laps.timegrid import CameraHour
from resources.embeddings import embedding_matrix, read_hour_embeddings
from resources.models import CALIBRATION, CALIBRATION_FILE, CLUSTER_MODEL, ENCODER, TOKENIZER, ModelRegistry, Release
from resources.segments import refuse_other_models
from resources.settings import store_grid
from resources.store import Store, rows_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from laps.calibration import Calibration

MAP_PRIMITIVES = 5_000
ENERGY_HOURS = 48


@dataclass(frozen=True)
class Coherence:
    """Coherence of a release's clusters.

    Attributes:
        rows: rows of the table `clusters`.
        primitives: how many went in.
        icss_mean, baseline_mean: over all clusters, and of random pairs; None where there are too few primitives.
        left_out: hours that lack assignments or features.
    """

    rows: pa.Table
    primitives: int
    icss_mean: float | None
    baseline_mean: float | None
    left_out: list[str]


def release_hours(store: Store, release: Release) -> tuple[list[CameraHour], list[CameraHour]]:
    """Hours whose primitives have clusters and features, and those that have primitives only."""
    segmented = store.partitions(SEGMENTS, release.name)
    complete = set(store.partitions(CLUSTER_ASSIGNMENTS, release.name)) & set(
        store.partitions(VISUAL_FEATURES, release.name)
    )
    return [hour for hour in segmented if hour in complete], [hour for hour in segmented if hour not in complete]


def calibrations(store: Store, release: Release) -> dict[str, Calibration]:
    """The calibration of each camera of a release."""
    from laps.calibration import Calibration

    registry = ModelRegistry(store)
    found = {}
    for camera, calibration_id in sorted(release.calibrations.items()):
        file = registry.folder(CALIBRATION, calibration_id) / CALIBRATION_FILE
        found[camera] = Calibration.from_json(file.read_text(encoding="utf-8"), name=str(file))
    return found


def coherence(store: Store, release: Release, *, max_pairs: int, seed: int) -> Coherence:
    """ICSS of a release's clusters over all hours that have both clusters and features.

    Raises ModelMismatchError when an hour was assigned by another cluster model or seen by another encoder.
    """
    import numpy as np
    import pyarrow.compute as pc

    from laps.clustering import ClusterModel
    from laps.icss import cluster_rows, icss

    model_id, encoder_id = release.require(CLUSTER_MODEL), release.require(ENCODER)
    hours, left_out = release_hours(store, release)
    labels: list[np.ndarray] = []
    durations: list[np.ndarray] = []
    seen_labels: list[np.ndarray] = []
    features: list[np.ndarray] = []
    for hour in hours:
        assigned = store.read_partition(CLUSTER_ASSIGNMENTS, hour, release.name)
        described = store.read_partition(VISUAL_FEATURES, hour, release.name)
        cut = store.read_partition(SEGMENTS, hour, release.name, columns=["segment_id", "duration_s"])
        expected = {"cluster_model_id": model_id}
        refuse_other_models(assigned, expected, table=CLUSTER_ASSIGNMENTS.name, hour=hour, release=release)
        expected = {"encoder_id": encoder_id}
        refuse_other_models(described, expected, table=VISUAL_FEATURES.name, hour=hour, release=release)
        of_segment = dict(zip(assigned["segment_id"].to_pylist(), assigned["cluster_id"].to_pylist(), strict=True))
        lengths = dict(zip(cut["segment_id"].to_pylist(), cut["duration_s"].to_pylist(), strict=True))
        labels.append(np.array(list(of_segment.values()), np.int64))
        durations.append(np.array([lengths[segment_id] for segment_id in of_segment], np.float64))
        shown = described.filter(pc.equal(described["status"], "ok"))
        if shown.num_rows:
            seen_labels.append(np.array([of_segment[one] for one in shown["segment_id"].to_pylist()], np.int64))
            features.append(np.array(shown["feature"].to_pylist(), np.float32))
    model = ClusterModel.load(ModelRegistry(store).folder(CLUSTER_MODEL, model_id))
    all_labels = np.concatenate(labels) if labels else np.zeros(0, np.int64)
    report = icss(
        np.concatenate(features) if features else np.zeros((0, 1), np.float32),
        np.concatenate(seen_labels) if seen_labels else np.zeros(0, np.int64),
        seed=seed,
        max_pairs=max_pairs,
    )
    rows = cluster_rows(
        report,
        all_labels,
        np.concatenate(durations) if durations else np.zeros(0),
        encoder_id=encoder_id,
        cluster_model_id=model_id,
        release=release.name,
        cluster_ids=model.cluster_ids.tolist(),
    )
    return Coherence(
        rows=rows_table(CLUSTERS, rows),
        primitives=len(all_labels),
        icss_mean=report.overall.mean,
        baseline_mean=report.baseline.mean,
        left_out=[hour.key for hour in left_out],
    )


def read_scores(store: Store, release: Release) -> dict[str, float]:
    """The figures over all clusters that the asset icss_report left in the store; empty before it ran."""
    path = scores_path(release)
    return dict(store.read_json(path)) if store.exists(path) else {}


def scores_path(release: Release) -> str:
    """Where the figures over all clusters lie."""
    return f"reports/release={release.name}/scores.json"


def write_report(store: Store, release: Release) -> str:
    """Write the report into the store; returns its path below the root."""
    path = f"reports/release={release.name}/report.html"
    store.write_bytes(path, render_report(store, release).encode())
    return path


def render_report(store: Store, release: Release) -> str:
    """The report of a release as one HTML page."""
    from laps.report import build_report
    from resources.catalog import open_catalog

    found = calibrations(store, release)
    thresholds = {
        camera: {
            "theta_on": calibration.settings.theta_on,
            "theta_off": calibration.settings.theta_off,
            "energy_form": calibration.form,
        }
        for camera, calibration in found.items()
    }
    connection = open_catalog(store, release=release.name)
    try:
        return build_report(
            connection,
            release=asdict(release),
            generated_at=datetime.now(UTC),
            thresholds=thresholds,
            map_points=_map_points(store, release),
            energy={camera: _smoothed(store, release, calibration) for camera, calibration in found.items()},
            scores=read_scores(store, release),
            settings=_settings(store, release, found),
        )
    finally:
        connection.close()


def _smoothed(store: Store, release: Release, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of the smoothed energy that a camera was cut by, over its latest hours."""
    import numpy as np

    from laps.detector import smooth
    from laps.energy import series
    from laps.latent import LatentStream

    grid = store_grid(store)
    times, values = [], []
    hours = [hour for hour in store.partitions(LATENT_STREAM, release.tokenizer) if hour.camera == calibration.camera][
        -ENERGY_HOURS:
    ]
    for hour in hours:
        stream = LatentStream.from_table(store.read_partition(LATENT_STREAM, hour, release.tokenizer))
        times.append((stream.first + np.arange(len(stream), dtype=np.int64)) * grid.step_ns)
        values.append(smooth(series(stream, calibration), calibration.settings))
    if not times:
        return np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate(times), np.concatenate(values)


def _settings(store: Store, release: Release, found: dict[str, Calibration]) -> dict[str, Any]:
    """Settings of the models, for the end of the report."""
    from laps.tokenizer import load

    settings: dict[str, Any] = {
        f"calibration of {camera}": {
            "message": calibration.message,
            "method": calibration.method,
            "energy form": calibration.form,
            **calibration.settings.to_dict(),
        }
        for camera, calibration in found.items()
    }
    if release.tokenizer is not None:
        config = load(ModelRegistry(store).folder(TOKENIZER, release.tokenizer)).config
        settings["codebook_size"] = config.code_count
        settings["tokenizer"] = {
            "tracker": config.tracker_id,
            "width": config.width,
            "FSQ levels": list(config.levels),
            "decoding": config.decoding,
            "precision": config.precision,
        }
    return settings


def _map_points(store: Store, release: Release) -> list[tuple[str, int, float, float]]:
    """Primitives on the cluster map: at most 5,000, evenly spread over the release."""
    import numpy as np

    from laps.clustering import ClusterModel, project

    if release.cluster_model is None:
        return []
    model = ClusterModel.load(ModelRegistry(store).folder(CLUSTER_MODEL, release.cluster_model))
    ids: list[str] = []
    parts: list[np.ndarray] = []
    hours, _ = release_hours(store, release)
    for hour in hours:
        rows = read_hour_embeddings(store, release, hour)
        if rows.num_rows:
            ids += rows["segment_id"].to_pylist()
            parts.append(embedding_matrix(rows))
    if not parts:
        return []
    embeddings = np.concatenate(parts)
    chosen = np.linspace(0, len(ids) - 1, min(len(ids), MAP_PRIMITIVES)).round().astype(int)
    labels, _ = model.assign(embeddings[chosen])
    points, _ = project(model, embeddings[chosen])
    return [
        (ids[index], int(label), float(x), float(y))
        for index, label, (x, y) in zip(chosen, labels, points, strict=True)
    ]
