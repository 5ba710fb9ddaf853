"""The clusters of primitives: standardize, L2-normalize, k-means (paper section 3.2.2).

k is given: a workstation has a finite set of actions that its people know. A scan over neighbouring k is printed to
help choose it. Cluster numbers are matched to those of the current release, so that `cluster_id = 3` means the same
tomorrow.
"""

import tempfile
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.plots import scatter_plot
from assets.specs import MODELS, describe, picture
from laps.errors import NotProcessedError
from laps.tables import SEGMENT_EMBEDDINGS
from laps.timegrid import CameraHour
from resources.configured import StoreResource
from resources.embeddings import read_embeddings
from resources.models import CLUSTER_MODEL, EMBEDDER, ModelRegistry
from resources.release import ReleaseResource


class Clustering(dg.Config):
    """How many clusters, and from which hours."""

    k: int = Field(6, ge=1, description="Number of clusters: how many kinds of action the workstation has.")
    hours: list[str] = Field(default=[], description="Camera hours to fit on. Empty: all of the release.")
    scan: list[int] = Field(default=[2, 3, 4, 5, 6, 8, 10, 12], description="Numbers of clusters to compare.")
    seed: int = Field(0, description="Seed of k-means and of the map.")


@dg.asset(
    deps=["segment_embeddings"],
    **describe(__doc__, group=MODELS, kinds={"scikitlearn"}),
)
def cluster_model(
    context: dg.AssetExecutionContext, config: Clustering, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    from laps.clustering import ClusterModel, fit_clusters, render_scan, scan_k

    files = store.open()
    registry = ModelRegistry(files)
    target = release.to_fill(files, CLUSTER_MODEL)
    embedder_id = target.require(EMBEDDER)
    hours = [CameraHour.parse(key) for key in config.hours] or files.partitions(SEGMENT_EMBEDDINGS, target.name)
    sample = read_embeddings(files, target, hours)
    if not len(sample.embeddings):
        raise NotProcessedError(
            f"release {target.name} has no primitives in the {len(hours)} chosen hours",
            fix="Check the calibration's message and the coverage of the hours.",
        )
    current = registry.current()
    previous = None
    if current is not None and current.cluster_model and current.embedder == embedder_id:
        previous = ClusterModel.load(registry.folder(CLUSTER_MODEL, current.cluster_model))
    model = fit_clusters(sample.embeddings, config.k, seed=config.seed, embedder_id=embedder_id, previous=previous)
    scan = scan_k(sample.embeddings, [k for k in config.scan if 1 < k < len(sample.embeddings)], seed=config.seed)
    context.log.info("how other numbers of clusters would do:\n" + render_scan(scan))
    points = model.project(sample.embeddings)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        registry.put(CLUSTER_MODEL, model.cluster_model_id, Path(folder))
    registry.fill(target, CLUSTER_MODEL, model.cluster_model_id)
    labels, _ = model.assign(sample.embeddings)
    return dg.MaterializeResult(
        metadata={
            "cluster_model_id": model.cluster_model_id,
            "embedder_id": embedder_id,
            "release": target.name,
            "k": config.k,
            "primitives": len(sample.embeddings),
            "silhouette": model.silhouette,
            "calinski_harabasz": model.calinski_harabasz,
            "scan": dg.MetadataValue.md(f"```\n{render_scan(scan)}\n```"),
            "map": picture(scatter_plot(points, labels), "map of the primitives"),
        }
    )
