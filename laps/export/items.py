"""What is exported: action primitives with their codes, times and clips; and the picture that belongs to each code.

The code of sample n describes the motion in (t_{n-1}, t_n] (see :mod:`laps.timegrid`). The picture that goes with it
is therefore the one on which that motion begins: the newest frame at or before t_{n-1}. So a policy that is trained on
(picture, code) pairs predicts what follows the picture, never what the picture already shows. A primitive's first
sample may begin before the primitive does; it takes the primitive's first frame.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError, MediaError, ModelMismatchError, NotProcessedError
from laps.timegrid import NS_PER_S, format_utc
from laps.video import TimedFrame, decode, probe

SPLITS = ("train", "validation")
Progress = Callable[["ExportItem"], None]
# A sample without a frame as young as this has no picture, unless frames come that seldom (as in sampling).
_MAX_AGE_NS = NS_PER_S // 4
_NS_PER_US = 1000


@dataclass(frozen=True)
class ExportItem:
    """One action primitive.

    Attributes:
        segment_id: the primitive.
        camera: camera that filmed it.
        start_ns: start, nanoseconds since the epoch.
        end_ns: end, exclusive.
        codes: latent action sequence: one code for each sample n of the absolute grid with start <= n / rate_hz < end.
        rate_hz: samples a second.
        cluster_id: its cluster, None where it has none.
        open_clip: opens its clip as a seekable binary file; None where it has no clip.
        clip_start_ns: time of the first frame that the clip shows; None where it has no clip.
        lead_in_s: length of what the clip's file holds before that frame, hidden by its edit list.
        frame_count: frames that the clip shows, where it is known; another number is an error of the clip.
        text: name of the action; None where nobody named it.
        recording_id: recording that it was cut from.
        tokenizer_id: tokenizer that made the codes.
        split: "train" or "validation".

    Raises:
        InputError: the times, the number of codes or the split make no sense.
    """

    segment_id: str
    camera: str
    start_ns: int
    end_ns: int
    codes: Sequence[int]
    rate_hz: int
    cluster_id: int | None = None
    open_clip: Callable[[], BinaryIO] | None = field(default=None, compare=False)
    clip_start_ns: int | None = None
    lead_in_s: float = 0.0
    frame_count: int | None = None
    text: str | None = None
    recording_id: str | None = None
    tokenizer_id: str | None = None
    split: str = "train"

    def __post_init__(self) -> None:
        if not self.segment_id or set(self.segment_id) & set("./\\"):
            raise InputError(f"{self.segment_id!r} cannot name files", fix="Use an id without dots and slashes.")
        if self.rate_hz < 1 or NS_PER_S % self.rate_hz:
            raise InputError(f"a rate of {self.rate_hz} Hz has no whole step in nanoseconds", where=self.where)
        if self.end_ns <= self.start_ns:
            raise InputError(f"it ends at {format_utc(self.end_ns)}, not after it starts", where=self.where)
        expected = -(-self.end_ns // self.step_ns) - self.first_sample
        if len(self.codes) != expected:
            raise InputError(
                f"it has {len(self.codes)} codes, and {expected} samples lie between its start and its end",
                where=self.where,
                fix="Segment its hour again.",
            )
        if self.codes and not 0 <= min(self.codes) <= max(self.codes) < 2**16:
            raise InputError("its codes do not fit 16 bits", where=self.where, fix="Segment its hour again.")
        if self.split not in SPLITS:
            raise InputError(f"there is no split {self.split!r}", where=self.where, fix=f"Use {' or '.join(SPLITS)}.")

    @property
    def where(self) -> str:
        """The primitive as errors name it."""
        return f"primitive {self.segment_id} ({self.camera} at {format_utc(self.start_ns)})"

    @property
    def step_ns(self) -> int:
        return NS_PER_S // self.rate_hz

    @property
    def first_sample(self) -> int:
        """Number of the sample of the first code, counted from the epoch."""
        return -(-self.start_ns // self.step_ns)

    @property
    def duration_s(self) -> float:
        return (self.end_ns - self.start_ns) / NS_PER_S

    @property
    def task(self) -> str:
        """What it is called: its text, else its cluster."""
        if self.text:
            return self.text
        return "unclustered" if self.cluster_id is None else f"cluster {self.cluster_id}"


@dataclass
class Summary:
    """What a writer wrote.

    Attributes:
        format: the format's name.
        written: primitives in the data set, in its order.
        skipped: primitives that could not be written, with the reason.
        frames: pictures written.
        codes: codes written.
        options: how it was written.
    """

    format: str
    written: list[ExportItem] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    frames: int = 0
    codes: int = 0
    options: dict[str, object] = field(default_factory=dict)

    def check_not_empty(self) -> None:
        """Raise NotProcessedError when not one primitive could be written."""
        if not self.written:
            raise NotProcessedError(
                f"none of the {len(self.skipped)} selected primitives could be exported",
                where=f"primitive {self.skipped[0][0]}",
                fix=f"The first reason: {self.skipped[0][1]}",
            )


def in_order(items: Iterable[ExportItem]) -> list[ExportItem]:
    """The primitives, training before validation and by time within each.

    Raises:
        InputError: there is none, one occurs twice, or their rates differ.
        ModelMismatchError: their codes come from different tokenizers.
    """
    ordered = sorted(items, key=lambda item: (SPLITS.index(item.split), item.start_ns, item.camera, item.segment_id))
    if not ordered:
        raise InputError(
            "the selection is empty: there is no primitive to export",
            fix="Widen the conditions (cluster, duration, camera, dates), or process more hours.",
        )
    segment_id, count = Counter(item.segment_id for item in ordered).most_common(1)[0]
    if count > 1:
        raise InputError(f"primitive {segment_id} is selected {count} times", fix="Select each primitive once.")
    rates = sorted({item.rate_hz for item in ordered})
    if len(rates) > 1:
        raise InputError(f"the primitives have different rates: {rates} Hz", fix="Export each rate by itself.")
    tokenizers = sorted({item.tokenizer_id or "unknown" for item in ordered})
    if len(tokenizers) > 1:
        raise ModelMismatchError(
            f"the codes come from different tokenizers ({', '.join(tokenizers)}): equal numbers mean different motions",
            fix="Select the primitives of one tokenizer (column tokenizer_id).",
        )
    return ordered


def watched(items: Iterable[ExportItem], progress: Progress | None) -> Iterator[ExportItem]:
    """The primitives; ``progress`` is told each when the next one is asked for, so when it has been dealt with."""
    for item in items:
        yield item
        if progress is not None:
            progress(item)


def open_clip(item: ExportItem) -> tuple[BinaryIO, int]:
    """The item's clip, opened, and the time of its first frame; MediaError where it has none."""
    if item.open_clip is None or item.clip_start_ns is None:
        raise MediaError("it has no clip", where=item.where, fix="Cut the clips of its hour.")
    try:
        return item.open_clip(), item.clip_start_ns
    except FileNotFoundError as error:  # other errors of the store are not about this primitive: they end the export
        raise MediaError("its clip is not there any more", where=item.where, fix="Cut it again.") from error


