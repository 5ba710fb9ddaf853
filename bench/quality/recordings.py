"""A recording as methods see it: tracks, flow, pictures. Truth is kept apart and never handed to a method."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from bench.quality.kept import key_of, sources_key
from laps.baselines.flow import FlowSeries, flow_series
from laps.benchmarks.kinematics import KinematicRecording
from laps.keyframes import Keyframe, read_picture
from laps.latent import LatentStream, encode_stream
from laps.motion import without_common_mode as common_mode_removed
from laps.observe import observe
from laps.sampling import Sample, covered, pieces_of, sample_frames
from laps.single import open_path, read_recording
from laps.timegrid import SampleGrid
from laps.tokenizer import MotionTokenizer
from laps.trackers.flow import FlowTracker
from laps.tracks import TrackWindows, unpack
from laps.vision import WeightFreeEncoder

GRID = SampleGrid()
KEYFRAME_HZ = 2

_OBSERVED_BY = (
    "laps/baselines/flow.py",
    "laps/keyframes.py",
    "laps/observe.py",
    "laps/sampling.py",
    "laps/trackers/flow.py",
    "laps/tracks.py",
    "laps/video.py",
    "laps/vision.py",
    "bench/quality/recordings.py",
)
_FLOW = ("magnitude", "cells", "histograms")
_BATCH_PICTURES = 64


@dataclass(frozen=True, eq=False)
class Pictures:
    """Descriptors of a recording's keyframes.

    Attributes:
        samples: int64[m], samples on the absolute grid at which they stand.
        features: float32[m, d], L2-normalised.
        norms: float32[m], their lengths before that.
    """

    samples: NDArray[np.int64]
    features: NDArray[np.float32]
    norms: NDArray[np.float32]

    def rows(self) -> tuple[NDArray[np.float32], int]:
        """One row for each place of a keyframe, NaN where there is none; and the sample of the first row."""
        interval = GRID.rate_hz // KEYFRAME_HZ
        first = int(self.samples[0]) if len(self.samples) else 0
        places = (self.samples - first) // interval
        rows = np.full((int(places[-1]) + 1 if len(places) else 0, self.features.shape[1]), np.nan, np.float32)
        rows[places] = self.features
        return rows, first


@dataclass(frozen=True, eq=False)
class Motion:
    """How the points of a recording move.

    Attributes:
        velocities: float32[n, N, 2], px a sample step; 0 where not seen.
        seen: bool[n, N]; nowhere at samples that no window owns.
    """

    velocities: NDArray[np.float32]
    seen: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Recording:
    """All that a method may look at.

    Attributes:
        name: of the recording.
        content_id: stands for its content.
        windows: its track windows, in order.
        first, stop: samples of the grid that it covers; time 0 of segments is that of ``first``.
        covered: bool[stop - first], the sample lies inside footage.
        duration_s: length.
        flow: dense flow; None where there is no video.
        pictures: descriptors of keyframes; None where there is no video.
    """

    name: str
    content_id: str
    windows: tuple[TrackWindows, ...]
    first: int
    stop: int
    covered: NDArray[np.bool_]
    duration_s: float
    flow: FlowSeries | None = None
    pictures: Pictures | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return self.stop - self.first

    def encode(self, tokenizer: MotionTokenizer) -> LatentStream:
        """Codes and energies."""
        return encode_stream(self.windows, tokenizer, GRID, first=self.first, stop=self.stop, covered=self.covered)

    def own_samples(self, batch: TrackWindows) -> NDArray[np.int64]:
        """int64[W, stride]: place in this recording of the samples that each window owns."""
        return batch.end_samples[:, None] - self.first + np.arange(-GRID.stride + 1, 1)

    def motion(self, *, without_common_mode: bool) -> Motion:
        """Velocities of the points in the window that owns each sample.

        Args:
            without_common_mode: what all points do in common is taken off (:mod:`laps.motion`).
        """
        points = self.windows[0].visible.shape[2] if self.windows else 0
        velocities = np.zeros((len(self), points, 2), np.float32)
        seen = np.zeros((len(self), points), bool)
        for batch in self.windows:
            places = self.own_samples(batch)
            inside = (places >= 0) & (places < len(self))
            velocities[places[inside]] = batch.velocities(GRID)[:, -GRID.stride :][inside]
            seen[places[inside]] = batch.step_visible()[:, -GRID.stride :][inside]
        if without_common_mode:
            velocities = common_mode_removed(velocities, seen)
        return Motion(velocities, seen)


@cache
def observed_by() -> str:
    """Stands for the tracker and the code that make a recording of a video."""
    return key_of(FlowTracker().tracker_id, sources_key(*_OBSERVED_BY))


def observe_video(path: Path, name: str, content_id: str) -> Recording:
    """Track a video, and describe its flow and keyframes."""
    tracker, encoder = FlowTracker(), WeightFreeEncoder()
    file = read_recording(path, GRID)

    def samples() -> Iterator[Sample]:
        return sample_frames(pieces_of(file.rows), open_path, GRID, file.first, file.stop)

    windows: list[TrackWindows] = []
    keyframes: list[Keyframe] = []
    for found in observe(samples(), tracker, GRID, first=file.first, keyframe_hz=KEYFRAME_HZ):
        if isinstance(found, TrackWindows):
            windows.append(found)
        else:
            keyframes += found
    described = [
        encoder.encode([read_picture(keyframe.jpeg) for keyframe in keyframes[start : start + _BATCH_PICTURES]])
        for start in range(0, len(keyframes), _BATCH_PICTURES)
    ]
    return Recording(
        name=name,
        content_id=content_id,
        windows=tuple(windows),
        first=file.first,
        stop=file.stop,
        covered=covered(file.rows, GRID, file.first, file.stop),
        duration_s=file.duration_s,
        flow=flow_series(samples(), GRID),
        pictures=Pictures(
            np.array([keyframe.sample for keyframe in keyframes], np.int64),
            np.concatenate([batch.features for batch in described]),
            np.concatenate([batch.norms for batch in described]),
        ),
    )


def from_tracks(recording: KinematicRecording, content_id: str) -> Recording:
    """A trial of sensors: tracks only."""
    return Recording(
        name=recording.name,
        content_id=content_id,
        windows=(recording.windows,),
        first=recording.first,
        stop=recording.stop,
        covered=recording.covered,
        duration_s=recording.duration_s,
    )


def save(recording: Recording, folder: Path) -> None:
    """Keep a recording in a folder; :func:`is_saved` is true when all of it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"covered": recording.covered}
    if recording.flow is not None:
        arrays |= {f"flow_{name}": getattr(recording.flow, name) for name in _FLOW}
    if recording.pictures is not None:
        arrays |= {
            "picture_samples": recording.pictures.samples,
            "picture_features": recording.pictures.features,
            "picture_norms": recording.pictures.norms,
        }
    np.savez(folder / "samples.npz", **arrays)
    tables = [batch.to_table("bench", GRID) for batch in recording.windows]
    if tables:
        pyarrow.parquet.write_table(pa.concat_tables(tables), folder / "tracks.parquet", compression="zstd")
    about = {
        "name": recording.name,
        "content_id": recording.content_id,
        "first": recording.first,
        "stop": recording.stop,
        "duration_s": recording.duration_s,
        "flow_first": None if recording.flow is None else recording.flow.first,
    }
    # Written last, under its name in one step: without it the folder may be half of a recording.
    unfinished = folder / ".recording.json.part"
    unfinished.write_text(json.dumps(about) + "\n", encoding="utf-8")
    unfinished.replace(folder / "recording.json")


def is_saved(folder: Path) -> bool:
    return (folder / "recording.json").is_file()


def load(folder: Path) -> Recording:
    """What :func:`save` kept."""
    about = json.loads((folder / "recording.json").read_text(encoding="utf-8"))
    with np.load(folder / "samples.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    tracks = folder / "tracks.parquet"
    flow = pictures = None
    if about["flow_first"] is not None:
        flow = FlowSeries(first=about["flow_first"], **{name: arrays[f"flow_{name}"] for name in _FLOW})
    if "picture_samples" in arrays:
        pictures = Pictures(arrays["picture_samples"], arrays["picture_features"], arrays["picture_norms"])
    return Recording(
        name=about["name"],
        content_id=about["content_id"],
        windows=tuple(unpack(pyarrow.parquet.read_table(tracks))) if tracks.is_file() else (),
        first=about["first"],
        stop=about["stop"],
        covered=arrays["covered"],
        duration_s=about["duration_s"],
        flow=flow,
        pictures=pictures,
    )
