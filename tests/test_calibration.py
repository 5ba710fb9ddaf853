"""Calibration: known answers, self-judgement, and the document."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.calibration import (
    Calibration,
    best_f1_threshold,
    calibrate,
    calibrate_files,
    otsu_threshold,
    threshold_scores,
)
from laps.detector import DetectorTimes
from laps.errors import CalibrationError, InputError, ModelMismatchError
from laps.latent import LatentStream
from laps.reference_files import write_energy_jsonl


def make_stream(
    energy: np.ndarray, *, velocity: np.ndarray | None = None, code: np.ndarray | None = None, first: int = 0
) -> LatentStream:
    values = energy.astype(np.float32)
    null = np.isnan(values)
    return LatentStream(
        first=first,
        code=np.where(null, -1, 0 if code is None else code).astype(np.int32),
        latent_action_energy=values,
        decoded_motion_energy=values,
        velocity_energy=values if velocity is None else velocity.astype(np.float32),
        prequantized_energy=values,
        null_reason=["no_footage" if value else None for value in null],
        tokenizer_id="t000000000000",
    )


def workday(
    seed: int, *, minutes: int = 10, ratio: float = 8.0, rest_s: float = 1.5, action_s: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Noise of rest (level 1) and actions of uneven strength upon it, at 10 Hz; with the true activity."""
    rng = np.random.default_rng(seed)
    count = minutes * 600
    energy = np.exp(0.3 * rng.normal(size=count))
    active = np.zeros(count, dtype=bool)
    at = 0
    while True:
        at += 5 + int(10 * rng.exponential(rest_s))
        length = 8 + int(10 * rng.gamma(4, action_s / 4))
        if at + length > count:
            return energy, active
        phase = np.arange(length)
        strength = ratio * np.exp(0.3 * rng.normal()) * (1 + 0.4 * np.sin(2 * np.pi * phase / rng.uniform(6, 15)))
        energy[at : at + length] += strength
        active[at : at + length] = True
        at += length


# --- Otsu and the sweep ----------------------------------------------------------------------------------------


def test_otsu_splits_two_groups() -> None:
    values = np.concatenate([np.full(80, 1.0), np.full(20, 3.0)])
    threshold = otsu_threshold(values)
    # The first bin that separates: its centre lies half a bin above the lower group.
    assert threshold == pytest.approx(1 + 2 / 256 / 2)
    assert (values > threshold).sum() == 20
    assert otsu_threshold(np.full(5, 2.0)) == 2.0


def test_otsu_against_every_split() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 500), rng.normal(5, 2, 300)])
    threshold = otsu_threshold(values)
    low, high = values.min(), values.max()
    centres = low + (np.arange(256) + 0.5) * (high - low) / 256

    def within(split: float) -> float:
        groups = values[values <= split], values[values > split]
        return sum(len(group) * group.var() for group in groups if len(group))

    best = min(within(centre) for centre in centres)
    assert within(threshold) == pytest.approx(best, rel=0.01)


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30).filter(
        lambda pairs: any(label for _, label in pairs)
    )
)
def test_the_sweep_finds_the_best_f1(pairs: list[tuple[int, bool]]) -> None:
    values = np.array([value for value, _ in pairs], dtype=float)
    labels = np.array([label for _, label in pairs])
    theta, f1 = best_f1_threshold(values, labels)
    every = {float(value): threshold_scores(values, labels, float(value))["f1"] for value in values}
    best = max(every.values())
    assert f1 == pytest.approx(best)
    assert theta == min(value for value, score in every.items() if score == best)


def test_scores_are_hand_worked() -> None:
    values = np.array([1.0, 2, 3, 4, 5])
    labels = np.array([False, True, False, True, True])
    scores = threshold_scores(values, labels, 2.0)  # says 3, 4, 5: two of three right, one missed
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["youden_j"] == pytest.approx(2 / 3 - 1 / 2)
    assert scores["f1_always_on"] == pytest.approx(6 / 8)


