"""The action detector: one causal pass over an energy signal, with a memory of bounded length.

Paper section 3.1.2: exponential smoothing, a two-state (ON/OFF) controller with hysteresis, extraction at the OFF
transition. The same pass serves an hour, a file and a live stream: samples are pushed in chunks of any size, and
the detections do not depend on the chunks.

**Why the memory is bounded.** An hour is cut by replaying the hour before it as warm-up. The outcome equals one
pass over everything, to the last bit, only if all state is a function of a bounded past of the signal. The textbook
controller remembers for ever, in four places; each is defined here so that it cannot:

*Smoothing.* A recursive EMA carries its start in the last bit. Here y_n is the normalised finite sum of the last
``K`` samples with weights alpha (1 - alpha)^k, (1 - alpha)^K < 1e-4, summed in a fixed order; after a null it sums
what there is since. Memory: K samples.

*The hysteresis band.* Between theta_off and theta_on the state would be whatever it was. Here an ON holds for at
most ``L`` samples (``hold_s``) after the last run of ``u`` samples above theta_on; then it turns OFF. So the state
is ON at n exactly if such a run ended within (n - L, n] and no run of ``d`` samples below theta_off ended after it.
Memory: L + max(u, d) samples of y.

*The longest duration.* Counted from a segment's start it never synchronises under unbroken motion. Here the
absolute sample axis is cut into blocks of ``B`` = half the longest duration; a block that lies wholly inside an ON
stretch is cut once, at its lowest smoothed energy (the first, when equal), away from its ends by the shortest
duration. No segment is longer than 2 B - 1 samples and no piece shorter than the shortest duration, and two passes
that disagree about where a stretch began agree again from the first cut on. Memory: 2 B + d samples of state.

*The shortest duration.* Shorter segments are not emitted, and that has no effect on what follows. There is no
cooldown: whether a start is suppressed would depend on the end before it, which depends on the start before that,
without end. The OFF run of ``d`` samples already does what a cooldown is for.

The sum, ``K + L + u + d + 2 B`` samples, is :attr:`DetectorTimes.memory_samples`; with the defaults it is some
forty seconds. After a fresh start that many samples earlier, everything decided is exact. A null (not finite)
sample ends an open segment and resets all of it, so a fresh start right after a null is exact at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError

EndReason = Literal["rest", "gap", "maximum", "boundary"]
StartReason = Literal["rest", "gap", "boundary"]

_TRUNCATION = 1e-4  # weight left out of the smoothing sum
_LOWEST_RATIO = 1e-3  # a sample's energy / theta_on counts as at least this much in the confidence


@dataclass(frozen=True, kw_only=True)
class DetectorTimes:
    """Everything of the detector but its thresholds, in seconds, so that it means the same at any rate.

    The defaults at 10 Hz are alpha = 0.6, u = 2 and d = 3 samples.

    Attributes:
        rate_hz: samples a second of the signal.
        time_constant_s: of the exponential smoothing; alpha = 1 - exp(-1 / (rate_hz * time_constant_s)). 0: none.
        up_s: the energy must stay above theta_on for this long (u samples) to start a segment.
        down_s: the energy must stay below theta_off for this long (d samples) to end one.
        hold_s: an ON is given up this long after the energy last was above theta_on.
        min_duration_s: shorter segments are not emitted.
        max_duration_s: no segment is longer.
    """

    rate_hz: float = 10.0
    time_constant_s: float = 0.109
    up_s: float = 0.2
    down_s: float = 0.3
    hold_s: float = 10.0
    min_duration_s: float = 0.8
    max_duration_s: float = 30.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise InputError(f"the detector's rate must be above 0 Hz, not {self.rate_hz}")
        for item in fields(self):
            value = getattr(self, item.name)
            if not math.isfinite(value) or value < 0:
                raise InputError(f"the detector's {item.name} must be a number of at least 0, not {value}")
        if self.block_samples < max(2 * self.min_samples, self.up_samples + self.down_samples, 2):
            raise InputError(
                f"a longest duration of {self.max_duration_s} s leaves no room for segments of at least "
                f"{self.min_duration_s} s at {self.rate_hz} samples a second",
                fix="Make max_duration_s at least four times min_duration_s and twice up_s + down_s.",
            )

    @property
    def alpha(self) -> float:
        """Weight of the newest sample in the smoothing."""
        if self.time_constant_s == 0:
            return 1.0
        return 1.0 - math.exp(-1.0 / (self.rate_hz * self.time_constant_s))

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the newest sample, the one before it, … in a smoothed value, before they are normalised."""
        return tuple(self.alpha * (1.0 - self.alpha) ** lag for lag in range(self.smoothing_samples))

    def delay_samples(self, age: int) -> float:
        """Mean delay of a smoothed value, with ``age`` unbroken samples before it.

        From :attr:`smoothing_samples` on it is the (1 - alpha) / alpha samples of an EMA (to one in a thousand);
        right after a null there is nothing to lag behind.
        """
        weights = self.weights[: age + 1]
        return math.fsum(lag * weight for lag, weight in enumerate(weights)) / math.fsum(weights)

    @property
    def smoothing_samples(self) -> int:
        """K: samples that go into a smoothed value."""
        rest = 1.0 - self.alpha
        return 1 if rest <= _TRUNCATION else math.floor(math.log(_TRUNCATION) / math.log(rest)) + 1

    @property
    def up_samples(self) -> int:
        return max(1, round(self.up_s * self.rate_hz))

    @property
    def down_samples(self) -> int:
        return max(1, round(self.down_s * self.rate_hz))

    @property
    def hold_samples(self) -> int:
        return max(1, round(self.hold_s * self.rate_hz))

    @property
    def min_samples(self) -> int:
        return max(1, math.ceil(round(self.min_duration_s * self.rate_hz, 6)))

    @property
    def block_samples(self) -> int:
        """B: half the longest duration."""
        return math.floor(round(self.max_duration_s * self.rate_hz, 6)) // 2

    @property
    def memory_samples(self) -> int:
        """After a fresh start this many samples earlier, every decision is exact (see the module's text)."""
        return self.smoothing_samples + self.hold_samples + self.up_samples + self.down_samples + 2 * self.block_samples

    def with_thresholds(self, theta_on: float, theta_off: float) -> DetectorSettings:
        values = {item.name: getattr(self, item.name) for item in fields(DetectorTimes)}
        return DetectorSettings(theta_on=theta_on, theta_off=theta_off, **values)


