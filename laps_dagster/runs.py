"""Running jobs in the foreground: each run in a worker process, several at once, recorded in the instance.

A crash in one run (a codec's, or out of memory) ends its worker and nothing else; the hours beside it go on.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

# Dagster's own console log repeats every event; the instance keeps them all, and a failure is printed by the caller.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Task:
    """One run to make: a job, the partition it runs for, and its configuration."""

    job: str
    partition: str | None = None
    ops: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.job} {self.partition}" if self.partition else self.job


@dataclass(frozen=True)
class Outcome:
    """How a run ended; ``metadata`` holds the plain values that its assets reported."""

    task: Task
    ok: bool
    run_id: str = ""
    error: str = ""
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)


def execute(task: Task) -> Outcome:
    """Make one run in this process."""
    import dagster as dg

    from laps.timegrid import CameraHour
    from laps_dagster.definitions import defs
    from laps_dagster.instance import open_instance

    partition: str | None = task.partition
    if partition and "|" in partition:
        from assets.partitions import multi_partition_key

        partition = multi_partition_key(CameraHour.parse(partition))
    config = {**QUIET, "ops": task.ops, "resources": task.resources}
    with open_instance() as instance:
        result = defs.resolve_job_def(task.job).execute_in_process(
            run_config=config,
            instance=instance,
            partition_key=partition,
            raise_on_error=False,
            tags={"laps/pid": str(os.getpid())},
        )
    metadata: dict[str, dict[str, Any]] = {}
    for event in result.get_asset_materialization_events():
        entries = event.step_materialization_data.materialization.metadata
        if event.asset_key is None:
            continue
        metadata[event.asset_key.to_user_string()] = {
            name: value.value for name, value in entries.items() if not isinstance(value, dg.MarkdownMetadataValue)
        }
    return Outcome(task, result.success, result.run_id, "" if result.success else _why(result), metadata)


def _why(result: Any) -> str:
    """The innermost error of a failed run, or the failed checks."""
    from laps import errors

    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                # Dagster's message is "package.module.Class: text". A deliberate error says it all in its text.
                text = str(error.message).strip().split(": ", 1)[-1]
                deliberate = isinstance(getattr(errors, error.cls_name or "", None), type)
                return text if deliberate else f"{error.cls_name}: {text}"
    return "the run failed; its log is in the Dagster UI"


def run_all(tasks: Iterable[Task], *, workers: int = 1, done: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """Make runs, ``workers`` at once, each in a process of its own kind; returns outcomes in the tasks' order."""
    waiting = list(tasks)
    outcomes: dict[int, Outcome] = {}

    def keep(index: int, outcome: Outcome) -> None:
        outcomes[index] = outcome
        if done is not None:
            done(outcome)

    todo = list(range(len(waiting)))
    while todo:
        # Spawned, not forked: torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        size = max(1, min(workers, len(todo)))
        with ProcessPoolExecutor(size, mp_context=context, initializer=_set_threads, initargs=(size,)) as pool:
            futures: dict[Future[Outcome], int] = {pool.submit(execute, waiting[index]): index for index in todo}
            broken: list[int] = []
            for future in as_completed(futures):
                index = futures[future]
                try:
                    keep(index, future.result())
                except BrokenProcessPool:
                    broken.append(index)
        if len(broken) == 1 or size == 1:
            # Alone in its pool, so it was this task that brought the worker down.
            for index in broken[:1]:
                keep(
                    index,
                    Outcome(waiting[index], False, error="its worker process died (crash or out of memory)"),
                )
            todo = broken[1:]
        else:
            # Somebody among several crashed: run each of them alone to see who.
            for index in broken:
                outcome = run_all([waiting[index]], workers=1, done=done)[0]
                outcomes[index] = outcome
            todo = []
    return [outcomes[index] for index in range(len(waiting))]


def _set_threads(workers: int) -> None:
    """Share the cores between the workers, before torch or OpenCV start their threads."""
    cores = os.cpu_count() or 1
    threads = str(max(1, cores // workers))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(name, threads)