def test_files_give_the_known_threshold(tmp_path: Path) -> None:
    """A stream with a known answer: energy above 2.25 exactly where the proxy is high."""
    rng = np.random.default_rng(3)
    motion = np.repeat(rng.random(60) < 0.4, 10)
    proxy = np.where(motion, rng.uniform(0.8, 1.0, 600), rng.uniform(0.0, 0.2, 600))
    energy = np.where(motion, rng.uniform(2.5, 3.0, 600), rng.uniform(1.0, 2.0, 600))
    energy[np.flatnonzero(~motion)[0]] = 2.25
    energy[5] = np.nan
    write_energy_jsonl(tmp_path / "energy.jsonl", energy, source="quantized", mode="token_diff_l2_mean")
    write_energy_jsonl(tmp_path / "proxy.jsonl", proxy, source="velocity", mode="token_diff_l2_mean")
    found = calibrate_files(tmp_path / "energy.jsonl", tmp_path / "proxy.jsonl")
    assert found["theta_on"] == 2.25
    assert found["theta_off"] == pytest.approx(0.95 * 2.25)
    assert found["f1"] == 1.0
    assert 0.2 <= found["proxy_threshold"] < 0.8
    assert found["windows"] == 599
    assert found["ok"], found["message"]
    json.dumps(found, allow_nan=False)


def test_files_that_know_nothing_of_each_other_say_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    write_energy_jsonl(tmp_path / "energy.jsonl", rng.uniform(1, 3, 2000), source="q", mode="m")
    write_energy_jsonl(tmp_path / "proxy.jsonl", rng.gamma(2, 1, 2000), source="v", mode="m")
    found = calibrate_files(tmp_path / "energy.jsonl", tmp_path / "proxy.jsonl")
    assert not found["ok"]
    assert found["f1"] < found["f1_always_on"] + 0.05
    assert "does not tell motion from rest" in found["message"]
    with pytest.raises(InputError, match="method"):
        calibrate_files(tmp_path / "energy.jsonl", tmp_path / "proxy.jsonl", method="guess")


def test_files_without_windows_in_common_are_refused(tmp_path: Path) -> None:
    write_energy_jsonl(tmp_path / "energy.jsonl", np.ones(15), source="q", mode="m")
    write_energy_jsonl(tmp_path / "proxy.jsonl", np.ones(500), source="v", mode="m")
    with pytest.raises(InputError, match="in common"):
        calibrate_files(tmp_path / "energy.jsonl", tmp_path / "proxy.jsonl")


# --- from the signal's own log energy ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["log_energy", "sweep"])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_rest_and_motion_are_told_apart(method: str, scale: float) -> None:
    energy, active = workday(0)
    calibration = calibrate([make_stream(scale * energy)], camera="cam1", form="velocity", method=method)
    assert calibration.ok, calibration.message
    # Otsu on the linear scale, which the sweep's labels come from, sets the level too high.
    assert 1.5 * scale < calibration.settings.theta_on < (4 if method == "log_energy" else 8) * scale
    assert calibration.settings.theta_off == pytest.approx(0.8 * calibration.settings.theta_on)
    seen = calibration.diagnostics
    assert seen.active_share == pytest.approx(active.mean(), abs=0.06 if method == "log_energy" else 0.2)
    true_count = int((np.diff(active.astype(int)) == 1).sum())
    assert seen.segment_count == pytest.approx(true_count, rel=0.1 if method == "log_energy" else 0.3)
    assert seen.segments_per_minute == pytest.approx(seen.segment_count / 10)
    assert seen.f1 is not None and seen.f1_always_on is not None
    assert seen.f1 > 0.8 > seen.f1_always_on
    if method == "log_energy":
        assert seen.rest_level == pytest.approx(scale, rel=0.3)
        assert seen.motion_level == pytest.approx(9 * scale, rel=0.3)


def test_nulls_never_enter() -> None:
    energy, _ = workday(1)
    holes = energy.copy()
    holes[1000:1400] = np.nan
    without = calibrate(
        [make_stream(energy[:1000]), make_stream(energy[1400:], first=1400)], camera="cam1", form="velocity"
    )
    with_nulls = calibrate([make_stream(holes)], camera="cam1", form="velocity")
    assert with_nulls.settings.theta_on == pytest.approx(without.settings.theta_on)
    assert with_nulls.diagnostics.null_count == 400
    assert with_nulls.diagnostics.sample_count == without.diagnostics.sample_count


