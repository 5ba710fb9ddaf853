"""Workers as some tests want them: processes that do something else instead of a run, and runs without processes.

The former are imported by the processes, so nothing heavy is imported here.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from laps_dagster.runs import Outcome, Runner, Task, execute

HOUR = "cam1|2026-01-05-09:00"


def _beside_the_store(name: str) -> Path:
    return Path(os.environ["LAPS_STORE"]).with_name(name)


def wait_for_ever(task: Task, threads: int | None = None, run_id: str | None = None) -> Outcome:
    """A run that never ends; it leaves its process's number behind."""
    _beside_the_store("worker").write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def note_and_die_at_two(task: Task, threads: int | None = None, run_id: str | None = None) -> Outcome:
    """A run that notes its partition, its threads and its process; the one of partition 2 takes its process with it."""
    with _beside_the_store("notes").open("a") as notes:
        notes.write(f"{task.partition} {threads} {os.getpid()}\n")
    time.sleep(0.3)
    if task.partition == "2":
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task, True)


def crash_at_nine(task: Task, threads: int | None = None, run_id: str | None = None) -> Outcome:
    """A run whose process dies in the middle of one hour's tracking, as a codec's crash would make it."""
    if task.partition == HOUR:
        import laps.observe

        def decode_and_die(samples: Iterator[object], *_: object, **__: object) -> None:
            next(samples)
            os.kill(os.getpid(), signal.SIGKILL)

        laps.observe.observe = decode_and_die
    return execute(task, threads, run_id)


def hold_for_ever(task: Task, threads: int | None = None, run_id: str | None = None) -> Outcome:
    """A run that stays in the middle of tracking."""
    import laps.observe

    note = _beside_the_store("worker")
    laps.observe.observe = lambda *_, **__: [note.touch(), time.sleep(600)]
    return execute(task, threads, run_id)


class InThisProcess(Runner):
    """Makes the runs one after the other in this process, which has imported torch and Dagster already.

    Attributes:
        left_out: jobs whose runs are not made, and count as well.
    """

    left_out: tuple[str, ...] = ()

    def run_all(self, tasks: Iterable[Task], *, done: Callable[[Outcome], None] | None = None) -> list[Outcome]:
        outcomes = []
        for task in tasks:
            outcomes.append(Outcome(task, True) if task.job in self.left_out else execute(task))
            if done is not None:
                done(outcomes[-1])
        return outcomes


class WithoutReport(InThisProcess):
    left_out = ("publish",)
