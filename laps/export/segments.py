"""The reference implementation's files (jiajiezhang7/LAPS): segments of each recording, and the codes of each one.

``<recording_id>_segments.json`` holds ``segments[].start_sec`` and ``end_sec`` in seconds from the recording's first
frame; ``codes/<segment_id>.codes.json`` holds ``codes_windows``, the codes by the window that gave them: a window owns
its last ``stride`` samples, so the lists, one after the other, are the primitive's codes. ``quantized_windows`` is
left out: a code says all of it, and the tokenizer has the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from laps.errors import MediaError
from laps.export.card import CardFacts, write_card
from laps.export.folder import new_folder
from laps.export.items import ExportItem, Progress, Summary, in_order, watched
from laps.reference_files import segments_document, write_segments_json
from laps.timegrid import NS_PER_S, format_utc


@dataclass(frozen=True)
class Source:
    """A recording that primitives were cut from.

    Attributes:
        video: its file's name.
        start_ns: time of its first frame, nanoseconds since the epoch.
        duration_s: its length.
    """

    video: str
    start_ns: int
    duration_s: float


def write_segments(
    items: Iterable[ExportItem],
    out: Path,
    *,
    sources: Mapping[str, Source],
    window: int = 16,
    stride: int = 4,
    card: CardFacts | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write a segments file for each recording and a codes file for each primitive; no pictures.

    Args:
        items: the primitives, in any order.
        out: the folder to make; see :func:`laps.export.folder.new_folder`.
        sources: the recordings by their id; a primitive of another one is left out.
        window: samples in a window.
        stride: samples that a window owns.
        card: adds a data set card.
        progress: told each primitive that was written or left out.

    Raises:
        InputError: nothing is selected.
        NotProcessedError: not one primitive could be written.
    """
    summary = Summary("segments", options={"window": window, "stride": stride})
    rows: dict[str, list[dict[str, Any]]] = {}
    with new_folder(out) as folder:
        (folder / "codes").mkdir()
        for item in watched(in_order(items), progress):
            try:
                row, codes = _documents(item, sources, window, stride)
            except MediaError as error:
                summary.skipped.append((item.segment_id, str(error)))
                continue
            rows.setdefault(str(item.recording_id), []).append(row)
            text = json.dumps(codes, allow_nan=False)
            (folder / "codes" / f"{item.segment_id}.codes.json").write_text(text + "\n", encoding="utf-8")
            summary.written.append(item)
            summary.codes += len(item.codes)
        summary.check_not_empty()
        for recording_id, segments in rows.items():
            source = sources[recording_id]
            document = segments_document(
                sorted(segments, key=lambda row: (row["start_sec"], row["segment_id"])),
                stride=stride,
                target_fps=summary.written[0].rate_hz,
                duration_s=source.duration_s,
                video=source.video,
                parameters={"recording_start": format_utc(source.start_ns)},
            )
            write_segments_json(folder / f"{recording_id}_segments.json", document)
        if card is not None:
            write_card(folder, card, summary)
    return summary


def _documents(
    item: ExportItem, sources: Mapping[str, Source], window: int, stride: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The primitive's row of the segments file, and its codes file."""
    source = sources.get(item.recording_id or "")
    if source is None:
        raise MediaError(
            "its recording is not in the register, or its length is not known",
            where=item.where,
            fix="Cut the clips of its hour.",
        )
    # A primitive may begin in the file before: in this one it begins with the first frame.
    start_sec = max(0.0, (item.start_ns - source.start_ns) / NS_PER_S)
    end_sec = min(source.duration_s, (item.end_ns - source.start_ns) / NS_PER_S)
    if end_sec <= start_sec:
        raise MediaError("it lies outside of its recording", where=item.where, fix="Segment its hour again.")
    row = {
        "start_sec": start_sec,
        "end_sec": end_sec,
        "segment_id": item.segment_id,
        "camera": item.camera,
        "cluster_id": item.cluster_id,
        "task": item.task,
        "split": item.split,
        "codes": list(item.codes),
    }
    # Windows end at the samples congruent to stride - 1, so each owns the samples of one multiple of the stride.
    numbered = enumerate(item.codes, start=item.first_sample)
    owned = groupby(numbered, key=lambda pair: pair[0] // stride)
    first_frame = item.first_sample - -(-source.start_ns // item.step_ns)
    codes = {
        "codes_windows": [[code for _, code in group] for _, group in owned],
        "segment": {"start_frame": first_frame, "end_frame": first_frame + len(item.codes)},
        "window": {"T": window, "stride": stride, "target_fps": item.rate_hz},
        "segment_id": item.segment_id,
        "tokenizer_id": item.tokenizer_id,
    }
    return row, codes
