"""Damaged videos, made by the hundred from good ones of every container that cameras write; seeded."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av

from laps.clip_set import cut_primitives
from laps.sampling import pieces_of
from laps.timegrid import NS_PER_S, to_datetime
from tests.videos import write_video

# Suffix, and how `write_video` makes it.
FORMATS: tuple[tuple[str, dict], ...] = (
    (".mp4", {}),
    (".mp4", {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}}),
    (".mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    (".mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    (".mkv", {}),
    (".ts", {}),
    (".avi", {}),
    (".avi", {"codec": "mpeg4"}),
    (".webm", {"codec": "libvpx-vp9"}),
    (".mpg", {"codec": "mpeg2video"}),
)
SECONDS = 4.0


def make_good(folder: Path) -> list[Path]:
    """One good video of each format."""
    paths = [folder / f"good{number}{suffix}" for number, (suffix, _) in enumerate(FORMATS)]
    for path, (_, how) in zip(paths, FORMATS, strict=True):
        if not path.exists():
            write_video(path, seconds=SECONDS, fps=25, **how)
    return paths


def cut_clips(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Cut a clip of up to two seconds from each used range of rows of `raw_video`, as those of primitives are cut.

    Returns:
        By the file's path and the range's start: a digest of the clip, or ``failed: `` and the reason.
    """
    pieces = pieces_of(rows)
    primitives = []
    for piece in pieces:
        quarter_ns = (piece.stop_ns - piece.start_ns) // 4
        start_ns = piece.start_ns + quarter_ns
        stop_ns = min(piece.stop_ns - quarter_ns, start_ns + 2 * NS_PER_S)
        name = f"{piece.uri} {piece.start_ns}"
        primitives.append({"segment_id": name, "start_time": to_datetime(start_ns), "end_time": to_datetime(stop_ns)})
    return {
        clip.segment_id: hashlib.sha256(clip.content).hexdigest() if clip.content else f"failed: {clip.reason}"
        for clip in cut_primitives(primitives, pieces, lambda uri: Path(uri).open("rb"))
    }


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    share = rng.choice([0.0, 0.0, 0.001, 0.01])
    for _ in range(rng.randint(1, 20) + round(share * len(data))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut_end(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def _swap(data: bytearray, rng: random.Random) -> None:
    """Exchange two stretches of about a packet's size."""
    size = rng.randint(16, 4096)
    first, second = sorted(rng.sample(range(len(data)), 2))
    if first + size <= second <= len(data) - size:
        data[first : first + size], data[second : second + size] = (
            data[second : second + size],
            data[first : first + size],
        )


def _swap_packets(data: bytearray, rng: random.Random) -> None:
    """Exchange what some packets hold, while the container and its times stay whole."""
    swapped = io.BytesIO()
    with av.open(io.BytesIO(data)) as source:
        (video,) = source.streams.video
        # Without a random identifier in what is written.
        target = av.open(swapped, "w", format=source.format.name.split(",")[0], options={"fflags": "+bitexact"})
        with target:
            stream = target.add_stream_from_template(video)
            packets = [packet for packet in source.demux(video) if packet.size]
            content = [bytes(packet) for packet in packets]
            for _ in range(rng.randint(1, 5)):
                first, second = rng.sample(range(len(packets)), 2)
                content[first], content[second] = content[second], content[first]
            for packet, held in zip(packets, content, strict=True):
                other = av.Packet(held)
                other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
                other.duration, other.is_keyframe, other.stream = packet.duration, packet.is_keyframe, stream
                target.mux(other)
    data[:] = swapped.getvalue()


def _wrong_header(data: bytearray, rng: random.Random) -> None:
    """Write nonsense over some bytes of the head, and of the tail: an mp4 has its index there."""
    for _ in range(rng.randint(1, 64)):
        data[rng.randrange(min(len(data), 1024))] = rng.randrange(256)
    for _ in range(rng.randint(0, 64)):
        data[-1 - rng.randrange(min(len(data), 2048))] = rng.randrange(256)


def _blank(data: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(data)), rng.randint(1, len(data) // 3)
    data[start : start + size] = bytes(len(data[start : start + size]))


def _repeat(data: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(data)), rng.randint(1, 8192)
    data[start:start] = data[start : start + size]


def _shuffle(data: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(data)), rng.randint(2, 2048)
    stretch = list(data[start : start + size])
    rng.shuffle(stretch)
    data[start : start + size] = bytes(stretch)


DAMAGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "flipped": _flip_bits,
    "cut": _cut_end,
    "swapped": _swap,
    "packets": _swap_packets,
    "header": _wrong_header,
    "blanked": _blank,
    "repeated": _repeat,
    "shuffled": _shuffle,
}


def make_mutant(good: Path, seed: int) -> tuple[str, bytes]:
    """The kind of damage and the damaged file, for a seed."""
    rng = random.Random(seed)
    kind = rng.choice(sorted(DAMAGES))
    data = bytearray(good.read_bytes())
    DAMAGES[kind](data, rng)
    return kind, bytes(data)
