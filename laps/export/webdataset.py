"""WebDataset shards: tar files with one sample for each primitive.

A sample is ``<segment_id>.mp4``, ``<segment_id>.codes.npy`` (uint16[n]) and ``<segment_id>.json``. Samples never cross
shards; shards and the samples in them are in order of time.

The mp4 holds exactly the primitive's frames. A clip that holds more (a lead-in before the first frame, a picture after
the last one, both hidden by an edit list that many training readers ignore) is encoded anew.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np

from laps.errors import InputError, MediaError
from laps.export.card import CardFacts, write_card
from laps.export.folder import new_folder
from laps.export.items import (
    ExportItem,
    Progress,
    Summary,
    clip_frames,
    even_size,
    fitted,
    frame_size,
    in_order,
    open_clip,
    watched,
)
from laps.timegrid import NS_PER_S, format_utc

_TAR_BLOCK = 512
_TIME_BASE = Fraction(1, 90_000)


def write_webdataset(
    items: Iterable[ExportItem],
    out: Path,
    *,
    shard_bytes: int = 256 * 1024 * 1024,
    samples_per_shard: int = 10_000,
    card: CardFacts | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write ``train-000000.tar`` … and ``validation-000000.tar`` ….

    Args:
        items: the primitives, in any order.
        out: the folder to make; see :func:`laps.export.folder.new_folder`.
        shard_bytes: a shard takes no further sample that would make it larger; a larger sample stands alone.
        samples_per_shard: most samples in a shard.
        card: adds a data set card.
        progress: told each primitive that was written or left out.

    Raises:
        InputError: nothing is selected, or an option is out of range.
        NotProcessedError: not one primitive could be written.
    """
    if shard_bytes < 1 or samples_per_shard < 1:
        raise InputError("a shard must have room for a sample", fix="Give positive shard_bytes and samples_per_shard.")
    summary = Summary("webdataset", options={"shard_bytes": shard_bytes, "samples_per_shard": samples_per_shard})
    with new_folder(out) as folder:
        for split, members in groupby(watched(in_order(items), progress), key=lambda item: item.split):
            with _Shards(folder, split, shard_bytes, samples_per_shard) as shards:
                for item in members:
                    try:
                        sample, frames = _sample(item)
                    except MediaError as error:
                        summary.skipped.append((item.segment_id, str(error)))
                        continue
                    shards.add(item.segment_id, sample)
                    summary.written.append(item)
                    summary.frames += frames
                    summary.codes += len(item.codes)
        summary.check_not_empty()
        if card is not None:
            write_card(folder, card, summary)
    return summary


class _Shards:
    """The shards of one split; the next one begins when a sample does not fit."""

    def __init__(self, folder: Path, split: str, shard_bytes: int, samples_per_shard: int) -> None:
        self._folder, self._split = folder, split
        self._most_bytes, self._most_samples = shard_bytes, samples_per_shard
        self._shard: tarfile.TarFile | None = None
        self._count = self._samples = self._bytes = 0

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *error: object) -> None:
        if self._shard is not None:
            self._shard.close()

    def add(self, name: str, sample: dict[str, bytes]) -> None:
        size = sum(_TAR_BLOCK + -(-len(content) // _TAR_BLOCK) * _TAR_BLOCK for content in sample.values())
        full = self._bytes + size > self._most_bytes - 2 * _TAR_BLOCK or self._samples >= self._most_samples
        if self._shard is None or (full and self._samples):
            if self._shard is not None:
                self._shard.close()
            path = self._folder / f"{self._split}-{self._count:06d}.tar"
            self._shard = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._count, self._samples, self._bytes = self._count + 1, 0, 0
        for ending, content in sample.items():
            entry = tarfile.TarInfo(f"{name}.{ending}")  # time, owner and rights are constants: equal bytes
            entry.size, entry.mtime, entry.mode = len(content), 0, 0o644
            self._shard.addfile(entry, io.BytesIO(content))
        self._samples += 1
        self._bytes += size


def _sample(item: ExportItem) -> tuple[dict[str, bytes], int]:
    """The files of a sample by their endings, and its number of frames."""
    times_ns = [frame.time_ns for frame in clip_frames(item)]
    mp4 = _exact_mp4(item, len(times_ns))
    codes = io.BytesIO()
    np.save(codes, np.asarray(item.codes, dtype="<u2"), allow_pickle=False)
    description: dict[str, Any] = {
        "segment_id": item.segment_id,
        "camera": item.camera,
        "recording_id": item.recording_id,
        "start": format_utc(item.start_ns),
        "end": format_utc(item.end_ns),
        "start_ns": item.start_ns,
        "end_ns": item.end_ns,
        "duration_s": item.duration_s,
        "rate_hz": item.rate_hz,
        "first_code_ns": item.first_sample * item.step_ns,
        "frame_times_ns": times_ns,
        "cluster_id": item.cluster_id,
        "text": item.task,
        "tokenizer_id": item.tokenizer_id,
    }
    text = json.dumps(description, ensure_ascii=False, sort_keys=True)
    return {"mp4": mp4, "codes.npy": codes.getvalue(), "json": text.encode()}, len(times_ns)


def _exact_mp4(item: ExportItem, frame_count: int) -> bytes:
    """The clip as it is when its file holds the frames shown and nothing else, else encoded anew."""
    file, _ = open_clip(item)
    with file:
        if item.lead_in_s == 0 and _packets(file) == frame_count:
            file.seek(0)
            return file.read()
    return _encoded(item)


def _encoded(item: ExportItem) -> bytes:
    """The primitive's frames encoded anew, each at its own time after the first."""
    shown = frame_size(item)
    size = even_size(shown)
    out = io.BytesIO()
    first_ns: int | None = None
    # Nothing waits in the encoder, nor does it work ahead in threads of its own, so equal frames give equal bytes.
    options = {"preset": "veryfast", "tune": "zerolatency", "crf": "20", "bf": "0"}
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as output:
        stream: Any = output.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.thread_count = 1
        for timed in clip_frames(item):
            first_ns = timed.time_ns if first_ns is None else first_ns
            frame = av.VideoFrame.from_ndarray(fitted(timed, shown, size), format="rgb24").reformat(format="yuv420p")
            frame.pts = round((timed.time_ns - first_ns) * _TIME_BASE.denominator / NS_PER_S)
            frame.time_base = _TIME_BASE
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return out.getvalue()


def _packets(file: BinaryIO) -> int:
    """Pictures in the file, shown or not."""
    file.seek(0)
    try:
        with av.open(file, "r", options={"ignore_editlist": "1"}) as container:
            return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))
    except av.error.FFmpegError as error:
        raise MediaError(f"cannot be read ({error})", where="clip") from error
