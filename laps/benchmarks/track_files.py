"""Files of point tracks: positions of N points over frames, in any unit, in two or three dimensions.

**Parquet or CSV**, one row a frame, in one file for any number of trials:

=================  ===========================================================================================
column             meaning
=================  ===========================================================================================
``trial``          name of the recording that the row belongs to; without it the file is one trial, named as the file
``frame``          number of the frame, rising within a trial; frames may be left out. Needs the frame rate
``time_s``         instead of ``frame``: time in seconds
``p0_x``, …        position of point 0 along x, and so on: ``p<k>_x``, ``p<k>_y`` and perhaps ``p<k>_z`` for
                   k = 0 … N - 1, all in one unit. Empty or NaN: the point was lost
=================  ===========================================================================================

**Segments** beside it (Parquet or CSV): ``trial``, ``label``, and ``start_frame`` with ``end_frame`` (exclusive) or
``start_s`` with ``end_s``, on the same clock as the tracks.

**npz**, one trial a file: ``positions`` (or ``positions_<unit>``) float [F, N, 2 or 3], NaN where lost; ``fps``;
and, where truth is known, ``label`` [F].
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from laps.errors import InputError

_AXES = "xyz"


@dataclass(frozen=True, eq=False)
class PointTracks:
    """One trial.

    Attributes:
        name: of the trial.
        times_s: float64 [F], strictly rising, of each frame since the trial's first.
        positions: float64 [F, N, D], D = 2 or 3, in the file's unit; NaN where a point was lost.
        interval_s: time between frames; the last one is shown for so long.
        origin_s: time of the first frame on the file's own clock, on which segments are given.
    """

    name: str
    times_s: NDArray[np.float64]
    positions: NDArray[np.float64]
    interval_s: float
    origin_s: float

    @property
    def duration_s(self) -> float:
        return float(self.times_s[-1]) + self.interval_s


def read_tracks(path: Path, *, fps: float | None = None, trials: Collection[str] | None = None) -> list[PointTracks]:
    """The trials of a Parquet or CSV file (see the module's description), in the file's order.

    Args:
        path: the file.
        fps: frames a second; needed where the file numbers frames.
        trials: read these only.

    Raises:
        InputError: the file cannot be read, columns are missing, times do not rise, a chosen trial is not there.
    """
    if fps is not None and not fps > 0:
        raise InputError(f"the frame rate must be above 0, not {fps}", where=str(path))
    table = _read_table(path)
    if not table.num_rows:
        raise InputError("the file holds no rows", where=str(path))
    columns = _point_columns(table.column_names, path)
    if "time_s" in table.column_names:
        clock, scale = "time_s", 1.0
    elif "frame" not in table.column_names:
        raise InputError('there is neither a column "frame" nor "time_s"', where=str(path))
    elif fps is None:
        raise InputError("the file numbers frames, so their rate is needed", where=str(path), fix="Give fps.")
    else:
        clock, scale = "frame", 1.0 / fps
    found = []
    for name, rows in _by_trial(table, path.stem.split(".")[0], trials, path):
        where = f"{path}, trial {name}"
        times_s = _numbers(rows, clock, where) * scale
        if not (np.isfinite(times_s).all() and (np.diff(times_s) > 0).all()):
            raise InputError(f'"{clock}" does not rise from row to row', where=where)
        values = np.stack([_numbers(rows, column, where) for axes in columns for column in axes], axis=-1)
        if clock == "frame" and fps is not None:
            interval_s = 1.0 / fps
        elif len(times_s) > 1:
            interval_s = float(np.median(np.diff(times_s)))
        else:
            raise InputError("one row alone has no duration", where=where)
        positions = values.reshape(len(values), len(columns), -1)
        found.append(PointTracks(name, times_s - times_s[0], positions, interval_s, float(times_s[0])))
    return found


def read_npz(path: Path) -> tuple[PointTracks, NDArray[np.int64] | None]:
    """The trial of an npz file (see the module's description), and the label of each frame where the file has them.

    Raises:
        InputError: the file cannot be read, or arrays are missing or of the wrong shape.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror or error})", where=str(path)) from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"the file is no npz of plain arrays ({error})", where=str(path)) from error
    names = [name for name in arrays if name == "positions" or name.startswith("positions_")]
    if len(names) != 1 or "fps" not in arrays:
        raise InputError('there must be "positions" (or "positions_<unit>") and "fps"', where=str(path))
    positions = arrays[names[0]].astype(np.float64)
    if positions.ndim != 3 or positions.shape[2] not in (2, 3) or not positions.size:
        raise InputError(
            f"{names[0]} has the shape {list(positions.shape)}, not [frames, points, 2 or 3]", where=str(path)
        )
    fps = float(arrays["fps"])
    if not (np.isfinite(fps) and fps > 0):
        raise InputError(f"fps must be above 0, not {fps}", where=str(path))
    labels = arrays.get("label")
    if labels is not None and (labels.shape != positions.shape[:1] or labels.dtype.kind not in "iu"):
        raise InputError(
            f"label must hold a whole number for each of {len(positions)} frames, not {labels.dtype} "
            f"{list(labels.shape)}",
            where=str(path),
        )
    tracks = PointTracks(path.stem, np.arange(len(positions)) / fps, positions, 1.0 / fps, 0.0)
    return tracks, None if labels is None else labels.astype(np.int64)


