"""The cluster of each primitive, and how far it lies from the cluster's centroid."""

import dagster as dg

from assets.partitions import camera_hour, camera_hours
from assets.retries import tried_again
from assets.specs import SEGMENT, describe
from laps.errors import ModelMismatchError
from laps.tables import CLUSTER_ASSIGNMENTS
from resources.configured import StoreResource
from resources.embeddings import matrix, read_hour_embeddings
from resources.models import CLUSTER_MODEL, ModelRegistry
from resources.publishing import publish
from resources.release import ReleaseResource


@dg.asset(
    deps=["segment_embeddings", "cluster_model"],
    partitions_def=camera_hours,
    **describe(__doc__, group=SEGMENT, kinds={"parquet", "scikitlearn"}, table=CLUSTER_ASSIGNMENTS),
)
@tried_again
def cluster_assignments(
    context: dg.AssetExecutionContext, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    import numpy as np
    import pyarrow as pa

    hour, files = camera_hour(context), store.open()
    chosen = release.read(files)
    model_id = chosen.require(CLUSTER_MODEL)
    model = ModelRegistry(files).clusters(chosen)
    if (model.tokenizer_id, model.embedder_id) != (chosen.tokenizer, chosen.embedder):
        raise ModelMismatchError(
            f"cluster model {model_id} was fitted on embeddings of {model.tokenizer_id} and {model.embedder_id}, "
            f"but release {chosen.name} has {chosen.tokenizer} and {chosen.embedder}",
            where=hour.key,
            fix=f"Materialize cluster_model again{chosen.in_run}.",
        )
    embedded = read_hour_embeddings(files, chosen, hour)
    count = embedded.num_rows
    if count:
        labels, distances = model.assign(matrix(embedded["embedding"]))
    else:
        labels, distances = np.zeros(0, np.int32), np.zeros(0, np.float32)
    rows = pa.table(
        {
            "segment_id": embedded["segment_id"],
            "camera": embedded["camera"],
            "cluster_id": pa.array(labels, pa.int32()),
            "centroid_distance": pa.array(distances, pa.float32()),
            "cluster_model_id": pa.array([model_id] * count, pa.string()),
            "release": pa.array([chosen.name] * count, pa.string()),
        }
    )
    publish(files, CLUSTER_ASSIGNMENTS, hour, rows, chosen.name)
    numbers, sizes = np.unique(labels, return_counts=True)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": count,
            "release": chosen.name,
            "cluster_model_id": model_id,
            "sizes": {str(number): int(size) for number, size in zip(numbers, sizes, strict=True)},
        }
    )
