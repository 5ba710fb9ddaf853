"""Compacted copies of the tables that people query: one file for each view, camera and month.

The record stays what it is, a file for each camera hour; a year of them is slow to query. The catalog reads the copies
for the hours that they hold as they are now and the record for all others, so it is right at every moment, also before
this asset was ever made, while it is being made, and after it was killed. Only months in which something changed are
written again: `written` says how many. `left_out` names files of the record that could not be read.
"""

import dagster as dg
from pydantic import Field

from assets.partitions import any_hours
from assets.retries import tried_again
from assets.specs import PUBLISH, describe
from resources.configured import StoreResource
from resources.release import ReleaseResource


class CompactionSettings(dg.Config):
    """What is compacted."""

    everything: bool = Field(False, description="Write months again in which nothing changed, too.")


@dg.asset(
    deps=any_hours("raw_video", "segments", "clips", "segment_embeddings", "cluster_assignments"),
    **describe(__doc__, group=PUBLISH, kinds={"parquet"}),
)
@tried_again
def compacted_catalog(
    context: dg.AssetExecutionContext, config: CompactionSettings, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    from resources.compaction import compact

    files = store.open()
    chosen = release.read(files)
    done = compact(files, chosen, everything=config.everything)
    if done.left_out:
        some = "; ".join(f"{source}: {why}" for source, why in list(done.left_out.items())[:10])
        context.log.warning(f"{len(done.left_out)} files could not be read and are not compacted: {some}")
    return dg.MaterializeResult(
        metadata={
            "release": chosen.name,
            "dagster/row_count": done.rows,
            "written": done.written,
            "unchanged": done.unchanged,
            "removed": done.removed,
            "left_out": done.left_out,
        }
    )
