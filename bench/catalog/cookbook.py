"""The queries of docs/cookbook.md."""

from __future__ import annotations

import re
from pathlib import Path

COOKBOOK = Path(__file__).parent.parent.parent / "docs" / "cookbook.md"


def queries(text: str) -> dict[str, str]:
    """The query below each heading of a question."""
    return dict(re.findall(r"^### ([^\n]+)\n(?:(?!#|```)[^\n]*\n)*```sql\n(.*?)```", text, re.MULTILINE | re.DOTALL))
