"""Looking at files that nobody has looked at yet, in a process apart.

A file from the landing zone may crash a demuxer or a decoder, or keep it busy for ever. Whoever registers files is a
command over thousands of them, or the server that all schedules live in: so the look is taken by a child process,
which is made when it is first needed, serves many files, and is made anew when one of them has brought it down.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from laps.errors import InputError, LapsError, MediaError

P = ParamSpec("P")
T = TypeVar("T")

# Signals by which a process is ended from outside: by who stops a service, or the kernel that has no memory left.
_FROM_OUTSIDE = ("SIGTERM", "SIGINT", "SIGHUP", "SIGKILL")
# A look reads a head and a tail, or the packets of a recording whose container claims no length. A store that is away
# for a while is waited for within it.
LIMIT_S = 600.0
_FIX = "It is damaged in a way that no decoder should be given: copy it again from where it was recorded."


class Apart:
    """A child process that calls functions for this one, one at a time; threads wait for each other.

    Args:
        limit_s: seconds that a call may take.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._lock = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._environment: dict[str, str] = {}

    def call(self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed by the child; what it raises of OSError and LapsError is raised here.

        Args:
            name: the file that the call is about.
            function: a function of a module's top level.

        A child that was ended from outside is made anew and asked once more. If that is killed as well, as for want of
        memory, it is the file's doing.

        Raises:
            MediaError: the call brought the child down, or took longer than the limit.
            InputError: the child was ended from outside twice, by who stops the service; nothing is known of the file.
        """
        with self._lock:
            answer = self._asked(name, function, args, kwargs)
            if answer in _FROM_OUTSIDE:
                answer = self._asked(name, function, args, kwargs)
        if isinstance(answer, str):
            died = f"the process that looked at it died ({answer})"
            if answer in _FROM_OUTSIDE and answer != "SIGKILL":
                raise InputError(died, where=name, fix="It was ended from outside: look at the file once more.")
            raise MediaError(died, where=name, fix=_FIX)
        ok, value = answer
        if not ok:
            raise value
        result: T = value
        return result

    def _asked(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bool, Any] | str:
        """What the child answered; how it ended, in words, where it did."""
        connection = self._started()
        try:
            connection.send((function, args, kwargs))
            if not connection.poll(self.limit_s):
                self._stop()
                raise MediaError(f"no decoder came to an end with it in {self.limit_s:.0f} s", where=name, fix=_FIX)
            answer: tuple[bool, Any] = connection.recv()
            return answer
        except (EOFError, ConnectionResetError, BrokenPipeError):
            return self._stop()

    def _started(self) -> Connection:
        # Credentials and endpoints come from the environment: a child of an older one would look elsewhere.
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        if self._process is not None and self._process.is_alive() and self._environment == environment:
            assert self._connection is not None
            return self._connection
        self._stop()
        context = multiprocessing.get_context("spawn")  # not forked: the threads of s3fs and torch do not survive it
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True, name="look at files")
        self._process.start()
        theirs.close()
        self._environment = environment
        return self._connection

    def _stop(self) -> str:
        """End the child; returns how it ended, in words."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return "not started"
        process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode or 0
        process.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(connection: Connection) -> None:
    # Ctrl-C is for the parent; the child ends with the connection, or by SIGTERM when the parent leaves. In a script's
    # `laps … &` Ctrl-C is ignored, and Dagster gives SIGTERM the same meaning: the parent would wait for ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            function, args, kwargs = connection.recv()
        except EOFError:
            return
        except ImportError as error:
            connection.send((False, error))
            continue
        try:
            answer = (True, function(*args, **kwargs))
        except (OSError, LapsError, ImportError) as error:
            # What cannot be imported says nothing about the file.
            answer = (False, error)
        connection.send(answer)


APART = Apart()
