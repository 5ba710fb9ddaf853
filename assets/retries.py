"""Trying a step again when the store was away, and only then.

A request to object storage is already tried for up to half a minute; what is left is a store that is away for longer.
Waits double: 20, 40, 80, 160 and 320 s, so that one that comes back within ten minutes costs no run, even where the
requests themselves, whose waits are drawn at random, wait hardly at all. Bad input, a model that does not fit, a full
disk: they fail at once, because trying again would change nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from laps.errors import StoreError
from resources.store import is_transient

MOST_RETRIES = 5
FIRST_WAIT_S = 20.0


def tried_again(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a step's function whose first argument is its context."""

    @functools.wraps(compute)
    def once(context: dg.AssetExecutionContext, *args: Any, **kwargs: Any) -> Any:
        with _transient_errors_retried(context):
            return compute(context, *args, **kwargs)

    @functools.wraps(compute)
    def one_by_one(context: dg.AssetExecutionContext, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with _transient_errors_retried(context):
            yield from compute(context, *args, **kwargs)

    return one_by_one if inspect.isgeneratorfunction(compute) else once


@contextmanager
def _transient_errors_retried(context: dg.AssetExecutionContext) -> Iterator[None]:
    try:
        yield
    except (StoreError, OSError) as error:
        if not is_transient(error):
            raise
        wait_s = FIRST_WAIT_S * 2**context.retry_number
        raise dg.RetryRequested(max_retries=MOST_RETRIES, seconds_to_wait=wait_s) from error
