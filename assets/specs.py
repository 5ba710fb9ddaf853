"""What all assets have in common: descriptions, groups, kinds, owners, column schemas."""

from __future__ import annotations

import inspect
from typing import Any

import dagster as dg

from laps.tables import Table

OWNERS = ["team:laps"]

OBSERVE = "observe"
SEGMENT = "segment"
MODELS = "models"
PUBLISH = "publish"


def column_schema(table: Table) -> dg.TableSchema:
    """The table's columns as the Dagster UI shows them."""
    columns = []
    for column in table.columns:
        text = column.description + (f" [{column.unit}]" if column.unit else "")
        constraints = dg.TableColumnConstraints(nullable=column.nullable, unique=table.key == (column.name,))
        columns.append(dg.TableColumn(column.name, column.type, text, constraints=constraints))
    return dg.TableSchema(columns)


def describe(module_doc: str | None, *, group: str, kinds: set[str], table: Table | None = None) -> dict[str, Any]:
    """Keyword arguments for ``dg.asset`` or ``dg.AssetSpec``; the module's docstring is the description."""
    described: dict[str, Any] = {
        "description": inspect.cleandoc(module_doc or ""),
        "group_name": group,
        "kinds": kinds,
        "owners": OWNERS,
    }
    if table is not None:
        described["metadata"] = {"dagster/column_schema": column_schema(table)}
    return described


def picture(png: bytes, caption: str) -> dg.MarkdownMetadataValue:
    """A plot for the UI, as Markdown with the image inside."""
    import base64

    return dg.MetadataValue.md(f"![{caption}](data:image/png;base64,{base64.b64encode(png).decode()})")
