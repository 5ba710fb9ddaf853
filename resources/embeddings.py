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


def sample(counts: Sequence[int], at_most: int, most_parts: int, seed: int) -> list[tuple[int, np.ndarray]]:
    """An even sample of what lies in several parts, from no more parts than there is time to read.

    Where there are more, one primitive is drawn from each of ``most_parts`` equal stretches, and from the part that it
    lies in as many as each stretch gives: a part is drawn as often as it is large, so every row is as likely as any
    other but for parts that hold fewer rows than a stretch gives, which are taken whole.

    Args:
        counts: how many rows each part holds.
        at_most: rows to take at most.
        most_parts: parts to read at most.
        seed: seed of the sample.

    Returns:
        The parts in their order, and the rows of each, int64 and rising; the same for the same arguments.
    """
    import numpy as np

    total = sum(counts)
    if total <= at_most or sum(count > 0 for count in counts) <= most_parts:
        return list(by_part(counts, spread(total, at_most, seed)))
    most_parts = min(most_parts, at_most)
    rng = np.random.default_rng((seed, most_parts))  # not the draws that chose the parts once more
    found = []
    for part, drawn in by_part(counts, spread(total, most_parts, seed)):
        rows = min(counts[part], len(drawn) * (at_most // most_parts))
        found.append((part, np.sort(rng.choice(counts[part], rows, replace=False))))
    return found


def read_embeddings(
    store: Store,
    release: Release,
    hours: Iterable[CameraHour],
    *,
    at_most: int | None = None,
    most_hours: int | None = None,
    counts: Sequence[int] | None = None,
    seed: int = 0,
) -> Embeddings:
    """The embeddings of several hours, or an even sample of them.

    Which rows to take is decided from the number of rows of each hour, so that never more than the sample and one
    hour are in memory.

    Args:
        store: the store.
        release: the release.
        hours: camera hours.
        at_most: primitives to take at most; default: all.
        most_hours: hours to read at most for them (:func:`sample`); default: all.
        counts: how many primitives each hour holds, where that is known; else each file is asked.
        seed: seed of the sample.
    """
    import numpy as np

    hours = list(hours)
    if counts is None:
        with naming(release):
            counts = [store.partition_rows(SEGMENT_EMBEDDINGS, hour, release.name) for hour in hours]
    total = sum(counts)
    drawn = sample(counts, total if at_most is None else at_most, most_hours or len(hours), seed)
    wanted = sum(len(rows) for _, rows in drawn)
    ids: list[str] = []
    embeddings = np.zeros((0, 0), np.float32)
    for part, rows in drawn:
        taken = read_hour_embeddings(store, release, hours[part]).take(rows)
        values = matrix(taken["embedding"])
        if not ids:
            embeddings = np.empty((wanted, values.shape[1]), np.float32)
        embeddings[len(ids) : len(ids) + len(values)] = values
        ids += taken["segment_id"].to_pylist()
    return Embeddings(ids, embeddings, total)
