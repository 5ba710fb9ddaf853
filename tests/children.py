"""What child processes are asked to do in the tests of them; each child imports this, so nothing heavy is imported."""

from __future__ import annotations

import os
import signal
import time

from laps.errors import InputError


def process_of(_: str = "") -> int:
    return os.getpid()


def process_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def end_by(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10.0)


def miss_a_module() -> None:
    raise ImportError("libavcodec.so: cannot open shared object file")


def refuse(what: str) -> None:
    raise InputError(what, where="there", fix="Do this.")