def test_zeros_are_rest_and_do_no_harm() -> None:
    """Energies decoded from codes are often exactly zero, or exactly the same, at rest."""
    energy, active = workday(2)
    quantized = np.where(active, np.round(energy), 0.0)
    calibration = calibrate([make_stream(quantized)], camera="cam1", form="velocity")
    assert calibration.ok, calibration.message
    assert calibration.diagnostics.active_share == pytest.approx(active.mean(), abs=0.06)


def test_the_threshold_lies_where_the_states_are_equally_probable() -> None:
    """Two Gaussians of equal width: the middle, moved towards the rarer one by var / distance * ln(odds)."""
    rng = np.random.default_rng(8)
    state = np.repeat(rng.random(3000) < 0.2, 20)
    energy = np.exp(np.where(state, 2.0, 0.0) + 0.5 * rng.normal(size=len(state)))
    unsmoothed = DetectorTimes(time_constant_s=0)
    calibration = calibrate([make_stream(energy)], camera="cam1", form="velocity", times=unsmoothed)
    expected = 1.0 + 0.5**2 / 2.0 * np.log(0.8 / 0.2)
    assert np.log(calibration.settings.theta_on) == pytest.approx(expected, abs=0.03)
    assert calibration.diagnostics.level_ratio == pytest.approx(np.exp(2.0), rel=0.03)


def only_rest(rng: np.random.Generator, count: int) -> np.ndarray:
    return 0.03 * np.exp(0.3 * rng.normal(size=count))


def only_motion(rng: np.random.Generator, count: int) -> np.ndarray:
    noise = np.convolve(rng.normal(size=count + 20), np.hanning(21) / np.sqrt((np.hanning(21) ** 2).sum()), "valid")
    return np.exp(0.6 * noise)


