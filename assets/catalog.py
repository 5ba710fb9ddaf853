"""The catalog: DuckDB views over all tables, with one joined view `primitives`.

Views are made from the schema registry, with its descriptions as comments, whenever the catalog is opened (`laps
sql`, or `resources.catalog.open_catalog` in Python). This asset reads every one of them and reports their rows, where
these are quickly counted.
"""

import dagster as dg

from assets.partitions import any_hours
from assets.retries import tried_again
from assets.specs import PUBLISH, describe
from resources.configured import StoreResource
from resources.release import ReleaseResource

MOST_FILES = 2000
"""Files of a table that are opened to count its rows: some hundred days of two cameras."""


@dg.asset(
    deps=[
        *any_hours("raw_video", "keypoint_tracks", "keyframes", "latent_stream"),
        *any_hours("segments", "clips", "segment_embeddings", "visual_features", "cluster_assignments"),
        "icss_report",
        "compacted_catalog",
    ],
    **describe(__doc__, group=PUBLISH, kinds={"duckdb", "sql"}),
)
@tried_again
def catalog(context: dg.AssetExecutionContext, store: StoreResource, release: ReleaseResource) -> dg.MaterializeResult:
    from laps.catalog import catalog_summary
    from resources.catalog import open_catalog, render

    files = store.open()
    chosen = release.read(files)
    connection = open_catalog(files, release=chosen.name)
    try:
        summary = catalog_summary(connection, most_files=MOST_FILES)
    finally:
        connection.close()
    table = render(summary)
    assert isinstance(table, str)
    return dg.MaterializeResult(
        metadata={"release": chosen.name, "tables": dg.MetadataValue.md(f"```\n{table}\n```")},
    )
