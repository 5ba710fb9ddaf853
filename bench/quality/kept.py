"""Results that are kept in files, each with a key of all that it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def key_of(*parts: Any) -> str:
    """16 hex digits that stand for these values, which must be JSON-ready."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sources_key(*patterns: str) -> str:
    """16 hex digits that stand for the content of the project's files that match (``laps/**/*.py``)."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in _ROOT.glob(pattern)}):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def file_key(path: Path) -> str:
    """16 hex digits that stand for the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read(path: Path, key: str) -> Any:
    """What was kept in a file under that key, else None (a kept None is not told apart)."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document.get("value") if isinstance(document, dict) and document.get("key") == key else None


def write(path: Path, key: str, value: Any) -> None:
    """Keep a JSON-ready value; a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(json.dumps({"key": key, "value": value}, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def kept(path: Path, key: str, make: Callable[[], Any]) -> Any:
    """The value that was kept in a file under that key, else a new one, kept from now on."""
    value = read(path, key)
    if value is None:
        value = make()
        write(path, key, value)
    return value
