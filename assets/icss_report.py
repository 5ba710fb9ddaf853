"""Coherence of the clusters (ICSS, paper section 3.2.3) and the HTML report.

For each cluster the mean cosine similarity of pairs of its primitives, as the vision encoder sees them, beside the
same for random pairs. An encoder whose id begins with `weight_free:` is a descriptor without a vision-language
model; its figures are not comparable with the paper's.
"""

import dagster as dg
from pydantic import Field

from assets.specs import PUBLISH, describe
from laps.tables import CLUSTERS
from resources.configured import StoreResource
from resources.embeddings import read_embeddings
from resources.models import CLUSTER_MODEL, ENCODER, ModelRegistry
from resources.release import ReleaseResource
from resources.store import PART


class ReportSettings(dg.Config):
    """How coherence is sampled."""

    max_pairs: int = Field(100_000, ge=1, description="Most pairs sampled in a cluster.")
    seed: int = Field(0, description="Seed of the sampling.")


@dg.asset(
    deps=["cluster_assignments", "visual_features", "segments", "keyframes"],
    **describe(__doc__, group=PUBLISH, kinds={"parquet", "html"}, table=CLUSTERS),
)
def icss_report(
    context: dg.AssetExecutionContext, config: ReportSettings, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    from laps.clustering import ClusterModel, quality
    from resources.reporting import coherence, release_hours, scores_path, write_report

    files = store.open()
    chosen = release.read(files)
    result = coherence(files, chosen, max_pairs=config.max_pairs, seed=config.seed)
    files.write_table(CLUSTERS, f"{files.table_path(CLUSTERS, chosen.name)}/{PART}", result.rows)
    model = ClusterModel.load(ModelRegistry(files).folder(CLUSTER_MODEL, chosen.require(CLUSTER_MODEL)))
    embeddings = read_embeddings(files, chosen, release_hours(files, chosen)[0]).embeddings
    apart = quality(model, embeddings, seed=config.seed)
    figures = {
        "icss": result.icss_mean,
        "baseline": result.baseline_mean,
        "silhouette": apart.silhouette,
        "calinski_harabasz": apart.calinski_harabasz,
    }
    scores = {name: value for name, value in figures.items() if value is not None}
    files.write_json(scores_path(chosen), scores)
    path = write_report(files, chosen)
    if result.left_out:
        context.log.warning(
            f"{len(result.left_out)} hours of release {chosen.name} lack assignments or features and are left out: "
            + ", ".join(result.left_out[:10])
        )
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": result.rows.num_rows,
            "release": chosen.name,
            "cluster_model_id": chosen.require(CLUSTER_MODEL),
            "encoder_id": chosen.require(ENCODER),
            "primitives": result.primitives,
            **scores,
            "left_out": result.left_out,
            "report": dg.MetadataValue.path(files.url(path)),
        }
    )
