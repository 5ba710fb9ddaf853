"""Whole recordings by themselves, without a store: what ``laps train`` and ``laps segment`` do.

The same code as in the pipeline, on the same absolute grid, with a file's first frame at a fixed time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from laps.boundaries import Teacher
from laps.calibration import Calibration, calibrate
from laps.cutting import Cut
from laps.detector import DetectorTimes
from laps.energy import DEFAULT_FORM
from laps.errors import InputError, MediaError
from laps.keyframes import Keyframe
from laps.latent import LatentStream, encode_stream
from laps.observe import observe
from laps.picture_changes import keyframe_segments
from laps.recordings import check_length, describe_range
from laps.sampling import covered, pieces_of, sample_frames
from laps.segments import segment_file
from laps.timegrid import NS_PER_S, SampleGrid, from_datetime, parse_utc, to_datetime
from laps.tokenizer import MotionTokenizer
from laps.trackers import Tracker
from laps.tracks import TrackWindows
from laps.video import probe

# A file by itself has no time of day. Any full second will do; this one is easy to recognise in a debugger.
START_NS = parse_utc("2000-01-01T00:00:00Z")
CAMERA = "file"


@dataclass(frozen=True)
class Recording:
    """One file, described as the pipeline describes an hour.

    Attributes:
        path: the file.
        rows: rows of the table `raw_video` over its whole length.
        duration_s: from its first frame to the end of its last.
        first, stop: samples of the grid that its frames can reach.
    """

    path: Path
    rows: list[dict[str, Any]]
    duration_s: float
    first: int
    stop: int

    @property
    def problems(self) -> list[str]:
        """What is wrong with the file, in words."""
        return [f"{row['status']}: {row['reason']}" for row in self.rows if row["status"] != "ok" and row["reason"]]


def open_path(uri: str) -> BinaryIO:
    """Open a local file."""
    return Path(uri).open("rb")


def read_recording(path: Path, grid: SampleGrid) -> Recording:
    """Describe a file by its packets' timestamps.

    Raises:
        InputError: there is no such file. MediaError: it is no video, holds no frame that can be used, or is shorter
            than a window.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    with path.open("rb") as file:
        info = probe(file, name=str(path))
    claimed_s = info.duration_s or 86_400.0
    row = {
        "recording_id": path.name,
        "camera": CAMERA,
        "uri": str(path),
        "status": "ok",
        "reason": None,
        "start_time": to_datetime(START_NS),
        # What the container claims may be short by a frame or two.
        "end_time": to_datetime(START_NS + round((claimed_s + 1.0) * NS_PER_S)),
        "registered_at": to_datetime(START_NS),
        "size_bytes": path.stat().st_size,
        "etag": "",
        "codec": info.codec,
        "width_px": info.width_px,
        "height_px": info.height_px,
        "rotation_deg": info.rotation_deg,
        "nominal_fps": info.nominal_fps,
        "pts_offset_s": info.pts_offset_s,
    }
    stop_ns = START_NS + round((claimed_s + 2.0) * NS_PER_S)
    rows = describe_range(CAMERA, START_NS, stop_ns, grid, [row], open_path)
    pieces = pieces_of(rows)
    if not pieces:
        reasons = "; ".join(str(row["reason"]) for row in rows if row["reason"])
        raise MediaError(f"holds no frame that can be used ({reasons or 'no reason known'})", where=str(path))
    end_ns = max(piece.stop_ns for piece in pieces)
    check_length((end_ns - START_NS) / NS_PER_S, grid, name=str(path))
    return Recording(
        path=path,
        # What lies behind the last frame is the search range, not the file.
        rows=[row for row in rows if from_datetime(row["start_time"]) < end_ns],
        duration_s=(end_ns - START_NS) / NS_PER_S,
        first=grid.first_sample_at_or_after(START_NS),
        stop=grid.first_sample_at_or_after(end_ns),
    )


def track_recording(
    recording: Recording,
    tracker: Tracker,
    grid: SampleGrid,
    *,
    on_problem: Callable[[str], None] | None = None,
    keyframes: list[Keyframe] | None = None,
) -> Iterator[TrackWindows]:
    """The windows of a file, in order; its keyframes are added to a list where one is given."""
    # Windows own their last samples only: begin early enough that the first whole window is found.
    samples = sample_frames(
        pieces_of(recording.rows), open_path, grid, recording.first, recording.stop, on_problem=on_problem
    )
    first = recording.stop if keyframes is None else recording.first  # of the keyframes
    for item in observe(samples, tracker, grid, first=first):
        if isinstance(item, TrackWindows):
            yield item
        elif keyframes is not None:
            keyframes += item


def encode_recording(
    recording: Recording, windows: Iterable[TrackWindows], tokenizer: MotionTokenizer, grid: SampleGrid
) -> LatentStream:
    """Codes and energies of a file."""
    return encode_stream(
        windows,
        tokenizer,
        grid,
        first=recording.first,
        stop=recording.stop,
        covered=covered(recording.rows, grid, recording.first, recording.stop),
    )


def calibrate_recording(
    stream: LatentStream,
    tokenizer: MotionTokenizer,
    grid: SampleGrid,
    *,
    form: str = DEFAULT_FORM,
    method: str = "log_energy",
    how: Cut | None = None,
    teacher: Teacher = "rests",
    keyframes: Sequence[Keyframe] = (),
) -> Calibration:
    """How the file is cut, from itself, without labels.

    Args:
        stream: of the whole file.
        tokenizer: that made it.
        grid: the sampling grid.
        form, method, how, teacher: as for :func:`laps.calibration.calibrate`.
        keyframes: of the file, for the teacher ``pictures``.
    """
    pictures = None
    if teacher == "pictures":
        pictures = [keyframe_segments([one.sample for one in keyframes], [one.jpeg for one in keyframes], grid)]
    return calibrate(
        [stream],
        camera=CAMERA,
        form=form,
        method=method,
        decoded_motion=tokenizer.decoded_motion() if tokenizer.config.decoding == "token" else None,
        times=DetectorTimes(rate_hz=float(grid.rate_hz)),
        how=how,
        teacher=teacher,
        pictures=pictures,
    )


def segment_recording(
    recording: Recording, stream: LatentStream, calibration: Calibration, grid: SampleGrid
) -> dict[str, Any]:
    """The primitives of a file, in seconds from its first frame."""
    return segment_file(
        stream,
        calibration,
        recording_start_ns=START_NS,
        duration_s=recording.duration_s,
        grid=grid,
        video=recording.path.name,
    )
