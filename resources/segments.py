"""Reading primitives of a release, refusing those that other models made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from laps.errors import ModelMismatchError
from laps.tables import SEGMENTS
from laps.timegrid import CameraHour
from resources.models import CALIBRATION, TOKENIZER, Release
from resources.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


def read_segments(store: Store, hour: CameraHour, release: Release) -> pa.Table:
    """The primitives of a camera hour; ModelMismatchError when the release's models have changed since."""
    rows = store.read_partition(SEGMENTS, hour, release.name)
    expected = {
        "tokenizer_id": release.require(TOKENIZER),
        "calibration_id": release.require(CALIBRATION, hour.camera),
    }
    refuse_other_models(rows, expected, table=SEGMENTS.name, hour=hour, release=release)
    return rows


def refuse_other_models(
    rows: pa.Table, expected: dict[str, str], *, table: str, hour: CameraHour, release: Release
) -> None:
    """Raise ModelMismatchError when a model id column holds anything but the expected id."""
    for column, model_id in expected.items():
        others = sorted(set(rows[column].to_pylist()) - {model_id})
        if others:
            raise ModelMismatchError(
                f"{table} was made with {column} {', '.join(others)}, but release {release.name} has {model_id}",
                where=hour.key,
                fix=f"Materialize {table} for {hour.key} again, and what follows from it.",
            )
