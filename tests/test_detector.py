"""The detector: hand-worked cases, and that no split of a signal can be seen in what it finds."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.detector import Detection, Detector, DetectorSettings, DetectorTimes, smooth
from laps.errors import InputError

# u = d = 2 samples, no smoothing, at least 3 samples, at most 20 (blocks of 10), an ON holds 12 samples.
PLAIN = DetectorSettings(
    theta_on=1.0,
    theta_off=0.5,
    rate_hz=1,
    time_constant_s=0,
    up_s=2,
    down_s=2,
    hold_s=12,
    min_duration_s=3,
    max_duration_s=20,
)


def run(values: list[float], detector_settings: DetectorSettings = PLAIN, first: int = 0) -> list[Detection]:
    return Detector(detector_settings).push(np.array(values, dtype=float), first)


def spans(found: list[Detection]) -> list[tuple[int, int, int, str]]:
    return [(item.start_sample, item.end_sample, item.decided_sample, item.end_reason) for item in found]


# --- hand-worked -----------------------------------------------------------------------------------------------------


def test_starts_with_the_on_run_and_ends_before_the_off_run() -> None:
    #                        0  1  2  3  4    5  6  7  8
    found = run([0, 2, 2, 4, 0.7, 2, 0, 0, 0], first=100)
    assert spans(found) == [(101, 106, 107, "rest")]
    assert found[0].energy_mean == pytest.approx((2 + 2 + 4 + 0.7 + 2) / 5)
    assert found[0].energy_peak == 4
    assert found[0].confidence == pytest.approx(sum(math.log(value) for value in (2, 2, 4, 0.7, 2)) / 5)


def test_debounce_ignores_single_samples() -> None:
    assert run([0, 2, 0, 2, 0, 2, 0, 0, 0]) == []
    assert spans(run([2, 2, 2, 0, 2, 2, 0, 0])) == [(0, 6, 7, "rest")]


def test_a_value_on_a_threshold_is_inside_the_band() -> None:
    assert run([1, 1, 1, 1, 0, 0]) == []
    assert spans(run([2, 2, 2, 0.5, 0.5, 0.5, 0, 0])) == [(0, 6, 7, "rest")]


def test_shorter_segments_are_not_emitted() -> None:
    assert run([0, 2, 2, 0, 0]) == []
    assert spans(run([0, 2, 2, 2, 0, 0])) == [(1, 4, 5, "rest")]


def test_a_null_ends_a_segment_at_that_sample_and_resets() -> None:
    nan = math.nan
    assert spans(run([0, 2, 2, 2, nan, 2, 0, 0])) == [(1, 4, 4, "gap")]
    assert spans(run([2, nan, 2, 2, 2, nan])) == [(2, 5, 5, "gap")]
    assert spans(run([2, 2, 2, math.inf, 2, 2, 2, 0, 0])) == [(0, 3, 3, "gap"), (4, 7, 8, "rest")]


def test_an_open_segment_is_only_emitted_when_it_is_closed() -> None:
    detector = Detector(PLAIN)
    assert detector.push(np.array([0.0, 2, 2, 2]), 0) == []
    assert spans(detector.flush()) == [(1, 4, 4, "gap")]
    assert detector.flush() == []
    assert Detector(PLAIN).flush() == []


def test_samples_left_out_count_as_null() -> None:
    detector = Detector(PLAIN)
    detector.push(np.array([2.0, 2, 2]), 0)
    assert spans(detector.push(np.array([2.0, 2, 2, 0, 0]), 7)) == [(0, 3, 3, "gap"), (7, 10, 11, "rest")]
    with pytest.raises(InputError, match="in order"):
        detector.push(np.array([1.0]), 11)


def test_inside_the_band_an_on_is_given_up() -> None:
    found = run([2, 2, 2] + [0.7] * 30)
    # Last affirmed at 2, so given up at 14; the block 0..9 lies inside and is cut, away from its ends.
    assert spans(found) == [(0, 3, 10, "maximum"), (3, 14, 14, "rest")]


def test_after_giving_up_a_segment_does_not_reach_back() -> None:
    three_up = DetectorSettings(
        theta_on=1, theta_off=0.5, rate_hz=1, time_constant_s=0, up_s=3, down_s=1, hold_s=5, min_duration_s=1,
        max_duration_s=40,
    )  # fmt: skip
    found = run([2, 2, 2, 0.7, 0.7, 0.7, 2, 2, 2, 2, 0], three_up)
    # Affirmed at 2, given up at 7 in the middle of a run above theta_on that is complete at 8.
    assert spans(found) == [(0, 7, 7, "rest"), (7, 10, 10, "rest")]


def test_unbroken_motion_is_cut_at_each_block_s_lowest_energy() -> None:
    values = [2.0] * 40
    values[5], values[16], values[17] = 1.5, 1.4, 1.4
    values[0] = 1.1  # lower, but nearer to the block's end than the shortest segment
    found = run([*values, 0, 0])
    assert spans(found) == [
        (0, 5, 10, "maximum"),
        (5, 16, 20, "maximum"),
        (16, 23, 30, "maximum"),  # all equal: the first place that leaves room
        (23, 33, 40, "maximum"),
        (33, 40, 41, "rest"),
    ]


def test_a_block_that_ends_in_an_off_run_is_not_cut() -> None:
    assert spans(run([2] * 9 + [0, 0])) == [(0, 9, 10, "rest")]
    assert spans(run([2] * 10 + [0, 0])) == [(0, 3, 10, "maximum"), (3, 10, 11, "rest")]


def test_a_null_right_after_a_block_leaves_no_segment_too_long() -> None:
    assert spans(run([2] * 10 + [math.nan])) == [(0, 3, 10, "maximum"), (3, 10, 10, "gap")]
    found = run([0, *[2] * 19, math.nan])
    assert spans(found) == [(1, 13, 20, "maximum"), (13, 20, 20, "gap")]


def test_smoothing_is_a_normalised_finite_sum_since_the_last_null() -> None:
    times = DetectorTimes()
    alpha = times.alpha
    assert alpha == pytest.approx(0.6, abs=0.002)
    values = np.array([math.nan, 3.0, 1.0, 2.0, math.nan, 5.0])
    y = smooth(values, times)
    assert np.isnan(y[[0, 4]]).all()
    assert y[1] == pytest.approx(3.0)
    weights = np.array([alpha, alpha * (1 - alpha), alpha * (1 - alpha) ** 2])
    assert y[3] == pytest.approx(float(weights @ [2, 1, 3] / weights.sum()))
    assert y[5] == pytest.approx(5.0)
    # Against the recursive average, far from the start.
    rng = np.random.default_rng(0)
    signal = rng.uniform(0, 1, 500)
    recursive = signal[0]
    for value in signal[1:]:
        recursive = alpha * value + (1 - alpha) * recursive
    assert smooth(signal, times)[-1] == pytest.approx(recursive, abs=2e-4)


def test_smoothing_forgets_to_the_last_bit() -> None:
    times = DetectorTimes()
    rng = np.random.default_rng(1)
    signal = np.concatenate([rng.uniform(0, 1e6, 50), np.full(200, 0.1)])
    assert smooth(signal, times)[-1] == smooth(np.full(200, 0.1), times)[-1]
    tail = smooth(signal[-100:], times)[times.smoothing_samples - 1 :]
    assert (tail == smooth(signal, times)[-len(tail) :]).all()


def test_times_follow_the_rate() -> None:
    slow = DetectorTimes(rate_hz=2.5, time_constant_s=0.4 / -math.log(0.3), up_s=0.8, down_s=0.8)
    assert slow.alpha == pytest.approx(0.7)
    assert (slow.up_samples, slow.down_samples, slow.min_samples) == (2, 2, 2)
    fast = DetectorTimes(rate_hz=10, time_constant_s=0.4 / -math.log(0.3), up_s=0.8, down_s=0.8)
    assert fast.alpha == pytest.approx(1 - 0.3**0.25)
    assert (fast.up_samples, fast.min_samples, fast.block_samples) == (8, 8, 150)
    assert DetectorTimes().delay_samples(0) == 0
    assert DetectorTimes().delay_samples(100) == pytest.approx((1 - 0.6) / 0.6, abs=0.005)
    assert DetectorTimes().memory_samples < 36_000 / 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"theta_off": 2.0},
        {"theta_off": 0.0},
        {"rate_hz": 0.0},
        {"up_s": -1.0},
        {"time_constant_s": math.nan},
        {"max_duration_s": 11.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        DetectorSettings.from_dict({**PLAIN.to_dict(), **wrong})


def test_settings_survive_a_round_trip() -> None:
    assert DetectorSettings.from_dict(PLAIN.to_dict()) == PLAIN
    with pytest.raises(InputError, match="exactly"):
        DetectorSettings.from_dict({"theta_on": 1.0})


# --- no split shows --------------------------------------------------------------------------------------------------

SMOOTHED = DetectorSettings(
    theta_on=1.0,
    theta_off=0.8,
    rate_hz=10,
    up_s=0.3,
    down_s=0.2,
    hold_s=2.0,
    min_duration_s=0.5,
    max_duration_s=4.1,
)
QUICK = DetectorSettings(
    theta_on=1.0,
    theta_off=1.0,
    rate_hz=10,
    time_constant_s=0,
    up_s=0.1,
    down_s=0.1,
    hold_s=0.5,
    min_duration_s=0.1,
    max_duration_s=1.0,
)
SLOW_END = DetectorSettings(
    theta_on=1.0,
    theta_off=0.7,
    rate_hz=10,
    time_constant_s=0.3,
    up_s=0.1,
    down_s=1.0,
    hold_s=1.5,
    min_duration_s=0.3,
    max_duration_s=3.0,
)

CHARACTERS = ("white", "bursts", "constant_on", "constant_off", "constant_band", "unbroken", "band", "edge", "gap")


def piece(character: str, length: int, rng: np.random.Generator) -> np.ndarray:
    """A stretch of signal around the threshold 1."""
    if character == "white":
        return rng.gamma(2.0, 0.5, length)
    if character == "bursts":
        on = np.repeat(rng.random(length // 7 + 1) < 0.5, 7)[:length]
        return np.where(on, rng.uniform(1.0, 5.0, length), rng.uniform(0.0, 0.9, length))
    if character == "unbroken":
        return rng.uniform(1.05, 3.0, length)
    if character == "band":
        return rng.uniform(0.81, 0.99, length)
    if character == "edge":
        return rng.choice([0.7, 0.8, 0.9, 1.0, np.nextafter(1.0, 2.0), 1.3], length)
    level = {"constant_on": 1.7, "constant_off": 0.1, "constant_band": 0.9, "gap": np.nan}[character]
    return np.full(length, level)


@st.composite
def signals(draw: st.DrawFn, total: int) -> np.ndarray:
    """A signal made of long and short pieces of several characters, at least ``total`` samples."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pieces: list[np.ndarray] = []
    while sum(len(part) for part in pieces) < total:
        character = draw(st.sampled_from(CHARACTERS))
        length = draw(st.sampled_from([1, 2, 3, 10, 60, 300])) + int(rng.integers(0, 9))
        pieces.append(piece(character, length, rng))
        if rng.random() < 0.4:
            # One run above the threshold, then the band: what the state was before must not matter.
            pieces.append(np.full(int(rng.integers(1, 6)), 2.0))
    return np.concatenate(pieces)[:total]


