"""Cut a primitive out of its recording as one small mp4 that any browser plays.

Re-encoding would cost as much as decoding the whole recording, so a clip is a *stream copy*: the compressed
pictures from the keyframe before the primitive up to the last one it needs, and an edit list (ISO/IEC
14496-12, section 8.6.6) that tells players which of them to show. What lies before the first frame shown is
the *lead-in*: it is decoded, because later pictures refer to it, and never shown. Readers that ignore edit
lists show it; the exact times are therefore returned as well.

Decoded and encoded anew with libx264, every frame at its own time, is what cannot be copied so that every
browser plays it: other codecs than :data:`COPY_CODECS`, other pictures than 8-bit 4:2:0, files without
timestamps of presentation, damaged packets, streams where playing cannot begin cleanly at the keyframe (open
groups of pictures, intra refresh), and clips whose keyframe is more than :data:`MAX_LEAD_IN_S` away. So is what
must not be seen: regions of the picture, and hidden pictures of a time that was forgotten. Sound is left out.
Memory depends on the length of the clip, not on the distance between keyframes.

Frame times are those of :mod:`laps.video`: recording start + (pts - pts of the first frame shown).
"""

from __future__ import annotations

import io
import re
import statistics
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeVar

import av
import av.error
import numpy as np
from av.stream import Discard, Disposition

from laps.errors import InputError, MediaError
from laps.regions import Region, cover
from laps.timegrid import NS_PER_S, format_utc
from laps.video import Positioned, decode, probe

# What Chromium, Firefox and Safari play from mp4 without special hardware. HEVC is not among it.
COPY_CODECS: frozenset[str] = frozenset({"h264", "vp9", "av1"})
COPY_PIXEL_FORMATS: frozenset[str] = frozenset({"yuv420p", "yuvj420p"})
# Browsers decode the lead-in before they show anything. Cameras set a keyframe every second to every ten; recordings
# of screens may have a single one.
MAX_LEAD_IN_S = 15

