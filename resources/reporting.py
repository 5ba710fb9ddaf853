"""Coherence and the HTML report of a release, from what lies in the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from laps.tables import CLUSTER_ASSIGNMENTS, LATENT_STREAM, SEGMENTS, VISUAL_FEATURES
from laps.timegrid import CameraHour
from resources.embeddings import embedding_matrix, read_hour_embeddings
from resources.models import CALIBRATION, CALIBRATION_FILE, CLUSTER_MODEL, ModelRegistry, Release
from resources.segments import refuse_other_models
from resources.settings import store_grid
from resources.store import Store

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
            scores=_scores(store, release),
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
    hours = [
        hour for hour in store.partitions(LATENT_STREAM, release.tokenizer) if hour.camera == calibration.camera
    ][-ENERGY_HOURS:]
    for hour in hours:
        stream = LatentStream.from_table(store.read_partition(LATENT_STREAM, hour, release.tokenizer))
        times.append((stream.first + np.arange(len(stream), dtype=np.int64)) * grid.step_ns)
        values.append(smooth(series(stream, calibration), calibration.settings))
    if not times:
        return np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate(times), np.concatenate(values)


def _map_points(store: Store, release: Release) -> list[tuple[str, int, float, float]]:
    """Primitives on the cluster map: at most 5,000, evenly spread over the release."""
    import numpy as np

    from laps.clustering import ClusterModel

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
    points = model.project(embeddings[chosen])
    return [
        (ids[index], int(label), float(x), float(y))
        for index, label, (x, y) in zip(chosen, labels, points, strict=True)
    ]
