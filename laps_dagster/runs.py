"""Running jobs in the foreground: each run in a worker process, several at once, recorded in the instance.

A crash in one run (a codec's, or out of memory) ends its worker and nothing else; the hours beside it go on. An
interrupt ends the workers at once: a table is there whole or not at all, so nothing half-done stays behind.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from laps_dagster.instance import open_instance, records_error
from laps_dagster.processes import DIED, fail_lost_run, fail_lost_runs, made_here, pool_holders

if TYPE_CHECKING:
    from dagster import DagsterEvent

# Dagster's own console log repeats every event; the instance keeps them all, and a failure is printed by the caller.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
POOLS_LOOKED_AT_EVERY_S = 10.0
# What tells the numerical libraries how many threads to use.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
# Dagster's text of a run that was failed from outside without a reason; the event before it says more.
_WITHOUT_A_REASON = "This run has been marked as failed from outside the execution context."
# How a code server says, in that event, that it found the process of a run gone.
_FOUND_DEAD = re.compile(r"Run execution process for \S+ (.+?)\.(?:\s|$)")


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


def execute(task: Task, threads: int | None = None, run_id: str | None = None) -> Outcome:
    """Make one run in this process, with so many threads for numerical work."""
    if threads is not None:
        _use_threads(threads)
    run_id = run_id or str(uuid.uuid4())
    import dagster as dg

    from laps.timegrid import CameraHour
    from laps_dagster.definitions import defs

    partition: str | None = task.partition
    if partition and "|" in partition:
        from assets.partitions import multi_partition_key

        partition = multi_partition_key(CameraHour.parse(partition))
    config = {**QUIET, "ops": task.ops, "resources": task.resources}
    try:
        with open_instance() as instance:
            result = defs.resolve_job_def(task.job).execute_in_process(
                run_config=config,
                instance=instance,
                partition_key=partition,
                raise_on_error=False,
                run_id=run_id,
                tags=made_here(run_id),
            )
    except Exception as error:
        said = records_error(error)
        if said is not None:
            return Outcome(task, False, error=str(said))
        if not isinstance(error, dg.DagsterError):
            raise
        # The run could not even begin: an hour that is no partition, a configuration that does not fit.
        return Outcome(task, False, error=str(error).strip().splitlines()[0])
    metadata: dict[str, dict[str, Any]] = {}
    for event in result.get_asset_materialization_events():
        entries = event.step_materialization_data.materialization.metadata
        if event.asset_key is None:
            continue
        metadata[event.asset_key.to_user_string()] = {
            name: value.value
            for name, value in entries.items()
            if not isinstance(value, dg.MarkdownMetadataValue | dg.TableMetadataValue)
        }
    return Outcome(
        task, result.success, result.run_id, "" if result.success else reason_of(result.all_events), metadata
    )


def reason_of(events: Iterable[DagsterEvent]) -> str:
    """Why a run failed: the first deliberate error on the way to its cause, else the cause, else what its end says."""
    from dagster._core.events import JobFailureData

    from laps import errors

    events = list(events)
    for event in events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None:
                # Dagster's message is "package.module.Class: text". A deliberate error says it all in its text, where
                # and what to do; what made it raise says less.
                text = str(error.message).strip().split(": ", 1)[-1]
                if isinstance(getattr(errors, error.cls_name or "", None), type):
                    return text
                if error.cause is None:
                    return f"{error.cls_name}: {text}"
                error = error.cause
    for place, event in enumerate(events):
        # Outside of any step: the event log could not be written, for instance.
        if event.is_job_event and event.is_failure:
            data = event.event_specific_data
            error = data.error if isinstance(data, JobFailureData) else None
            if error is not None:
                return _outside(str(error.message))
            if event.message == _WITHOUT_A_REASON:
                return _said_before(events[:place]) or event.message
            if event.message:
                return event.message
    return "the run failed; its log is in the Dagster UI"


def _said_before(events: Sequence[DagsterEvent]) -> str:
    """What Dagster noted last of a run that it then failed: how its process ended, or why it could not be started.

    Under the daemon this is how a dead process shows: the code server that started it looks twice a second, and the
    sensor `lost_runs` finds nothing left to do.
    """
    noted = next((event for event in reversed(events) if event.is_engine_event), None)
    if noted is None:
        return ""
    if found := _FOUND_DEAD.search(noted.message or ""):
        return f"{DIED}: it {found[1]}"
    error = noted.engine_event_data.error
    return _outside(str(error.message)) if error is not None else noted.message or ""


def _outside(message: str) -> str:
    return f"outside of any step: {message.strip()}"


class Runner:
    """Worker processes that make runs, several at once; a context manager.

    The processes live as long as the runner, so that importing torch and Dagster is paid once in each; when one dies
    they are made anew. A single task gets all cores, several at once share them.

    Args:
        workers: runs at once.
        notice: told, a line at a time, what the runs wait for when other processes hold the pools.
    """

    def __init__(self, workers: int = 1, *, notice: Callable[[str], None] | None = None) -> None:
        self.workers = max(1, workers)
        self.notice = notice
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Runner:
        with open_instance() as instance:
            fail_lost_runs(instance)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Ctrl-C, or Dagster's own, when the run that these are part of is ended in the UI.
        interrupted = kind is not None and not issubclass(kind, Exception)
        if interrupted:
            for worker in multiprocessing.active_children():
                worker.kill()
                worker.join()
        self._stop()
        if interrupted:
            with open_instance() as instance:
                fail_lost_runs(instance)

    def run_all(self, tasks: Iterable[Task], *, done: Callable[[Outcome], None] | None = None) -> list[Outcome]:
        """Make runs and return their outcomes in the order of the tasks; ``done`` is told each as it ends."""
        everything = list(tasks)
        waiting, outcomes = dict(enumerate(everything)), dict[int, Outcome]()
        while waiting:
            crashed = self._make(waiting, outcomes, done)
            # When several were under way, the one that brought its worker down is not known: each runs once more alone.
            for index in crashed:
                for reason in self._make({index: everything[index]}, outcomes, done).values():
                    outcomes[index] = Outcome(everything[index], False, error=reason)
                    if done is not None:
                        done(outcomes[index])
        return [outcomes[index] for index in range(len(everything))]

    def _make(
        self, waiting: dict[int, Task], outcomes: dict[int, Outcome], done: Callable[[Outcome], None] | None
    ) -> dict[int, str]:
        """Make the runs, taking each off those that wait as it begins, until a worker dies.

        Returns:
            those that were under way when it did, each with what is known of it.
        """
        at_once = max(1, min(self.workers, len(waiting)))
        threads = max(1, (os.cpu_count() or 1) // at_once)
        # A worker that dies takes all with it that its pool knows of, so it is told of a run only when it can begin.
        futures: dict[Future[Outcome], int] = {}
        crashed: list[int] = []
        run_ids: dict[int, str] = {}
        holders: list[str] = []
        while futures or (waiting and not crashed):
            while waiting and not crashed and len(futures) < at_once:
                index, task = next(iter(waiting.items()))
                run_ids[index] = str(uuid.uuid4())
                try:
                    futures[self._started().submit(execute, task, threads, run_ids[index])] = index
                except BrokenProcessPool:
                    if futures:
                        break  # they will say so
                    self._stop()  # a worker died while it had nothing to do
                else:
                    del waiting[index]
            ended, _ = wait(futures, POOLS_LOOKED_AT_EVERY_S, FIRST_COMPLETED)
            if not ended:
                holders = self._look_at_pools(run_ids.values(), holders)
            for future in ended:
                index = futures.pop(future)
                try:
                    outcomes[index] = future.result()
                except BrokenProcessPool:
                    crashed.append(index)
                else:
                    if done is not None:
                        done(outcomes[index])
        if not crashed:
            return {}
        self._stop()
        died = f"{DIED} (a crash, or out of memory)"
        with open_instance() as instance:
            return {index: fail_lost_run(instance, run_ids[index], died) for index in sorted(crashed)}

    def _look_at_pools(self, run_ids: Collection[str], known: list[str]) -> list[str]:
        """Free the places of processes that are gone, and say who holds the others; returns who does."""
        with open_instance() as instance:
            fail_lost_runs(instance)
            holders = pool_holders(instance, run_ids)
        if holders and holders != known and self.notice is not None:
            self.notice(f"waiting for {'; '.join(holders)}")
        return holders

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: torch's threads do not survive a fork.
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
                initargs=(os.getpid(),),
            )
        return self._pool

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _begin_worker(parent: int) -> None:
    """Leave interrupts to the command that started this worker, and end when it is gone: nobody would hear of runs."""
    os.setpgid(0, 0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


def _use_threads(count: int) -> None:
    """Let the numerical libraries of this process use so many threads, whether they are loaded yet or not."""
    for name in THREADS:
        os.environ[name] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(count)
