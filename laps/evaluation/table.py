"""Scores as plain text for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from laps.evaluation.scoring import CHANCES

_HEADER = ("score", "at", "value", "precision", "recall", "equal n", "equal n'", "random n", "random n'", "metronome")


def render(result: dict[str, Any]) -> str:
    """The result of :func:`evaluate` or :func:`evaluate_recordings`, every score beside its chance levels."""
    counts = result["counts"]
    ratio = counts["over_segmentation"]
    many = f"{result['recordings']} recordings of " if result["recordings"] > 1 else ""
    lines = [
        f"{many}{result['duration_s']:.1f} s, {counts['truth']} true and {counts['predicted']} predicted "
        f"{counts['unit']}" + (f" (over-segmentation {ratio:.2f})" if ratio is not None else ""),
        "",
    ]
    rows = [
        [
            score["metric"],
            f"IoU {score['iou']:g}" if "iou" in score else f"{score['tolerance_s']:g} s",
            *(f"{score[name]:.3f}" for name in ("f1", "precision", "recall")),
            *_chance(score["chance"]),
        ]
        for score in result["scores"]
    ]
    for score in result["average_precision"]:
        value = "-" if score["value"] is None else f"{score['value']:.3f}"
        rows.append(["mAP", f"IoU {score['iou']:g}", value, "", "", *_chance(score["chance"])])
    lines += [
        *_aligned(_HEADER, rows),
        "",
        "The value is F1, or average precision (mAP). The columns from 'equal n' on are the same of predictions that",
        "did not look: as many as in truth (n) or as predicted (n'), equally spaced or at random, and the best",
        "metronome over 1 to 10 s, which is picked with the truth in hand.",
    ]
    reasons = {score["reason"] for score in result["average_precision"]} - {None}
    lines += [f"No mAP: {reason}." for reason in sorted(reasons)]
    return "\n".join(lines) + "\n"


def _chance(chance: dict[str, float]) -> list[str]:
    metronome = f"{chance['metronome']:.3f} ({chance['metronome_period_s']:g} s)"
    return [*(f"{chance[kind]:.3f}" for kind in CHANCES[:-1]), metronome]


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
