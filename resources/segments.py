"""Reading primitives of a release and what belongs to them, refusing what other models or older cuts left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from laps.errors import ModelMismatchError
from laps.tables import SEGMENTS, Table
from laps.timegrid import CameraHour
from resources.models import CALIBRATION, TOKENIZER, Release, naming
from resources.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


def read_segments(store: Store, hour: CameraHour, release: Release, columns: list[str] | None = None) -> pa.Table:
    """The primitives of a camera hour; ModelMismatchError when the release's models have changed since.

    Args:
        store: the store.
        hour: the camera hour.
        release: the release.
        columns: columns to read besides those of the model ids; default: all.
    """
    expected = {
        "tokenizer_id": release.require(TOKENIZER),
        "calibration_id": release.require(CALIBRATION, hour.camera),
    }
    with naming(release):
        rows = store.read_partition(SEGMENTS, hour, release.name, _with_ids(columns, expected))
    refuse_other_models(rows, expected, table=SEGMENTS.name, hour=hour, release=release)
    return rows


def read_rows_of(
    primitives: pa.Table,
    store: Store,
    hour: CameraHour,
    release: Release,
    table: Table,
    expected: Mapping[str, str],
    columns: list[str] | None = None,
) -> pa.Table:
    """An hour of a table that has one row for each primitive.

    Args:
        primitives: the hour's primitives as they are now, with the column ``segment_id``.
        store: the store.
        hour: the camera hour.
        release: the release.
        table: the table.
        expected: the release's model id for each column of the table that holds one.
        columns: columns to read besides ``segment_id`` and those in ``expected``; default: all.

    Raises:
        NotProcessedError: the hour has not been materialized.
        ModelMismatchError: other models made the rows, or they belong to primitives of an earlier cut.
    """
    with naming(release):
        rows = store.read_partition(table, hour, release.name, _with_ids(columns, expected))
    refuse_other_models(rows, expected, table=table.name, hour=hour, release=release)
    now, then = set(primitives["segment_id"].to_pylist()), set(rows["segment_id"].to_pylist())
    if now != then:
        raise ModelMismatchError(
            f"{table.name} was made from other primitives than {SEGMENTS.name} has now: {len(now - then)} of "
            f"{len(now)} have no row, {len(then - now)} rows belong to none",
            where=hour.key,
            fix=f"Materialize {table.name} for {hour.key} again, and what follows from it{release.in_run}.",
        )
    return rows


def refuse_other_models(
    rows: pa.Table, expected: Mapping[str, str], *, table: str, hour: CameraHour, release: Release
) -> None:
    """Raise ModelMismatchError when a model id column holds anything but the expected id."""
    for column, model_id in expected.items():
        others = sorted(set(rows[column].to_pylist()) - {model_id})
        if others:
            raise ModelMismatchError(
                f"{table} was made with {column} {', '.join(others)}, but release {release.name} has {model_id}",
                where=hour.key,
                fix=f"Materialize {table} for {hour.key} again, and what follows from it{release.in_run}.",
            )


def _with_ids(columns: list[str] | None, expected: Mapping[str, str]) -> list[str] | None:
    return None if columns is None else list(dict.fromkeys(["segment_id", *columns, *expected]))
