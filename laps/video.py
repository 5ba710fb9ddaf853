"""Reading video: packet timestamps without pixels, and frames with their exact times.

Everything here takes a seekable binary file object, so the same code reads a local disk and object storage.

A frame's time is its recording's start plus ``pts - origin``, where the origin is the presentation
timestamp of the first frame that a decoder can show; integer nanoseconds, computed exactly and rounded
down. It is never a frame number divided by a nominal rate. AVI has no presentation timestamps; H.264 and
HEVC in it are timed by counting, and :attr:`VideoInfo.exact_times` says so.

Whoever asks for a range of time gets, bit for bit, the frames that decoding from the beginning would give. For
that, decoding starts at the last keyframe but one before the range: frames that follow the start in the file but
precede it on the screen (open groups of pictures) and streams that recover step by step (intra refresh) are right
again by the time the range begins. Where the decoder finds damage, the frames from there to the next keyframe are
left out instead of shown smeared; with damage that it does not notice they are what any player shows.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from av.stream import Discard, Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from laps.errors import InputError, MediaError
from laps.timegrid import NS_PER_S, format_utc, from_datetime

Opener = Callable[[str], BinaryIO]

# Only real containers: FFmpeg would also read pictures, text (as ANSI art) and playlists, which open other
# files.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpegtsraw,mpeg,flv,live_flv,asf,ogg,mxf,nut,ivf,dv,wtv,gxf"
)
_BUFFER_BYTES = 1 << 18
# A recording whose first packets, about half a minute, hold no frame is refused instead of read to its end.
_HEAD_PACKETS = 1_000
_SEEK_MARGINS_S = (5, 20, 80, 320)
_READ_ERRORS = 20
_BACKWARD_JUMP_S = 1
# No frame waits longer than this between being decoded and being shown.
_REORDER_S = 30
# Clocks that were never set stand at 1904, 1970 or 1980.
_CLOCK_WAS_SET = datetime(1990, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its video.

    Attributes:
        container: FFmpeg's name of the container format.
        codec: name of the codec.
        pixel_format: pixel format as stored.
        width_px: width as displayed, after rotation.
        height_px: height as displayed, after rotation.
        rotation_deg: counter-clockwise rotation that a player applies: 0, 90, 180 or 270.
        nominal_fps: average frame rate that the container claims, None when it claims none.
        duration_s: length that the container claims, from the first frame shown; None when it claims none.
        pts_offset_s: presentation time of the first frame shown.
        creation_time_ns: creation time in the container, where it names its zone.
        exact_times: False where the file has no presentation timestamps and frames are timed by counting.
    """

    container: str
    codec: str
    pixel_format: str
    width_px: int
    height_px: int
    rotation_deg: int
    nominal_fps: float | None
    duration_s: float | None
    pts_offset_s: float
    creation_time_ns: int | None
    exact_times: bool = True


@dataclass(frozen=True)
class FrameScan:
    """Presentation times found without decoding.

    Attributes:
        times_ns: int64 [n], sorted and distinct, relative to the recording's first frame shown.
        problem: why reading stopped early, None when it ended normally.
        truncated: the file ends before its container claims; ``problem`` says where.
        info: what the file says about itself.
    """

    times_ns: np.ndarray
    problem: str | None
    truncated: bool
    info: VideoInfo


