"""Publishing an hour of a table: only rows that add up become a partition.

An hour is written beside its place, judged there (:mod:`laps.consistency`), and published if nothing is wrong with it.
Otherwise what was there before stays as it was, a table that was not there still is not, and the rows lie below
``quarantine/`` with the reason, for whoever looks into it. So a partition that exists can be relied on by everything
that asks whether it does: the next stage, ``laps status``, ``laps backfill --only missing``, the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from laps.consistency import Partition, problems_of
from laps.errors import SchemaError
from laps.tables import Table
from laps.timegrid import CameraHour, format_utc, now_ns
from resources.settings import store_grid
from resources.store import Store, TableWriter

if TYPE_CHECKING:
    import pyarrow as pa

QUARANTINE = "quarantine"
# In the error of a run whose rows were refused: who tells of it knows by this which remedy to name.
REFUSED = "do not add up"
REASON = "reason.json"
_NAMED = 20


@contextmanager
def partition_writer(store: Store, table: Table, hour: CameraHour, model: str | None = None) -> Iterator[TableWriter]:
    """Write an hour in pieces; it is published when the block ends without an error and its rows add up.

    Raises:
        SchemaError: they do not; nothing was published.
    """
    path = store.partition_path(table, hour, model)
    with store.staged(path) as local:
        with TableWriter(table, local) as writer:
            yield writer
        problems = problems_of(_partition(store, table, hour, model, local))
        if problems:
            store.put_file(local, f"{QUARANTINE}/{path}")
            _give_reason(store, path, problems)
            raise SchemaError(
                f"the rows of {table.name} {REFUSED}: {in_words(problems)}; nothing was published",
                where=hour.key,
                fix=f"They lie in {store.url(f'{QUARANTINE}/{path}')}. Run the hour again; if it stays, it is a fault "
                "in the stage that made them.",
            )


def publish(store: Store, table: Table, hour: CameraHour, rows: pa.Table, model: str | None = None) -> None:
    """Write a whole hour; see :func:`partition_writer`."""
    with partition_writer(store, table, hour, model) as writer:
        writer.write(rows)


def published_problems(store: Store, table: Table, hour: CameraHour, model: str | None = None) -> list[str]:
    """What does not add up in an hour that was published, as when files it names were deleted since."""
    return problems_of(_partition(store, table, hour, model, None))


def withdraw(store: Store, table: Table, hour: CameraHour, model: str | None, problems: list[str]) -> str:
    """Move a published hour into quarantine, with the reason: it counts as not made. Returns where it lies."""
    path = store.partition_path(table, hour, model)
    _give_reason(store, path, problems)
    store.move(path, f"{QUARANTINE}/{path}")
    return f"{QUARANTINE}/{path}"


def in_words(problems: list[str]) -> str:
    """The problems in one line, the first twenty of them."""
    more = len(problems) - _NAMED
    return "; ".join(problems[:_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _partition(store: Store, table: Table, hour: CameraHour, model: str | None, staged: Path | None) -> Partition:
    """An hour as it is published, or as it lies in a local file."""

    def read(wanted: Table, columns: list[str] | None) -> pa.Table:
        if wanted is table and staged is not None:
            import pyarrow.parquet as pq

            return pq.ParquetFile(staged).read(columns=columns)
        # What a release's tables are compared with belongs to the same release, and the rest to none.
        return store.read_partition(wanted, hour, model if wanted.model_level else None, columns)

    return Partition(table, hour, store_grid(store), read, store.files)


def _give_reason(store: Store, path: str, problems: list[str]) -> None:
    said = {"problems": problems, "set_aside_at": format_utc(now_ns())}
    store.write_json(f"{QUARANTINE}/{path.rpartition('/')[0]}/{REASON}", said)
