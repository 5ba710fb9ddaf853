"""The results of a benchmark in the form of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAPER_TABLE_1 = {
    "gtea": {"ABD": (81.92, 74.23), "OTAS": (37.68, 36.90), "LAPS": (73.12, 63.20)},
    "breakfast": {"ABD": (54.50, 33.33), "OTAS": (62.13, 39.49), "LAPS": (58.82, 36.72)},
}
"""F1@5s and F1@2s in percent, as the paper prints them."""

_KINDS = {
    "equal_true": "chance: equal n",
    "equal_predicted": "chance: equal n'",
    "random_true": "chance: random n",
    "random_predicted": "chance: random n'",
    "metronome": "chance: metronome",
}


def columns(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The columns of the table: for each its ``value`` and those of the blind predictors, from 0 to 1.

    ``F1@5s`` and ``F1@2s`` match the reference implementation's way, with ``1:1`` the best one-to-one matching of the
    same boundaries.

    Args:
        result: of :func:`laps.evaluation.evaluate` or :func:`laps.evaluation.evaluate_recordings`.
    """
    found: dict[str, dict[str, float | None]] = {}
    for metric, suffix in (("boundary_greedy", ""), ("boundary", " 1:1")):
        for tolerance_s in (5.0, 2.0):
            for score in result["scores"]:
                if score["metric"] == metric and score["tolerance_s"] == tolerance_s:
                    found[f"F1@{tolerance_s:g}s{suffix}"] = {"value": score["f1"], **_blind(score)}
    for score in result["average_precision"]:
        found[f"mAP@{score['iou']:g}"] = {"value": score["value"], **_blind(score)}
    return found


def _blind(score: dict[str, Any]) -> dict[str, float]:
    return {kind: value for kind, value in score["chance"].items() if kind != "metronome_period_s"}


def mean_of(rows: Sequence[dict[str, dict[str, float | None]]]) -> dict[str, dict[str, float | None]]:
    """Mean over the videos of each column's values; None where no video has one."""
    found: dict[str, dict[str, float | None]] = {}
    for column in dict.fromkeys(name for row in rows for name in row):
        cells = [row[column] for row in rows if column in row]
        found[column] = {}
        for kind in dict.fromkeys(name for cell in cells for name in cell):
            values = [value for cell in cells if (value := cell.get(kind)) is not None]
            found[column][kind] = sum(values) / len(values) if values else None
    return found


def render_benchmark(results: dict[str, Any]) -> str:
    """The results as a table in the form of the paper's Table 1, in percent, beside chance and the paper's figures."""
    pooled, mean = columns(results["pooled"]), results["mean"]
    names = list(pooled)
    rows = [
        ["this run, mean of videos", *(_percent(mean.get(name, {}).get("value")) for name in names)],
        ["best blind, mean of videos", *(_percent(_best_blind(mean.get(name, {}))) for name in names)],
        ["this run, counts added", *(_percent(pooled[name]["value"]) for name in names)],
    ]
    kinds = dict.fromkeys(kind for cells in pooled.values() for kind in cells if kind != "value")
    rows += [[_KINDS.get(kind, kind), *(_percent(pooled[name].get(kind)) for name in names)] for kind in kinds]
    for method, figures in PAPER_TABLE_1.get(results["layout"], {}).items():
        known = dict(zip(("F1@5s", "F1@2s"), figures, strict=True))
        rows.append([f"paper: {method}", *(f"{known[name]:.2f}" if name in known else "" for name in names)])
    settings, counts = results["settings"], results["pooled"]["counts"]
    many, length_min = len(results["videos"]), results["pooled"]["duration_s"] / 60
    ratio = counts["over_segmentation"]
    lines = [
        f"{results['dataset']}, {', '.join(fold['name'] for fold in results['folds'])}, {settings['setting']}: "
        f"{many} video{'' if many == 1 else 's'}, {length_min:.1f} min, {counts['truth']} true and "
        f"{counts['predicted']} predicted {counts['unit']}"
        + (f" (over-segmentation {ratio:.2f})" if ratio is not None else ""),
        "",
        *_aligned([["", *names], *rows]),
        "",
        "In percent. 'counts added' pools the boundaries of all videos, and so does chance: predictions that did not",
        "look, n as many as in truth, n' as predicted. The paper states neither how it averages nor which videos it",
        "scored. 1:1 is the best one-to-one matching; without it boundaries are matched as the reference does.",
    ]
    if results["failed"]:
        names = sorted(results["failed"])
        lines.append(f"Left out: {len(names)} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''}).")
    return "\n".join(lines) + "\n"


def _best_blind(cells: dict[str, float | None]) -> float | None:
    return max((value for kind, value in cells.items() if kind != "value" and value is not None), default=None)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
