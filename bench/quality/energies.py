"""Energies of tracks, and any energy calibrated and cut as the pipeline cuts its own.

The product takes two things off the motion that it cuts by: from every sample the median over the points (common mode:
camera shake), where its tokenizer does so, and from every point its median over the calibration's time (background:
belts, screens). Tracks are cleaned here in the same two steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.quality.recordings import GRID, Motion, Recording
from laps.baselines.cutting import energy_stream
from laps.baselines.flow import FlowSeries
from laps.calibration import Calibration, calibrate
from laps.detector import DetectorTimes
from laps.latent import LatentStream
from laps.motion import mean_speed
from laps.segments import segment_file
from laps.single import CAMERA, START_NS


def background(motions: Sequence[Motion]) -> NDArray[np.float32]:
    """Each point's median velocity over the samples of some recordings in which it was seen, [N, 2]; 0 without any."""
    velocities = np.concatenate([np.where(one.seen[..., None], one.velocities, np.nan) for one in motions])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        return np.nan_to_num(np.nanmedian(velocities, axis=0)).astype(np.float32)


def speed(motion: Motion, steady: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Mean speed of the points that were seen, less their background: float32[n]; NaN where none was seen."""
    velocities = motion.velocities if steady is None else motion.velocities - steady
    return mean_speed(velocities, motion.seen)


def flow_background(series: Sequence[FlowSeries]) -> NDArray[np.float32]:
    """The background of several recordings of a camera together, see :meth:`FlowSeries.background`."""
    together = FlowSeries(
        first=0,
        magnitude=np.concatenate([one.magnitude for one in series]),
        cells=np.concatenate([one.cells for one in series]),
        histograms=np.concatenate([one.histograms for one in series]),
    )
    return together.background()


def calibrated(energies: Sequence[NDArray[np.floating]]) -> Calibration:
    """Thresholds of an energy from recordings of it, by the signal's own logarithm, without labels.

    Raises:
        CalibrationError: no threshold can be found.
    """
    return calibrate(
        [energy_stream(energy, 0) for energy in energies], camera=CAMERA, form="velocity", times=detector_times()
    )


def detector_times() -> DetectorTimes:
    return DetectorTimes(rate_hz=float(GRID.rate_hz))


def cut(energy: NDArray[np.floating], recording: Recording, calibration: Calibration) -> list[dict[str, float]]:
    """The segments of an energy float[n] (NaN: null) of a recording, as the pipeline would cut them."""
    return cut_stream(energy_stream(energy, recording.first), recording, calibration)


def cut_stream(stream: LatentStream, recording: Recording, calibration: Calibration) -> list[dict[str, float]]:
    """The segments of a stream of a recording: ``start_sec``, ``end_sec``, ``confidence``."""
    document = segment_file(
        stream, calibration, recording_start_ns=START_NS, duration_s=recording.duration_s, grid=GRID
    )
    return [{name: one[name] for name in ("start_sec", "end_sec", "confidence")} for one in document["segments"]]
