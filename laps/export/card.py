"""The card of a data set: what it holds, how it was selected, by which models it was made, and checksums.

``README.md`` is for people, ``dataset_card.json`` for programs, ``SHA256SUMS`` for ``sha256sum --check``. No time of
writing is in it, so that the same export gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laps.export.items import SPLITS, ExportItem, Summary
from laps.timegrid import NS_PER_S, format_utc

CARD_JSON, CARD_MARKDOWN, CHECKSUMS = "dataset_card.json", "README.md", "SHA256SUMS"
_STRETCH_NS = 60 * NS_PER_S


@dataclass(frozen=True)
class CardFacts:
    """What only the caller knows about a data set.

    Attributes:
        name: the data set's name.
        query: the SQL that selected the primitives; None when options did.
        options: the options of selection (clusters, balance, seed, …), as plain JSON values.
        models: ids of the models by their role, for example ``{"tokenizer": …, "cluster_model": …}``.
        thresholds: thresholds by camera, for example ``{"cam1": {"theta_on": 1.9}}``.
        encoder: the vision encoder of the coherence score; None where none was used.
        licences: notes on licences that bind users of the data set, for example of the tracker.
        notes: further sentences.
    """

    name: str
    query: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    encoder: str | None = None
    licences: Sequence[str] = ()
    notes: Sequence[str] = ()


def write_card(folder: Path, facts: CardFacts, summary: Summary) -> None:
    """Write the card beside a finished data set; every file that is there goes into its checksums."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    card = {
        "name": facts.name,
        "format": summary.format,
        "selection": {"query": facts.query, "options": dict(facts.options)},
        "writer_options": summary.options,
        "contents": _contents(summary),
        "models": dict(facts.models),
        "thresholds": {camera: dict(values) for camera, values in facts.thresholds.items()},
        "encoder": facts.encoder,
        "licences": list(facts.licences),
        "notes": list(facts.notes),
        "skipped": [{"segment_id": segment_id, "reason": reason} for segment_id, reason in summary.skipped],
        "files": files,
    }
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True)
    (folder / CARD_JSON).write_text(text + "\n", encoding="utf-8")
    (folder / CARD_MARKDOWN).write_text(_markdown(card), encoding="utf-8")
    sums = {path: entry["sha256"] for path, entry in files.items()}
    sums |= {name: sha256(folder / name) for name in (CARD_JSON, CARD_MARKDOWN)}
    lines = [f"{digest}  {path}\n" for path, digest in sorted(sums.items())]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def sha256(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contents(summary: Summary) -> dict[str, Any]:
    items = summary.written
    return {
        "primitives": len(items),
        "frames": summary.frames,
        "codes": summary.codes,
        "distinct_codes": len(set().union(*(item.codes for item in items))),
        "rate_hz": items[0].rate_hz if items else None,
        "tokenizer_id": items[0].tokenizer_id if items else None,
        "first_start": format_utc(min(item.start_ns for item in items)) if items else None,
        "last_end": format_utc(max(item.end_ns for item in items)) if items else None,
        "durations_s": _durations(items),
        "splits": {name: _durations([item for item in items if item.split == name]) for name in SPLITS},
        "cameras": dict(sorted(Counter(item.camera for item in items).items())),
        "filmed": _filmed(items),
        "tasks": dict(sorted(Counter(item.task for item in items).items())),
    }


def _filmed(items: Sequence[ExportItem]) -> dict[str, list[list[str]]]:
    """For each camera the times that its primitives lie in, so that one can tell what shows a time that is forgotten.

    Neighbours that are less than a minute apart make one: the list stays short.
    """
    spans: dict[str, list[tuple[int, int]]] = {}
    for item in sorted(items, key=lambda item: (item.camera, item.start_ns)):
        before = spans.setdefault(item.camera, [])
        if before and item.start_ns - before[-1][1] < _STRETCH_NS:
            start_ns, end_ns = before.pop()
            before.append((start_ns, max(end_ns, item.end_ns)))
        else:
            before.append((item.start_ns, item.end_ns))
    return {camera: [[format_utc(start), format_utc(end)] for start, end in of] for camera, of in spans.items()}


def _durations(items: Sequence[ExportItem]) -> dict[str, float | int]:
    values = [item.duration_s for item in items]
    if not values:
        return {"count": 0, "total": 0.0}
    figures = {"total": sum(values), "min": min(values), "median": statistics.median(values), "max": max(values)}
    return {"count": len(values), **{name: round(value, 6) for name, value in figures.items()}}


def _markdown(card: Mapping[str, Any]) -> str:
    contents, selection = card["contents"], card["selection"]
    lines = [
        f"# {card['name']}",
        "",
        f"Action primitives with latent action codes, format: {card['format']}.",
        "",
        "## Contents",
        "",
        f"- {contents['primitives']} primitives, {contents['frames']} frames, {contents['codes']} codes "
        f"({contents['distinct_codes']} distinct) at {contents['rate_hz']} Hz",
        f"- from {contents['first_start']} to {contents['last_end']}",
        f"- cameras: {', '.join(f'{name} ({count})' for name, count in contents['cameras'].items())}",
        "",
        *_table("split", contents["splits"]),
        "",
        "| task | primitives |",
        "|---|---|",
        *(f"| {_cell(task)} | {count} |" for task, count in contents["tasks"].items()),
        "",
        "## Selection",
        "",
    ]
    if selection["query"]:
        lines += ["```sql", selection["query"].strip(), "```", ""]
    lines += _list(selection["options"])
    lines += ["## Models and thresholds", "", *_list(card["models"])]
    lines += [
        f"- {camera}: {', '.join(f'{name} = {value:g}' for name, value in values.items())}"
        for camera, values in card["thresholds"].items()
    ]
    lines += [f"- vision encoder of the coherence score: {card['encoder'] or 'none'}", ""]
    lines += ["## Licences", ""]
    lines += [f"- {note}" for note in card["licences"]] or ["No note was given."]
    lines.append("")
    if card["notes"]:
        lines += ["## Notes", "", *(f"- {note}" for note in card["notes"]), ""]
    if card["skipped"]:
        lines += [f"## Left out: {len(card['skipped'])} primitives", ""]
        lines += [f"- {one['segment_id']}: {one['reason']}" for one in card["skipped"][:20]]
        lines += [f"- and more, see `{CARD_JSON}`"] if len(card["skipped"]) > 20 else []
        lines.append("")
    lines += ["## Files", "", f"{len(card['files'])} files; check them with `sha256sum --check {CHECKSUMS}`."]
    return "\n".join(lines) + "\n"


def _table(head: str, rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [f"| {head} | primitives | total s | shortest s | median s | longest s |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        figures = " | ".join(f"{row[key]:.2f}" if key in row else "-" for key in ("total", "min", "median", "max"))
        lines.append(f"| {name} | {row['count']} | {figures} |")
    return lines


def _list(values: Mapping[str, Any]) -> list[str]:
    lines = [f"- {name}: {json.dumps(value, ensure_ascii=False, default=str)}" for name, value in values.items()]
    return [*lines, ""] if lines else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
