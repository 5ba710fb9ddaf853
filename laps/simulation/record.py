"""Recordings: a scenario's frames encoded to mp4, with the truth as JSON beside each file.

The truth is for scoring only. It is a file of its own, ``<recording>.truth.json``, which ingestion ignores:
truth never reaches training or calibration.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import av
import cv2

from laps.errors import InputError
from laps.simulation.choreography import plan
from laps.simulation.render import Renderer
from laps.simulation.scenario import LABELS, Scenario
from laps.timegrid import NS_PER_S, check_camera, format_utc, to_datetime

_TIME_BASE = Fraction(1, 90_000)


def truth(scenario: Scenario, start_s: float = 0.0, stop_s: float | None = None) -> dict[str, Any]:
    """The actions that the frames of ``[start_s, stop_s)`` show, in seconds from the first of these frames.

    An action that is cut by an end of the range is listed with what is inside; less than a frame is left out.
    Rests are no segments, and actions without a rest between them touch.
    """
    frames, rate = scenario.frame_range(start_s, stop_s), scenario.frame_rate
    first_s, duration_s = float(frames.start / rate), float(len(frames) / rate)
    segments = []
    for action in plan(scenario):
        start, end = max(action.start_s - first_s, 0.0), min(action.end_s - first_s, duration_s)
        if end - start >= 1 / rate:
            segments.append({"start_sec": round(start, 6), "end_sec": round(end, 6), "label": action.label})
    return {
        "fps": float(rate),
        "width": scenario.width_px,
        "height": scenario.height_px,
        "duration_sec": round(duration_s, 6),
        "labels": dict(LABELS),
        "segments": segments,
    }


def record(
    folder: Path,
    scenario: Scenario,
    *,
    camera: str,
    view: int = 0,
    start_ns: int,
    start_s: float = 0.0,
    stop_s: float | None = None,
    crf: int = 23,
    bit_rate: int | None = None,
    preset: str = "ultrafast",
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``<folder>/<camera>/<camera>_<YYYYMMDDTHHMMSSZ>.mp4`` (H.264, yuv420p) and its truth.

    Dropped frames are missing from the file: the presentation times jump. The container's creation time is the
    first frame's, in whole seconds as mp4 has it. Where the first frame does not stand at a whole second, which
    the name cannot say either, a sidecar ``<name>.json`` says it. The recording appears under its name when it is
    complete, after its truth and sidecar.

    Args:
        folder: the landing folder.
        scenario: what to show.
        camera: the camera's name, see :func:`laps.timegrid.check_camera`.
        view: viewpoint, a key of :data:`laps.simulation.VIEWS`.
        start_ns: when the *timeline* starts, UTC nanoseconds since the epoch.
        start_s, stop_s: the part of the timeline to record (default: all), so that one shift can fill several files.
        crf: constant quality, used when no ``bit_rate`` is given.
        bit_rate: average bits a second.
        preset: of libx264; faster ones make larger files.
        threads: of the encoder.
        progress: called with the number of frames done and their total.

    Returns:
        The path of the recording.

    Raises:
        InputError: a name, range or view that cannot be.
    """
    check_camera(camera)
    renderer = Renderer(scenario, view)
    frames, rate = scenario.frame_range(start_s, stop_s), scenario.frame_rate
    first_ns = start_ns + floor(frames.start / rate * NS_PER_S)
    if renderer.frame(frames.start) is None:
        raise InputError(
            f"the frame at {float(frames.start / rate):.3f} s is dropped, so no recording can begin with it",
            where=camera,
            fix="Begin at a whole second.",
        )
    path = folder / camera / f"{camera}_{to_datetime(first_ns):%Y%m%dT%H%M%SZ}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    options = {"preset": preset} if bit_rate is not None else {"preset": preset, "crf": str(crf)}
    with av.open(str(unfinished), "w", format="mp4") as container:
        container.metadata["creation_time"] = format_utc(first_ns)
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = scenario.width_px, scenario.height_px, "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.gop_size = round(2 * rate)
        stream.codec_context.thread_count = threads
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        for done, index in enumerate(frames, 1):
            picture = renderer.frame(index)
            if picture is not None:
                planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.time_base = _TIME_BASE
                frame.pts = round((index - frames.start) / rate / _TIME_BASE)
                container.mux(stream.encode(frame))
            if progress is not None:
                progress(done, len(frames))
        container.mux(stream.encode(None))
    if first_ns % NS_PER_S:
        _write_json(path.with_name(f"{path.name}.json"), {"start": format_utc(first_ns)})
    _write_json(path.with_name(f"{path.stem}.truth.json"), truth(scenario, start_s, stop_s))
    unfinished.replace(path)
    return path


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
