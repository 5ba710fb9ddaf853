"""Truth and predictions: documents, and the boundaries and segments that they hold."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from laps.errors import InputError
from laps.evaluation.matching import Segment
from laps.reference_files import check_segments

Document = dict[str, Any]

BACKGROUND_LABELS = ("background", "no gesture", "no action", "rest", "idle", "null", "none", "sil")

_SAME_TIME_S = 1e-6  # boundaries closer than this are one


@dataclass(frozen=True)
class Marks:
    """What one side says, sorted by time.

    Attributes:
        boundaries: starts above 0 and ends below the duration, in seconds; those shared by touching segments twice.
        starts, ends: the two kinds apart.
        segments: None where only boundaries are known.
        confidences: one for each segment; None where any is unknown.
    """

    boundaries: list[float]
    starts: list[float]
    ends: list[float]
    segments: list[Segment] | None
    confidences: list[float] | None = None

    @classmethod
    def of_segments(
        cls, segments: Iterable[Segment], duration_s: float, confidences: Sequence[float] | None = None
    ) -> Marks:
        listed = list(segments)
        order = sorted(range(len(listed)), key=lambda place: listed[place])
        ordered = [listed[place] for place in order]
        starts = [start for start, _ in ordered if start > 0]
        ends = sorted(end for _, end in ordered if end < duration_s)
        sure = None if confidences is None else [confidences[place] for place in order]
        return cls(sorted(starts + ends), starts, ends, ordered, sure)

    @cached_property
    def distinct(self) -> list[float]:
        """The boundaries, each time once: one that two touching segments share is one."""
        kept: list[float] = []
        for time in self.boundaries:
            if not kept or time - kept[-1] > _SAME_TIME_S:
                kept.append(time)
        return kept


@dataclass(frozen=True)
class Sides:
    """Truth and prediction of one recording.

    Attributes:
        truth, predicted: what each says.
        duration_s: length of the recording.
    """

    truth: Marks
    predicted: Marks
    duration_s: float

    @property
    def have_segments(self) -> bool:
        return self.truth.segments is not None and self.predicted.segments is not None


def truth_from_cycle_ends(text: str, *, fps: float, duration_s: float) -> Document:
    """Truth from a list of the frame numbers at which cycles end, one a line or separated by spaces.

    Raises:
        InputError: something that is no frame number, or a rate that is not above 0.
    """
    if not fps > 0:
        raise InputError(f"the frame rate must be above 0, not {fps}")
    frames = []
    for word in text.split():
        if not word.isdecimal():
            raise InputError(f"{word!r} is no frame number", fix="List the frames at which cycles end.")
        frames.append(int(word))
    return {"duration_sec": duration_s, "boundaries": [frame / fps for frame in sorted(frames)]}


def parse_truth(content: bytes, *, where: str) -> Document:
    """The truth in the bytes of a JSON file.

    Raises:
        InputError: it is no JSON object in UTF-8, or has neither segments with ``start_sec < end_sec`` nor boundaries.
    """
    try:
        document = json.loads(content)
    except ValueError as error:
        raise InputError(f"the file is no JSON ({error})", where=where) from error
    if not isinstance(document, dict) or not ("segments" in document or "boundaries" in document):
        raise InputError('the file has neither "segments" nor "boundaries"', where=where)
    check_segments(document, where=where)
    return document


def marks(document: Document, duration_s: float, *, ignore: Sequence[str] = (), where: str) -> Marks:
    """The boundaries and segments of a truth or prediction document, without those whose label is ignored.

    Args:
        document: ``segments`` with ``start_sec``, ``end_sec`` and perhaps ``label`` and ``confidence``, or
            ``boundaries`` in seconds; ``labels`` may give the labels' names.
        duration_s: length of the recording.
        ignore: labels, or names of labels, in any case.
        where: what the document is, for errors.
    """
    if "segments" in document:
        kept = labelled_segments(document, ignore=ignore, where=where)
        sure = [segment.get("confidence") for segment in kept]
        known = [float(value) for value in sure if isinstance(value, int | float) and math.isfinite(value)]
        times = [(float(segment["start_sec"]), float(segment["end_sec"])) for segment in kept]
        return Marks.of_segments(times, duration_s, known if len(known) == len(kept) else None)
    if "boundaries" in document:
        points = sorted(float(time) for time in document["boundaries"] if 0 < float(time) < duration_s)
        return Marks(points, [], [], None)
    raise InputError('there are neither "segments" nor "boundaries"', where=where)


def labelled_segments(document: Document, *, ignore: Sequence[str], where: str) -> list[dict[str, Any]]:
    """The segments of a document whose label, or its name, is not among those to ignore."""
    check_segments(document, where=where)
    names = document.get("labels", {})
    ignored = {label.casefold() for label in ignore}
    return [segment for segment in document["segments"] if not ignored & _spellings(segment.get("label"), names)]


def _spellings(label: Any, names: Any) -> set[str]:
    if label is None:
        return set()
    name = names.get(str(label), "") if isinstance(names, dict) else ""
    return {str(label).casefold(), str(name).casefold()}


def sides(truth: Document, prediction: Document, *, ignore: Sequence[str]) -> Sides:
    """Truth and prediction of one recording; labels to ignore are of the truth."""
    length_s = recording_duration_s(truth, prediction)
    return Sides(
        marks(truth, length_s, ignore=ignore, where="truth"), marks(prediction, length_s, where="prediction"), length_s
    )


def recording_duration_s(*documents: Document) -> float:
    """The length of the recording, from the first document that says it.

    Raises:
        InputError: none says it, or it is no number of seconds above 0.
    """
    for document in documents:
        for key in ("duration_sec", "video_duration_sec"):
            if key in document:
                duration = document[key]
                if not isinstance(duration, int | float) or not math.isfinite(duration) or duration <= 0:
                    raise InputError(f"{key} must be a number of seconds above 0, not {duration!r}")
                return float(duration)
    raise InputError("the length of the recording is in neither file", fix='Add "duration_sec" to the truth.')
