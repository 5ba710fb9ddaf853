"""Recordings of points instead of video: what enters after tracking.

Sensors on hands and body joints are tracks already. They become windows of the same kind as those of a video: on the
same grid, under the same rules (:mod:`laps.timegrid`), with displacements in px of a picture whose short side is
320 px, so that tokenizer and energies need not know. Only the number of points differs, and that they are the same
points in every window instead of a fresh grid: :meth:`laps.tracks.TrackWindows.positions` has no meaning here.

Two choices are fixed by a :class:`Projection`, which is fitted once and then part of the tracker's name, so that a
tokenizer meets only tracks of the projection that it was trained on:

- Three dimensions become two by an orthographic projection onto the two principal axes of all positions, as a camera
  would stand that sees most of the working area. Positions that have two dimensions keep their axes.
- The unit becomes px by the working area: the range of the positions along each axis between their 0.5% and 99.5%
  quantiles, of which the shorter spans 320 px. The picture has the working area's shape, but at most 1:4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laps.benchmarks.labels import truth_of_frames, truth_of_segments
from laps.benchmarks.track_files import PointTracks, read_npz, read_segments, read_tracks
from laps.errors import InputError
from laps.single import START_NS
from laps.timegrid import NS_PER_S, SampleGrid
from laps.tracks import MAX_DISPLACEMENT, UNITS_PER_PX, TrackWindows

SHORT_SIDE_PX = 320
SUTURING_FPS = 30.0
SUTURING_NAMES = {
    "G0": "no gesture",
    "G1": "needle passing",
    "G2": "pull the suture",
    "G3": "instrument tie",
    "G4": "lay the knot",
    "G5": "cut the suture",
}
_QUANTILES = (0.5, 99.5)  # percent; outside of them are mistakes of the sensors
_LONGEST_SHAPE = 4.0
_LARGEST_UNITS = 2.0**30  # of a position in 1/32 px: differences of such values fit int32


@dataclass(frozen=True)
class Projection:
    """From positions in a file's unit to px of a picture with a short side of 320 px.

    Attributes:
        centre: [D], the point that the picture's middle shows.
        axes: [2][D], unit vectors along the picture's x and y.
        px_per_unit: scale.
        width_px, height_px: size of the picture.
    """

    centre: tuple[float, ...]
    axes: tuple[tuple[float, ...], tuple[float, ...]]
    px_per_unit: float
    width_px: int
    height_px: int

    @classmethod
    def fit(cls, tracks: Iterable[PointTracks], *, short_side_px: int = SHORT_SIDE_PX) -> Projection:
        """The projection of the working area of these trials; give the training half only.

        Raises:
            InputError: no position at all, trials of different dimensions, or points that never move.
        """
        parts = [trial.positions.reshape(-1, trial.positions.shape[2]) for trial in tracks]
        if len({part.shape[1] for part in parts}) > 1:
            raise InputError("some trials have two dimensions and some three", fix="Fit on trials of one kind.")
        points = np.concatenate(parts) if parts else np.empty((0, 2))
        points = points[np.isfinite(points).all(axis=1)]
        if not len(points):
            raise InputError("there is no position to fit a projection on")
        centre = np.median(points, axis=0)
        axes = np.eye(2) if points.shape[1] == 2 else _principal_axes(points)
        low, high = np.percentile((points - centre) @ axes.T, _QUANTILES, axis=0)
        centre = centre + (low + high) / 2 @ axes
        extent = high - low
        if not extent.max() > 0:
            raise InputError("the points never move, so there is no working area")
        extent = np.maximum(extent, extent.max() / _LONGEST_SHAPE)
        scale = short_side_px / float(extent.min())
        width_px, height_px = (round(float(side) * scale) for side in extent)
        return cls(
            tuple(centre.tolist()), (tuple(axes[0].tolist()), tuple(axes[1].tolist())), scale, width_px, height_px
        )

    def to_px(self, positions: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Positions [..., D] -> px [..., 2], x then y, pixel centres at whole numbers.

        Raises:
            InputError: positions of another dimension.
        """
        if positions.shape[-1] != len(self.centre):
            raise InputError(
                f"the projection is for {len(self.centre)} dimensions, the positions have {positions.shape[-1]}"
            )
        flat = (positions - np.array(self.centre)) @ np.array(self.axes).T
        middle = (np.array([self.width_px, self.height_px]) - 1) / 2
        px: NDArray[np.float64] = flat * self.px_per_unit + middle
        return px

    def tracker_id(self, points: int) -> str:
        """Name of the tracks: number of points and hash of the projection."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        return f"points/{points}/{digest}/v1"


@dataclass(frozen=True, eq=False)
class KinematicRecording:
    """One trial, as the pipeline sees a file.

    Attributes:
        name: of the trial.
        windows: all its windows.
        first, stop: samples of the grid that its frames can reach.
        covered: bool [stop - first], the sample shows a frame that is not too old.
        truth: as :func:`laps.evaluation.evaluate` takes it; without segments where none are known.
        projection: what the windows were made with.
    """

    name: str
    windows: TrackWindows
    first: int
    stop: int
    covered: NDArray[np.bool_]
    truth: dict[str, Any]
    projection: Projection

    @property
    def duration_s(self) -> float:
        return float(self.truth["duration_sec"])


def windows_of(
    tracks: PointTracks, projection: Projection, grid: SampleGrid, *, start_ns: int = START_NS
) -> tuple[TrackWindows, int, int, NDArray[np.bool_]]:
    """The windows of a trial whose first frame stands at ``start_ns``, under the rules of a video's.

    A sample shows the newest frame at or before it, and is missing when that is older than the grid's longest age (or
    than two frames, for slow tracks); windows that touch a missing sample are not made. A point that is lost is not
    visible and keeps its last position; so does one that leaps further than 1,023 px from a sample to the next.

    Returns:
        The windows, the first sample, the one after the last, and which of them are not missing.
    """
    times_ns = start_ns + np.rint(tracks.times_s * NS_PER_S).astype(np.int64)
    first = grid.first_sample_at_or_after(start_ns)
    stop = grid.first_sample_at_or_after(start_ns + round(tracks.duration_s * NS_PER_S))
    sample_ns = np.arange(first, stop, dtype=np.int64) * grid.step_ns
    shown = np.searchsorted(times_ns, sample_ns, side="right") - 1
    age_ns = sample_ns - times_ns[shown]
    covered = age_ns <= max(grid.max_age_ns, round(2 * tracks.interval_s * NS_PER_S))

    px = projection.to_px(tracks.positions[shown])
    visible: NDArray[np.bool_] = np.asarray(np.isfinite(px).all(axis=-1))
    units = np.clip(np.rint(_held(px, visible) * UNITS_PER_PX), -_LARGEST_UNITS, _LARGEST_UNITS).astype(np.int32)
    steps = np.diff(units, axis=0)
    visible[1:] &= (np.abs(steps) <= MAX_DISPLACEMENT).all(axis=-1)
    displacements = np.clip(steps, -MAX_DISPLACEMENT, MAX_DISPLACEMENT).astype(np.int16)

    ends = np.array(grid.window_ends(first, stop), dtype=np.int64)
    ends = ends[ends - grid.window + 1 >= first]
    rows = (ends - grid.window + 1 - first)[:, None] + np.arange(grid.window)
    whole = covered[rows].all(axis=1)
    ends, rows = ends[whole], rows[whole]
    windows = TrackWindows(
        ends,
        displacements[rows[:, :-1]],
        visible[rows],
        times_ns[shown][rows],
        projection.width_px,
        projection.height_px,
        projection.tracker_id(tracks.positions.shape[1]),
    )
    return windows, first, stop, covered


def load_tracks(
    path: Path,
    *,
    fps: float | None = None,
    segments: Path | None = None,
    names: dict[str, str] | None = None,
    trials: Collection[str] | None = None,
    projection: Projection | None = None,
    fit_on: Collection[str] | None = None,
    grid: SampleGrid | None = None,
) -> list[KinematicRecording]:
    """The trials of a Parquet or CSV file of tracks; :mod:`laps.benchmarks.track_files` says which columns.

    Args:
        path: the file.
        fps: frames a second, where the file numbers frames.
        segments: file of the true segments.
        names: names of the labels.
        trials: read these only.
        projection: the one of an earlier reading (``recordings[0].projection``), for example of the training half.
        fit_on: otherwise, the trials that the projection is fitted on. Default: all that are read.
        grid: the sampling grid.

    Raises:
        InputError: files that cannot be read or do not fit each other.
    """
    tracks = read_tracks(path, fps=fps, trials=trials)
    known = {} if segments is None else read_segments(segments, fps=fps)
    truths = []
    for trial in tracks:
        if segments is not None and trial.name not in known:
            raise InputError(f"there are no segments of trial {trial.name}", where=str(segments))
        shifted = [
            (start - trial.origin_s, end - trial.origin_s, label) for start, end, label in known.get(trial.name, [])
        ]
        truths.append(truth_of_segments(shifted, duration_s=trial.duration_s, names=names or {}))
    return _recordings(tracks, truths, projection, fit_on, grid, where=str(path))


def load_npz(
    paths: Sequence[Path],
    *,
    names: dict[str, str] | None = None,
    projection: Projection | None = None,
    fit_on: Collection[str] | None = None,
    grid: SampleGrid | None = None,
) -> list[KinematicRecording]:
    """Trials in npz files, one each, named as the file; arguments and errors as in :func:`load_tracks`."""
    read = [read_npz(path) for path in paths]
    truths = []
    for trial, labels in read:
        if labels is None:
            truths.append(truth_of_segments([], duration_s=trial.duration_s, names=names or {}))
        else:
            truths.append(truth_of_frames(labels.tolist(), fps=1 / trial.interval_s, names=names or {}))
    return _recordings([trial for trial, _ in read], truths, projection, fit_on, grid, where="the npz files")


def load_suturing(
    path: Path,
    *,
    trials: Collection[str] | None = None,
    projection: Projection | None = None,
    fit_on: Collection[str] | None = None,
    grid: SampleGrid | None = None,
) -> list[KinematicRecording]:
    """Hand tracks of suturing: six sensors on two hands, 30 frames/s, gestures with exact times (G0: none).

    Args:
        path: ``<name>.tracks.parquet`` with ``<name>.segments.parquet`` beside it, or the folder of one such pair.
        trials, projection, fit_on, grid: as in :func:`load_tracks`.
    """
    if path.is_dir():
        found = sorted(path.glob("*.tracks.parquet"))
        if len(found) != 1:
            raise InputError(f"there are {len(found)} files *.tracks.parquet, not one", where=str(path))
        path = found[0]
    segments = path.with_name(path.name.replace(".tracks.", ".segments."))
    if segments == path:
        raise InputError("the file is not named <name>.tracks.parquet", where=str(path))
    return load_tracks(
        path,
        fps=SUTURING_FPS,
        segments=segments,
        names=SUTURING_NAMES,
        trials=trials,
        projection=projection,
        fit_on=fit_on,
        grid=grid,
    )


def load_gear_assembly(
    path: Path,
    *,
    projection: Projection | None = None,
    fit_on: Collection[str] | None = None,
    grid: SampleGrid | None = None,
) -> list[KinematicRecording]:
    """Body joints during the assembly of a gear train (HA4M, Cicirelli et al. 2022): twelve actions, 0 is none.

    Args:
        path: one npz file, or the folder of them.
        projection, fit_on, grid: as in :func:`load_tracks`.
    """
    paths = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not paths:
        raise InputError("there are no npz files", where=str(path))
    names = {"0": "no action", **{str(action): f"action {action}" for action in range(1, 13)}}
    return load_npz(paths, names=names, projection=projection, fit_on=fit_on, grid=grid)


def halves(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Trials in two halves with no person in both: a trial is named ``<person>_<…>``, persons alternate by name.

    Raises:
        InputError: all trials are of one person.
    """
    ordered = sorted(names)
    persons = sorted({name.split("_")[0] for name in ordered})
    if len(persons) < 2:
        raise InputError("trials of one person make no two halves")
    chosen = set(persons[::2])
    first = [name for name in ordered if name.split("_")[0] in chosen]
    return first, [name for name in ordered if name not in set(first)]