class TimedFrame:
    """One decoded picture and its time; pixels are converted when they are asked for, and kept by size.

    Attributes:
        time_ns: absolute time of the frame, nanoseconds since the epoch.
    """

    __slots__ = ("_cache", "_converter", "_frame", "_quarter_turns", "time_ns")

    def __init__(self, frame: av.VideoFrame, *, time_ns: int, quarter_turns: int, converter: VideoReformatter) -> None:
        self.time_ns = time_ns
        self._frame = frame
        self._quarter_turns = quarter_turns
        self._converter = converter
        self._cache: dict[tuple[str, int], np.ndarray] = {}

    def gray(self, short_side: int) -> np.ndarray:
        """Luma as stored, uint8 [h, w], rotated as displayed, scaled so that the short side has this many px.

        Small pictures are enlarged, so that a pixel means the same share of the view everywhere. Studio range
        stays 16 to 235.
        """
        return self._cached("gray", short_side, self._gray)

    def rgb(self, short_side: int) -> np.ndarray:
        """Colours, uint8 [h, w, 3] in the order red, green, blue, rotated and scaled like :meth:`gray`."""
        return self._cached("rgb", short_side, self._rgb)

    def _cached(self, kind: str, short_side: int, make: Callable[[int, int], np.ndarray]) -> np.ndarray:
        key = (kind, short_side)
        if key not in self._cache:
            picture = make(*scaled_size(self._frame.width, self._frame.height, short_side))
            if self._quarter_turns:
                picture = np.ascontiguousarray(np.rot90(picture, self._quarter_turns))
            picture.flags.writeable = False
            self._cache[key] = picture
        return self._cache[key]

    def _gray(self, width: int, height: int) -> np.ndarray:
        # Straight to a small YUV picture: its luma is scaled as stored, while a conversion to gray would stretch
        # the range of some formats and not of others.
        target = "gray" if self._frame.format.is_rgb else "yuv420p"
        plane = self._convert(width, height, target).planes[0]
        return np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[:height, :width].copy()

    def _rgb(self, width: int, height: int) -> np.ndarray:
        return self._convert(width, height, "rgb24").to_ndarray()

    def _convert(self, width: int, height: int, pixel_format: str) -> av.VideoFrame:
        return self._converter.reformat(
            self._frame,
            width=width,
            height=height,
            format=pixel_format,
            interpolation=Interpolation.AREA if width < self._frame.width else Interpolation.BILINEAR,
            threads=1,
        )


