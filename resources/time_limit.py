"""A time limit for decoders, which no exception can interrupt."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

# Waiting for a store that is away must fit into it.
DECODE_LIMIT_S = 900.0
_WOUND_UP_EVERY_S = 5.0


def within(items: Iterable[T], limit_s: float = DECODE_LIMIT_S) -> Generator[T]:
    """Pass items on; where none comes for so many seconds, end this process.

    A thread that hangs inside a codec can be neither interrupted nor left behind, so its process goes, with the
    stacks of all threads on standard error: the run fails, the hours beside it do not notice.

    The limit ends with the iteration, or when that is closed.

    Args:
        items: what is decoded, one after the other; only one such iteration in a process at a time.
        limit_s: seconds between two items, with what is done with them.
    """
    wound_up = time.monotonic()
    _wind_up(limit_s)
    try:
        for item in items:
            # A thread each time: not for every frame.
            if time.monotonic() - wound_up > _WOUND_UP_EVERY_S:
                wound_up = time.monotonic()
                _wind_up(limit_s)
            yield item
    finally:
        faulthandler.cancel_dump_traceback_later()


def _wind_up(limit_s: float) -> None:
    # Tests and notebooks replace sys.stderr by something without a descriptor.
    faulthandler.dump_traceback_later(limit_s, exit=True, file=sys.__stderr__ or sys.stderr)
