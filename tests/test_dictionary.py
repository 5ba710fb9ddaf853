"""The data dictionary in the docs is the registry's."""

from __future__ import annotations

from pathlib import Path

from laps.catalog import PARTITIONS, PRIMITIVES
from laps.dictionary import markdown
from laps.tables import TABLES


def test_the_committed_dictionary_is_current() -> None:
    committed = Path(__file__).parent.parent / "docs" / "tables.md"
    assert committed.read_text(encoding="utf-8") == markdown(), "run `make docs`"


def test_every_column_is_in_it() -> None:
    text = markdown()
    for table in TABLES.values():
        assert f"\n## {table.name}\n" in text
        for column in table.columns:
            assert f"| `{column.name}` |" in text
    for view in (PRIMITIVES, PARTITIONS):
        (section,) = [part for part in text.split("\n## ") if part.startswith(f"{view.name} (view)\n")]
        assert all(f"| `{column.name}` |" in section for column in view.columns)
