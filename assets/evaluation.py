"""Scores of the release's primitives against truth, where somebody has marked it, each beside chance.

A recording with `<name>.truth.json` beside it (`{"duration_sec", "segments": [{"start_sec", "end_sec", "label"}]}`) is
scored: F1 of boundaries and of segments, mAP, over-segmentation, and how far the clusters are the labels. Beside each
stands what a prediction reaches that did not look at the video. A recording is *transductive* when tokenizer or
calibration were made from hours of it (without labels), else *inductive*. Truth is read here and nowhere else: no stage
learns from it, and nothing depends on this asset. Without any truth the table is empty.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from assets.partitions import any_hours
from assets.retries import tried_again
from assets.specs import describe
from laps.tables import EVALUATION
from resources.configured import RecordingsResource, StoreResource
from resources.release import ReleaseResource
from resources.store import PART, rows_table

_MAIN = {("typed", 0.5): "typed F1@0.5s", ("segment", 0.5): "segment F1@IoU0.5"}


class EvaluationSettings(dg.Config):
    """How chance is drawn."""

    seed: int = Field(0, description="Seed of the random predictions, of the shuffles and of the bootstrap.")


@dg.asset(
    deps=[
        *any_hours("segments", "cluster_assignments"),
        "motion_tokenizer",
        "segmenter_calibration",
        "cluster_model",
        "landing_zone",
    ],
    **describe(__doc__, group="evaluation", kinds={"parquet"}, table=EVALUATION),
)
@tried_again
def evaluation(
    context: dg.AssetExecutionContext,
    config: EvaluationSettings,
    store: StoreResource,
    recordings: RecordingsResource,
    release: ReleaseResource,
) -> dg.MaterializeResult:
    from resources.evaluation import best_blind, evaluation_rows, gather, markdown

    files = store.open()
    chosen = release.read(files)
    gathered = gather(files, recordings.open(files), chosen)
    rows = evaluation_rows(gathered.recordings, chosen, seed=config.seed)
    files.write_table(EVALUATION, f"{files.table_path(EVALUATION, chosen.name)}/{PART}", rows_table(EVALUATION, rows))
    for what, reasons in (("left out", gathered.left_out), ("without clusters", gathered.without_clusters)):
        if reasons:
            some = "; ".join(f"{uri}: {why}" for uri, why in list(reasons.items())[:10])
            context.log.warning(f"{len(reasons)} recordings with truth are {what}: {some}")
    figures: dict[str, Any] = {}
    for row in rows:
        name = _MAIN.get((row["metric"], row.get("level") or 0.0))
        if name and "recording_id" not in row:
            figures[f"{name} {row['setting']}"] = row["value"]
            figures[f"{name} {row['setting']}, chance"] = best_blind(row)
    if rows:
        message = markdown(rows)
    elif gathered.left_out:
        message = "No recording could be scored; `left_out` says why."
    else:
        message = "No registered recording has truth (`<name>.truth.json`) beside it."
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "release": chosen.name,
            "recordings": len(gathered.recordings),
            "scores": dg.MetadataValue.md(message),
            **figures,
            "left_out": gathered.left_out,
            "without_clusters": gathered.without_clusters,
        }
    )
