"""Segments of any energy, by the pipeline's own calibration and detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laps.calibration import Calibration, calibrate
from laps.detector import Detector, DetectorTimes
from laps.errors import InputError
from laps.latent import ENERGIES, LatentStream
from laps.segments import primitives
from laps.stretches import Segment
from laps.timegrid import NS_PER_S, SampleGrid

_NAME = "baseline"


@dataclass(frozen=True, eq=False)
class EnergyCut:
    """What an energy was cut into.

    Attributes:
        segments: (start_s, end_s), from the time of the energy's first sample.
        confidences: of each segment, mean of ln(smoothed energy / theta_on).
        calibration: the thresholds, and whether to believe them.
    """

    segments: list[Segment]
    confidences: list[float]
    calibration: Calibration


def energy_stream(energy: NDArray[np.floating[Any]], first: int) -> LatentStream:
    """An energy float[n] (not finite: null) in the place of every energy of a stream, from sample ``first`` on.

    The pipeline's own code takes it from there; there is no tokenizer, and one code stands for every value.
    """
    values = np.asarray(energy, dtype=np.float32)
    present = np.isfinite(values)
    return LatentStream(
        first=first,
        code=np.where(present, 0, -1).astype(np.int32),
        null_reason=[None if known else "no_value" for known in present],
        tokenizer_id=_NAME,
        **dict.fromkeys(ENERGIES, np.where(present, values, np.float32(np.nan))),
    )


def cut_energy(
    energy: NDArray[np.floating[Any]], grid: SampleGrid, *, first: int = 0, times: DetectorTimes | None = None
) -> EnergyCut:
    """Calibrate an energy by its own logarithm, without labels, and cut it.

    The energy takes the place of the velocity energy in a stream, so that every step after it (thresholds, smoothing,
    hysteresis, correction of the delay) is the one that the project's own energies go through.

    Args:
        energy: float[n], one value a sample, not negative; not finite is null.
        grid: the sampling grid.
        first: number of the first sample on the absolute grid; the detector cuts very long motion on that.
        times: of the detector; its defaults at the grid's rate where not given.

    Raises:
        InputError: an energy of another shape, or below 0.
        CalibrationError: no threshold can be found: too few values, or zero throughout.
    """
    values = np.asarray(energy, dtype=np.float32)
    if values.ndim != 1:
        raise InputError(f"an energy has one value a sample, not the shape {list(values.shape)}")
    present = np.isfinite(values)
    if (values[present] < 0).any():
        raise InputError("an energy cannot be below 0", fix="Cut by a size, such as a speed.")
    stream = energy_stream(values, first)
    calibration = calibrate(
        [stream], camera=_NAME, form="velocity", times=times or DetectorTimes(rate_hz=float(grid.rate_hz))
    )
    detector = Detector(calibration.settings)
    detections = [*detector.push(stream.velocity_energy, first), *detector.flush()]
    origin_ns = grid.time_ns(first)
    found = primitives(detections, stream.code, first, calibration, grid)
    return EnergyCut(
        segments=[((item.start_ns - origin_ns) / NS_PER_S, (item.end_ns - origin_ns) / NS_PER_S) for item in found],
        confidences=[item.detection.confidence for item in found],
        calibration=calibration,
    )
