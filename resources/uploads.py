"""Publishing many files: in object storage several at once, because each of them mostly waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from resources.store import Store

# What may be on its way at once, and so in memory: twice, as it was given and as it is sent. A file that is larger than
# all of it goes up alone.
FILES_AT_ONCE = 8
BYTES_AT_ONCE = 32 * 2**20

Write = Callable[[str, bytes], None]
"""Takes the path of a file below the store's root, and what is to be in it."""


@contextmanager
def uploads(store: Store) -> Iterator[Write]:
    """A function that publishes a file; when the block ends without an error, all that it was given are there.

    On a disk a file is there when the function returns. In object storage it goes up in a thread, and the function
    waits only while as many are on their way as may be. Each appears whole or not at all, and is tried again as every
    file is. An error of the block waits for what is on its way, and leaves what is there.

    Raises:
        StoreError: a file cannot be written: the first of those that were given, from the function or at the end.
    """
    if store.is_local:
        yield store.write_bytes
        return
    coming: dict[Future[None], int] = {}

    def settle(until: str) -> None:
        done, _ = wait(coming, return_when=until)
        for future in [future for future in coming if future in done]:
            del coming[future]
            future.result()

    def write(path: str, content: bytes) -> None:
        while coming and (len(coming) >= FILES_AT_ONCE or sum(coming.values()) + len(content) > BYTES_AT_ONCE):
            settle(FIRST_COMPLETED)
        coming[pool.submit(store.write_bytes, path, content)] = len(content)

    # The end of the pool's block waits for its threads.
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="laps-upload") as pool:
        yield write
        settle(ALL_COMPLETED)
