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
from resources.models import ModelRegistry
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
    from resources.reporting import coherence, write_report

    files = store.open()
    chosen = release.read(files)
    result = coherence(files, chosen, max_pairs=config.max_pairs, seed=config.seed)
    files.write_table(CLUSTERS, f"{files.table_path(CLUSTERS, chosen.name)}/{PART}", result.rows)
    path = write_report(files, chosen)
    if result.stale:
        context.log.warning(
            f"{len(result.stale)} hours lack assignments or features of release {chosen.name} and are left out: "
            + ", ".join(result.stale[:10])
        )
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": result.rows.num_rows,
            "release": chosen.name,
            "cluster_model_id": chosen.cluster_model or "",
            "encoder_id": chosen.encoder or "",
            "primitives": result.primitives,
            "icss": result.icss_mean,
            "icss_baseline": result.baseline_mean,
            "silhouette": result.silhouette,
            "calinski_harabasz": result.calinski_harabasz,
            "report": dg.MetadataValue.path(files.url(path)),
            "promoted": ModelRegistry(files).current_name() or "none",
        }
    )
