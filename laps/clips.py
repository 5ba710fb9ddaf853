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

import io
import statistics
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
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
_LONG_S = 1_000_000
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
            self._copyable = (
                context.codec.canonical_name in copy_codecs and context.pix_fmt in COPY_PIXEL_FORMATS
            )
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
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as raw:
            try:
                packets = self._read_packets(start_ns, end_ns)
                plan = self._plan_copy(packets, start_ns, end_ns) if self._copyable and not reencode else None
                shown: _Shown | None
                if plan is not None:
                    shown = self._copy(raw, plan)
                else:
                    shown = self._encode(raw, packets, start_ns, end_ns)
            except (av.error.FFmpegError, OSError) as error:
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
        elapsed = (pts - self._first_pts) * self._time_base * NS_PER_S
        return self.recording_start_ns + elapsed.numerator // elapsed.denominator

    def _find_first_pts(self) -> int:
        """Pts of the first frame that players present: the least of the first packets that are not discarded."""
        stamps: list[int] = []
        for packet in self._container.demux(self._stream):
            stamp = _stamp(packet)
            if packet.size and not packet.is_discard and stamp is not None:
                stamps.append(stamp)
            if len(stamps) > _MAX_REORDER:
                break
        if not stamps:
            raise MediaError("holds no video frame", where=self.name)
        return min(stamps)

    def _read_packets(self, start_ns: int, end_ns: int) -> list[Any]:
        """Packets in decoding order, from a keyframe at or before ``start_ns`` until all before ``end_ns`` are in."""
        elapsed = Fraction(start_ns - self.recording_start_ns, NS_PER_S) / self._time_base
        target = self._first_pts + elapsed.numerator // elapsed.denominator
        # Some containers land after the place that was asked for: ask for an earlier one until a keyframe comes in
        # time, in the end for one long before the recording.
        for back_s in (0, 2, 10, 60, None):
            position = target - int((back_s or 0) / self._time_base)
            from_beginning = back_s is None or position <= self._first_pts
            if from_beginning:
                self._rewind()
            else:
                self._container.seek(position, stream=self._stream)
            packets = self._packets_from_keyframe(None if from_beginning else target, end_ns)
            if packets is not None:
                return packets
        return []

    def _rewind(self) -> None:
        """Back to the very first packet, which may come before the first frame that is presented."""
        try:
            self._container.seek(self._first_pts - int(_LONG_S / self._time_base), stream=self._stream)
        except av.error.PermissionError:  # AVI and FLV know no time before their first frame
            self._container.seek(self._first_pts, stream=self._stream)

    def _packets_from_keyframe(self, target: int | None, end_ns: int) -> list[Any] | None:
        """The packets from the next keyframe on; None when that keyframe is shown after ``target``."""
        packets: list[Any] = []
        beyond = 0
        for packet in self._container.demux(self._stream):
            stamp = _stamp(packet)
            if not packet.size or stamp is None or (not packets and not packet.is_keyframe):
                continue
            if not packets and target is not None and stamp > target:
                return None
            packets.append(packet)
            beyond = beyond + 1 if self._time_ns(stamp) >= end_ns else 0
            if beyond > _MAX_REORDER:
                break
        if not packets and target is not None:
            return None
        return packets

    def _plan_copy(self, packets: list[Any], start_ns: int, end_ns: int) -> _CopyPlan | None:
        """Which packets to copy; None when they cannot be copied as they are."""
        if any(packet.pts is None for packet in packets):
            return None

        def wanted(packet: Any) -> bool:
            return not packet.is_discard and start_ns <= self._time_ns(packet.pts) < end_ns

        first = min((packet.pts for packet in packets if wanted(packet)), default=None)
        if first is None:
            return None
        # The last keyframe that is shown no later than the first wanted frame and is sent no later either.
        key = max(i for i, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= first)
        # Pictures that follow the keyframe but are shown before it (an open GOP) refer to what is not there.
        kept = [packet for packet in packets[key:] if packet.pts >= packets[key].pts]
        last_index = max(i for i, packet in enumerate(kept) if wanted(packet))
        shown = sorted(packet.pts for packet in kept if wanted(packet))
        after = min((packet.pts for packet in kept if packet.pts > shown[-1]), default=None)
        kept = kept[: last_index + 1]
        stamps = [packet.pts for packet in kept]
        inside = [packet.pts for packet in kept if shown[0] <= packet.pts <= shown[-1]]
        if len(set(stamps)) != len(stamps) or len(inside) != len(shown):
            return None
        return _CopyPlan(kept, shown, _last_duration(shown, after, self._stream))

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
                packet.stream = stream
                output.mux_one(packet)
        duration = (last + plan.last_duration - first) * self._time_base
        return _Shown(first, last, len(plan.shown), lead_in, duration)

    def _encode(self, raw: Any, packets: list[Any], start_ns: int, end_ns: int) -> _Shown | None:
        """Decode the packets and encode the wanted frames at their own times; None when there are none."""
        shown: list[int] = []
        encoded: list[Any] = []
        with _open_mp4(raw, self._time_base) as output:
            stream: Any = None
            for frame in self._decode(packets):
                if frame.pts is None or not start_ns <= self._time_ns(frame.pts) < end_ns:
                    continue
                if shown and frame.pts <= shown[-1]:
                    continue  # two frames at one time: players show one of them
                if stream is None:
                    stream = self._add_encoder(output, frame)
                picture = frame.reformat(width=stream.width, height=stream.height, format="yuv420p")
                shown.append(frame.pts)
                picture.pts = frame.pts - shown[0]
                picture.time_base = self._time_base
                encoded += stream.encode(picture)
            if stream is None:
                return None
            encoded += stream.encode(None)
            last_duration = _last_duration(shown, None, self._stream)
            for packet in encoded:
                packet.duration = last_duration
                output.mux_one(packet)
        duration = (shown[-1] + last_duration - shown[0]) * self._time_base
        return _Shown(shown[0], shown[-1], len(shown), 0, duration)

    def _decode(self, packets: list[Any]) -> Iterator[Any]:
        context = self._stream.codec_context
        context.flush_buffers()
        for packet in packets:
            yield from context.decode(packet)
        yield from context.decode(None)
        context.flush_buffers()

    def _add_encoder(self, output: Any, frame: Any) -> Any:
        """An H.264 stream of the frame's size, made even because 4:2:0 needs it, and orientation."""
        # Without B-frames the file starts with its first frame, and readers without edit lists agree with the rest.
        options = {"preset": "veryfast", "crf": "20", "bf": "0"}
        stream = output.add_stream("libx264", rate=self._stream.average_rate or 30, options=options)
        stream.width, stream.height = max(2, frame.width // 2 * 2), max(2, frame.height // 2 * 2)
        stream.pix_fmt = "yuv420p"
        stream.time_base = self._time_base
        context = stream.codec_context
        context.time_base = self._time_base
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        if self._stream.sample_aspect_ratio:
            context.sample_aspect_ratio = self._stream.sample_aspect_ratio
        for side_data in frame.side_data:
            if side_data.type.name == "DISPLAYMATRIX":
                stream.set_display_matrix(struct.unpack("=9i", bytes(side_data)))
        return stream


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


def _stamp(packet: Any) -> int | None:
    """Presentation time of a packet, or the decoding time (never later) where a container has only that."""
    return packet.pts if packet.pts is not None else packet.dts


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
