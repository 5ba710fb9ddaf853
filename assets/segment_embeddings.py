"""e_i: 256 numbers for each primitive, from a frozen random Transformer over its quantized vectors.

The Transformer is never trained (paper section 3.2.1); it is made once from a seed, saved, and named by the hash of
its content, so that embeddings are comparable for ever.
"""

import tempfile
from pathlib import Path

import dagster as dg

from assets.partitions import camera_hour, camera_hours
from assets.retries import tried_again
from assets.specs import SEGMENT, describe
from laps.tables import SEGMENT_EMBEDDINGS
from resources.configured import StoreResource
from resources.models import EMBEDDER, TOKENIZER, ModelRegistry
from resources.release import ReleaseResource
from resources.segments import read_segments

EMBEDDER_SEED = 0


@dg.asset(
    deps=["segments", "motion_tokenizer"],
    partitions_def=camera_hours,
    **describe(__doc__, group=SEGMENT, kinds={"parquet", "pytorch"}, table=SEGMENT_EMBEDDINGS),
)
@tried_again
def segment_embeddings(
    context: dg.AssetExecutionContext, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    import numpy as np
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    from laps.embedding import FrozenTransformer
    from laps.tokenizer import load

    hour, files = camera_hour(context), store.open()
    registry = ModelRegistry(files)
    chosen = release.read(files)
    primitives = read_segments(files, hour, chosen)
    tokenizer_id = chosen.require(TOKENIZER)
    vectors = load(registry.folder(TOKENIZER, tokenizer_id)).code_vectors()
    if chosen.embedder is None:
        embedder = FrozenTransformer.create(vectors.shape[1], seed=EMBEDDER_SEED)
        with tempfile.TemporaryDirectory() as folder:
            embedder.save(Path(folder))
            registry.put(EMBEDDER, embedder.embedder_id, Path(folder))
        registry.fill(chosen, EMBEDDER, embedder.embedder_id)
    else:
        embedder = FrozenTransformer.load(registry.folder(EMBEDDER, chosen.embedder))
    codes = [np.asarray(sequence, np.int64) for sequence in primitives["codes"].to_pylist()]
    # Sequences are short: more threads would spend more time meeting than computing.
    with threadpool_limits(1):
        embeddings = embedder.embed(codes, vectors)
    count = primitives.num_rows
    rows = pa.table(
        {
            "segment_id": primitives["segment_id"],
            "camera": primitives["camera"],
            "embedding": pa.array(list(embeddings), pa.list_(pa.float32())),
            "embedder_id": pa.array([embedder.embedder_id] * count, pa.string()),
            "tokenizer_id": pa.array([tokenizer_id] * count, pa.string()),
            "release": pa.array([chosen.name] * count, pa.string()),
        }
    )
    files.write_partition(SEGMENT_EMBEDDINGS, hour, rows, chosen.name)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": count,
            "release": chosen.name,
            "tokenizer_id": tokenizer_id,
            "embedder_id": embedder.embedder_id,
        }
    )
