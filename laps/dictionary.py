"""The data dictionary: every table, view and column as Markdown.

``python -m laps.dictionary docs/tables.md`` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from laps.catalog import PARTITIONS, PRIMITIVES
from laps.tables import FORGOTTEN, IMPORTED_ENERGY, IMPORTED_SEGMENTS, RECORDINGS, TABLES, Table

_LAYOUT = {
    None: "`{name}/camera=<camera>/date=<YYYY-MM-DD>/hour=<HH>/part-0.parquet`",
    "tokenizer": "`{name}/tokenizer=<id>/camera=<camera>/date=<YYYY-MM-DD>/hour=<HH>/part-0.parquet`",
    "release": "`{name}/release=<name>/camera=<camera>/date=<YYYY-MM-DD>/hour=<HH>/part-0.parquet`",
}

_HEAD = """# The tables

Made from the schema registry (`laps/tables.py`) by `make docs`; do not edit.

All times are UTC with microseconds. Ranges are half-open. A *sample* is a tenth of a second, numbered since the Unix
epoch, so `sample / 10` is its time in seconds. A processed hour leaves a file in every table that is kept by hour,
without rows if there is nothing; no file means that the hour has not been processed. In the catalog each table is a
view of the same name; those of tables that are kept by hour have the columns `date` and `hour` of the partition beside
those below, and those with `camera` and `start_time` also `start_local`, `shift` and `shift_date`: wall clock and shift
of the camera, null where nobody set them (`laps camera set`). `primitives` and `partitions` are views only.
"""

# Tables kept by camera whose files are named and counted in ways of their own.
_ONE_FOR_EACH = {
    RECORDINGS: ("<first part of recording_id>", "one for each file that was offered"),
    FORGOTTEN: ("<start>-<end>", "one for each time"),
    IMPORTED_SEGMENTS: ("<hash>", "one for each imported video"),
    IMPORTED_ENERGY: ("<hash>", "one for each energy of an imported video"),
}


def layout(table: Table) -> str:
    """Where a table's files lie below the store's root."""
    if table.partitioned == "camera":
        name, count = _ONE_FOR_EACH[table]
        return f"`{table.name}/camera=<camera>/{name}.parquet`, {count}"
    if table.partitioned == "cluster":
        return f"`{table.name}/cluster_model=<id>/<cluster_id>.parquet`"
    if table.partitioned == "one_per_camera":
        return f"`{table.name}/camera=<camera>/part-0.parquet`"
    if table.partitioned == "release":
        return f"`{table.name}/release=<name>/part-0.parquet`"
    return _LAYOUT[table.model_level].format(name=table.name)


def markdown() -> str:
    """The whole dictionary."""
    parts = [_HEAD]
    for table in (PRIMITIVES, *TABLES.values(), PARTITIONS):
        is_view = table.name not in TABLES
        parts.append(f"\n## {table.name}{' (view)' if is_view else ''}\n\n{table.description}\n\n")
        parts.append("No files: made from the tables. " if is_view else f"Files: {layout(table)}. ")
        parts.append(f"A row is identified by {', '.join(f'`{name}`' for name in table.key)}.\n\n")
        parts.append("| column | type | unit | null | meaning |\n|---|---|---|---|---|\n")
        for column in table.columns:
            meaning = column.description.replace("|", "\\|")
            if column.values:
                meaning += " One of " + ", ".join(f"`{value}`" for value in column.values) + "."
            null = "yes" if column.nullable else ""
            parts.append(f"| `{column.name}` | {column.type} | {column.unit or ''} | {null} | {meaning} |\n")
    return "".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
