"""Keeping ``DAGSTER_HOME`` small: what old runs logged and printed is removed; the runs stay in the list.

With SQLite a run has an event file of its own (150 to 240 KB), with PostgreSQL as much in rows of one table, and in any
case a folder with what its steps printed. They are most of what a run leaves behind. Dagster's own ``delete_run``
empties the file and does not remove it, and takes the materializations along: hours that were made long ago would be
shown as missing, and a backfill of missing hours in the UI would make them all again. So the run stays, with how it
ended and what it made, which SQLite keeps in an index beside the files; of PostgreSQL's rows the same ones stay.

What sensors and schedules log lies there too, a file for each tick that said something, and Dagster never removes it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from dagster._core.storage.event_log import SqlEventLogStorage
    from sqlalchemy import ColumnElement

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
    """Remove events and printed output of the runs that ended so many days ago, the oldest first.

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
    left = _left_behind(instance, before_s) if days else {}
    ticks, size = _remove_tick_logs(instance, before_s, dry_run=dry_run) if days else (0, 0)
    old = sorted((run_id for run_id in left if left[run_id].written_s < before_s), key=lambda one: left[one].written_s)
    runs = 0
    for first in range(0, len(old), _AT_ONCE):
        some = old[first : first + _AT_ONCE]
        records = instance.get_run_records(dg.RunsFilter(run_ids=some))
        kept = {
            record.dagster_run.run_id
            for record in records
            if not record.dagster_run.is_finished or record.update_timestamp.timestamp() >= before_s
        }
        over = [run_id for run_id in some if run_id not in kept][: at_most - runs]
        runs += len(over)
        size += sum(left[run_id].size_bytes for run_id in over)
        if not dry_run:
            for path in (path for run_id in over for path in left[run_id].paths):
                _remove(path)
            _remove_rows(instance, [run_id for run_id in over if left[run_id].rows_bytes])
        if runs == at_most:
            break
    return RemovedLogs(runs, size, ticks)


def remove_left_behind(instance: DagsterInstance, run_ids: Iterable[str]) -> None:
    """Remove what deleted runs left on this machine: what they printed, and files of events, which Dagster empties."""
    left = _files_left(instance)
    for path in (path for run_id in run_ids if run_id in left for path in left[run_id].paths):
        _remove(path)


@dataclass
class _Left:
    """What a run logged and printed: files and folders on this machine, rows of a database."""

    paths: list[Path] = field(default_factory=list)
    rows_bytes: int = 0
    written_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        return sum(map(_size, self.paths)) + self.rows_bytes


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


def _left_behind(instance: DagsterInstance, before_s: float) -> dict[str, _Left]:
    """What lies there of each run, by its id; of rows of a database those from before a time."""
    found = _files_left(instance)
    for run_id, size, written_s in _old_rows(instance, before_s):
        left = found[run_id]
        left.rows_bytes = size
        left.written_s = max(left.written_s, written_s)
    return found


def _files_left(instance: DagsterInstance) -> dict[str, _Left]:
    """Files and folders on this machine that are named by a run, by its id."""
    from dagster._core.storage.event_log import SqliteEventLogStorage  # not public

    places = [Path(instance.storage_directory())]
    events = instance.event_log_storage
    if isinstance(events, SqliteEventLogStorage):
        places.append(Path(events.path_for_shard("any")).parent)
    found: dict[str, _Left] = defaultdict(_Left)
    for place in places:
        for path in place.iterdir() if place.is_dir() else ():
            # <id>, <id>.db, and while it is written <id>.db-wal and <id>.db-shm.
            run_id = path.name.partition(".")[0]
            if _RUN_ID.fullmatch(run_id):
                left = found[run_id]
                left.paths.append(path)
                left.written_s = max(left.written_s, _written_s(path))
    return found


def _old_rows(instance: DagsterInstance, before_s: float) -> list[tuple[str, int, float]]:
    """Runs that logged into a shared table before a time: id, bytes of these rows, and when the last was written."""
    import sqlalchemy as sql
    from dagster._core.storage.event_log import SqlEventLogStorageTable as Table  # not public

    if (events := _shared_table(instance)) is None:
        return []
    # The column's times are UTC and do not say so.
    before = datetime.fromtimestamp(before_s, UTC).replace(tzinfo=None)
    size, last = sql.func.sum(sql.func.length(Table.c.event)), sql.func.max(Table.c.timestamp)
    rows = sql.select(Table.c.run_id, size, last).where(_only_logged(), Table.c.timestamp < before)
    with events.index_connection() as connection:
        found = connection.execute(rows.group_by(Table.c.run_id)).fetchall()
    return [(run_id, int(size), last.replace(tzinfo=UTC).timestamp()) for run_id, size, last in found]


def _remove_rows(instance: DagsterInstance, run_ids: Sequence[str]) -> None:
    from dagster._core.storage.event_log import SqlEventLogStorageTable as Table  # not public

    if run_ids and (events := _shared_table(instance)) is not None:
        with events.index_transaction() as connection:
            connection.execute(Table.delete().where(_only_logged(), Table.c.run_id.in_(run_ids)))


def _shared_table(instance: DagsterInstance) -> SqlEventLogStorage | None:
    """The database in which what all runs log lies in one table, as with PostgreSQL; None where each has a file."""
    from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage  # not public

    events = instance.event_log_storage
    if isinstance(events, SqliteEventLogStorage) or not isinstance(events, SqlEventLogStorage):
        return None
    return events


def _only_logged() -> ColumnElement[bool]:
    """The rows that say how a run went, and not what it made, what was checked, or how it ended."""
    from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS  # not public
    from dagster._core.storage.event_log import SqlEventLogStorageTable as Table  # not public

    # What SQLite keeps in its index: with it, lists of runs, partitions and checks lack nothing.
    kept = ASSET_EVENTS | ASSET_CHECK_EVENTS | EVENT_TYPE_TO_PIPELINE_RUN_STATUS.keys()
    event_type = Table.c.dagster_event_type
    # What somebody reported without a run has an empty id.
    return (Table.c.run_id != "") & (event_type.is_(None) | event_type.not_in([one.value for one in kept]))


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