def clip_frames(item: ExportItem) -> Iterator[TimedFrame]:
    """The clip's frames with start <= time < end, in order of time.

    Raises:
        MediaError: there is no clip, it cannot be read, or it does not show the frames that it should.
    """
    file, clip_start_ns = open_clip(item)
    count = 0

    def damaged(problem: str) -> None:
        raise MediaError(f"its clip is damaged ({problem})", where=item.where, fix="Cut it again.")

    with file:
        # Tables keep whole microseconds, rounded down: so does the start that frames are compared with.
        for frame in decode(
            file,
            name=f"clip of {item.where}",
            recording_start_ns=clip_start_ns,
            from_ns=item.start_ns - item.start_ns % _NS_PER_US,
            to_ns=item.end_ns,
            on_problem=damaged,
        ):
            count += 1
            yield frame
    if count == 0 or count != (item.frame_count or count):
        raise MediaError(
            f"its clip shows {count} frames between its start and end, and should show {item.frame_count or 'some'}",
            where=item.where,
            fix="Cut it again.",
        )


def sampled_frames(item: ExportItem) -> Iterator[TimedFrame]:
    """For each code, the frame on which its motion begins (see the module); a frame may come several times.

    Raises:
        MediaError: as :func:`clip_frames`; and where the clip holds only part of the primitive.
    """
    frames = clip_frames(item)
    current = next(frames)
    following = next(frames, None)
    intervals: list[int] = [] if following is None else [following.time_ns - current.time_ns]
    for place in range(len(item.codes)):
        time_ns = (item.first_sample + place - 1) * item.step_ns
        while following is not None and following.time_ns <= time_ns:
            current, following = following, next(frames, None)
            if following is not None:
                intervals.append(following.time_ns - current.time_ns)
        usual_ns = round(statistics.median(intervals)) if intervals else 0
        oldest_ns = max(_MAX_AGE_NS, 2 * usual_ns)
        if not -item.step_ns - oldest_ns <= time_ns - current.time_ns <= oldest_ns:
            raise MediaError(
                f"its clip shows nothing at {format_utc(time_ns)}, so a code would have no picture",
                where=item.where,
                fix="Part of the primitive lies in another recording, or frames are missing.",
            )
        yield current
    for _ in frames:  # to the end, so that the number of frames is checked
        pass


def frame_size(item: ExportItem) -> tuple[int, int]:
    """Width and height of the clip's pictures as displayed."""
    file, _ = open_clip(item)
    with file:
        info = probe(file, name=f"clip of {item.where}")
    return info.width_px, info.height_px


def even_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height rounded down to even numbers, which 4:2:0 pictures need."""
    return max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)


def fitted(frame: TimedFrame, shown: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture in a given size, uint8 [height, width, 3] in RGB: scaled as a whole, the rest black.

    Args:
        frame: the frame.
        shown: its width and height as displayed.
        size: width and height wanted; the even size of ``shown`` leaves the pixels as they are.
    """
    width, height = size
    same = size == even_size(shown)
    scale = 1.0 if same else min(width / shown[0], height / shown[1])
    picture = frame.rgb(max(1, int(min(shown) * scale + 1e-9)))[:height, :width]
    if picture.shape[:2] == (height, width):
        return np.ascontiguousarray(picture)
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas
