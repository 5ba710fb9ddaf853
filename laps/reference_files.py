"""Files of the reference implementation (jiajiezhang7/LAPS): energies, segments and their codes.

Energies are JSON lines ``{"window", "energy", "source", "mode"}``; window w stands at w * stride / target_fps seconds.
Segments are one JSON object with ``segments[].start_sec``, ``end_sec`` and ``segmentation_params``; codes of a segment
are one with ``codes_windows``, ``segment`` and ``window``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError

_LARGEST_WINDOW = 2**53


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("the file is no UTF-8 text", where=str(path)) from error


def read_energy_jsonl(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Windows and energies of an energy file, sorted by window.

    Returns:
        int64[n] distinct window numbers in rising order, float64[n] finite energies.

    Raises:
        InputError: the file cannot be read, a line is no such object (the line is named), an energy is not finite,
            or a window occurs twice.
    """
    windows, energies, _, _ = _read_energies(path)
    return windows, energies


def read_energy_file(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64], str, str]:
    """:func:`read_energy_jsonl`, and the source and mode that all lines of the file name.

    Raises:
        InputError: as there, or the lines name several sources or modes, or none.
    """
    windows, energies, sources, modes = _read_energies(path)
    for name, found in (("source", sources), ("mode", modes)):
        if len(found) != 1 or not isinstance(next(iter(found)), str):
            raise InputError(
                f"its lines must name one {name}, and name {', '.join(sorted(map(str, found)))}", where=str(path)
            )
    return windows, energies, str(sources.pop()), str(modes.pop())


def _read_energies(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64], set[Any], set[Any]]:
    energies: dict[int, float] = {}
    sources: set[Any] = set()
    modes: set[Any] = set()
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            window, energy = row["window"], float(row["energy"])
            sources.add(row.get("source"))
            modes.add(row.get("mode"))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise InputError('the line is no energy of the form {"window": 0, "energy": 1.5}', where=where) from error
        if type(window) is not int or abs(window) > _LARGEST_WINDOW or not math.isfinite(energy):
            raise InputError(f"window {window!r} must be a whole number and energy {energy!r} finite", where=where)
        if window in energies:
            raise InputError(f"window {window} occurs a second time", where=where)
        energies[window] = energy
    if not energies:
        raise InputError("the file holds no energies", where=str(path))
    windows = np.array(sorted(energies), dtype=np.int64)
    return windows, np.array([energies[window] for window in windows.tolist()]), sources, modes


def window_means(energy: NDArray[np.floating[Any]], first: int, stride: int) -> NDArray[np.float64]:
    """Energies a sample as energies a window, the mean over the samples that a window owns.

    Args:
        energy: float[n], NaN where null; the samples from ``first`` on the absolute grid.
        first: number of the first sample.
        stride: samples that a window owns; a window's last sample is congruent to stride - 1.

    Returns:
        float64[m]: one value for each window that owns samples of the range wholly; NaN where one of them is null.
    """
    values = np.asarray(energy, dtype=np.float64)
    values = values[(-first) % stride :]
    return values[: len(values) - len(values) % stride].reshape(-1, stride).mean(axis=1)


def write_energy_jsonl(path: Path, energy: NDArray[np.floating[Any]], *, source: str, mode: str) -> None:
    """Write energies, one a window, numbered from 0; a window that is null is left out."""
    lines = [
        json.dumps({"window": window, "energy": value, "source": source, "mode": mode})
        for window, value in enumerate(np.asarray(energy, dtype=np.float64).tolist())
        if math.isfinite(value)
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_segments_json(path: Path) -> dict[str, Any]:
    """A segments file, or a truth file of the same form.

    Raises:
        InputError: the file cannot be read or has neither segments with ``start_sec < end_sec`` nor boundaries.
    """
    try:
        document = json.loads(_read_text(path))
    except ValueError as error:
        raise InputError(f"the file is no JSON ({error})", where=str(path)) from error
    if not isinstance(document, dict) or not ("segments" in document or "boundaries" in document):
        raise InputError('the file has no "segments"', where=str(path))
    check_segments(document, where=str(path))
    return document


def check_segments(document: dict[str, Any], *, where: str) -> None:
    """Raise InputError where a segment lacks its times or does not end after it starts."""
    segments = document.get("segments", [])
    if not isinstance(segments, list):
        raise InputError('"segments" must be a list', where=where)
    for index, segment in enumerate(segments):
        try:
            start, end = float(segment["start_sec"]), float(segment["end_sec"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"segment {index} has no start_sec and end_sec in seconds", where=where) from error
        if not (math.isfinite(start) and math.isfinite(end) and start < end):
            raise InputError(f"segment {index} does not end after it starts ({start} s to {end} s)", where=where)


@dataclass(frozen=True)
class CodesFile:
    """The codes of one segment.

    Attributes:
        start_frame, end_frame: the segment, in samples from the video's first frame, half-open.
        codes: one a sample.
        segment_id: the segment's id, where the file names it.
    """

    start_frame: int
    end_frame: int
    codes: tuple[int, ...]
    segment_id: str | None = None


def read_codes_json(path: Path) -> CodesFile:
    """A ``*.codes.json`` file.

    Windows follow each other by ``window.stride`` samples: of those that overlap, each but the first gives its last
    ``stride`` codes, so that none is repeated.

    Raises:
        InputError: the file cannot be read, or is not of that form.
    """
    try:
        document = json.loads(_read_text(path))
    except ValueError as error:
        raise InputError(f"the file is no JSON ({error})", where=str(path)) from error
    try:
        windows, stride = document["codes_windows"], document["window"]["stride"]
        start, end = document["segment"]["start_frame"], document["segment"]["end_frame"]
        numbers = [stride, start, end, *(code for window in windows for code in window)]
        segment_id = document.get("segment_id")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            'the file has no "codes_windows" with "segment" {"start_frame", "end_frame"} and "window" {"stride"}',
            where=str(path),
        ) from error
    are_lists = isinstance(windows, list) and all(isinstance(window, list) for window in windows)
    are_numbers = all(type(number) is int for number in numbers)
    if not are_lists or not are_numbers or not (stride >= 1 and 0 <= start < end):
        raise InputError(
            f"stride {stride!r}, frames {start!r} to {end!r} and the codes must be whole numbers, and the segment end "
            "after it starts",
            where=str(path),
        )
    codes = [code for place, window in enumerate(windows) for code in (window[-stride:] if place else window)]
    return CodesFile(start, end, tuple(codes), None if segment_id is None else str(segment_id))


def segments_document(
    segments: list[dict[str, Any]],
    *,
    stride: int,
    target_fps: float,
    duration_s: float,
    video: str | None = None,
    parameters: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of a ``{video}_segments.json`` that the reference implementation's evaluation reads.

    Args:
        segments: each with ``start_sec`` and ``end_sec``; further keys are kept.
        stride: samples between windows.
        target_fps: samples a second.
        duration_s: length of the recording.
        video: its file name.
        parameters: further segmentation parameters.
    """
    document: dict[str, Any] = {
        "video_duration_sec": duration_s,
        "segments": segments,
        "segmentation_params": {**(parameters or {}), "stride": stride, "target_fps": target_fps},
    }
    if video is not None:
        document = {"video": video, **document}
    return document


def write_segments_json(path: Path, document: dict[str, Any]) -> None:
    """Write a segments file."""
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