@pytest.mark.parametrize("make", [only_rest, only_motion])
@pytest.mark.parametrize("minutes", [2, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_one_level_cannot_be_told(make, minutes: int, seed: int) -> None:
    energy = make(np.random.default_rng(seed), minutes * 600)
    calibration = calibrate([make_stream(energy)], camera="cam1", form="velocity")
    assert not calibration.ok
    assert "cannot be told whether this is rest or motion" in calibration.message
    assert energy.min() < calibration.settings.theta_on < energy.max()


def test_a_constant_energy_turns_nothing_on_and_says_so() -> None:
    calibration = calibrate([make_stream(np.full(1000, 0.7))], camera="cam1", form="velocity")
    assert not calibration.ok
    assert calibration.diagnostics.segment_count == 0
    with pytest.raises(CalibrationError, match="constant"):
        calibrate([make_stream(np.full(1000, 0.7))], camera="cam1", form="velocity", method="sweep")


def test_thresholds_that_cut_implausibly_are_refused() -> None:
    rare = np.exp(0.1 * np.random.default_rng(0).normal(size=36_000))
    rare[1000:1100] *= 20
    rare[9000:9100] *= 20
    calibration = calibrate([make_stream(rare)], camera="cam1", form="velocity")
    assert not calibration.ok
    assert "segments a minute, outside 1 to 60" in calibration.message
    assert "of the time active, outside 5% to 95%" in calibration.message


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ([], "0 samples"),
        ([make_stream(np.full(500, np.nan))], "0 samples"),
        ([make_stream(np.ones(19))], "19 samples"),
        ([make_stream(np.zeros(500))], "zero throughout"),
    ],
)
def test_no_threshold_at_all_is_an_error(streams: list[LatentStream], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibrate(streams, camera="cam1", form="velocity")


def test_decoded_motion_becomes_a_table_without_the_camera_s_background() -> None:
    energy, active = workday(3)
    code = np.where(active, np.random.default_rng(0).integers(2, 5, len(energy)), 0)
    motion = np.zeros((6, 16, 2))
    motion[:, :3, 0] = 4.0  # a belt
    motion[2, 4:8, 1] = 6.0
    motion[3, 8:12, 1] = -6.0
    motion[4, 12:16, 0] = 6.0
    calibration = calibrate([make_stream(energy, code=code)], camera="cam1", decoded_motion=motion)
    assert calibration.form == "decoded_motion"
    assert calibration.code_energy is not None
    assert calibration.code_energy.tolist() == [0, 0, 1.5, 1.5, 1.5, 0]
    assert calibration.ok, calibration.message
    assert calibration.diagnostics.active_share == pytest.approx(active.mean(), abs=0.05)


def test_other_rates_work() -> None:
    energy, active = workday(4, minutes=40)
    slow = energy.reshape(-1, 4).mean(axis=1)
    times = DetectorTimes(rate_hz=2.5, time_constant_s=0.3, up_s=0.4, down_s=0.4)
    calibration = calibrate([make_stream(slow)], camera="cam1", form="velocity", times=times)
    assert calibration.diagnostics.minutes == pytest.approx(40)
    assert calibration.diagnostics.active_share == pytest.approx(active.mean(), abs=0.1)


def shift_of_codes(seed: int, *, recurring: bool) -> tuple[LatentStream, np.ndarray]:
    """A stream whose codes begin and end actions in their own way, or are drawn at random, and the codes' motion."""
    energy, active = workday(seed, minutes=20)
    rng = np.random.default_rng(seed)
    code = np.where(active, rng.integers(9, 30, len(energy)), 0)
    edges = np.flatnonzero(np.diff(active.astype(int)))
    if recurring:
        for start, end in zip(edges[::2] + 1, edges[1::2] + 1, strict=True):
            code[start : start + 5] = rng.integers(1, 5, len(code[start : start + 5]))
            code[end - 3 : end] = rng.integers(5, 9, 3)
    motion = rng.normal(0, 1, (30, 16, 2)) * (np.arange(30) > 0)[:, None, None]
    motion[1:5, :, 0] += 2.0
    motion[5:9, :, 0] -= 2.0
    return make_stream(energy, code=code), motion


def test_boundaries_are_learned_where_the_motion_of_the_codes_is_known() -> None:
    stream, motion = shift_of_codes(7, recurring=True)
    plain = calibrate([stream], camera="cam1", decoded_motion=motion, how="energy")
    divided = calibrate([stream], camera="cam1", decoded_motion=motion)
    assert (plain.cut, plain.boundaries) == ("energy", None)
    assert divided.cut == "rests" and divided.boundaries is not None, divided.message
    assert divided.settings == plain.settings and divided.calibration_id != plain.calibration_id
    assert divided.diagnostics.teacher == "rests"
    assert divided.diagnostics.ends_taught == plain.diagnostics.segment_count
    assert divided.diagnostics.ends_told_apart is not None and divided.diagnostics.ends_told_apart > 0.8
    touching = calibrate([stream], camera="cam1", decoded_motion=motion, how="boundaries")
    assert touching.cut == "boundaries" and touching.diagnostics.segment_count > 10
    # The paper's energy, and tokenizers whose codes have no motion of their own, are cut as the paper does.
    assert calibrate([stream], camera="cam1", form="latent_action", decoded_motion=motion).cut == "energy"
    assert calibrate([stream], camera="cam1").cut == "energy"


def test_where_ends_look_like_anything_else_nothing_is_divided() -> None:
    stream, motion = shift_of_codes(7, recurring=False)
    calibration = calibrate([stream], camera="cam1", decoded_motion=motion)
    assert calibration.cut == "rests" and calibration.boundaries is None
    assert "look like other moments" in calibration.message
    told_apart = (calibration.diagnostics.ends_told_apart, calibration.diagnostics.starts_told_apart)
    assert min(value for value in told_apart if value is not None) < 0.6


def test_too_few_rests_leave_the_energy_and_say_so() -> None:
    energy, active = workday(8, minutes=1)
    motion = np.random.default_rng(0).normal(0, 1, (2, 16, 2))
    stream = make_stream(energy[:250], code=active[:250].astype(int))
    calibration = calibrate([stream], camera="cam1", decoded_motion=motion)
    assert calibration.boundaries is None
    assert "too few rests to learn" in calibration.message
    with pytest.raises(CalibrationError, match="too few rests"):
        calibrate([stream], camera="cam1", decoded_motion=motion, how="boundaries")


def test_cuts_that_lack_what_they_need_are_refused() -> None:
    stream = make_stream(workday(5, minutes=1)[0])
    motion = np.ones((1, 4, 2))
    with pytest.raises(InputError, match="energy, rests, boundaries"):
        calibrate([stream], camera="cam1", how="scissors")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rests, pictures"):
        calibrate([stream], camera="cam1", decoded_motion=motion, how="boundaries", teacher="books")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be known"):
        calibrate([stream], camera="cam1", how="boundaries")
    with pytest.raises(InputError, match="keyframes"):
        calibrate([stream], camera="cam1", decoded_motion=motion, how="boundaries", teacher="pictures")
    with pytest.raises(InputError, match="keyframes"):
        calibrate([stream], camera="cam1", decoded_motion=motion, teacher="pictures", pictures=[[]])


def test_wrong_choices_are_refused() -> None:
    stream = make_stream(workday(5, minutes=1)[0])
    other = LatentStream(**{**vars(stream), "tokenizer_id": "t111111111111"})
    with pytest.raises(ModelMismatchError, match="several tokenizers"):
        calibrate([stream, other], camera="cam1")
    with pytest.raises(InputError, match="log_energy, sweep"):
        calibrate([stream], camera="cam1", method="otsu")
    with pytest.raises(InputError, match="latent_action"):
        calibrate([stream], camera="cam1", form="optical_flow")
    with pytest.raises(InputError, match="hysteresis"):
        calibrate([stream], camera="cam1", hysteresis=1.5)


# --- the document ------------------------------------------------------------------------------------------------


def small_calibration() -> Calibration:
    stream, motion = shift_of_codes(6, recurring=True)
    return calibrate([stream], camera="cam1", decoded_motion=motion)


def test_a_calibration_survives_a_round_trip() -> None:
    calibration = small_calibration()
    text = calibration.to_json()
    again = Calibration.from_json(text)
    assert again.to_json() == text == small_calibration().to_json()
    assert again.cut == "rests" and again.boundaries is not None and calibration.boundaries is not None
    np.testing.assert_array_equal(again.boundaries.weights, calibration.boundaries.weights)
    assert again.boundaries.lookahead_samples == calibration.boundaries.lookahead_samples
    assert again.calibration_id == calibration.calibration_id
    assert len(calibration.calibration_id) == 13 and calibration.calibration_id[0] == "c"
    assert again.settings == calibration.settings
    assert again.diagnostics == calibration.diagnostics
    assert again.code_energy is not None and again.code_energy.dtype == np.float32
    np.testing.assert_array_equal(again.code_energy, calibration.code_energy)


def test_the_id_follows_what_decides_the_cut() -> None:
    document = json.loads(small_calibration().to_json())
    document["settings"]["theta_on"] += 0.25
    with pytest.raises(InputError, match="does not match its id"):
        Calibration.from_json(json.dumps(document), name="cam1.json")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}'])
def test_what_is_no_calibration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"cam1\.json"):
        Calibration.from_json(text, name="cam1.json")


def test_another_version_is_refused() -> None:
    document = json.loads(small_calibration().to_json())
    document["version"] = 99
    with pytest.raises(InputError, match="version 99"):
        Calibration.from_json(json.dumps(document))


def test_a_few_seconds_give_a_threshold_that_is_not_trusted() -> None:
    levels = np.tile(np.repeat([0.02, 1.0], 12), 3)[:60]
    energy = levels * np.exp(0.1 * np.random.default_rng(3).standard_normal(60))
    calibration = calibrate([make_stream(energy)], camera="cam1")
    assert 0.02 < calibration.settings.theta_on < 1.0
    assert not calibration.ok
    assert "only 60 samples" in calibration.message
    with pytest.raises(CalibrationError, match="at least 20"):
        calibrate([make_stream(energy[:15])], camera="cam1")