def one_pass(signal: np.ndarray, config: DetectorSettings, first: int) -> list[Detection]:
    return Detector(config).push(signal, first)


def hour_by_hour(signal: np.ndarray, config: DetectorSettings, first: int, hour: int) -> list[Detection]:
    """Each hour by itself: a fresh detector, the hour before as warm-up, what is decided in the hour kept."""
    kept: list[Detection] = []
    for start in range(0, len(signal), hour):
        detector = Detector(config)
        before = signal[max(0, start - hour) : start]
        if len(before):
            detector.push(before, first + start - len(before))
        found = detector.push(signal[start : start + hour], first + start)
        assert all(first + start <= item.decided_sample < first + start + hour for item in found)
        kept += found
    return kept


@pytest.mark.parametrize("config", [SMOOTHED, QUICK, SLOW_END], ids=["smoothed", "quick", "slow_end"])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_hours_equal_one_pass(config: DetectorSettings, data: st.DataObject) -> None:
    hour = config.memory_samples
    signal = data.draw(signals(5 * hour))
    first = data.draw(st.integers(0, 3 * config.block_samples)) + 17_000_000_000
    assert hour_by_hour(signal, config, first, hour) == one_pass(signal, config, first)


@pytest.mark.parametrize("config", [SMOOTHED, QUICK, SLOW_END], ids=["smoothed", "quick", "slow_end"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_fresh_start_is_forgotten_after_the_stated_memory(config: DetectorSettings, data: st.DataObject) -> None:
    signal = data.draw(signals(4 * config.memory_samples))
    start = data.draw(st.integers(0, len(signal) - config.memory_samples))
    exact_from = start + config.memory_samples
    late = one_pass(signal[start:], config, start)
    expected = [item for item in one_pass(signal, config, 0) if item.decided_sample >= exact_from]
    assert [item for item in late if item.decided_sample >= exact_from] == expected


def test_the_stated_memory_is_needed_and_enough() -> None:
    """The worst case: ON just before the fresh start, then the band as long as an ON holds, then unbroken motion."""
    config = DetectorSettings.from_dict({**PLAIN.to_dict(), "min_duration_s": 1.0})
    up, hold, block = config.up_samples, config.hold_samples, config.block_samples
    longest = 0
    for first in range(block):
        for band in range(hold - 2 * up, hold + 1):
            signal = np.array([2.0] * 5 + [0.7] * band + [2.0] * 6 * block)
            whole, late = one_pass(signal, config, first - 5), one_pass(signal[5:], config, first)
            differing = [item.decided_sample - first for item in set(whole) ^ set(late)]
            longest = max(longest, *differing)
    assert hold + 2 * block - 2 * up <= longest < config.memory_samples


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_chunks_of_any_size_equal_one_pass(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from([SMOOTHED, QUICK, SLOW_END]))
    signal = data.draw(signals(600))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(signal)), max_size=40)))
    detector = Detector(config)
    found: list[Detection] = []
    for start, stop in zip([0, *cuts], [*cuts, len(signal)], strict=True):
        found += detector.push(signal[start:stop], 1000 + start)
    assert found == one_pass(signal, config, 1000)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_segments_keep_their_promises(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from([SMOOTHED, QUICK, SLOW_END, PLAIN]))
    signal = data.draw(signals(1500))
    detector = Detector(config)
    found = [*detector.push(signal, 0), *detector.flush()]
    assert [item.decided_sample for item in found] == sorted(item.decided_sample for item in found)
    for item, after in pairwise(found):
        assert item.end_sample <= after.start_sample
    for item in found:
        length = item.end_sample - item.start_sample
        assert config.min_samples <= length <= 2 * config.block_samples - 1
        assert item.end_sample <= item.decided_sample
        assert not np.isnan(signal[item.start_sample : item.end_sample]).any()
        assert (item.end_sample == len(signal) or np.isnan(signal[item.end_sample])) == (item.end_reason == "gap")


