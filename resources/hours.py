"""Reading an hour together with the one before it, and the rule for when the one before may be absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from laps.errors import NotProcessedError
from laps.tables import RAW_VIDEO, Table
from laps.timegrid import CameraHour, SampleGrid, from_datetime
from resources.recordings import Recordings
from resources.settings import first_hour_ns
from resources.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


def observed_samples(rows: Iterable[Mapping[str, Any]], hour: CameraHour, grid: SampleGrid) -> tuple[int, int]:
    """First sample of an hour and the one after its last; a running hour ends, for now, where raw_video could see."""
    first, stop = grid.hour_samples(hour.hour_ns)
    seen_ns = max(from_datetime(row["end_time"]) for row in rows)
    return first, min(stop, grid.first_sample_at_or_after(seen_ns))


def read_previous(
    store: Store, recordings: Recordings, table: Table, hour: CameraHour, model: str | None = None
) -> pa.Table | None:
    """The hour before of an observed table; None where that hour has no footage.

    An hour counts as empty when its raw_video says so, or, where raw_video has not been materialized, when no
    registered recording touches it, or when it lies before the store's first hour and cannot be made. Otherwise its
    absence would change this hour's result silently, so it is a NotProcessedError that says what to observe first.
    """
    previous = hour.previous
    with contextlib.suppress(NotProcessedError):
        return store.read_partition(table, previous, model)
    if previous.start_ns < first_hour_ns(store.root):
        return None
    try:
        has_footage = any(store.read_partition(RAW_VIDEO, previous, columns=["used"])["used"].to_pylist())
    except NotProcessedError:
        has_footage = previous in recordings.hours(previous.camera)
    if has_footage:
        raise NotProcessedError(
            f"needs {table.name} of the hour before, {previous.key}, which has footage but is not materialized",
            where=hour.key,
            fix=f"Observe hour {previous.key} first (laps backfill does it in order).",
        )
    return None


def read_with_previous(store: Store, recordings: Recordings, table: Table, hour: CameraHour) -> pa.Table:
    """The hour before, where it has footage, and this hour, one after the other."""
    import pyarrow as pa

    current = store.read_partition(table, hour)
    previous = read_previous(store, recordings, table, hour)
    return current if previous is None else pa.concat_tables([previous, current])
