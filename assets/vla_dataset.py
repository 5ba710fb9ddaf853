"""Data sets for training Vision-Language-Action models: primitives chosen from the catalog, with codes and clips.

A partition is a data set's name and version (`screws/v1`), made by `laps export --name screws`. It lies in the store
below `datasets/<name>/<version>/`, in the form that the configuration names (LeRobot v3, WebDataset shards, LAPA lines
or the reference implementation's files), with a card: the SQL, counts, durations, model ids, thresholds, licences and
checksums. The card is written last, so a folder with a card is whole, and a version that is there never changes.
"""

import dagster as dg
from pydantic import Field

from assets.partitions import datasets
from assets.retries import tried_again
from assets.specs import PUBLISH, describe
from resources.configured import StoreResource
from resources.release import ReleaseResource


class DatasetSettings(dg.Config):
    """Which primitives, and in which form. A primitive must meet all conditions that are given."""

    format: str = Field("lerobot", description="lerobot, webdataset, lapa or segments.")
    where: str | None = Field(None, description="SQL condition on the view primitives.")
    sql: str | None = Field(None, description="SQL query whose column segment_id names the primitives.")
    clusters: list[int] = Field([], description="Clusters. Empty: all.")
    cameras: list[str] = Field([], description="Cameras. Empty: all.")
    start: str | None = Field(None, description="First start of a primitive, ISO 8601 with a zone.")
    stop: str | None = Field(None, description="End of the starts (exclusive), ISO 8601 with a zone.")
    min_duration_s: float | None = Field(None, description="Shortest primitive, seconds.")
    max_duration_s: float | None = Field(None, description="Longest primitive, seconds.")
    min_icss: float | None = Field(None, description="Least coherence (ICSS) of a primitive's cluster.")
    per_cluster: int | None = Field(None, description="Most primitives of a cluster, drawn by lot.")
    min_distance: float | None = Field(None, description="Least cosine distance (0 to 2) of two embeddings.")
    split: str | None = Field(None, description="time or recording: what is drawn as a whole for validation.")
    validation_share: float = Field(0.1, description="Share of the primitives for validation.")
    guard_s: float = Field(10.0, description="Least time between training and validation primitives, seconds.")
    seed: int = Field(0, description="Seed of all draws.")
    size_px: list[int] | None = Field(None, description="Width and height of the pictures (lerobot, lapa).")
    codes_per_line: int | None = Field(None, description="Codes on a line (lapa). Default: 4.")


@dg.asset(
    deps=["catalog"],
    partitions_def=datasets,
    **describe(__doc__, group=PUBLISH, kinds={"huggingface", "parquet"}),
)
@tried_again
def vla_dataset(
    context: dg.AssetExecutionContext, config: DatasetSettings, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    from resources.curation import selection_of
    from resources.datasets import export, format_of, parse_key

    files = store.open()
    name, version = parse_key(context.partition_key)
    options = config.model_dump()
    source = release.read(files)
    made = export(files, source, selection_of(options), format_of(options), name=name, version=version)
    context.log.info(f"release {source.name}: {made.chosen.funnel}")
    if made.summary.skipped:
        segment_id, reason = made.summary.skipped[0]
        context.log.warning(f"{len(made.summary.skipped)} primitives were left out; the first, {segment_id}: {reason}")
    contents = made.card["contents"]
    tasks = [dg.TableRecord({"task": task, "primitives": count}) for task, count in contents["tasks"].items()]
    splits = [
        dg.TableRecord({"split": split, "primitives": row["count"], "total_s": row["total"]})
        for split, row in contents["splits"].items()
    ]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": contents["primitives"],
            "release": source.name,
            "format": made.card["format"],
            "path": dg.MetadataValue.path(files.url(made.path)),
            "frames": contents["frames"],
            "codes": contents["codes"],
            "duration_s": contents["durations_s"]["total"],
            "selection": made.chosen.funnel,
            "left_out": len(made.summary.skipped),
            "query": dg.MetadataValue.md(f"```sql\n{made.chosen.query}\n```"),
            "tasks": dg.MetadataValue.table(tasks),
            "splits": dg.MetadataValue.table(splits),
        }
    )
