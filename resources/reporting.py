"""Coherence and the HTML report of a release, from what lies in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from laps.errors import ModelMismatchError, NotProcessedError
from laps.tables import (
    CLUSTER_ASSIGNMENTS,
    CLUSTERS,
    LATENT_STREAM,
    SEGMENT_EMBEDDINGS,
    SEGMENTS,
    VISUAL_FEATURES,
    Table,
)
from laps.timegrid import CLOSES, CameraHour, hours_to_close, now_ns
from resources.copies import AT_ONCE
from resources.embeddings import Embeddings, embedding_models, matrix, read_embeddings, sample
from resources.models import (
    CLUSTER_MODEL,
    ENCODER,
    TOKENIZER,
    ModelRegistry,
    Release,
)
from resources.recordings import Recordings
from resources.retention import Retention
from resources.segments import read_rows_of, read_segments
from resources.settings import store_grid
from resources.store import Store, rows_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from laps.calibration import Calibration
    from laps.clustering import Quality

# Descriptors are wide (2,276 numbers without a vision-language model): so many take some 180 MB.
ICSS_PRIMITIVES = 20_000
MAP_PRIMITIVES = 5_000
# Features of an hour are read as a whole (6 MB), embeddings too: after a year of two cameras there are 7,000 hours.
ICSS_HOURS = 400
MAP_HOURS = 250
ENERGY_HOURS = 48


@dataclass(frozen=True)
class HourClusters:
    """The primitives of one hour, as far as all of them fit in memory.

    Attributes:
        hour: the camera hour.
        labels: int64 [n], cluster of each primitive.
        durations_s: float64 [n].
        seen: int64 [m], rows of `visual_features` that hold a descriptor.
        seen_labels: int64 [m], clusters of these rows.
        embedded: whether there are embeddings: like features they may have been removed because they were over age.
    """

    hour: CameraHour
    labels: np.ndarray
    durations_s: np.ndarray
    seen: np.ndarray
    seen_labels: np.ndarray
    embedded: bool = True


@dataclass(frozen=True)
class Survey:
    """Which hours of a release can be reported on.

    Attributes:
        hours: the hours whose tables belong together and to the release's models.
        left_out: for each other hour that has primitives, by its key, why it is left out.
    """

    hours: list[HourClusters]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Coherence:
    """Coherence of a release's clusters.

    Attributes:
        rows: rows of the table `clusters`; sizes and durations are of all primitives.
        primitives: how many there are.
        seen: how many of them have visual features.
        compared: how many of these went into the scores; fewer than ``seen`` where they are an even sample.
        icss_mean, baseline_mean: over all clusters, and of random pairs; None where there are too few primitives.
    """

    rows: pa.Table
    primitives: int
    seen: int
    compared: int
    icss_mean: float | None
    baseline_mean: float | None


def survey(store: Store, release: Release) -> Survey:
    """Look at every hour of a release that has primitives, without reading embeddings and features.

    An hour of which a later table is missing, was made by other models or from an earlier cut is left out with the
    reason: one hour that failed must not keep the others from being reported. A table that was removed because it was
    over age is no reason: the hour's primitives are counted, and have no part in what needs that table.
    """
    kept = Retention.of(store)
    expected = {
        SEGMENT_EMBEDDINGS: embedding_models(release),
        CLUSTER_ASSIGNMENTS: {"cluster_model_id": release.require(CLUSTER_MODEL)},
        VISUAL_FEATURES: {"encoder_id": release.require(ENCODER)},
    }
    present = {table: set(store.partitions(table, release.name)) for table in expected}

    def look(hour: CameraHour) -> HourClusters | str | None:
        there = {table: ids for table, ids in expected.items() if hour in present[table]}
        missing = [table.name for table in expected if table not in there and not kept.is_over_age(table, hour)]
        if CLUSTER_ASSIGNMENTS not in there and not missing:  # about to go with the primitives
            return None
        if missing:
            return f"has no {', '.join(missing)}"
        try:
            return _hour_clusters(store, release, hour, there)
        except (ModelMismatchError, NotProcessedError) as error:
            return error.what

    hours = store.partitions(SEGMENTS, release.name)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # four files of each hour: in object storage that is mostly waiting
        found = dict(zip(hours, pool.map(look, hours), strict=True))
    return Survey(
        [seen for seen in found.values() if isinstance(seen, HourClusters)],
        {hour.key: why for hour, why in found.items() if isinstance(why, str)},
    )


def _hour_clusters(
    store: Store, release: Release, hour: CameraHour, expected: dict[Table, dict[str, str]]
) -> HourClusters:
    import numpy as np
    import pyarrow.compute as pc

    cut = read_segments(store, hour, release, columns=["segment_id", "duration_s"])

    def rows_of(table: Table, *columns: str) -> pa.Table:
        return read_rows_of(cut, store, hour, release, table, expected[table], columns=list(columns))

    if SEGMENT_EMBEDDINGS in expected:
        rows_of(SEGMENT_EMBEDDINGS)
    assigned = rows_of(CLUSTER_ASSIGNMENTS, "cluster_id")
    clusters = dict(zip(assigned["segment_id"].to_pylist(), assigned["cluster_id"].to_pylist(), strict=True))
    seen, shown = np.zeros(0, np.int64), []
    if VISUAL_FEATURES in expected:
        described = rows_of(VISUAL_FEATURES, "status")
        seen = np.flatnonzero(pc.equal(described["status"], "ok").to_numpy())
        shown = described["segment_id"].take(seen).to_pylist()
    return HourClusters(
        hour=hour,
        labels=np.array([clusters[one] for one in cut["segment_id"].to_pylist()], np.int64),
        durations_s=cut["duration_s"].to_numpy(),
        seen=seen,
        seen_labels=np.array([clusters[one] for one in shown], np.int64),
        embedded=SEGMENT_EMBEDDINGS in expected,
    )


def calibrations(store: Store, release: Release) -> dict[str, Calibration]:
    """The calibration of each camera of a release."""
    registry = ModelRegistry(store)
    return {camera: registry.calibration(release, camera) for camera in sorted(release.calibrations)}


def missing_hours(store: Store, release: Release) -> list[str]:
    """Keys of the hours that are over and have no clusters in a release, in order; not those that are over age.

    Recorded hours, and the hour after each, in which what was open then is decided; that is said of it.
    """
    recordings = Recordings(store)
    have = set(store.partitions(CLUSTER_ASSIGNMENTS, release.name))
    recorded = {hour for camera in recordings.cameras() for hour in recordings.hours(camera)}
    kept = Retention.of(store)
    return [
        hour.key if hour in recorded else f"{hour.key} ({CLOSES})"
        for hour in hours_to_close(recorded)
        if hour not in have and hour.stop_ns <= now_ns() and not kept.is_over_age(CLUSTER_ASSIGNMENTS, hour)
    ]


def coherence(
    store: Store,
    release: Release,
    surveyed: Survey,
    *,
    max_pairs: int,
    seed: int,
    at_most: int = ICSS_PRIMITIVES,
) -> Coherence:
    """ICSS of a release's clusters over the surveyed hours.

    Args:
        store: the store.
        release: the release.
        surveyed: its hours.
        max_pairs: most pairs to compare in a cluster.
        seed: seed of all draws.
        at_most: primitives to compare at most. Of more, an even sample is taken, in which each is as likely as any
            other, over all hours or of :data:`ICSS_HOURS` where there are more; then a rare cluster may be left with
            few, which its interval shows.
    """
    import numpy as np

    from laps.icss import cluster_rows, icss

    encoder_id = release.require(ENCODER)
    model = ModelRegistry(store).clusters(release)
    labels = np.concatenate([np.zeros(0, np.int64), *(part.labels for part in surveyed.hours)])
    counts = [len(part.seen) for part in surveyed.hours]
    drawn = sample(counts, at_most, ICSS_HOURS, seed)
    compared = sum(len(rows) for _, rows in drawn)
    features = np.zeros((0, 1), np.float32)
    seen_labels = np.zeros(compared, np.int64)
    filled = 0
    for place, rows in drawn:
        part = surveyed.hours[place]
        described = store.read_partition(VISUAL_FEATURES, part.hour, release.name, columns=["feature"])
        values = matrix(described["feature"].take(part.seen[rows]))
        if not filled:
            features = np.empty((compared, values.shape[1]), np.float32)
        features[filled : filled + len(rows)] = values
        seen_labels[filled : filled + len(rows)] = part.seen_labels[rows]
        filled += len(rows)
    report = icss(features, seen_labels, seed=seed, max_pairs=max_pairs)
    scored = cluster_rows(
        report,
        labels,
        np.concatenate([np.zeros(0), *(part.durations_s for part in surveyed.hours)]),
        encoder_id=encoder_id,
        cluster_model_id=release.require(CLUSTER_MODEL),
        release=release.name,
        cluster_ids=model.cluster_ids.tolist(),
    )
    return Coherence(
        rows=rows_table(CLUSTERS, scored),
        primitives=len(labels),
        seen=sum(counts),
        compared=compared,
        icss_mean=report.overall.mean,
        baseline_mean=report.baseline.mean,
    )


def separation(store: Store, release: Release, surveyed: Survey, *, seed: int) -> tuple[Quality, int]:
    """How well the clusters are set apart, and over how many primitives: at most 5,000, an even sample of more."""
    from laps.clustering import quality

    model = ModelRegistry(store).clusters(release)
    embeddings = _sample_embeddings(store, release, surveyed, seed).embeddings
    return quality(model, embeddings, seed=seed), len(embeddings)


def _sample_embeddings(store: Store, release: Release, surveyed: Survey, seed: int = 0) -> Embeddings:
    parts = [part for part in surveyed.hours if part.embedded]
    return read_embeddings(
        store, release, [part.hour for part in parts], at_most=MAP_PRIMITIVES, most_hours=MAP_HOURS,
        counts=[len(part.labels) for part in parts], seed=seed,
    )  # fmt: skip


def read_scores(store: Store, release: Release) -> dict[str, float]:
    """The figures over all clusters that the asset icss_report left in the store; empty before it ran."""
    path = scores_path(release)
    return dict(store.read_json(path)) if store.exists(path) else {}


def scores_path(release: Release) -> str:
    """Where the figures over all clusters lie."""
    return f"reports/release={release.name}/scores.json"


def report_path(release_name: str) -> str:
    """Where the report of a release lies."""
    return f"reports/release={release_name}/report.html"


def write_report(store: Store, release: Release, surveyed: Survey | None = None) -> str:
    """Write the report into the store; returns its path below the root."""
    path = report_path(release.name)
    store.write_bytes(path, render_report(store, release, surveyed).encode())
    return path


def render_report(store: Store, release: Release, surveyed: Survey | None = None) -> str:
    """The report of a release as one HTML page.

    Args:
        store: the store.
        release: the release.
        surveyed: its hours, where they have been looked at just now.
    """
    from laps.report import build_report
    from resources.catalog import open_catalog
    from resources.comparison import compare  # it stands on this module

    current = ModelRegistry(store).current()
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
            release={name: value for name, value in asdict(release).items() if name != "current"},
            generated_at=datetime.now(UTC),
            thresholds=thresholds,
            map_points=_map_points(store, release, surveyed),
            energy={camera: _smoothed(store, release, calibration) for camera, calibration in found.items()},
            scores=read_scores(store, release),
            comparison=compare(store, release, current) if current and current.name != release.name else [],
            missing=missing_hours(store, release),
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


def _map_points(store: Store, release: Release, surveyed: Survey | None) -> list[tuple[str, int, float, float]]:
    """Primitives on the cluster map: at most 5,000, evenly spread over the release."""
    from laps.clustering import project

    if None in (release.tokenizer, release.embedder, release.encoder, release.cluster_model):
        return []
    surveyed = surveyed or survey(store, release)
    shown = _sample_embeddings(store, release, surveyed)
    if not shown.segment_ids:
        return []
    model = ModelRegistry(store).clusters(release)
    labels, _ = model.assign(shown.embeddings)
    points, _ = project(model, shown.embeddings)
    return [
        (segment_id, int(label), float(x), float(y))
        for segment_id, label, (x, y) in zip(shown.segment_ids, labels, points, strict=True)
    ]
