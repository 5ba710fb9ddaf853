"""Reading the embeddings of many hours of one release, all of them or an even sample, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laps.tables import SEGMENT_EMBEDDINGS
from laps.timegrid import CameraHour
from resources.models import EMBEDDER, TOKENIZER, Release, naming
from resources.segments import read_rows_of, read_segments
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
        available: primitives that the hours hold; more than n where these are a sample.
    """

    segment_ids: list[str]
    embeddings: np.ndarray
    available: int


def read_hour_embeddings(store: Store, release: Release, hour: CameraHour) -> pa.Table:
    """The embeddings of one hour.

    Raises ModelMismatchError when other models made them, or when the hour has been cut again since: a row does not
    name the calibration that cut its primitive, so the primitives are compared with the table `segments`.
    """
    primitives = read_segments(store, hour, release, columns=["segment_id"])
    return read_rows_of(primitives, store, hour, release, SEGMENT_EMBEDDINGS, embedding_models(release))


def embedding_models(release: Release) -> dict[str, str]:
    """The models that a release's embeddings are made with, by column."""
    return {"tokenizer_id": release.require(TOKENIZER), "embedder_id": release.require(EMBEDDER)}


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """float32 [n, d] of a column of n > 0 lists that are equally long."""
    values = column.combine_chunks()
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1).astype("float32", copy=False)


def spread(count: int, at_most: int, seed: int) -> np.ndarray:
    """Which of ``count`` things to take for an even sample: all, or one drawn from each of ``at_most`` equal stretches.

    Returns:
        int64 [min(count, at_most)], rising; the same for the same arguments.
    """
    import numpy as np

    if count <= at_most:
        return np.arange(count, dtype=np.int64)
    edges = np.arange(at_most + 1, dtype=np.int64) * count // at_most
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def by_part(counts: Sequence[int], chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Split numbers that count through several parts: the part, and which of its own rows are meant.

    Parts of which nothing is chosen are passed over.
    """
    import numpy as np

    stops = np.cumsum(np.asarray(counts, np.int64))
    for part, (count, stop) in enumerate(zip(counts, stops, strict=True)):
        first, last = np.searchsorted(chosen, (stop - count, stop))
        if last > first:
            yield part, chosen[first:last] - (stop - count)


def read_embeddings(
    store: Store, release: Release, hours: Iterable[CameraHour], *, at_most: int | None = None, seed: int = 0
) -> Embeddings:
    """The embeddings of several hours, or an even sample of them.

    Which rows to take is decided from the number of rows of each hour, so that never more than the sample and one
    hour are in memory.

    Args:
        store: the store.
        release: the release.
        hours: camera hours.
        at_most: primitives to take at most; default: all.
        seed: seed of the sample.
    """
    import numpy as np

    hours = list(hours)
    with naming(release):
        counts = [store.partition_rows(SEGMENT_EMBEDDINGS, hour, release.name) for hour in hours]
    total = sum(counts)
    chosen = spread(total, total if at_most is None else at_most, seed)
    ids: list[str] = []
    embeddings = np.zeros((0, 0), np.float32)
    for part, rows in by_part(counts, chosen):
        taken = read_hour_embeddings(store, release, hours[part]).take(rows)
        values = matrix(taken["embedding"])
        if not ids:
            embeddings = np.empty((len(chosen), values.shape[1]), np.float32)
        embeddings[len(ids) : len(ids) + len(values)] = values
        ids += taken["segment_id"].to_pylist()
    return Embeddings(ids, embeddings, total)
