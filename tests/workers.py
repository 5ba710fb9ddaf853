"""What worker processes do instead of a run in some tests. They import nothing heavy for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from laps_dagster.runs import Outcome, Task


def _beside_the_store(name: str) -> Path:
    return Path(os.environ["LAPS_STORE"]).with_name(name)


def wait_for_ever(task: Task, threads: int | None = None, run_id: str | None = None) -> Outcome:
    """A run that never ends; it leaves its process's number behind."""
    _beside_the_store("worker").write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def note_and_die_at_two(task: Task, threads: int | None = None, run_id: str | None = None) -> Outcome:
    """A run that notes its partition, its threads and its process; the one of partition 2 takes its process with it."""
    from laps_dagster.runs import Outcome

    with _beside_the_store("notes").open("a") as notes:
        notes.write(f"{task.partition} {threads} {os.getpid()}\n")
    time.sleep(0.3)
    if task.partition == "2":
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task, True)
