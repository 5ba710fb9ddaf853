"""Coherence of the clusters (ICSS, paper section 3.2.3) and the HTML report.

For each cluster the mean cosine similarity of pairs of its primitives, as the vision encoder sees them, beside the
same for random pairs. An encoder whose id begins with `weight_free:` is a descriptor without a vision-language
model; its figures are not comparable with the paper's. Up to 20,000 primitives with features are all compared; of
more, an even sample over all hours that the seed decides. Silhouette and Calinski-Harabasz are of at most 5,000. The
metadata says how many went in. An hour whose tables do not belong together, after a step that failed say, is left
out with a warning; recorded hours without clusters are named as missing. Of a release that is not the current one the
metadata and the report also show its figures beside the current one's.
"""

import dagster as dg
from pydantic import Field

from assets.partitions import any_hours
from assets.retries import tried_again
from assets.specs import PUBLISH, describe
from laps.tables import CLUSTERS
from resources.configured import StoreResource
from resources.models import CLUSTER_MODEL, ENCODER
from resources.release import ReleaseResource
from resources.store import PART


class ReportSettings(dg.Config):
    """How coherence is sampled."""

    max_pairs: int = Field(100_000, ge=1, description="Most pairs sampled in a cluster.")
    seed: int = Field(0, description="Seed of the sampling.")


@dg.asset(
    deps=[
        *any_hours("cluster_assignments", "visual_features", "segment_embeddings", "segments"),
        *any_hours("latent_stream", "keyframes", "raw_video"),
        "cluster_model",
        "segmenter_calibration",
    ],
    **describe(__doc__, group=PUBLISH, kinds={"parquet", "html"}, table=CLUSTERS),
)
@tried_again
def icss_report(
    context: dg.AssetExecutionContext, config: ReportSettings, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    from resources.comparison import compare
    from resources.reporting import coherence, missing_hours, scores_path, separation, survey, write_report

    files = store.open()
    chosen = release.read(files)
    surveyed = survey(files, chosen)
    result = coherence(files, chosen, surveyed, max_pairs=config.max_pairs, seed=config.seed)
    files.write_table(CLUSTERS, f"{files.table_path(CLUSTERS, chosen.name)}/{PART}", result.rows)
    apart, set_apart = separation(files, chosen, surveyed, seed=config.seed)
    figures = {
        "icss": result.icss_mean,
        "baseline": result.baseline_mean,
        "silhouette": apart.silhouette,
        "calinski_harabasz": apart.calinski_harabasz,
    }
    scores = {name: value for name, value in figures.items() if value is not None}
    files.write_json(scores_path(chosen), scores)
    path = write_report(files, chosen, surveyed)
    if surveyed.left_out:
        some = list(surveyed.left_out.items())[:10]
        context.log.warning(
            f"{len(surveyed.left_out)} hours of release {chosen.name} are left out; run the segment job for them again "
            f"(laps backfill --only missing): " + "; ".join(f"{hour}: {why}" for hour, why in some)
        )
    missing = missing_hours(files, chosen)
    if missing:
        context.log.warning(f"{len(missing)} hours have no clusters: {', '.join(missing[:10])}")
    beside: dict[str, dg.TableMetadataValue] = {}
    current = store.models().current()
    if current is not None and current.name != chosen.name:
        rows = [
            dg.TableRecord({"figure": figure, "current release": there, "this release": here})
            for figure, there, here in compare(files, chosen, current)
        ]
        beside["beside_current"] = dg.MetadataValue.table(rows)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": result.rows.num_rows,
            "release": chosen.name,
            "cluster_model_id": chosen.require(CLUSTER_MODEL),
            "encoder_id": chosen.require(ENCODER),
            "primitives": result.primitives,
            **scores,
            "sample": f"ICSS: {result.compared} of {result.seen} primitives with features; silhouette and "
            f"Calinski-Harabasz: {set_apart} of {result.primitives} primitives; evenly spread, seed {config.seed}",
            "left_out": surveyed.left_out,
            "missing": missing,
            **beside,
            "report": dg.MetadataValue.path(files.url(path)),
        }
    )
