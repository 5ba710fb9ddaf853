"""Reading embeddings, features and assignments of many hours of one release."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laps.tables import SEGMENT_EMBEDDINGS
from laps.timegrid import CameraHour
from resources.models import EMBEDDER, TOKENIZER, Release
from resources.segments import refuse_other_models
from resources.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Embeddings:
    """Primitives and their embeddings.

    Attributes:
        segment_ids: one for each primitive.
        embeddings: float32 [n, 256].
    """

    segment_ids: list[str]
    embeddings: np.ndarray


def read_hour_embeddings(store: Store, release: Release, hour: CameraHour) -> pa.Table:
    """The embeddings of one hour; ModelMismatchError when other models made them."""
    rows = store.read_partition(SEGMENT_EMBEDDINGS, hour, release.name)
    refuse_other_models(
        rows,
        {"tokenizer_id": release.require(TOKENIZER), "embedder_id": release.require(EMBEDDER)},
        table=SEGMENT_EMBEDDINGS.name,
        hour=hour,
        release=release,
    )
    return rows


def embedding_matrix(rows: pa.Table) -> np.ndarray:
    """float32 [n, 256] of the column ``embedding``."""
    import numpy as np

    column = rows["embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


def read_embeddings(store: Store, release: Release, hours: Iterable[CameraHour]) -> Embeddings:
    """The embeddings of several hours."""
    import numpy as np

    ids: list[str] = []
    parts: list[np.ndarray] = []
    for hour in hours:
        rows = read_hour_embeddings(store, release, hour)
        if rows.num_rows:
            ids += rows["segment_id"].to_pylist()
            parts.append(embedding_matrix(rows))
    return Embeddings(ids, np.concatenate(parts) if parts else np.zeros((0, 0), np.float32))