def _recordings(
    tracks: Sequence[PointTracks],
    truths: Sequence[dict[str, Any]],
    projection: Projection | None,
    fit_on: Collection[str] | None,
    grid: SampleGrid | None,
    *,
    where: str,
) -> list[KinematicRecording]:
    grid = SampleGrid() if grid is None else grid
    if projection is None:
        missing = set(fit_on or ()) - {trial.name for trial in tracks}
        if missing:
            raise InputError(f"there is no trial {sorted(missing)[0]} to fit on", where=where)
        projection = Projection.fit(trial for trial in tracks if fit_on is None or trial.name in fit_on)
    elif fit_on is not None:
        raise InputError("a projection that is given is not fitted", fix="Leave out projection or fit_on.")
    found = []
    for trial, truth in zip(tracks, truths, strict=True):
        windows, first, stop, covered = windows_of(trial, projection, grid)
        found.append(KinematicRecording(trial.name, windows, first, stop, covered, truth, projection))
    return found


def _principal_axes(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The two directions of largest variance, float64 [2, D], each with its largest component positive."""
    _, vectors = np.linalg.eigh(np.cov(points.T))
    axes = vectors.T[::-1][:2]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    signed: NDArray[np.float64] = axes * np.where(largest < 0, -1.0, 1.0)
    return signed


def _held(px: NDArray[np.float64], visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Positions [n, N, 2] with lost points at their last position (at their first one before they appear)."""
    count = len(px)
    samples = np.arange(count)[:, None]
    before = np.maximum.accumulate(np.where(visible, samples, -1), axis=0)
    first_seen = np.where(visible.any(axis=0), visible.argmax(axis=0), 0)
    place = np.where(before >= 0, before, first_seen)
    held = np.take_along_axis(px, place[..., None], axis=0)
    return np.nan_to_num(held, nan=0.0)
