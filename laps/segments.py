"""From detections to action primitives: times, codes and rows (paper section 3.1.2, step 3).

**Times.** The value at sample n describes the motion in (t_{n-1}, t_n], so it stands for t_n minus half a step; and
the smoothed value lags, by (1 - alpha) / alpha samples (less right after a null, where it has little to lag behind).
A start and an end are corrected by both; at a gap, which is known from the null itself, and at a learned boundary,
which no smoothing delays, only by the first.

**Codes.** One code a sample, for start <= t_n < end, each from the window that owns the sample.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laps import tables
from laps.cutting import cut, memory_samples
from laps.detector import Detection
from laps.energy import series
from laps.errors import InputError, ModelMismatchError, NotProcessedError
from laps.reference_files import segments_document
from laps.timegrid import NS_PER_S, CameraHour, SampleGrid

if TYPE_CHECKING:
    from laps.calibration import Calibration
    from laps.latent import LatentStream

_NS_PER_US = 1000


@dataclass(frozen=True)
class Primitive:
    """A detection with its times and codes.

    Attributes:
        detection: what the detector said.
        start_ns, end_ns: UTC nanoseconds since the epoch, whole microseconds; ``start <= t < end``.
        codes: latent action sequence, one code a sample.
    """

    detection: Detection
    start_ns: int
    end_ns: int
    codes: tuple[int, ...]

    @property
    def duration_s(self) -> float:
        return (self.end_ns - self.start_ns) / NS_PER_S


def make_segment_id(camera: str, start_sample: int, tokenizer_id: str, calibration_id: str, release: str) -> str:
    """The id of a primitive: the same over re-runs, another for other models."""
    text = "\n".join([camera, str(start_sample), tokenizer_id, calibration_id, release])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def primitives(
    detections: list[Detection],
    codes: NDArray[np.integer[Any]],
    first: int,
    calibration: Calibration,
    grid: SampleGrid,
) -> list[Primitive]:
    """Times and codes of detections.

    Args:
        detections: of the calibration's detector.
        codes: int[n], -1 where null; must reach back to before the first detection.
        first: sample of the first code.
        calibration: gives the smoothing whose delay is taken off.
        grid: the sampling grid.

    Raises:
        InputError: the calibration is for another sampling rate.
    """
    if calibration.settings.rate_hz != grid.rate_hz:
        raise InputError(
            f"the calibration {calibration.calibration_id} is for {calibration.settings.rate_hz:g} samples a second, "
            f"the grid has {grid.rate_hz}",
            where=calibration.camera,
            fix="Calibrate the camera again.",
        )

    def corrected_ns(sample: int, *, lag: bool) -> int:
        time_ns = grid.time_ns(sample) - grid.step_ns // 2
        if lag:
            place = sample - first
            recent = codes[max(0, place - calibration.settings.smoothing_samples) : place] < 0
            age = len(recent) if not recent.any() else int(np.argmax(recent[::-1]))
            time_ns -= round(calibration.settings.delay_samples(age) * grid.step_ns)
        return time_ns - time_ns % _NS_PER_US

    found = []
    for detection in detections:
        start_ns = corrected_ns(detection.start_sample, lag=detection.start_reason == "rest")
        end_ns = corrected_ns(detection.end_sample, lag=detection.end_reason in ("rest", "maximum"))
        from_sample, to_sample = grid.first_sample_at_or_after(start_ns), grid.first_sample_at_or_after(end_ns)
        own = codes[from_sample - first : to_sample - first]
        found.append(Primitive(detection, start_ns, end_ns, tuple(own.tolist())))
    return found


def segment_rows(found: list[Primitive], calibration: Calibration, *, release: str) -> pa.Table:
    """Primitives as rows of :data:`laps.tables.SEGMENTS`.

    Args:
        found: the primitives of the calibration's camera.
        calibration: names camera, tokenizer and energy form.
        release: release that the rows belong to.
    """
    calibration_id = calibration.calibration_id
    common = {
        "camera": calibration.camera,
        "energy_form": calibration.form,
        "tokenizer_id": calibration.tokenizer_id,
        "calibration_id": calibration_id,
        "release": release,
    }
    rows = [
        {
            **common,
            "segment_id": make_segment_id(
                calibration.camera,
                primitive.detection.start_sample,
                calibration.tokenizer_id,
                calibration_id,
                release,
            ),
            "start_time": primitive.start_ns // _NS_PER_US,
            "end_time": primitive.end_ns // _NS_PER_US,
            "duration_s": primitive.duration_s,
            "start_sample": primitive.detection.start_sample,
            "end_sample": primitive.detection.end_sample,
            "decided_sample": primitive.detection.decided_sample,
            "end_reason": primitive.detection.end_reason,
            "codes": list(primitive.codes),
            "energy_mean": primitive.detection.energy_mean,
            "energy_peak": primitive.detection.energy_peak,
            "confidence": primitive.detection.confidence,
        }
        for primitive in found
    ]
    schema = tables.SEGMENTS.schema()
    columns = {name: pa.array([row[name] for row in rows], schema.field(name).type) for name in schema.names}
    return tables.SEGMENTS.validate(pa.table(columns, schema=schema))


def segment_hour(
    previous: LatentStream | None,
    current: LatentStream,
    calibration: Calibration,
    hour: CameraHour,
    *,
    release: str,
    grid: SampleGrid | None = None,
) -> pa.Table:
    """The primitives that are decided in one hour, as rows of :data:`laps.tables.SEGMENTS`.

    The hour before is replayed as warm-up; because the detector's memory is shorter than an hour, the rows of all
    hours together equal one pass over the whole recording, to the bit.

    Args:
        previous: the stream of the hour before; None only where that hour has no footage.
        current: the stream of this hour.
        calibration: of the hour's camera and the streams' tokenizer.
        hour: the camera hour.
        release: release that the rows belong to.
        grid: the sampling grid.

    Raises:
        ModelMismatchError: calibration of another camera, or streams of another tokenizer.
        NotProcessedError: a stream does not cover its hour.
        InputError: the detector's memory is longer than an hour, or its rate is not the grid's.
    """
    grid = SampleGrid() if grid is None else grid
    if calibration.camera != hour.camera:
        raise ModelMismatchError(
            f"the calibration {calibration.calibration_id} is camera {calibration.camera}'s", where=str(hour)
        )
    memory = memory_samples(calibration.settings, calibration.cut, calibration.boundaries)
    if memory > grid.samples_per_hour:
        raise InputError(
            f"the detector's memory of {memory} samples is longer than the hour of warm-up, so hours would not fit "
            "together",
            where=str(hour),
            fix="Shorten hold_s, max_duration_s or the time constant.",
        )
    start, stop = grid.hour_samples(hour.hour_ns)
    streams = [current]
    if previous is not None:
        _check_covers(previous, grid.hour_samples(hour.previous.hour_ns)[0], start, hour.previous)
        streams.insert(0, previous)
    _check_covers(current, start, stop, hour)
    decided = detections(streams, calibration, ended=False)
    kept = [detection for detection in decided if detection.decided_sample >= start]
    codes = np.concatenate([stream.code for stream in streams])
    found = primitives(kept, codes, streams[0].first, calibration, grid)
    return segment_rows(found, calibration, release=release)


def detections(streams: list[LatentStream], calibration: Calibration, *, ended: bool) -> list[Detection]:
    """What a calibration cuts streams that follow each other into.

    Args:
        streams: of one tokenizer, each beginning where the one before it stops.
        calibration: for that tokenizer.
        ended: nothing follows; what is open ends with the last sample.
    """
    return cut(
        np.concatenate([series(stream, calibration) for stream in streams]),
        np.concatenate([stream.code for stream in streams]),
        streams[0].first,
        calibration.settings,
        calibration.cut,
        calibration.boundaries,
        ended=ended,
    )


def _check_covers(stream: LatentStream, start: int, stop: int, hour: CameraHour) -> None:
    if stream.first != start or len(stream.code) != stop - start:
        raise NotProcessedError(
            f"the latent stream holds samples {stream.first} to {stream.first + len(stream.code)} instead of "
            f"{start} to {stop}",
            where=str(hour),
            fix="Observe that hour again.",
        )


def segment_file(
    stream: LatentStream,
    calibration: Calibration,
    *,
    recording_start_ns: int,
    duration_s: float,
    grid: SampleGrid | None = None,
    video: str | None = None,
) -> dict[str, Any]:
    """The primitives of one recording by itself, in seconds from its first frame.

    Args:
        stream: the whole recording; its end closes an open segment.
        calibration: for the stream's tokenizer.
        recording_start_ns: time of the first frame.
        duration_s: length of the recording.
        grid: the sampling grid.
        video: file name.

    Returns:
        ``{"segments": [{"start_sec", "end_sec", "codes", …}], "segmentation_params": {…}, …}``, which the reference
        implementation's evaluation reads.
    """
    grid = SampleGrid() if grid is None else grid
    segments = [
        {
            "start_sec": max(0.0, (primitive.start_ns - recording_start_ns) / NS_PER_S),
            "end_sec": min(duration_s, (primitive.end_ns - recording_start_ns) / NS_PER_S),
            "codes": list(primitive.codes),
            "end_reason": primitive.detection.end_reason,
            "energy_mean": primitive.detection.energy_mean,
            "energy_peak": primitive.detection.energy_peak,
            "confidence": primitive.detection.confidence,
        }
        for primitive in primitives(
            detections([stream], calibration, ended=True), stream.code, stream.first, calibration, grid
        )
    ]
    return segments_document(
        segments,
        stride=grid.stride,
        target_fps=grid.rate_hz,
        duration_s=duration_s,
        video=video,
        parameters={
            "energy_form": calibration.form,
            "calibration_id": calibration.calibration_id,
            "tokenizer_id": calibration.tokenizer_id,
            "calibration_ok": calibration.ok,
            "calibration_message": calibration.message,
            "cut": calibration.cut,
            **calibration.settings.to_dict(),
        },
    )
