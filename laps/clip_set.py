"""Clips of many primitives: from the right recording each, with each recording opened once."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laps.clips import ClipCutter, ClipInfo, choose_part
from laps.errors import MediaError
from laps.forgotten import Forgotten, outside
from laps.regions import Region
from laps.sampling import Piece
from laps.timegrid import format_utc, from_datetime
from laps.video import Opener

_OF_THE_FILE = (FileNotFoundError, PermissionError)


@dataclass(frozen=True)
class PrimitiveClip:
    """The clip of one primitive, or why there is none.

    Attributes:
        segment_id: the primitive.
        recording_id: the recording that it was cut from.
        content: the mp4; None when it could not be cut.
        info: exact times and size; None when it could not be cut.
        reason: why there is no clip.
    """

    segment_id: str
    recording_id: str | None = None
    content: bytes | None = None
    info: ClipInfo | None = None
    reason: str | None = None


def cut_primitives(
    primitives: Sequence[Mapping[str, Any]],
    pieces: Sequence[Piece],
    open: Opener,
    *,
    reencode: bool = False,
    covered: Sequence[Region] = (),
    forgotten: Sequence[Forgotten] = (),
) -> Iterator[PrimitiveClip]:
    """Cut the clip of each primitive, recording by recording.

    One primitive that cannot be cut does not stop the others: it is yielded with its reason.

    Args:
        primitives: rows of the table `segments`.
        pieces: used footage of the hours that they lie in.
        open: opens a uri as a seekable binary file.
        reencode: encode anew instead of copying the compressed pictures.
        covered: regions of the picture that nobody may see; they are grey, and every clip is encoded anew.
        forgotten: times of which no clip may hold a picture.

    Raises:
        OSError: a URL cannot be read for another reason than that the file is gone or forbidden.
    """
    kept_out = [(one.start_ns, one.stop_ns) for one in forgotten]
    of_recording: dict[str, tuple[Piece, list[tuple[str, int, int]]]] = {}
    for primitive in primitives:
        start_ns, end_ns = from_datetime(primitive["start_time"]), from_datetime(primitive["end_time"])
        # What is left of a primitive is one part: it was cut without the footage that was forgotten.
        left = list(outside((start_ns, end_ns), kept_out))
        if not left:
            yield PrimitiveClip(primitive["segment_id"], reason="the time of the primitive was forgotten")
            continue
        start_ns, end_ns = max(left, key=lambda span: span[1] - span[0])
        piece = choose_part(pieces, start_ns=start_ns, end_ns=end_ns)
        if piece is None:
            reason = f"raw_video shows no footage between {format_utc(start_ns)} and {format_utc(end_ns)}"
            yield PrimitiveClip(primitive["segment_id"], reason=reason)
        else:
            _, wanted = of_recording.setdefault(piece.recording_id, (piece, []))
            wanted.append((primitive["segment_id"], start_ns, end_ns))
    for piece, wanted in of_recording.values():
        how = {"reencode": reencode, "covered": covered, "kept_out": kept_out}
        yield from _cut_from(piece, sorted(wanted, key=lambda one: one[1]), open, how)


def _cut_from(
    piece: Piece, wanted: Sequence[tuple[str, int, int]], open: Opener, how: Mapping[str, Any]
) -> Iterator[PrimitiveClip]:
    done = 0
    try:
        with (
            open(piece.uri) as file,
            ClipCutter(file, name=piece.uri, recording_start_ns=piece.recording_start_ns) as cutter,
        ):
            for segment_id, start_ns, end_ns in wanted:
                out = io.BytesIO()
                try:
                    info = cutter.cut(out, start_ns=start_ns, end_ns=end_ns, **how)
                except MediaError as error:
                    clip = PrimitiveClip(segment_id, piece.recording_id, reason=str(error))
                else:
                    clip = PrimitiveClip(segment_id, piece.recording_id, out.getvalue(), info)
                done += 1
                yield clip
    except (MediaError, OSError) as error:
        if "://" in piece.uri and isinstance(error, OSError) and not isinstance(error, _OF_THE_FILE):
            # A network that is down must not be stored as clips that cannot be cut.
            raise
        # The file cannot be read on; what was cut before stays cut.
        reason = str(error) if isinstance(error, MediaError) else f"{piece.uri}: {error}"
        for segment_id, _, _ in wanted[done:]:
            yield PrimitiveClip(segment_id, piece.recording_id, reason=reason)
