"""What a simulated recording is asked to show: length, size, rests and distractors.

The simulated workstation serves the demo, the tests and the benches. Its truth is a separate JSON file
beside each recording that ingestion ignores: **truth never reaches training or calibration**, it only scores
results.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from types import MappingProxyType
from typing import Literal

import numpy as np

from laps.errors import InputError

RestStyle = Literal["mixed", "no_rest"]

VIEWS: Mapping[int, str] = MappingProxyType({0: "overhead", 1: "oblique, from across the bench"})

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "pick": "reach for an object and grasp it",
        "place": "carry an object, put it down and retract",
        "screw": "tighten a screw: small, fast turns in bursts",
        "hammer": "vertical taps with a mallet",
        "wipe": "periodic sweeps with a cloth",
        "inspect": "lift a part, turn it and look at it",
        "hand_over": "pass a part from one hand to the other",
        "slide": "push a tray with both hands",
    }
)
"""The kinds of primitive, by the id that the truth uses."""

DISTRACTORS: Mapping[str, str] = MappingProxyType(
    {
        "belt": "a conveyor belt runs and stops at the back of the bench",
        "blink": "a signal lamp blinks",
        "flicker": "the room's light flickers (global brightness)",
        "shadow": "a soft shadow crosses the bench now and then",
        "passer_by": "a person walks past beside the bench now and then",
        "shake": "the camera vibrates and is knocked",
        "exposure": "the camera's exposure jumps between levels",
        "occlusion": "something close to the camera covers part of the picture",
        "drops": "frames are missing from the file, singly and in bursts of up to 0.5 s",
        "freezes": "the picture stands still for 0.3 to 1.2 s while the frames go on",
    }
)
"""The distractors that a scenario may ask for. The first five happen in the world (every view sees the same),
the others in one camera."""


@dataclass(frozen=True)
class Scenario:
    """One simulated shift at the workstation. Equal scenarios give equal frames.

    Attributes:
        seed: all randomness derives from it; what one distractor does depends neither on the others nor on the
            work.
        duration_s: length of the timeline.
        width_px, height_px: picture size, both even (the files are yuv420p).
        fps: frames a second; 29.97 and its like are taken as thousand-and-firsts (30000/1001).
        distractors: names out of :data:`DISTRACTORS`.
        rest_style: ``mixed``: short rests between most actions, some direct transitions, some idle times.
            ``no_rest``: most actions follow each other directly, hands hold still *inside* actions, and the
            gaps that remain hold steady slow motion, so that motion does not tell actions from gaps.
        noise: standard deviation of the sensor noise, in grey levels of 0..255.
    """

    seed: int = 0
    duration_s: float = 120.0
    width_px: int = 1280
    height_px: int = 720
    fps: float = 30.0
    distractors: frozenset[str] = frozenset()
    rest_style: RestStyle = "mixed"
    noise: float = 2.0

    def __post_init__(self) -> None:
        unknown = sorted(self.distractors - DISTRACTORS.keys())
        if unknown:
            raise InputError(
                f"the simulation knows no distractor named {', '.join(unknown)}",
                fix=f"Choose from {', '.join(DISTRACTORS)}.",
            )
        if self.rest_style not in ("mixed", "no_rest"):
            raise InputError(f"{self.rest_style!r} is no rest style", fix="Use 'mixed' or 'no_rest'.")
        if self.seed < 0:
            raise InputError(f"the seed must not be negative, but is {self.seed}")
        if not 0 < self.duration_s <= 86_400:
            raise InputError(f"a simulated timeline lasts up to a day, not {self.duration_s} s")
        if not 1 <= self.fps <= 240:
            raise InputError(f"{self.fps} frames a second cannot be simulated", fix="Use 1 to 240.")
        if min(self.width_px, self.height_px) < 64 or self.width_px % 2 or self.height_px % 2:
            raise InputError(
                f"a picture of {self.width_px} x {self.height_px} px cannot be simulated",
                fix="Use even sizes of at least 64 px.",
            )
        if not 0 <= self.noise <= 20:
            raise InputError(f"sensor noise of {self.noise} grey levels is outside 0..20")

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second, exact."""
        return Fraction(self.fps).limit_denominator(1001)

    def frame_range(self, start_s: float = 0.0, stop_s: float | None = None) -> range:
        """Indices of the frames with ``start_s <= index / frame_rate < stop_s`` (default: to the end)."""
        stop_s = self.duration_s if stop_s is None else min(stop_s, self.duration_s)
        if not 0 <= start_s < stop_s:
            raise InputError(
                f"{start_s} s to {stop_s} s is no part of a timeline of {self.duration_s} s",
                fix="Give 0 <= start < stop.",
            )
        first, stop = (ceil(Fraction(t).limit_denominator(10**6) * self.frame_rate) for t in (start_s, stop_s))
        return range(first, stop)

    def generator(self, *names: str | int) -> np.random.Generator:
        """A random generator of its own for each subject: asking for one changes nothing elsewhere."""
        words = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
        return np.random.default_rng([self.seed, *words])


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "clean": Scenario(),
        "distractors": Scenario(distractors=frozenset({"belt", "blink", "flicker", "shadow", "passer_by"})),
        "hard": Scenario(distractors=frozenset({"shake", "exposure", "occlusion", "freezes"})),
        "no_rest": Scenario(rest_style="no_rest"),
    }
)
"""Named scenarios; take one with a seed and a length of your own by ``dataclasses.replace``.

Their difficulty was fixed before anything was tuned on them: the speed of the tracked points, cleaned of common mode
and background and calibrated like every other energy, scores (typed F1@0.5s / F1@IoU0.5) about 0.92 / 0.88 on `clean`,
0.82 / 0.76 on `distractors`, 0.70 / 0.60 on `hard` (0.77 / 0.72 from above, less across the bench), and below chance on
`no_rest`.
"""
