"""Telling whether the process that made a run is still there.

A worker that is killed cannot say so: its run stays STARTED and keeps its place in the pools, for ever. Each run
therefore carries the identity of its process, and the next run on the same machine, or one that waits for such a
place, fails the runs whose process is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun, EventLogEntry

# Dagster's prefix for tags that the UI does not show: nobody looks for a run by the number of its process.
_TAG = ".dagster/laps_process"
# On a run that Ray started: the job that its process belongs to. Whether that lives is Ray's to say (ray_launcher.py),
# as machines of a cluster may share a host name, and then a number means nothing.
_RAY_JOB = "laps/ray_job"
RAY_JOB_VARIABLE = "LAPS_RAY_JOB"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# How the reason of a run begins whose process was seen to end before it had said so itself.
DIED = "its worker process died"


def identity(pid: int | None = None) -> str | None:
    """Host, boot, number and start of a process; None when there is no such process."""
    pid = os.getpid() if pid is None else pid
    host = socket.gethostname()
    if not _BOOT_ID.exists():  # not Linux: a number that is used again cannot be told apart
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return f"{host} - {pid} -"
    try:
        # The name, in parentheses, may hold anything; the start time is the 20th field behind it.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{host} {_BOOT_ID.read_text().strip()} {pid} {started}"


def made_here(run_id: str) -> dict[str, str]:
    """Tags of a run that this process makes."""
    job = os.environ.get(RAY_JOB_VARIABLE)
    return {_TAG: f"{run_id} {identity() or ''}", **(made_by_ray(run_id, job) if job else {})}


def made_by_ray(run_id: str, job: str) -> dict[str, str]:
    """Tags of a run that a Ray job makes."""
    return {_RAY_JOB: f"{run_id} {job}"}


def process_of(run: DagsterRun) -> str | None:
    """Identity of the process that makes a run; None where it has not begun."""
    return _own(run, _TAG)


def ray_job_of(run: DagsterRun) -> str | None:
    """The Ray job that makes a run; None where none does."""
    return _own(run, _RAY_JOB)


def _own(run: DagsterRun, tag: str) -> str | None:
    """What a tag says of a run itself.

    A run that tries another again begins with all tags of the other, whose process is no longer there: only those that
    name the run itself count.
    """
    run_id, _, said = run.tags.get(tag, "").partition(" ")
    return said if run_id == run.run_id and said else None


def pid_of(known: str) -> int:
    """The number of the process of an identity, on its machine."""
    return int(known.split()[2])


def is_gone(known: str) -> bool:
    """Whether the process of an identity has ended; False where this machine cannot know."""
    return known.split()[0] == socket.gethostname() and identity(pid_of(known)) != known


def fail_lost_run(instance: DagsterInstance, run_id: str, reason: str) -> str:
    """Mark a run as failed whose process is gone, and free its places in the pools.

    Returns:
        The reason with the last thing that the run said: which file it was decoding, for instance.
    """
    run = instance.get_run_by_id(run_id)
    if run is None:
        return reason
    reason = with_last_words(reason, instance.all_logs(run_id))
    if not run.is_finished:
        instance.report_run_failed(run, reason)
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return reason


def with_last_words(reason: str, log: Iterable[EventLogEntry]) -> str:
    """The reason for which a run was failed from outside, with the last thing that the run itself said in its log."""
    said = [entry.user_message for entry in log if entry.dagster_event is None]
    last = f"; the last it said: {said[-1].strip().splitlines()[0]}" if said and said[-1].strip() else ""
    return reason if reason.endswith(last) else f"{reason}{last}"


def runs_under_way(instance: DagsterInstance) -> Sequence[DagsterRun]:
    """The runs that have a process, or should have one."""
    import dagster as dg

    under_way = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
    return instance.get_runs(dg.RunsFilter(statuses=under_way))


def lost_runs(instance: DagsterInstance) -> list[DagsterRun]:
    """The runs under way that earlier, killed processes of this machine left behind."""
    under_way = runs_under_way(instance)
    return [run for run in under_way if (known := process_of(run)) and not ray_job_of(run) and is_gone(known)]


def fail_lost_runs(instance: DagsterInstance) -> list[str]:
    """Fail the runs that killed processes of this machine left, and free their places in pools; returns their ids."""
    lost = [run.run_id for run in lost_runs(instance)]
    for run_id in lost:
        fail_lost_run(instance, run_id, "its process is gone: killed, out of memory, or the machine restarted")
    return lost


def fail_runs_that_cannot_begin(instance: DagsterInstance) -> list[str]:
    """Fail the starting runs whose Ray job has ended already, and say why: a node without the program, for instance.

    Dagster's monitoring asks for the health of runs that have begun; the others it leaves until their time is over.
    """
    import dagster as dg
    from dagster._core.launcher.base import WorkerStatus

    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING])):
        if ray_job_of(run) and instance.run_launcher.supports_check_run_worker_health:
            health = instance.run_launcher.check_run_worker_health(run)
            if health.status is WorkerStatus.FAILED:
                fail_lost_run(instance, run.run_id, health.msg or "its job has ended")
                failed.append(run.run_id)
    return failed


def pool_holders(instance: DagsterInstance, run_ids: Collection[str]) -> list[str]:
    """Who holds the places in pools that some of these runs wait for, in words."""
    holders = []
    for pool in sorted(instance.event_log_storage.get_concurrency_keys()):
        info = instance.event_log_storage.get_concurrency_info(pool)
        if info.pending_step_count and info.pending_run_ids & set(run_ids):
            others = sorted(info.active_run_ids - set(run_ids))
            for run in filter(None, map(instance.get_run_by_id, others)):
                where = (process_of(run) or "").split()
                process = f", process {where[2]} on {where[0]}" if where else ""
                holders.append(f"pool {pool}, held by run {run.run_id[:8]} ({run.job_name}{process})")
    return holders