@dataclass(frozen=True, kw_only=True)
class DetectorSettings(DetectorTimes):
    """The detector's times with its two thresholds, in the unit of the energy.

    Attributes:
        theta_on: a segment starts when the smoothed energy stays above it.
        theta_off: a segment ends when the smoothed energy stays below it; at most theta_on.
    """

    theta_on: float
    theta_off: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.theta_off <= self.theta_on:
            raise InputError(
                f"the thresholds must satisfy 0 < theta_off <= theta_on, not {self.theta_off} and {self.theta_on}"
            )

    def to_dict(self) -> dict[str, float]:
        return {item.name: float(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DetectorSettings:
        """Inverse of :meth:`to_dict`; InputError names fields that are unknown or missing."""
        names = {item.name for item in fields(cls)}
        if set(values) != names:
            raise InputError(f"detector settings need exactly {', '.join(sorted(names))}, not {sorted(values)}")
        return cls(**values)


@dataclass(frozen=True)
class Detection:
    """One segment, on the sample axis.

    Attributes:
        start_sample: first sample of the ON run (or the cut where the segment before was split off).
        end_sample: the sample after the last one: the first of the OFF run, the null, or the cut.
        decided_sample: the sample at which the end was known.
        end_reason: ``rest``, ``gap`` or ``maximum``; ``boundary`` where a learned boundary divides motion
            (:mod:`laps.cutting`).
        energy_mean, energy_peak: of the smoothed energy over the segment.
        confidence: mean of ln(smoothed energy / theta_on) over the segment.
        start_reason: how its start was found: by the energy (``rest``, also where the longest duration cut), after
            a ``gap``, or at a learned ``boundary``.
    """

    start_sample: int
    end_sample: int
    decided_sample: int
    end_reason: EndReason
    energy_mean: float
    energy_peak: float
    confidence: float
    start_reason: StartReason = "rest"


@dataclass
class DetectorState:
    """All that the detector remembers.

    Attributes:
        next_sample: the sample that is expected next; None before the first push.
        energy: the newest raw samples, for the smoothing.
        smoothed: the newest smoothed samples, up to next_sample, for the figures of the open segment.
        up_run, down_run: how many of the newest samples lie above theta_on, below theta_off (at most u, d).
        on: whether a segment is open; then ``start`` is its first sample and ``affirmed`` the last sample that
            ended a full run above theta_on.
        earliest_start: a segment cannot start before it (the end of an ON that was given up, or a null).
    """

    next_sample: int | None = None
    energy: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    smoothed: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    up_run: int = 0
    down_run: int = 0
    on: bool = False
    start: int = 0
    affirmed: int = 0
    earliest_start: int = 0


def smooth(energy: NDArray[np.floating[Any]], times: DetectorTimes) -> NDArray[np.float64]:
    """The smoothed signal y that the detector compares with its thresholds.

    Args:
        energy: float[n]; a value that is not finite is null.
        times: rate and time constant.

    Returns:
        float64[n], NaN where the energy is null. The sum begins anew after each null.
    """
    values = np.asarray(energy, dtype=np.float64)
    count = len(values)
    null = ~np.isfinite(values)
    index = np.arange(count)
    since_null = index - np.maximum.accumulate(np.where(null, index, -1)) - 1
    weights = times.weights
    total = np.zeros(count)
    # One fixed order of additions for every sample; lags that reach behind a null add exactly nothing.
    for lag, weight in enumerate(weights[:count]):
        total[lag:] += np.where(since_null[lag:] >= lag, weight * values[: count - lag], 0.0)
    normaliser = np.cumsum(weights)
    result = total / normaliser[np.clip(since_null, 0, len(weights) - 1)]
    result[null] = np.nan
    return result


class Detector:
    """Cuts an energy signal into segments, chunk by chunk.

    See the module's text for the definition and for why the memory is bounded.
    """

    def __init__(self, settings: DetectorSettings, state: DetectorState | None = None) -> None:
        self.settings = settings
        self.state = DetectorState() if state is None else state

    def push(self, energy: NDArray[np.floating[Any]], first: int) -> list[Detection]:
        """Take the samples ``first, first + 1, …`` and return the segments that they decide, in that order.

        Samples left out since the last push count as null.

        Args:
            energy: float[n]; a value that is not finite is null.
            first: number of the first sample on the absolute grid.

        Raises:
            InputError: the samples overlap those already taken, or have the wrong shape.
        """
        values = np.asarray(energy, dtype=np.float64)
        if values.ndim != 1:
            raise InputError(f"the detector takes one energy a sample, not an array of shape {values.shape}")
        state = self.state
        found: list[Detection] = []
        if state.next_sample is not None and first != state.next_sample:
            if first < state.next_sample:
                raise InputError(
                    f"samples from {first} were pushed after the detector had taken those before {state.next_sample}",
                    fix="Push samples in order, or start a new detector.",
                )
            found += self._advance(np.array([np.nan]), state.next_sample)
            state.energy = state.smoothed = np.empty(0)
        found += self._advance(values, first)
        return found

    def flush(self) -> list[Detection]:
        """Treat the next sample as null: ends an open segment there, as the end of a recording does."""
        if self.state.next_sample is None:
            return []
        return self._advance(np.array([np.nan]), self.state.next_sample)

    def _advance(self, values: NDArray[np.float64], first: int) -> list[Detection]:
        settings, state = self.settings, self.state
        raw = np.concatenate([state.energy, values])
        newest = smooth(raw, settings)[len(state.energy) :]
        y = np.concatenate([state.smoothed, newest])
        y_first = first - len(state.smoothed)
        found = self._run(newest.tolist(), first, y, y_first)
        keep = 3 * settings.block_samples + settings.up_samples + settings.down_samples
        state.energy = raw[max(0, len(raw) - settings.smoothing_samples + 1) :].copy()
        state.smoothed = y[max(0, len(y) - keep) :].copy()
        state.next_sample = first + len(values)
        return found

    def _run(self, newest: list[float], first: int, y: NDArray[np.float64], y_first: int) -> list[Detection]:
        """The state machine over ``newest``; ``y`` holds these samples and enough before, from ``y_first``."""
        settings, state = self.settings, self.state
        theta_on, theta_off = settings.theta_on, settings.theta_off
        up, down, hold = settings.up_samples, settings.down_samples, settings.hold_samples
        block, least = settings.block_samples, settings.min_samples
        found: list[Detection] = []

        def emit(end: int, decided: int, reason: EndReason) -> None:
            if end - state.start >= least:
                segment = y[state.start - y_first : end - y_first].tolist()
                found.append(detection_of(state.start, end, decided, reason, segment, theta_on))

        def cut(block_stop: int, decided: int) -> None:
            """Split the open segment in the block that ends at ``block_stop``, if all of the block lies in it."""
            if state.start <= block_stop - block:
                low, high = block_stop - block + least, block_stop - least + 1
                place = low + int(np.argmin(y[low - y_first : high - y_first]))
                emit(place, decided, "maximum")
                state.start = place

        def close(end: int, decided: int, reason: EndReason) -> None:
            block_stop = end - end % block
            # A block's cut waits for d - 1 samples, to know that no OFF run had begun in it. Not past this end.
            if end == decided and 0 <= end - block_stop < down - 1:
                cut(block_stop, decided)
            emit(end, decided, reason)
            state.on = False

        for sample, value in enumerate(newest, start=first):
            if value != value:  # NaN: null
                if state.on:
                    close(sample, sample, "gap")
                state.up_run = state.down_run = 0
                state.earliest_start = sample + 1
                continue
            if value > theta_on:
                state.up_run, state.down_run = min(state.up_run + 1, up), 0
            elif value < theta_off:
                state.up_run, state.down_run = 0, min(state.down_run + 1, down)
            else:
                state.up_run = state.down_run = 0
            if state.up_run >= up:
                state.affirmed = sample
                if not state.on:
                    state.on = True
                    state.start = max(sample - up + 1, state.earliest_start)
            elif state.on:
                if state.down_run >= down:
                    state.on = False
                    emit(sample - down + 1, sample, "rest")
                elif sample - state.affirmed >= hold:
                    close(sample, sample, "rest")
                    state.earliest_start = sample
            if state.on and (sample - down + 2) % block == 0:
                cut(sample - down + 2, sample)
        return found


def detection_of(
    start: int,
    end: int,
    decided: int,
    reason: EndReason,
    segment: list[float],
    theta_on: float,
    *,
    start_reason: StartReason = "rest",
) -> Detection:
    """A detection with the figures of its smoothed energies."""
    # fsum is exact, so that the figures cannot depend on how the additions were grouped.
    ratios = [math.log(max(value / theta_on, _LOWEST_RATIO)) for value in segment]
    return Detection(
        start_sample=start,
        end_sample=end,
        decided_sample=decided,
        end_reason=reason,
        energy_mean=math.fsum(segment) / len(segment),
        energy_peak=max(segment),
        confidence=math.fsum(ratios) / len(ratios),
        start_reason=start_reason,
    )
