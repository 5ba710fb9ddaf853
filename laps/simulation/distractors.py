"""When each distractor happens, and how strongly; what it looks like is drawn elsewhere.

World events (belt, blink, flicker, shadow, passer-by) draw their randomness from the seed alone, a camera's own
(shake, exposure, occlusion, drops, freezes) from the seed and the view.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import floor, pi, sin
from typing import Literal

import numpy as np

from laps.simulation.scenario import Scenario


@dataclass(frozen=True)
class Event:
    """Something that goes on during ``[start_s, end_s)``; ``value`` and ``side`` say how."""

    start_s: float
    end_s: float
    value: float
    side: int

    def progress(self, time_s: float) -> float:
        return (time_s - self.start_s) / (self.end_s - self.start_s)


class _Schedule:
    """Events in order of time that do not overlap."""

    def __init__(
        self,
        rng: np.random.Generator,
        until_s: float,
        *,
        pause_s: tuple[float, float],
        length_s: tuple[float, float],
        first_s: tuple[float, float] | None = None,
    ) -> None:
        self.events: list[Event] = []
        now = float(rng.uniform(*(first_s or pause_s)))
        while now < until_s:
            end = now + float(rng.uniform(*length_s))
            self.events.append(Event(now, end, float(rng.random()), 1 if rng.random() < 0.5 else -1))
            now = end + float(rng.uniform(*pause_s))

    def at(self, time_s: float) -> Event | None:
        i = bisect_right(self.events, time_s, key=lambda event: event.start_s) - 1
        return self.events[i] if i >= 0 and time_s < self.events[i].end_s else None

    def latest(self, time_s: float) -> tuple[Event | None, Event | None]:
        """The latest event that has begun, and the one before it."""
        i = bisect_right(self.events, time_s, key=lambda event: event.start_s) - 1
        return (self.events[i] if i >= 0 else None), (self.events[i - 1] if i >= 1 else None)


class Distractors:
    """The state of every requested distractor at any time, for one view."""

    def __init__(self, scenario: Scenario, view: int) -> None:
        self._scenario = scenario
        wanted, until_s = scenario.distractors, scenario.duration_s
        empty = _Schedule(scenario.generator("none"), 0.0, pause_s=(1.0, 2.0), length_s=(1.0, 2.0))

        def schedule(
            name: str,
            pause_s: tuple[float, float],
            length_s: tuple[float, float],
            *,
            first_s: tuple[float, float] | None = None,
            own: bool = False,
        ) -> _Schedule:
            if name not in wanted:
                return empty
            rng = scenario.generator(name, view) if own else scenario.generator(name)
            return _Schedule(rng, until_s, pause_s=pause_s, length_s=length_s, first_s=first_s)

        self._belt = schedule("belt", (1.0, 3.0), (6.0, 14.0), first_s=(0.0, 1.0))
        self._belt_way_m = np.cumsum([0.0, *(event.end_s - event.start_s for event in self._belt.events)])
        self._shadow = schedule("shadow", (40.0, 80.0), (2.5, 4.5), first_s=(2.0, 8.0))
        self._passer = schedule("passer_by", (40.0, 80.0), (2.5, 4.0), first_s=(4.0, 10.0))
        self._knocks = schedule("shake", (2.5, 7.0), (0.8, 2.0), first_s=(0.5, 2.0), own=True)
        self._levels = schedule("exposure", (0.0, 0.0), (3.0, 9.0), first_s=(0.5, 3.0), own=True)
        self._occlusion = schedule("occlusion", (40.0, 80.0), (2.0, 3.5), first_s=(3.0, 8.0), own=True)
        self._freezes = schedule("freezes", (12.0, 25.0), (0.3, 1.2), first_s=(1.5, 4.0), own=True)
        self._dropped = self._plan_drops(view) if "drops" in wanted else frozenset()

        rng = scenario.generator("shake", view, "waves")
        self._shake_hz = rng.uniform(1.5, 7.5, (3, 5))
        self._shake_phase = rng.uniform(0, 2 * pi, (3, 5))
        rng = scenario.generator("flicker")
        self._flicker_hz = rng.uniform(2.5, 4.6, 2)
        self._blink_phase = float(scenario.generator("blink").uniform())

    def source_frame(self, index: int) -> int | None:
        """The frame whose picture is shown as frame ``index``: itself, an earlier one while the picture is frozen,
        or None where the file has no frame."""
        if index in self._dropped:
            return None
        rate = self._scenario.frame_rate
        freeze = self._freezes.at(float(index / rate))
        return index if freeze is None else min(index, floor(freeze.start_s * rate) + 1)

    def gain(self, time_s: float) -> float:
        """Global brightness factor of flicker and exposure together."""
        gain = 1.0
        if "flicker" in self._scenario.distractors:
            gain += 0.006 * float(np.sin(2 * pi * self._flicker_hz * time_s).mean())
        level, previous = self._levels.latest(time_s)
        if level is not None:
            settled = min(1.0, (time_s - level.start_s) / 0.1)
            old, new = _exposure(previous), _exposure(level)
            gain *= old + settled * (new - old)
        return gain

    def shake(self, time_s: float) -> tuple[float, float, float] | None:
        """Camera displacement in shares of the picture's width (right, down) and its rotation in radians."""
        if "shake" not in self._scenario.distractors:
            return None
        strength = 1.0
        knock = self._knocks.at(time_s)
        if knock is not None:
            strength += (1.5 + 2.5 * knock.value) * sin(pi * knock.progress(time_s)) ** 2
        waves = np.sin(2 * pi * self._shake_hz * time_s + self._shake_phase).mean(axis=1) * strength
        return float(waves[0]) * 0.0003, float(waves[1]) * 0.0003, float(waves[2]) * 0.0001

    def belt_m(self, time_s: float) -> float | None:
        """How far the belt has come; None without a belt."""
        if "belt" not in self._scenario.distractors:
            return None
        i = bisect_right(self._belt.events, time_s, key=lambda event: event.start_s) - 1
        if i < 0:
            return 0.0
        event = self._belt.events[i]
        run_s = float(self._belt_way_m[i]) + min(time_s, event.end_s) - event.start_s
        return 0.012 * run_s

    def lamp(self, time_s: float) -> Literal["none", "off", "on"]:
        if "blink" not in self._scenario.distractors:
            return "none"
        return "on" if (time_s * 1.1 + self._blink_phase) % 1.0 < 0.45 else "off"

    def shadow(self, time_s: float) -> Event | None:
        return self._shadow.at(time_s)

    def passer(self, time_s: float) -> Event | None:
        return self._passer.at(time_s)

    def occlusion(self, time_s: float) -> Event | None:
        return self._occlusion.at(time_s)

    def _plan_drops(self, view: int) -> frozenset[int]:
        """Dropped frames; the first of each whole second stays, so that a file can begin at any of them."""
        rng, rate = self._scenario.generator("drops", view), self._scenario.frame_rate
        dropped: set[int] = set()
        now_s = 0.0
        while now_s < self._scenario.duration_s:
            now_s += float(rng.exponential(3.0))
            longest = max(2, int(rate / 2))
            length = int(rng.integers(1, 4)) if rng.random() < 0.7 else int(rng.integers(2, longest + 1))
            first = int(now_s * rate)
            dropped.update(
                index for index in range(first, first + length) if floor(index / rate) == floor((index - 1) / rate)
            )
        return frozenset(dropped)


def _exposure(level: Event | None) -> float:
    """At least 12% off the normal exposure, else nobody would see the step."""
    return 1.0 if level is None else 1.0 + level.side * (0.12 + 0.2 * level.value)
