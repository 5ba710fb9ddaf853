"""From an energy and the codes to primitives: by rests, by rests and learned boundaries, or by boundaries alone.

==============  =====================================================================================================
cut             what a primitive is
==============  =====================================================================================================
``energy``      what the detector finds between two rests (paper section 3.1.2)
``rests``       the same, divided at learned boundaries (the default)
``boundaries``  what lies between two learned boundaries, for work that does not rest; nothing moves in it: no primitive
==============  =====================================================================================================

Like the detector's, every decision depends on a bounded past: the division of what the detector found is a function of
its own codes; a boundary between touching primitives depends on :attr:`BoundaryModel.lookahead_samples` on either side.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from laps.boundaries import TEACHERS, BoundaryModel, Lesson
from laps.detector import Detection, Detector, DetectorSettings, EndReason, StartReason, detection_of, smooth
from laps.errors import InputError
from laps.stretches import stretches

Cut = Literal["energy", "rests", "boundaries"]
CUTS: tuple[Cut, ...] = ("energy", "rests", "boundaries")

_LEAST_ACTIVE_SHARE = 0.1  # of a touching primitive above theta_on; below it nothing happens there


def cut(
    energy: NDArray[np.float64],
    codes: NDArray[np.integer],
    first: int,
    settings: DetectorSettings,
    how: Cut,
    boundaries: BoundaryModel | None,
    *,
    ended: bool,
) -> list[Detection]:
    """The primitives of an unbroken range of samples that are decided in it, in order of their ends.

    Args:
        energy: float64[n]; not finite is null.
        codes: int[n], -1 where null.
        first: number of the first sample.
        settings: of the detector.
        how: one of :data:`CUTS`.
        boundaries: the model; without one ``rests`` is ``energy``.
        ended: the sample after the last is null: it closes what is open.

    Raises:
        InputError: ``boundaries`` without a model.
    """
    if how == "boundaries":
        if boundaries is None:
            raise InputError("there is no boundary model to cut by", fix="Calibrate the camera again.")
        return _touching(energy, codes, first, settings, boundaries, ended=ended)
    detector = Detector(settings)
    found = detector.push(energy, first)
    if ended:
        found += detector.flush()
    if how == "energy" or boundaries is None:
        return found
    smoothed = smooth(energy, settings)
    return [piece for detection in found for piece in _divided(detection, codes, smoothed, first, settings, boundaries)]


def check_cut(how: str, teacher: str, *, has_motion: bool, has_pictures: bool) -> None:
    """Raise InputError unless a cut can be made: it is known, and what it learns from is there."""
    if how not in CUTS:
        raise InputError(f"there is no cut {how!r}", fix=f"The cuts are {', '.join(CUTS)}.")
    if teacher not in TEACHERS:
        raise InputError(f"there is no teacher {teacher!r}", fix=f"The teachers are {', '.join(TEACHERS)}.")
    if how != "energy" and not has_motion:
        raise InputError(
            f"to cut by {how}, the motion that the codes stand for must be known",
            fix="Use a tokenizer with decoding 'token', or cut by the energy.",
        )
    if teacher == "pictures" and not (how == "boundaries" and has_pictures):
        raise InputError(
            "pictures teach boundaries only, and where there are keyframes",
            fix="Cut by boundaries, or let rests teach.",
        )


def memory_samples(settings: DetectorSettings, how: Cut, boundaries: BoundaryModel | None) -> int:
    """After a fresh start this many samples earlier, every decision is exact."""
    if how == "boundaries" and boundaries is not None:
        # A grid cut looks for boundaries on either side, as far as a third of the longest primitive.
        return settings.smoothing_samples + 4 * settings.block_samples + 2 * boundaries.lookahead_samples
    return settings.memory_samples


def lessons_of_rests(
    energy: NDArray[np.float64], codes: NDArray[np.integer], first: int, settings: DetectorSettings, *, touching: bool
) -> list[Lesson]:
    """What the rests of a stream teach: what the detector finds, each alone or inside of the stretch around it."""
    detector = Detector(settings)
    runs = [
        (one.start_sample - first, one.end_sample - first) for one in [*detector.push(energy, first), *detector.flush()]
    ]
    if not touching:
        return [Lesson(codes[start:stop], [(0, stop - start)], ends_are_boundaries=True) for start, stop in runs]
    return _inside_stretches(codes, runs)


def lessons_of_segments(codes: NDArray[np.integer], first: int, segments: list[tuple[int, int]]) -> list[Lesson]:
    """What touching segments ``[first, stop)`` of samples teach, however they were found."""
    return _inside_stretches(codes, [(start - first, stop - first) for start, stop in segments])


def _inside_stretches(codes: NDArray[np.integer], runs: list[tuple[int, int]]) -> list[Lesson]:
    lessons = []
    for low, high in stretches(codes >= 0):
        inside = [(max(start, low) - low, min(stop, high) - low) for start, stop in runs]
        inside = [one for one in inside if one[1] > one[0]]
        lessons.append(Lesson(codes[low:high], inside, ends_are_boundaries=False))
    return lessons


def _divided(
    detection: Detection,
    codes: NDArray[np.integer],
    smoothed: NDArray[np.float64],
    first: int,
    settings: DetectorSettings,
    boundaries: BoundaryModel,
) -> list[Detection]:
    """A detection cut at the boundaries inside it; itself where there are none."""
    start, stop = detection.start_sample - first, detection.end_sample - first
    seams = start + boundaries.boundaries(codes[start:stop], from_ends=boundaries.apart_samples)
    if not len(seams):
        return [detection]
    pieces = []
    edges = [start, *seams.tolist(), stop]
    for low, high in pairwise(edges):
        pieces.append(
            detection_of(
                low + first,
                high + first,
                detection.decided_sample,
                detection.end_reason if high == stop else "boundary",
                smoothed[low:high].tolist(),
                settings.theta_on,
                start_reason=detection.start_reason if low == start else "boundary",
            )
        )
    return pieces


def _touching(
    energy: NDArray[np.float64],
    codes: NDArray[np.integer],
    first: int,
    settings: DetectorSettings,
    boundaries: BoundaryModel,
    *,
    ended: bool,
) -> list[Detection]:
    smoothed = smooth(energy, settings)
    active = smoothed > settings.theta_on
    # Between two boundaries without a grid cut lie less than three blocks.
    ahead, block = boundaries.lookahead_samples, 2 * settings.block_samples // 3
    found: list[Detection] = []
    for low, high in stretches((codes >= 0) & np.isfinite(energy)):
        closed = ended or high < len(codes)
        known = high if closed else high - ahead  # up to here it is known what is a boundary
        seams = low + boundaries.boundaries(codes[low:high], from_ends=boundaries.apart_samples)
        seams = seams[seams <= known]
        forced = _grid_cuts(low + first, high + first, seams + first, block) - first
        forced = forced[forced + block <= known]
        ends: list[tuple[int, EndReason, int]] = [(int(seam), "boundary", int(seam) + ahead) for seam in seams]
        ends += [(int(place), "maximum", int(place) + block + ahead) for place in forced]
        if closed:
            ends.append((high, "gap", high))
        start, reason = low, "gap"
        for end, why, decided in sorted(ends):
            if active[start:end].mean() >= _LEAST_ACTIVE_SHARE and end - start >= settings.min_samples:
                found.append(
                    detection_of(
                        start + first,
                        end + first,
                        # The null that ends the stretch decides everything that was waiting.
                        (min(decided, high) if closed else decided) + first,
                        why,
                        smoothed[start:end].tolist(),
                        settings.theta_on,
                        start_reason=_start_after(reason),
                    )
                )
            start, reason = end, why
    return found


def _start_after(reason: str) -> StartReason:
    return "gap" if reason == "gap" else "boundary"


def _grid_cuts(low: int, high: int, seams: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Multiples of ``block`` in the middle of two blocks that lie wholly inside ``[low, high]`` without a boundary.

    Cuts for the longest duration, decided on the absolute grid: where the stretch began does not matter.
    """
    places = np.arange(-(-low // block) * block, high + 1, block, dtype=np.int64)
    places = places[(places - block >= low) & (places + block <= high)]
    if not len(seams) or not len(places):
        return places
    after = np.searchsorted(seams, places)
    to_next = np.where(after < len(seams), seams[np.minimum(after, len(seams) - 1)] - places, block)
    to_last = np.where(after > 0, places - seams[np.maximum(after - 1, 0)], block)
    return places[(to_next >= block) & (to_last >= block)]
