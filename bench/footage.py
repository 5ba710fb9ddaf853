"""Long recordings from short ones: packets laid end to end, without encoding anything again."""

from __future__ import annotations

from pathlib import Path

import av

from laps.timegrid import format_utc


def lay_end_to_end(source: Path, target: Path, length_s: float, start_ns: int | None = None) -> None:
    """Write an mp4 that shows a recording again and again.

    Args:
        source: a recording that begins at 0 with a keyframe, and lasts a whole number of frames.
        target: the file to write; it appears under its name when it is complete.
        length_s: its length in seconds. The last repeat ends there, so it should be a place where a keyframe stands.
        start_ns: creation time, UTC nanoseconds since the epoch; None: the source's.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    with av.open(str(source)) as recording, av.open(str(unfinished), "w", format="mp4") as out:
        if start_ns is not None:
            out.metadata["creation_time"] = format_utc(start_ns)
        video = recording.streams.video[0]
        copy = out.add_stream_from_template(video)
        packets = [packet for packet in recording.demux(video) if packet.size]
        end = round(length_s / video.time_base)
        period = max(packet.pts + packet.duration for packet in packets)
        for shift in range(0, end, period):
            for packet in packets:
                if packet.pts + shift >= end:
                    continue
                again = av.Packet(bytes(packet))
                again.stream = copy
                again.time_base = video.time_base
                again.is_keyframe = packet.is_keyframe
                again.pts = packet.pts + shift
                again.dts = packet.dts + shift
                again.duration = packet.duration
                out.mux(again)
    unfinished.replace(target)
