"""Trying a step again when the store was away, or when what it is made from changed meanwhile, and only then.

A request to object storage is already tried for up to half a minute; what is left is a store that is away for longer.
Waits double: 20, 40, 80, 160 and 320 s, so that one that comes back within ten minutes costs no run, even where the
requests themselves, whose waits are drawn at random, wait hardly at all. Bad input, a model that does not fit, a full
disk: they fail at once, because trying again would change nothing.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import dagster as dg

from laps.errors import ChangedError, StoreError
from laps.timegrid import CameraHour
from resources.store import is_transient

T = TypeVar("T")

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


def patiently(act: Callable[[], T], say: Callable[[str], None]) -> T:
    """Do something with the store that must not lose what was computed before it, for as long as steps wait for it.

    Args:
        act: does it; it may be called again.
        say: told before each wait.

    Raises:
        Failure: the store is still away after the last wait. A step that raises it is not tried again.
    """
    attempt = 0
    while True:
        try:
            return act()
        except (StoreError, OSError) as error:
            if not is_transient(error):
                raise
            if attempt == MOST_RETRIES:
                raise dg.Failure(str(error), allow_retries=False) from error
            wait_s = _wait_s(attempt)
            say(f"{error}; trying again in {wait_s:.0f} s")
        time.sleep(wait_s)
        attempt += 1


@contextmanager
def _transient_errors_retried(context: dg.AssetExecutionContext) -> Iterator[None]:
    try:
        yield
    except (ChangedError, StoreError, OSError) as error:
        if not (isinstance(error, ChangedError) or is_transient(error)):
            raise
        wait_s = _wait_s(context.retry_number)
        raise dg.RetryRequested(max_retries=MOST_RETRIES, seconds_to_wait=wait_s) from error


def _wait_s(attempt: int) -> float:
    return FIRST_WAIT_S * 2**attempt


class Steady(Generic[T]):
    """What people and sensors may change while an hour is made from it.

    Which hours are out of date is judged by the times at which files were written, and an hour that is published after
    a change counts as made from it. So whoever reads such a thing looks again: before publishing, so that nothing that
    is out of date takes a place, and once more after it, for a change that came in between.

    Args:
        read: reads it.
        what: it in words.
        hour: the hour that is made.
        counts: what of it matters to the hour. Default: all.
    """

    def __init__(
        self, read: Callable[[], T], what: str, hour: CameraHour, counts: Callable[[T], Any] = lambda value: value
    ) -> None:
        self.value = read()
        self._read, self._what, self._hour, self._counts = read, what, hour, counts

    def check(self, withdraw: Callable[[], None] | None = None) -> None:
        """Raises ChangedError, for which the step is tried again, when it is no longer what it was.

        Args:
            withdraw: called before that. It takes back what was published: newer than the change, it would pass for
                up to date, and nobody knows whether the step is tried again.
        """
        if self._counts(self._read()) != self._counts(self.value):
            if withdraw is not None:
                withdraw()
            raise ChangedError(
                f"{self._what} changed while the hour was being made",
                where=self._hour.key,
                fix="Run the hour again (`laps backfill --only missing`).",
            )
