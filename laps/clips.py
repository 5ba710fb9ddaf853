"""Cut a primitive out of its recording as one small mp4 that any browser plays.

Re-encoding would cost as much as decoding the whole recording, so a clip is a *stream copy*: the compressed
pictures from the keyframe before the primitive up to the last one it needs, and an edit list (ISO/IEC 14496-12,
section 8.6.6) that tells players which of them to show. What lies before the first frame shown is the *lead-in*:
it is decoded, because later pictures refer to it, and never shown. Readers that ignore edit lists show it; the exact
times are therefore returned as well.

Codecs that not every browser can play (:data:`COPY_CODECS`, 8-bit 4:2:0), and streams whose timestamps cannot be
copied, are re-encoded with libx264 instead; every frame keeps its true time. Sound is left out.

Frame times follow the rule of the whole project: recording start + (pts - pts of the first presented frame).
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeVar

import av
import av.error

from laps.errors import InputError, MediaError
from laps.timegrid import NS_PER_S, format_utc

COPY_CODECS: frozenset[str] = frozenset({"h264", "vp9", "av1"})
"""Codecs that Chromium, Firefox and Safari play from mp4 without special hardware. HEVC is not one of them."""

COPY_PIXEL_FORMATS: frozenset[str] = frozenset({"yuv420p", "yuvj420p"})

# A decoded picture buffer holds at most 16 frames (H.264 and HEVC level limits), so a picture can follow at most
# 16 others that are shown after it.
_MAX_REORDER = 16
_SPOOL_BYTES = 64 * 1024 * 1024
_MIN_TIMESCALE = 10_000


@dataclass(frozen=True)
class ClipInfo:
    """What a clip holds.

    Attributes:
        first_frame_time_ns: time of the first frame shown.
        last_frame_time_ns: time of the last frame shown.
        frame_count: frames shown.
        lead_in_s: length of what the file holds before the first frame shown; 0 when the clip starts at a keyframe.
        size_bytes: size of the mp4.
        reencoded: False for a stream copy.
    """

    first_frame_time_ns: int
    last_frame_time_ns: int
    frame_count: int
    lead_in_s: float
    size_bytes: int
    reencoded: bool


class RecordingPart(Protocol):
    """A used range of a recording, for example a piece of ``raw_video``."""

    @property
    def recording_id(self) -> str: ...

    @property
    def start_ns(self) -> int: ...

    @property
    def stop_ns(self) -> int: ...


Part = TypeVar("Part", bound=RecordingPart)


def choose_part(parts: Iterable[Part], *, start_ns: int, end_ns: int) -> Part | None:
    """The part to cut a clip from: the first one of the recording that holds most of ``[start_ns, end_ns)``.

    A clip is cut from one file. A primitive that spans two recordings is cut from the one that holds its larger
    part (the earlier one when they hold the same), and the clip is shorter than the primitive, as its frame times
    say. None when no part touches the range.
    """
    held_ns: dict[str, int] = {}
    first: dict[str, Part] = {}
    for part in sorted(parts, key=lambda part: part.start_ns):
        overlap_ns = min(part.stop_ns, end_ns) - max(part.start_ns, start_ns)
        if overlap_ns > 0:
            held_ns[part.recording_id] = held_ns.get(part.recording_id, 0) + overlap_ns
            first.setdefault(part.recording_id, part)
    if not first:
        return None
    # max() keeps the first of equals, and dicts keep the order of time.
    return first[max(held_ns, key=lambda recording_id: held_ns[recording_id])]


def cut_clip(
    file: BinaryIO,
    out: BinaryIO | Path,
    *,
    name: str,
    recording_start_ns: int,
    start_ns: int,
    end_ns: int,
    reencode: bool = False,
) -> ClipInfo:
    """Write the frames with ``start_ns <= time < end_ns`` as one mp4; :class:`ClipCutter` cuts several.

    Args:
        file: the recording, seekable; left open.
        out: where the mp4 goes; nothing is written when cutting fails.
        name: the recording's name in errors.
        recording_start_ns: time of the recording's first presented frame.
        start_ns: start of the range.
        end_ns: end of the range, exclusive.
        reencode: encode anew, so that the file starts at its first frame shown.

    A range that spans two recordings needs a choice: see :func:`choose_part`.

    Raises:
        MediaError: the file cannot be read there, or has no frame in the range.
        InputError: the range is empty.
    """
    with ClipCutter(file, name=name, recording_start_ns=recording_start_ns) as cutter:
        return cutter.cut(out, start_ns=start_ns, end_ns=end_ns, reencode=reencode)


class ClipCutter:
    """Cuts any number of clips from one recording, which is opened and indexed once.

    Each cut seeks to its place and reads no more than it needs. Cut in order of time where you can.

    Args:
        file: the recording, seekable; left open.
        name: the recording's name in errors.
        recording_start_ns: time of the recording's first presented frame.
        copy_codecs: codecs to copy; others are re-encoded. Add "hevc" where every viewer's machine plays it.

    Raises:
        MediaError: the file is no readable video.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        name: str,
        recording_start_ns: int,
        copy_codecs: frozenset[str] = COPY_CODECS,
    ) -> None:
        self.name = name
        self.recording_start_ns = recording_start_ns
        try:
            file.seek(0)
            self._container: Any = av.open(file, "r")
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"cannot be opened as a video ({error})", where=name) from error
        try:
            if not self._container.streams.video:
                raise MediaError("has no video stream", where=name)
            self._stream: Any = self._container.streams.video[0]
            self._time_base = Fraction(self._stream.time_base)
            context = self._stream.codec_context
            self._copyable = context.name in copy_codecs and context.pix_fmt in COPY_PIXEL_FORMATS
            self._first_pts = self._find_first_pts()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> ClipCutter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the demuxer; the file stays open."""
        self._container.close()

    def cut(self, out: BinaryIO | Path, *, start_ns: int, end_ns: int, reencode: bool = False) -> ClipInfo:
        """Write one clip; see :func:`cut_clip`."""
        if end_ns <= start_ns:
            raise InputError(
                f"a clip cannot end at {format_utc(end_ns)} when it starts at {format_utc(start_ns)}",
                where=self.name,
            )
        where = f"{self.name} at {format_utc(start_ns)}"
        try:
            packets = self._read_packets(start_ns, end_ns)
            plan = _CopyPlan.of(packets, self._wanted(packets, start_ns, end_ns))
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as raw:
                if self._copyable and plan is not None and not reencode:
                    first_pts, last_pts, frame_count = plan.first_pts, plan.last_pts, plan.frame_count
                    self._copy(raw, plan)
                    lead_in = plan.first_pts - plan.key_pts
                    duration = plan.last_pts + plan.last_duration - plan.first_pts
                    size = _write_finished(raw, out, _in_timescale(duration, self._time_base))
                else:
                    first_pts, last_pts, frame_count = self._encode(raw, packets, start_ns, end_ns)
                    lead_in, plan = 0, None
                    size = _write_finished(raw, out, None)
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"no clip could be cut ({error})", where=where) from error
        return ClipInfo(
            first_frame_time_ns=self._time_ns(first_pts),
            last_frame_time_ns=self._time_ns(last_pts),
            frame_count=frame_count,
            lead_in_s=float(lead_in * self._time_base),
            size_bytes=size,
            reencoded=plan is None,
        )
