"""The catalog: DuckDB views over all tables, with one joined view `primitives`.

Views are made from the schema registry, with its descriptions as comments. `laps sql` opens them; the same
statements lie beside the tables as `catalog/views.sql`.
"""

import dagster as dg

from assets.specs import PUBLISH, describe
from resources.configured import StoreResource
from resources.release import ReleaseResource


@dg.asset(
    deps=[
        "raw_video",
        "keypoint_tracks",
        "keyframes",
        "latent_stream",
        "segments",
        "clips",
        "segment_embeddings",
        "visual_features",
        "cluster_assignments",
        "icss_report",
    ],
    **describe(__doc__, group=PUBLISH, kinds={"duckdb", "sql"}),
)
def catalog(context: dg.AssetExecutionContext, store: StoreResource, release: ReleaseResource) -> dg.MaterializeResult:
    from resources.catalog import catalog_summary, open_catalog, write_views

    files = store.open()
    chosen = release.read(files)
    path = write_views(files, chosen.name)
    connection = open_catalog(files, release=chosen.name)
    try:
        summary = catalog_summary(connection)
    finally:
        connection.close()
    return dg.MaterializeResult(
        metadata={
            "release": chosen.name,
            "views": dg.MetadataValue.path(files.url(path)),
            "tables": dg.MetadataValue.json(summary),
        }
    )
