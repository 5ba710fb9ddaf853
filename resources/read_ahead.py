"""How a recording in object storage is read: by blocks that are kept, with the next one under way.

A demuxer reads a file at both ends and then forwards, often twice (once to look at it, once for its packets). So the
blocks that were used last are kept, and while one is read from beginning to end the block after it is fetched by a
thread: decoding then does not wait for the network. A jump fetches the block that it leads to and nothing else. A
file that is no longer than a block costs one request, whatever is done with it.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

from fsspec.caching import BaseCache, Fetcher, register_cache


class ReadAhead(BaseCache):
    """A cache of fsspec's files.

    Args:
        blocksize: bytes of a block.
        fetcher: gives the bytes of a range ``[start, stop)`` of the file.
        size: of the file, bytes.
        maxblocks: blocks that are kept; the one that is under way comes on top.
    """

    name: ClassVar[str] = "laps-read-ahead"

    def __init__(self, blocksize: int, fetcher: Fetcher, size: int, maxblocks: int = 4) -> None:
        super().__init__(blocksize, fetcher, size)
        self.nblocks = -(-size // blocksize)
        self._kept = maxblocks
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._coming: tuple[int, Future[bytes]] | None = None
        # Its thread ends when the file is closed and this object goes.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="laps-read-ahead")

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        begin = 0 if start is None else start
        end = self.size if stop is None else min(stop, self.size)
        if begin >= end:
            return b""
        pieces = []
        for number in range(begin // self.blocksize, (end - 1) // self.blocksize + 1):
            offset = number * self.blocksize
            pieces.append(self._block(number)[max(0, begin - offset) : end - offset])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        if self._coming is not None and self._coming[0] == number:
            future = self._coming[1]
            self._coming = None
            block = future.result()
        else:
            block = self._read(number)
        forwards = number - 1 in self._blocks
        self._blocks[number] = block
        while len(self._blocks) > self._kept:
            self._blocks.popitem(last=False)
        after = number + 1
        if forwards and after < self.nblocks and after not in self._blocks:
            # What was under way to another place is not waited for: its block is lost.
            self._coming = after, self._thread.submit(self._read, after)
        return block

    def _read(self, number: int) -> bytes:
        start = number * self.blocksize
        return bytes(self.fetcher(start, min(start + self.blocksize, self.size)))


register_cache(ReadAhead, clobber=True)