def scaled_size(width_px: int, height_px: int, short_side: int) -> tuple[int, int]:
    """Width and height with the short side as asked and the long side rounded to the nearest integer."""
    if width_px <= height_px:
        return short_side, max(short_side, (2 * height_px * short_side + width_px) // (2 * width_px))
    return max(short_side, (2 * width_px * short_side + height_px) // (2 * height_px)), short_side


def probe(file: BinaryIO, *, name: str) -> VideoInfo:
    """Describe a file from its headers and its first frame.

    Raises:
        MediaError: the file is empty, no video container, or has no video stream or no frame to decode.
    """
    with _Reader(file, name) as reader:
        return reader.info


def scan_frames(file: BinaryIO, *, name: str, from_ns: int, to_ns: int) -> FrameScan:
    """Presentation times in ``[from_ns, to_ns)`` relative to the recording's first frame, from packets alone.

    Reads the packets of that range only, so an hour of a ten-hour file costs an hour.

    Raises:
        MediaError: the file cannot be read at all.
    """
    with _Reader(file, name) as reader:
        return reader.scan(from_ns, to_ns)


def decode(
    file: BinaryIO,
    *,
    name: str,
    recording_start_ns: int,
    from_ns: int,
    to_ns: int,
    threads: int = 1,
    on_problem: Callable[[str], None] | None = None,
) -> Iterator[TimedFrame]:
    """Frames with ``from_ns <= time_ns < to_ns`` in the order of their times, which strictly increase.

    Damaged packets are passed over: the frames up to the next keyframe are missing then, and ``on_problem``
    is told. Memory does not depend on the length of the range.

    Args:
        file: seekable binary file object; it stays open.
        name: what errors call the file.
        recording_start_ns: time of the recording's first frame.
        from_ns: start of the range.
        to_ns: end of the range (exclusive).
        threads: decoder threads; the frames of an undamaged file are the same for any number.
        on_problem: is called with one sentence for each damaged place.

    Raises:
        MediaError: the file cannot be read, or damage left no frame of a range that has packets.
    """
    with _Reader(file, name, threads) as reader:
        yield from reader.frames(recording_start_ns, from_ns, to_ns, on_problem)


class Positioned:
    """A file for FFmpeg to read: where a damaged one leads to a position that cannot be, that is the file's fault.

    The file object would say that an argument is invalid, as if it could not be reached.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise MediaError(
                "this is no video file that can be read (it leads to a position before its start)",
                where=self._name,
                fix="It is damaged; copy it again from where it was recorded.",
            ) from error


class _Damage:
    """Stretches of presentation time that are not shown: from a damaged packet to the keyframe after it."""

    def __init__(self) -> None:
        self.count = 0  # damaged places, not packets
        self._begun: int | None = None
        self._keyframe: int | None = None
        self._latest: int | None = None
        self._stretches: list[tuple[int, int]] = []

    def packet(self, pts: int, *, is_keyframe: bool) -> None:
        """A packet comes next in the order of decoding."""
        if is_keyframe:
            if self._begun is not None:
                self._stretches.append((self._begun, pts))
                self._begun = None
            self._keyframe = pts

    def good(self, pts: int) -> None:
        if self._latest is None or pts > self._latest:
            self._latest = pts

    def bad(self, pts: int | None) -> None:
        if self._begun is None:
            self.count += 1
        if pts is None:
            return
        if self._keyframe is not None and pts < self._keyframe:
            # Frames that are decoded after a keyframe but shown before it are nobody else's reference.
            self._stretches.append((pts, self._keyframe))
            return
        # Frames shown between the latest good one and this one come later in the file, and lean on this one.
        begin = pts if self._latest is None else min(pts, self._latest + 1)
        self._begun = begin if self._begun is None else min(self._begun, begin)

    def covers(self, pts: int) -> bool:
        if self._begun is not None and pts >= self._begun:
            return True
        return any(start <= pts < stop for start, stop in self._stretches)

    def forget_before(self, pts: int) -> None:
        self._stretches = [stretch for stretch in self._stretches if stretch[1] > pts]


class _Reader:
    """An open container, its video stream and the origin of its time."""

    def __init__(self, file: BinaryIO, name: str, threads: int = 1) -> None:
        if threads < 1:
            raise InputError(f"a decoder needs at least 1 thread, not {threads}")
        self.file = file
        self.name = name
        self.threads = threads
        self._container: Any = None
        file.seek(0, 2)
        self.size_bytes = file.tell()
        if self.size_bytes == 0:
            raise MediaError("the file is empty", where=name, fix="Copy it again from where it was recorded.")
        try:
            self._open()
            self._read_head()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    # -- opening ---------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.close()
        self.file.seek(0)
        try:
            self._container = av.open(
                Positioned(self.file, self.name),
                "r",
                options={"format_whitelist": _CONTAINERS},
                metadata_errors="replace",
                buffer_size=_BUFFER_BYTES,
            )
        except av.error.FFmpegError as error:
            raise MediaError(
                f"this is no video file that can be read ({_reason(error)})",
                where=self.name,
                fix="It may be incomplete (an mp4 that was cut off before its index) or of another type.",
            ) from error
        streams = [
            stream for stream in self._container.streams.video if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            raise MediaError("there is no video stream in the file", where=self.name, fix="Give a video.")
        streams = [stream for stream in streams if stream.codec_context is not None]
        if not streams:
            raise MediaError("no decoder is known for its video", where=self.name, fix="Convert it to H.264.")
        self._stream = streams[0]
        for other in self._container.streams:
            if other is not self._stream:
                other.discard = Discard.all
        if self._stream.time_base is None:
            raise MediaError("its video stream has no time base", where=self.name, fix="Remux the file.")
        self._time_base = Fraction(self._stream.time_base)
        self._longest_wait = int(_REORDER_S / self._time_base)
        context = self._stream.codec_context
        # A damaged frame is refused instead of patched up from its neighbours: smears would look like motion.
        context.options = {"err_detect": "explode"}
        context.thread_count = self.threads
        context.thread_type = "AUTO" if self.threads > 1 else "NONE"
        # FFmpeg guesses pts for these from the order of decoding, which is not the order of showing.
        self._counted = self._container.format.name == "avi" and context.name in ("h264", "hevc")
        self._pending: list[int] = []
        self._keyframe_stamps: dict[int, int] = {}
        self._decoded_to: int | None = None
        self.problem: str | None = None

    def _read_head(self) -> None:
        """Find the first frame that can be shown, and keep the packets read for it."""
        self._damage = _Damage()
        self._head: list[av.Packet] = []
        live = self._demux()
        self._live: Iterator[av.Packet] | None = live
        first: tuple[int, av.VideoFrame] | None = None
        for packet in live:
            self._head.append(packet)
            first = next(iter(self._decode(packet)), None)
            if first or len(self._head) >= _HEAD_PACKETS:
                break
        else:
            first = next(iter(self._drain()), None)
        if first is None:
            raise MediaError(
                "no frame can be decoded" if self._head else "there are no frames in the file",
                where=self.name,
                fix="The file is damaged or incomplete; copy it again from where it was recorded.",
            )
        self._origin, frame = first
        self._quarter_turns = round(frame.rotation / 90) % 4
        self.info = self._describe(frame)

    def _describe(self, first: av.VideoFrame) -> VideoInfo:
        stream, container = self._stream, self._container
        width, height = first.width, first.height
        if self._quarter_turns % 2:
            width, height = height, width
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        end = self._claimed_end()
        return VideoInfo(
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.format.name,
            width_px=width,
            height_px=height,
            rotation_deg=90 * self._quarter_turns,
            nominal_fps=float(rate) if rate else None,
            duration_s=None if end is None else max(0.0, float(end - self._origin * self._time_base)),
            pts_offset_s=float(self._origin * self._time_base),
            creation_time_ns=_creation_time(container.metadata) or _creation_time(stream.metadata),
            exact_times=not self._counted,
        )

    def _claimed_end(self) -> Fraction | None:
        """Presentation time in seconds at which the container says that its video ends."""
        stream, container = self._stream, self._container
        claims = []
        if "matroska" in container.format.name:
            # Matroska's durations count from zero, not from the first frame; the track's own is a tag.
            of_track = _clock_seconds(stream.metadata.get("DURATION", ""))
            if of_track is not None:
                claims.append(of_track)
            elif container.duration is not None:
                claims.append(Fraction(container.duration, av.time_base))
        else:
            if stream.duration is not None:
                claims.append(((stream.start_time or 0) + stream.duration) * self._time_base)
            if container.duration is not None:
                claims.append(Fraction((container.start_time or 0) + container.duration, av.time_base))
        return min(claims, default=None)

    # -- packets ---------------------------------------------------------------------------------------------

    def _demux(self) -> Iterator[av.Packet]:
        """Packets with data; read errors are passed over while reading advances, a clock set back ends it."""
        errors = 0
        last_dts: int | None = None
        jump = int(_BACKWARD_JUMP_S / self._time_base)  # fractions are slow, and every packet is asked
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    if not packet.size:
                        continue
                    errors = 0
                    if packet.dts is not None:
                        if last_dts is not None and last_dts - packet.dts > jump:
                            at = float(last_dts * self._time_base)
                            self.problem = f"its timestamps jump back at {at:.3f} s; what follows is not used"
                            return
                        last_dts = packet.dts
                    yield packet
                return
            except IndexError:
                # PyAV's way of ending a file in which a further stream appeared (or seemed to) after its start.
                return
            except av.error.FFmpegError as error:
                errors += 1
                if errors >= _READ_ERRORS:
                    self.problem = f"it cannot be read on ({_reason(error)})"
                    return

    def _stamp(self, packet: av.Packet) -> int | None:
        if self._counted or packet.pts is None:
            return packet.dts
        return None if self._is_absurd(packet.pts, packet.dts) else packet.pts

    def _packets_for(self, target: int) -> Iterator[av.Packet]:
        """Packets from the last keyframe but one at or before ``target`` (pts), or from the beginning."""
        second = int(1 / self._time_base)
        for margin in _SEEK_MARGINS_S:
            aim = target - margin * second
            if aim <= self._origin:
                break
            keyframes = self._keyframes(aim, target)
            if len(keyframes) >= 2:
                yield from self._from_keyframe(aim, keyframes[-2])
                return
        if self._live is None:
            self._open()
            self._read_head()
        live, self._live = self._live, None
        self._restart_decoder()
        yield from self._head
        if live is not None:
            yield from live

    def _seek(self, target: int) -> Iterator[av.Packet]:
        self._live = None
        self.problem = None
        try:
            self._container.seek(target, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return iter(())
        return self._demux()

    def _keyframes(self, aim: int, target: int) -> list[int]:
        found = []
        for packet in self._seek(aim):
            stamp = self._stamp(packet)
            if stamp is None:
                continue
            if packet.is_keyframe and not packet.is_corrupt and stamp <= target:
                found.append(stamp)
            if (stamp if packet.dts is None else packet.dts) > target:
                break
        return found

    def _from_keyframe(self, aim: int, keyframe: int) -> Iterator[av.Packet]:
        packets = self._seek(aim)
        self._restart_decoder()
        for packet in packets:
            if packet.is_keyframe and self._stamp(packet) == keyframe:
                yield packet
                break
        yield from packets

    # -- frames ----------------------------------------------------------------------------------------------

    def _restart_decoder(self) -> None:
        self._stream.codec_context.flush_buffers()
        self._pending = []
        self._keyframe_stamps = {}
        self._decoded_to = None
        self._damage = _Damage()

    def _decode(self, packet: av.Packet | None) -> list[tuple[int, av.VideoFrame]]:
        """Frames that a packet releases, each with its pts; None for the last ones. Damage is noted."""
        stamp = None
        if packet is not None:
            stamp = self._stamp(packet)
            if stamp is not None:
                self._damage.packet(stamp, is_keyframe=packet.is_keyframe)
            if packet.is_corrupt:
                self._damage.bad(stamp)
                return []
            self._decoded_to = packet.dts
            if self._counted and stamp is not None:
                heapq.heappush(self._pending, stamp)
                if packet.is_keyframe:
                    self._keyframe_stamps[packet.pts] = stamp
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            self._damage.bad(stamp)
            if self._counted and stamp in self._pending:
                self._pending.remove(stamp)
                heapq.heapify(self._pending)
            return []
        if stamp is not None:
            self._damage.good(stamp)
        good = []
        for frame in frames:
            pts = self._count(frame) if self._counted else frame.pts
            if pts is None or frame.is_corrupt or self._damage.covers(pts) or self._is_absurd(pts, self._decoded_to):
                continue
            good.append((pts, frame))
        return good

    def _count(self, frame: av.VideoFrame) -> int | None:
        """The time of the next frame shown: the smallest decoding time that was not given to a frame yet."""
        keyframe = self._keyframe_stamps.pop(frame.pts, None)
        while keyframe is not None and self._pending and self._pending[0] < keyframe:
            heapq.heappop(self._pending)  # its frame was lost
        return heapq.heappop(self._pending) if self._pending else None

    def _is_absurd(self, pts: int, dts: int | None) -> bool:
        """A flipped bit in one timestamp must not hide everything up to that time."""
        return dts is not None and pts - dts > self._longest_wait

    def _drain(self) -> list[tuple[int, av.VideoFrame]]:
        return self._decode(None)

    def _relative_ns(self, pts: int) -> int:
        base = self._time_base
        return (pts - self._origin) * base.numerator * NS_PER_S // base.denominator

    def _pts_at(self, relative_ns: int) -> int:
        base = self._time_base
        return self._origin + relative_ns * base.denominator // (base.numerator * NS_PER_S)

    def frames(
        self, recording_start_ns: int, from_ns: int, to_ns: int, on_problem: Callable[[str], None] | None
    ) -> Iterator[TimedFrame]:
        start, stop = from_ns - recording_start_ns, to_ns - recording_start_ns
        converter = VideoReformatter()
        last = -1
        packets_in_range = 0
        problems = 0
        past_stop = False
        stop_pts = self._pts_at(stop)
        packets = self._packets_for(self._pts_at(max(0, start)))
        finished = False
        while not finished:
            packet = next(packets, None)
            decoded = self._decode(packet)
            if packet is None:
                finished = True
            else:
                stamp = self._stamp(packet)
                packets_in_range += stamp is not None and start <= self._relative_ns(stamp) < stop
                # A single wrong timestamp must not end the range, so both clocks have to be past it.
                finished = past_stop and (packet.dts is None or packet.dts >= stop_pts)
            if on_problem and self._damage.count > problems:
                problems = self._damage.count
                on_problem(self._damage_report(packet, recording_start_ns))
            for pts, frame in decoded:
                relative = self._relative_ns(pts)
                past_stop = past_stop or relative >= stop
                if not max(start, last + 1) <= relative < stop:
                    continue
                last = relative
                yield TimedFrame(
                    frame,
                    time_ns=recording_start_ns + relative,
                    quarter_turns=self._quarter_turns,
                    converter=converter,
                )
            if packet is not None and packet.is_keyframe and packet.dts is not None:
                self._damage.forget_before(packet.dts)
        if on_problem and self.problem:
            on_problem(f"{self.name}: {self.problem}")
        if last < 0 and packets_in_range and (self._damage.count or self.problem):
            raise MediaError(
                f"no frame can be decoded from {format_utc(from_ns)} to {format_utc(to_ns)}",
                where=self.name,
                fix="The file is damaged there; copy it again from where it was recorded.",
            )

    def _damage_report(self, packet: av.Packet | None, recording_start_ns: int) -> str:
        stamp = None if packet is None else self._stamp(packet)
        if stamp is None:
            return f"{self.name}: damaged data; the frames up to the next keyframe are missing"
        when = format_utc(recording_start_ns + self._relative_ns(stamp))
        return f"{self.name}: damaged data at {when}; the frames up to the next keyframe are missing"

    def scan(self, start: int, stop: int) -> FrameScan:
        stamps: list[int] = []
        reached_stop = False
        ends_damaged = False
        stop_pts = self._pts_at(stop) + int(_BACKWARD_JUMP_S / self._time_base)
        damage = _Damage()
        for packet in self._packets_for(self._pts_at(max(0, start))):
            stamp = self._stamp(packet)
            if stamp is None:
                continue
            damage.packet(stamp, is_keyframe=packet.is_keyframe)
            ends_damaged = packet.is_corrupt
            if packet.is_corrupt:
                damage.bad(stamp)
                continue
            damage.good(stamp)
            if not packet.is_discard:
                stamps.append(stamp)
            if (stamp if packet.dts is None else packet.dts) >= stop_pts:
                reached_stop = True
                break
        relative = sorted({self._relative_ns(stamp) for stamp in stamps if not damage.covers(stamp)})
        times = np.array(relative, dtype=np.int64)
        truncated = None if reached_stop or self.problem else self._truncation(times, ends_damaged)
        kept = times[(times >= max(0, start)) & (times < stop)]
        return FrameScan(kept, self.problem or truncated, truncated is not None, self.info)

    def _truncation(self, times: np.ndarray, ends_damaged: bool) -> str | None:
        """What shows that the file was cut off, given the times up to its end."""
        end_s = float(times[-1]) / NS_PER_S if times.size else 0.0
        claimed_s = self.info.duration_s
        interval_s = 1 / self.info.nominal_fps if self.info.nominal_fps else 1.0
        if claimed_s is not None and claimed_s - end_s > max(3 * interval_s, 0.2) and times.size:
            return f"the file ends after {end_s:.3f} s although its container claims {claimed_s:.3f} s"
        if ends_damaged:
            return f"the file ends inside a frame after {end_s:.3f} s"
        if self.info.container == "mpegts" and all(self.size_bytes % size for size in (188, 192, 204)):
            return f"the file ends inside a packet after {end_s:.3f} s"
        return None


def _reason(error: av.error.FFmpegError) -> str:
    return error.strerror or type(error).__name__


def _creation_time(metadata: dict[str, str]) -> int | None:
    """Creation time in nanoseconds where it names its zone and is no zero of an unset clock."""
    text = metadata.get("creation_time", "")
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if when.tzinfo is None or when < _CLOCK_WAS_SET:
        return None
    return from_datetime(when)


def _clock_seconds(text: str) -> Fraction | None:
    """Seconds of Matroska's HH:MM:SS.nnnnnnnnn."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip())
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
