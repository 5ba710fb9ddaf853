"""How a Parquet file in object storage is read: the columns that are wanted, and of them all ranges at once.

Small columns lie between large ones (a window's time beside its tracks, a keyframe's beside its picture), so reading
the file by blocks would fetch all of it for a column that is a thousandth. A file that is no longer than a block costs
one request, whatever is read of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

from fsspec.caching import BaseCache, Fetcher, register_cache
from fsspec.utils import merge_offset_ranges

if TYPE_CHECKING:
    import pyarrow.parquet as pq

AT_ONCE = 8
# What is kept of a file. Where more is wanted, as of an hour's pictures, it is read range by range and nothing is kept.
MOST_BYTES = 2**25
# Ranges with less between them are one request: it costs as much as some bytes more.
GAP_BYTES = 2**17


class ColumnRanges(BaseCache):
    """A cache of fsspec's files, for one reading of a file: it keeps a small file, or the ranges that were wanted.

    Args:
        blocksize: bytes; a file that is no longer is read whole.
        fetcher: gives the bytes of a range ``[start, stop)`` of the file.
        size: of the file, bytes.
    """

    name: ClassVar[str] = "laps-column-ranges"

    def __init__(self, blocksize: int, fetcher: Fetcher, size: int) -> None:
        super().__init__(blocksize, fetcher, size)
        self._parts: list[tuple[int, bytes]] = []

    def fetch_at_once(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Have ranges ``[start, stop)`` ready, those that lie close together with one request."""
        missing = [(start, stop) for start, stop in ranges if self._known(start, stop) is None]
        if sum(stop - start for start, stop in missing) > MOST_BYTES:
            return
        names = [""] * len(missing)
        _, starts, stops = merge_offset_ranges(
            names, [start for start, _ in missing], [stop for _, stop in missing], GAP_BYTES, self.blocksize
        )
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="laps-columns") as pool:
            self._parts += zip(starts, pool.map(self.fetcher, starts, stops), strict=True)

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        begin = 0 if start is None else start
        end = self.size if stop is None else min(stop, self.size)
        if begin >= end:
            return b""
        known = self._known(begin, end)
        if known is not None:
            return known
        if self.size > self.blocksize:
            return bytes(self.fetcher(begin, end))
        self._parts = [(0, self.fetcher(0, self.size))]
        return self._parts[0][1][begin:end]

    def _known(self, begin: int, end: int) -> bytes | None:
        """A range out of what was read, where all of it is there: pyarrow joins ranges in its own way."""
        pieces = []
        while begin < end:
            found = next((part for part in self._parts if part[0] <= begin < part[0] + len(part[1])), None)
            if found is None:
                return None
            place, part = found
            pieces.append(part[begin - place : end - place])
            begin += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


register_cache(ColumnRanges, clobber=True)


def ranges_of(metadata: pq.FileMetaData, columns: Collection[str]) -> list[tuple[int, int]]:
    """Where the columns lie in the file: ``[start, stop)`` of each in each row group."""
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            if chunk.path_in_schema.split(".")[0] in columns:
                start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
                found.append((start, start + chunk.total_compressed_size))
    return found