def read_segments(path: Path, *, fps: float | None = None) -> dict[str, list[tuple[float, float, str]]]:
    """Segments ``(start_s, end_s, label)`` of each trial of a Parquet or CSV file, on the tracks' clock.

    Raises:
        InputError: the file cannot be read, columns are missing, or a segment does not end after it starts.
    """
    table = _read_table(path)
    names = set(table.column_names)
    if {"start_s", "end_s"} <= names:
        start, end, scale = "start_s", "end_s", 1.0
    elif not {"start_frame", "end_frame"} <= names:
        raise InputError('there is neither "start_frame" and "end_frame" nor "start_s" and "end_s"', where=str(path))
    elif fps is None:
        raise InputError("the file numbers frames, so their rate is needed", where=str(path), fix="Give fps.")
    else:
        start, end, scale = "start_frame", "end_frame", 1.0 / fps
    if "trial" not in names or "label" not in names:
        raise InputError('there is no column "trial" or no column "label"', where=str(path))
    starts, ends = (_numbers(table, column, str(path)) * scale for column in (start, end))
    wrong = np.flatnonzero(~(starts < ends))
    if len(wrong):
        raise InputError(f"segment {int(wrong[0])} does not end after it starts", where=str(path))
    segments: dict[str, list[tuple[float, float, str]]] = {}
    rows = zip(table["trial"].to_pylist(), starts.tolist(), ends.tolist(), table["label"].to_pylist(), strict=True)
    for trial, start_s, end_s, label in rows:
        segments.setdefault(str(trial), []).append((start_s, end_s, str(label)))
    return segments


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".csv":
            return pyarrow.csv.read_csv(path)
        return pyarrow.parquet.read_table(path)
    except OSError as error:
        raise InputError(f"the file cannot be read ({error})", where=str(path)) from error
    except pa.ArrowInvalid as error:
        raise InputError(f"the file is neither Parquet nor CSV ({error})", where=str(path)) from error


def _point_columns(names: list[str], path: Path) -> list[list[str]]:
    """Names of the columns of each point, its axes in order."""
    found: dict[int, set[str]] = {}
    for name in names:
        match = re.fullmatch(r"p(\d+)_([xyz])", name)
        if match:
            found.setdefault(int(match[1]), set()).add(match[2])
    axes = _AXES if any("z" in axes for axes in found.values()) else _AXES[:2]
    if not found or set(found) != set(range(len(found))) or any(set(axes) != there for there in found.values()):
        raise InputError(
            "the columns of positions are not p0_x, p0_y (and p0_z), p1_x … without a gap",
            where=str(path),
            fix="Name them so, every point with the same axes.",
        )
    return [[f"p{point}_{axis}" for axis in axes] for point in range(len(found))]


def _by_trial(table: pa.Table, name: str, trials: Collection[str] | None, path: Path) -> Iterator[tuple[str, pa.Table]]:
    if "trial" in table.column_names:
        there = [(str(value.as_py()), pc.equal(table["trial"], value)) for value in pc.unique(table["trial"])]
    else:
        there = [(name, None)]
    missing = set(trials or ()) - {trial for trial, _ in there}
    if missing:
        raise InputError(f"there is no trial {sorted(missing)[0]}", where=str(path))
    for trial, mask in there:
        if trials is None or trial in trials:
            yield trial, table if mask is None else table.filter(mask)


def _numbers(table: pa.Table, column: str, where: str) -> NDArray[np.float64]:
    try:
        values: NDArray[np.float64] = table[column].cast(pa.float64()).fill_null(np.nan).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"column {column} does not hold numbers", where=where) from error
    return values
