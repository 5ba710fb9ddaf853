"""The schema registry: what it declares is whole, and rows that do not fit never pass."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from laps.errors import InputError, SchemaError
from laps.tables import CLUSTER_ASSIGNMENTS, RAW_VIDEO, SEGMENTS, TABLES, table

GOOD = {
    "segment_id": ["a", "b"],
    "camera": ["cam1", "cam1"],
    "cluster_id": [1, 2],
    "centroid_distance": [0.1, 0.2],
    "cluster_model_id": ["k1", "k1"],
    "release": ["r1", "r1"],
}


def test_every_column_is_described_and_every_key_exists() -> None:
    for name, declared in TABLES.items():
        assert declared.name == name
        assert declared.description
        assert set(declared.key) <= set(declared.column_names)
        assert len(set(declared.column_names)) == len(declared.columns)
        schema = declared.schema()
        for column, field in zip(declared.columns, schema, strict=True):
            assert column.description, f"{name}.{column.name}"
            assert field.metadata[b"description"].decode() == column.description
            # A quantity carries its unit in the name or in the declaration.
            if column.name.endswith(("_s", "_px", "_ns", "_bytes", "_deg")):
                assert column.unit, f"{name}.{column.name} has no unit"


def test_good_rows_pass_and_are_cast() -> None:
    rows = CLUSTER_ASSIGNMENTS.validate(pa.table(GOOD))
    assert rows.schema.equals(CLUSTER_ASSIGNMENTS.schema())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera": None}, "missing columns camera"),
        ({"more": [1, 2]}, "unknown columns more"),
        ({"segment_id": ["a", None]}, "segment_id has 1 nulls"),
        ({"segment_id": ["a", "a"]}, "repeat the key"),
        ({"cluster_id": ["one", "two"]}, "cluster_id does not fit"),
        ({"cluster_id": [1.5, 2.0]}, "cluster_id does not fit"),
    ],
)
def test_bad_rows_are_refused_with_the_reason(change: dict[str, object], message: str) -> None:
    columns = {name: values for name, values in {**GOOD, **change}.items() if values is not None}
    with pytest.raises(SchemaError, match=message):
        CLUSTER_ASSIGNMENTS.validate(pa.table(columns))


def test_values_outside_a_closed_set_are_refused() -> None:
    when = [datetime(2026, 11, 21, tzinfo=UTC)]
    row = {
        "camera": ["c"],
        "start_time": when,
        "end_time": when,
        "status": ["fine"],
        "used": [True],
        "recording_id": [""],
    }
    columns = {
        field.name: pa.array(row[field.name], field.type) if field.name in row else pa.nulls(1, field.type)
        for field in RAW_VIDEO.schema()
    }
    with pytest.raises(SchemaError, match=r"unknown values \['fine'\]"):
        RAW_VIDEO.validate(pa.table(columns))


def test_an_unknown_table_lists_the_known_ones() -> None:
    assert table("segments") is SEGMENTS
    with pytest.raises(InputError, match="segments"):
        table("segment")