# H.264 and HEVC decoders hold at most 16 pictures back, so no picture follows more than 16 that are shown later.
_MAX_REORDER = 16
_SEEK_BACK_S = (0, 2, 10, 60)
_LONG_S = 1_000_000
_CLOCK_JUMP_S = 10
_SPOOL_BYTES = 64 * 1024 * 1024
_MIN_TIMESCALE = 10_000
_IDR = 5


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
    say. Parts of one recording may overlap, as those of neighbouring hours do; time counts once. None when no part
    touches the range.
    """
    held_ns: dict[str, int] = {}
    first: dict[str, Part] = {}
    counted_to_ns: dict[str, int] = {}
    for part in sorted(parts, key=lambda part: part.start_ns):
        begin_ns = max(part.start_ns, counted_to_ns.get(part.recording_id, start_ns))
        overlap_ns = min(part.stop_ns, end_ns) - begin_ns
        if overlap_ns > 0:
            counted_to_ns[part.recording_id] = begin_ns + overlap_ns
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
    covered: Sequence[Region] = (),
    kept_out: Sequence[tuple[int, int]] = (),
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
        covered: regions of the picture that nobody may see: grey, so the clip is encoded anew.
        kept_out: times, ``[start_ns, stop_ns)``, of which the file must not hold a picture, hidden ones neither; a copy
            that would is encoded anew. The range must lie outside of them.

    A range that spans two recordings needs a choice: see :func:`choose_part`.

    Raises:
        MediaError: the file cannot be read there, or has no frame in the range.
        InputError: the range is empty.
    """
    with ClipCutter(file, name=name, recording_start_ns=recording_start_ns) as cutter:
        return cutter.cut(out, start_ns=start_ns, end_ns=end_ns, reencode=reencode, covered=covered, kept_out=kept_out)


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
        OSError: of the file object.
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
        self._file = file
        self._info = probe(file, name=name)
        file.seek(0)
        try:
            self._container: Any = av.open(Positioned(file, name), "r", metadata_errors="replace")
        except av.error.FFmpegError as error:
            raise MediaError(f"cannot be opened as a video ({error})", where=name) from error
        videos = (
            stream
            for stream in self._container.streams.video
            if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None
        )
        self._stream: Any = next(videos, None)
        if self._stream is None:
            self._container.close()
            raise MediaError(
                "there is no video stream in the file any more",
                where=name,
                fix="It changed while it was read; cut again once it is complete.",
            )
        for other in self._container.streams:
            if other is not self._stream:
                other.discard = Discard.all
        self._time_base = Fraction(self._stream.time_base)
        self._first_pts = round(Fraction(self._info.pts_offset_s) / self._time_base)
        self._copyable = (
            self._info.codec in copy_codecs and self._info.pixel_format in COPY_PIXEL_FORMATS and self._info.exact_times
        )

    def __enter__(self) -> ClipCutter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the demuxer; the file stays open."""
        self._container.close()

    def cut(
        self,
        out: BinaryIO | Path,
        *,
        start_ns: int,
        end_ns: int,
        reencode: bool = False,
        covered: Sequence[Region] = (),
        kept_out: Sequence[tuple[int, int]] = (),
    ) -> ClipInfo:
        """Write one clip; see :func:`cut_clip`."""
        if end_ns <= start_ns:
            raise InputError(
                f"a clip cannot end at {format_utc(end_ns)} when it starts at {format_utc(start_ns)}",
                where=self.name,
            )
        where = f"{self.name} at {format_utc(start_ns)}"
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as raw:
            try:
                plan = None if reencode or covered else self._plan_copy(start_ns, end_ns, kept_out)
                # Decoding reads the file too, and the demuxer expects it to stand where it left it.
                position = self._file.tell()
                try:
                    shown = self._copy(raw, plan) if plan is not None else self._encode(raw, start_ns, end_ns, covered)
                finally:
                    self._file.seek(position)
            except av.error.FFmpegError as error:
                raise MediaError(f"no clip could be cut ({error})", where=where) from error
            if shown is None:
                raise MediaError(
                    f"has no frame that can be shown before {format_utc(end_ns)}",
                    where=where,
                    fix="Check the recording's start time and length.",
                )
            size_bytes = _finish(raw, out, int(shown.duration_s * _timescale(self._time_base)))
        return ClipInfo(
            first_frame_time_ns=self._time_ns(shown.first_pts),
            last_frame_time_ns=self._time_ns(shown.last_pts),
            frame_count=shown.frame_count,
            lead_in_s=float(shown.lead_in * self._time_base),
            size_bytes=size_bytes,
            reencoded=plan is None,
        )

    def _time_ns(self, pts: int) -> int:
        base = self._time_base
        return self.recording_start_ns + (pts - self._first_pts) * base.numerator * NS_PER_S // base.denominator

    def _read_packets(self, start_ns: int, end_ns: int) -> list[Any] | None:
        """Packets in decoding order from a keyframe at or before ``start_ns`` to all that are shown before the end.

        None when that keyframe is too far away.
        """
        elapsed = Fraction(start_ns - self.recording_start_ns, NS_PER_S) / self._time_base
        target = self._first_pts + elapsed.numerator // elapsed.denominator
        # Some containers land after the place that was asked for: ask for earlier ones until a keyframe is in time.
        for back_s in _SEEK_BACK_S:
            position = target - int(back_s / self._time_base)
            if position <= self._first_pts:
                break
            self._container.seek(position, stream=self._stream)
            packets = self._packets_from_keyframe(target, start_ns, end_ns)
            if packets is None or packets:
                return packets
        self._rewind()
        return self._packets_from_keyframe(None, start_ns, end_ns)

    def _rewind(self) -> None:
        """Back to the very first packet, which may come before the first frame that is shown."""
        try:
            self._container.seek(self._first_pts - int(_LONG_S / self._time_base), stream=self._stream)
        except av.error.PermissionError:  # FLV knows no time before its first frame
            self._container.seek(self._first_pts, stream=self._stream)

    def _packets_from_keyframe(self, target: int | None, start_ns: int, end_ns: int) -> list[Any] | None:
        """The packets from the last keyframe at or before ``start_ns`` on, reading from here.

        Empty when the next keyframe is shown after ``target``; None when more than the longest lead-in lies between
        the last keyframe and the start.
        """
        packets: list[Any] = []
        latest: int | None = None
        beyond = 0
        jump = int(_CLOCK_JUMP_S / self._time_base)
        longest = int(MAX_LEAD_IN_S / self._time_base)
        for packet in self._container.demux(self._stream):
            if not packet.size or (latest is None and not packet.is_keyframe):
                continue
            if packet.pts is None or (latest is None and target is not None and packet.pts > target):
                return []
            if latest is not None and packet.pts < latest - jump:
                break  # the clock was set back: what follows belongs to another time
            latest = packet.pts
            time_ns = self._time_ns(packet.pts)
            if packet.is_keyframe and time_ns <= start_ns:
                packets.clear()  # the clip begins here or later
            elif not packets and not packet.is_keyframe:  # the last keyframe is too far away already
                if time_ns >= start_ns:
                    return None
                continue
            elif packets and time_ns < start_ns and packet.pts - packets[0].pts > longest:
                packets.clear()
                continue
            packets.append(packet)
            beyond = beyond + 1 if time_ns >= end_ns else 0
            if beyond > _MAX_REORDER:
                break
        return None if latest is not None and not packets else packets

    def _plan_copy(self, start_ns: int, end_ns: int, kept_out: Sequence[tuple[int, int]] = ()) -> _CopyPlan | None:
        """Which packets to copy; None when a copy would not show exactly the frames asked for, or hold others."""
        if not self._copyable:
            return None
        try:
            packets = self._read_packets(start_ns, end_ns)
        except av.error.FFmpegError:  # decoding passes over damaged places
            return None
        if packets is None:
            return None

        def wanted(packet: Any) -> bool:
            return not packet.is_discard and start_ns <= self._time_ns(packet.pts) < end_ns

        first = min((packet.pts for packet in packets if wanted(packet)), default=None)
        if first is None:
            return None
        begin = max((i for i, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= first), default=None)
        if begin is None or not self._starts_cleanly(packets[begin]):
            return None
        if (first - packets[begin].pts) * self._time_base > MAX_LEAD_IN_S:
            return None
        after_begin = packets[begin:]
        stop = 1 + max(i for i, packet in enumerate(after_begin) if wanted(packet))
        shown = sorted(packet.pts for packet in after_begin if wanted(packet))
        after = min((packet.pts for packet in after_begin if packet.pts > shown[-1]), default=None)
        kept = after_begin[:stop]
        stamps = [packet.pts for packet in kept]
        inside = [pts for pts in stamps if shown[0] <= pts <= shown[-1]]
        if (
            any(packet.is_corrupt for packet in kept)
            or any(start <= self._time_ns(pts) < stop for pts in stamps for start, stop in kept_out)
            or min(stamps) < stamps[0]  # pictures that refer to what comes before the keyframe
            or len(set(stamps)) != len(stamps)
            or len(inside) != len(shown)
        ):
            return None
        return _CopyPlan(kept, shown, _last_duration(shown, after, self._stream))

    def _starts_cleanly(self, keyframe: Any) -> bool:
        """Whether every decoder can begin here: in H.264 only at an IDR picture, not at a recovery point."""
        if self._info.codec != "h264":
            return True
        return _IDR in _h264_unit_types(bytes(keyframe), bytes(self._stream.codec_context.extradata or b""))

    def _copy(self, raw: Any, plan: _CopyPlan) -> _Shown:
        first, last = plan.shown[0], plan.shown[-1]
        lead_in = first - plan.packets[0].pts
        # Decoding times are made anew, because not every container keeps them: increasing, and never after the
        # presentation time.
        order = sorted(packet.pts for packet in plan.packets)
        delay = max(stamp - packet.pts for stamp, packet in zip(order, plan.packets, strict=True))
        with _open_mp4(raw, self._time_base) as output:
            stream = output.add_stream_from_template(self._stream, opaque=True)
            stream.time_base = self._time_base
            for packet, stamp in zip(plan.packets, order, strict=True):
                packet.dts = stamp - delay - first
                packet.pts = packet.pts - first
                packet.duration = plan.last_duration
                # Browsers jump to keyframes, and get stuck at those where decoding cannot begin.
                packet.is_keyframe = packet.is_keyframe and self._starts_cleanly(packet)
                packet.stream = stream
                output.mux_one(packet)
        duration = (last + plan.last_duration - first) * self._time_base
        return _Shown(first, last, len(plan.shown), lead_in, duration)

    def _encode(self, raw: Any, start_ns: int, end_ns: int, covered: Sequence[Region]) -> _Shown | None:
        """Encode the frames as they are displayed (turned upright); None when there are none."""
        side = min(self._info.width_px, self._info.height_px)
        shown: list[int] = []
        waiting: list[Any] = []
        frames = decode(
            self._file, name=self.name, recording_start_ns=self.recording_start_ns, from_ns=start_ns, to_ns=end_ns
        )
        with _open_mp4(raw, self._time_base) as output:
            stream: Any = None
            for frame in frames:
                picture = cover(frame.rgb(side), covered)
                if stream is None:
                    stream = self._add_encoder(output, picture)
                shown.append(self._pts(frame.time_ns))
                waiting += stream.encode(self._video_frame(picture, stream, shown[-1] - shown[0]))
                while len(waiting) > 1:
                    output.mux_one(waiting.pop(0))
            if stream is None:
                return None
            waiting += stream.encode(None)
            # The last one's duration is known only now; the others last until the one after them.
            last_duration = _last_duration(shown, None, self._stream)
            for packet in waiting:
                packet.duration = last_duration
                output.mux_one(packet)
        duration = (shown[-1] + last_duration - shown[0]) * self._time_base
        return _Shown(shown[0], shown[-1], len(shown), 0, duration)

    def _pts(self, time_ns: int) -> int:
        """Inverse of :meth:`_time_ns`, which rounds down by less than a nanosecond."""
        return self._first_pts + round(Fraction(time_ns - self.recording_start_ns, NS_PER_S) / self._time_base)

    def _add_encoder(self, output: Any, picture: np.ndarray) -> Any:
        # Without B-frames the file starts with its first frame, and readers without edit lists agree with the rest.
        options = {"preset": "veryfast", "crf": "20", "bf": "0"}
        stream = output.add_stream("libx264", rate=self._stream.average_rate or 30, options=options)
        # 4:2:0 needs even sizes.
        stream.width, stream.height = max(2, picture.shape[1] // 2 * 2), max(2, picture.shape[0] // 2 * 2)
        stream.pix_fmt = "yuv420p"
        stream.time_base = self._time_base
        stream.codec_context.time_base = self._time_base
        return stream

    def _video_frame(self, picture: np.ndarray, stream: Any, pts: int) -> Any:
        even = np.ascontiguousarray(picture[: stream.height, : stream.width])
        frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
            width=stream.width, height=stream.height, format="yuv420p"
        )
        frame.pts = pts
        frame.time_base = self._time_base
        return frame


@dataclass(frozen=True)
class _CopyPlan:
    """Packets to copy in decoding order, pts of the frames to show, and how long the last one is shown."""

    packets: list[Any]
    shown: list[int]
    last_duration: int


@dataclass(frozen=True)
class _Shown:
    """What a written file shows: pts in the recording, and its length in seconds."""

    first_pts: int
    last_pts: int
    frame_count: int
    lead_in: int
    duration_s: Fraction


def _h264_unit_types(data: bytes, extradata: bytes) -> set[int]:
    """Types of the NAL units in an access unit, framed by lengths (as in mp4) or by start codes (as in MPEG-TS)."""
    if extradata[:1] != b"\x01":
        return {match[1][0] & 31 for match in re.finditer(rb"\x00\x00\x01(.)", data, re.DOTALL)}
    length_bytes = (extradata[4] & 3) + 1
    types, at = set(), 0
    while at + length_bytes < len(data):
        types.add(data[at + length_bytes] & 31)
        at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")
    return types


def _last_duration(shown: list[int], after: int | None, stream: Any) -> int:
    """How long to show the last frame: until the frame after it, or the usual interval where none follows soon."""
    intervals = [later - earlier for earlier, later in pairwise(shown)]
    if intervals:
        usual = round(statistics.median(intervals))
    elif after is not None:
        usual = after - shown[-1]
    else:
        rate = stream.average_rate or stream.guessed_rate or 30
        usual = round(1 / (rate * stream.time_base))
    if after is not None and after - shown[-1] <= 2 * usual:
        usual = after - shown[-1]
    return max(1, usual)


def _timescale(time_base: Fraction) -> int:
    """Ticks a second in which the times of a time base are whole numbers."""
    timescale = time_base.denominator
    while timescale < _MIN_TIMESCALE:
        timescale *= 2
    return timescale


def _open_mp4(raw: Any, time_base: Fraction) -> Any:
    """An mp4 muxer that keeps negative times and hides them by an edit list.

    Media and movie count in the same ticks, so that the edit list is exact; bitexact leaves the writer's version
    out, so that the same cut gives the same bytes.
    """
    timescale = str(_timescale(time_base))
    options = {
        "use_editlist": "1",
        "avoid_negative_ts": "disabled",
        "movie_timescale": timescale,
        "video_track_timescale": timescale,
        "fflags": "+bitexact",
    }
    return av.open(raw, "w", format="mp4", options=options)


@dataclass(frozen=True)
class _Box:
    """A box of an mp4 file: where it starts, where its content starts, and where it stops, in bytes."""

    kind: bytes
    start: int
    body: int
    stop: int


def _boxes(file: Any, start: int, stop: int) -> Iterator[_Box]:
    """The boxes side by side in ``[start, stop)`` (ISO/IEC 14496-12, section 4.2)."""
    while start < stop:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        body = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            body = start + 16
        yield _Box(kind, start, body, start + size if size else stop)
        start = start + size if size else stop


_CONTAINER_BOXES = (b"trak", b"edts", b"mdia", b"minf", b"stbl")
# Where the duration stands in the body of a box of version 0 (4 bytes) and version 1 (8 bytes).
_DURATION_AT = {b"mvhd": (16, 24), b"tkhd": (20, 28), b"elst": (8, 8)}


def _finish(raw: Any, out: BinaryIO | Path, ticks: int) -> int:
    """Copy a muxed mp4 with its index in front and its length set; return the size in bytes.

    The muxer lets a clip last until its last picture in time, which may be one that is there only because shown
    pictures refer to it. The edit list, which counts in movie ticks, is cut to what is to be shown. With the index
    (moov) before the pictures (mdat) a browser starts to play before it has the whole file.
    """
    raw.seek(0, 2)
    top = {box.kind: box for box in _boxes(raw, 0, raw.tell())}
    header, index, media = top[b"ftyp"], top[b"moov"], top[b"mdat"]
    raw.seek(index.start)
    moov = io.BytesIO(raw.read(index.stop - index.start))
    shift = (header.stop - header.start) + (index.stop - index.start) - media.start

    def patch(start: int, stop: int) -> None:
        for box in _boxes(moov, start, stop):
            if box.kind in _CONTAINER_BOXES:
                patch(box.body, box.stop)
            elif box.kind in _DURATION_AT:
                version = moov.getbuffer()[box.body]
                struct.pack_into(
                    ">Q" if version else ">I",
                    moov.getbuffer(),
                    box.body + _DURATION_AT[box.kind][version],
                    ticks,
                )
            elif box.kind in (b"stco", b"co64"):
                (count,) = struct.unpack_from(">I", moov.getbuffer(), box.body + 4)
                entries = f">{count}{'I' if box.kind == b'stco' else 'Q'}"
                offsets = struct.unpack_from(entries, moov.getbuffer(), box.body + 8)
                struct.pack_into(entries, moov.getbuffer(), box.body + 8, *(at + shift for at in offsets))

    patch(8, index.stop - index.start)
    if isinstance(out, Path):
        with out.open("wb") as target:
            return _write_parts(raw, moov.getvalue(), header, media, target)
    return _write_parts(raw, moov.getvalue(), header, media, out)


def _write_parts(raw: Any, moov: bytes, header: _Box, media: _Box, target: BinaryIO) -> int:
    raw.seek(header.start)
    target.write(raw.read(header.stop - header.start))
    target.write(moov)
    raw.seek(media.start)
    left = media.stop - media.start
    while chunk := raw.read(min(left, 1 << 20)):
        target.write(chunk)
        left -= len(chunk)
    return (header.stop - header.start) + len(moov) + (media.stop - media.start)
