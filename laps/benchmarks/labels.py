"""Labels of frames as the truth documents that :func:`laps.evaluation.evaluate` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any


def runs_of_labels(labels: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Stretches of equal labels: first frame, the frame after the last, label."""
    start = 0
    for label, run in groupby(labels):
        stop = start + sum(1 for _ in run)
        yield start, stop, label
        start = stop


def truth_of_frames(labels: Sequence[int], *, fps: float, names: dict[str, str]) -> dict[str, Any]:
    """A truth document of one label a frame; frame i lasts from i / fps to (i + 1) / fps seconds.

    Args:
        labels: the label of every frame.
        fps: frames a second.
        names: name of each label, by the label as text.
    """
    return truth_of_segments(
        [(start / fps, stop / fps, str(label)) for start, stop, label in runs_of_labels(labels)],
        duration_s=len(labels) / fps,
        names=names,
    )


def truth_of_segments(
    segments: Sequence[tuple[float, float, str]], *, duration_s: float, names: dict[str, str]
) -> dict[str, Any]:
    """A truth document of segments ``(start_s, end_s, label)``, in order of time."""
    return {
        "duration_sec": duration_s,
        "segments": [{"start_sec": start, "end_sec": end, "label": label} for start, end, label in sorted(segments)],
        "labels": names,
    }