def test_the_state_is_what_the_definition_says() -> None:
    """Against the definition written down directly, for segments that no cut touches."""
    rng = np.random.default_rng(5)
    config = DetectorSettings.from_dict({**SMOOTHED.to_dict(), "max_duration_s": 100_000.0, "min_duration_s": 0.0})
    signal = np.concatenate([piece(name, 150, rng) for name in CHARACTERS for _ in range(2)])
    y = smooth(signal, config)
    up, down, hold = config.up_samples, config.down_samples, config.hold_samples
    above = [bool(n >= up - 1 and (y[n - up + 1 : n + 1] > 1.0).all()) for n in range(len(y))]
    below = [bool(n >= down - 1 and (y[n - down + 1 : n + 1] < 0.8).all()) for n in range(len(y))]
    state = []
    for n in range(len(y)):
        on = False
        for m in range(n, max(n - hold, -1), -1):
            if np.isnan(y[m]) or below[m]:
                break
            if above[m]:
                on = True
                break
        state.append(on)
    ends = [n for n in range(1, len(y)) if state[n - 1] and not state[n]]
    assert len(ends) > 10
    assert [item.decided_sample for item in one_pass(signal, config, 0)] == ends


def test_full_hours_of_every_character() -> None:
    """Full-size hours at the default times, with unbroken motion, constant energy and the band for over an hour."""
    config = DetectorTimes().with_thresholds(1.0, 0.8)
    rng = np.random.default_rng(7)
    hour = 36_000
    parts = [
        np.concatenate([piece(str(name), 400, rng) for name in rng.choice(CHARACTERS, 80)]),
        piece("unbroken", 50_000, rng),
        piece("constant_on", 45_000, rng),
        np.full(3, 2.0),
        piece("constant_band", 40_000, rng),
        np.full(3, 2.0),
        piece("band", 40_000, rng),
        np.concatenate([piece(str(name), 300, rng) for name in rng.choice(CHARACTERS, 30)]),
    ]
    signal = np.concatenate(parts)
    first = 17_000_000_000 // hour * hour - 12_345
    expected = one_pass(signal, config, first)
    assert len(expected) > 300
    lead = (-first) % hour
    split = hour_by_hour(np.concatenate([np.full(hour - lead, np.nan), signal]), config, first - (hour - lead), hour)
    assert split == expected
    started = time.perf_counter()
    one_pass(signal[:hour], config, first)
    assert time.perf_counter() - started < 3.0  # 0.05 s on a quiet machine
