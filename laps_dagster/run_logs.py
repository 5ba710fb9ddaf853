"""Keeping ``DAGSTER_HOME`` small: what old runs logged and printed is removed; the runs stay in the list.

With SQLite a run has an event file of its own (130 to 210 KB), and in any case a folder with what its steps printed.
They are most of what a run leaves behind. Dagster's own ``delete_run`` empties the file and does not remove it, and
takes the materializations along: hours that were made long ago would be shown as missing, and a backfill of missing
hours in the UI would make them all again. So the run stays, with how it ended and what it made, which SQLite keeps in
an index beside the files.

What sensors and schedules log lies there too, a file for each tick that said something, and Dagster never removes it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance

AT_MOST = 2000
"""Runs whose logs are removed at a time: a first look at a full disk must end as well."""

_AT_ONCE = 500
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class RemovedLogs:
    """What was removed.

    Attributes:
        runs: of how many runs.
        size_bytes: how much room it took, with that of ticks.
        ticks: of how many ticks of sensors and schedules.
    """

    runs: int
    size_bytes: int
    ticks: int = 0

    def __str__(self) -> str:
        ticks = f" and {_counted(self.ticks, 'tick')}" if self.ticks else ""
        return f"logs of {_counted(self.runs, 'run')}{ticks}, {self.size_bytes / 1e6:,.1f} MB"


def remove_logs(
    instance: DagsterInstance, days: int, *, at_most: int = AT_MOST, dry_run: bool = False, now_s: float | None = None
) -> RemovedLogs:
    """Remove event files and printed output of the runs that ended so many days ago, the oldest first.

    Those of a run that has not ended stay whatever its age; what a deleted run left behind goes.

    Args:
        instance: the instance.
        days: how long logs are kept; 0: for ever.
        at_most: runs at a time.
        dry_run: only look.
        now_s: the present, seconds since the epoch.
    """
    import dagster as dg

    before_s = (time.time() if now_s is None else now_s) - days * 86_400
    # By what lies there and not by the list of runs, in which nothing says whether a run still has its logs.
    left = _left_behind(instance) if days else {}
    ticks, size = _remove_tick_logs(instance, before_s, dry_run=dry_run) if days else (0, 0)
    written = {run_id: max(map(_written_s, paths)) for run_id, paths in left.items()}
    old = sorted((run_id for run_id in left if written[run_id] < before_s), key=lambda run_id: written[run_id])
    runs = 0
    for first in range(0, len(old), _AT_ONCE):
        some = old[first : first + _AT_ONCE]
        records = instance.get_run_records(dg.RunsFilter(run_ids=some))
        kept = {
            record.dagster_run.run_id
            for record in records
            if not record.dagster_run.is_finished or record.update_timestamp.timestamp() >= before_s
        }
        for run_id in some:
            if run_id in kept:
                continue
            if runs == at_most:
                return RemovedLogs(runs, size, ticks)
            runs += 1
            size += sum(map(_size, left[run_id]))
            for path in left[run_id] if not dry_run else ():
                _remove(path)
    return RemovedLogs(runs, size, ticks)


def _remove_tick_logs(instance: DagsterInstance, before_s: float, *, dry_run: bool) -> tuple[int, int]:
    """Remove what ticks logged before a time: ``<repository>/<sensor>/<tick>.err``; how many files, and their bytes."""
    count = size = 0
    for path in Path(instance.storage_directory()).glob("*/*/*.err"):
        if _RUN_ID.fullmatch(path.parents[1].name) or _written_s(path) >= before_s:
            continue
        count += 1
        size += _size(path)
        if not dry_run:
            _remove(path)
    return count, size


def _left_behind(instance: DagsterInstance) -> dict[str, list[Path]]:
    """Files and folders on this machine that are named by a run, by its id."""
    from dagster._core.storage.event_log import SqliteEventLogStorage  # not public

    places = [Path(instance.storage_directory())]
    events = instance.event_log_storage
    if isinstance(events, SqliteEventLogStorage):
        places.append(Path(events.path_for_shard("any")).parent)
    found: dict[str, list[Path]] = defaultdict(list)
    for place in places:
        for path in place.iterdir() if place.is_dir() else ():
            # <id>, <id>.db, and while it is written <id>.db-wal and <id>.db-shm.
            run_id = path.name.partition(".")[0]
            if _RUN_ID.fullmatch(run_id):
                found[run_id].append(path)
    return found


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _written_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())
    return 0


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
