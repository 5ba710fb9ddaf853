"""Segments: times, codes, ids, hours and files."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from laps import tables
from laps.boundaries import BoundaryModel
from laps.calibration import Calibration, Diagnostics
from laps.cutting import Cut
from laps.detector import DetectorSettings, DetectorTimes
from laps.errors import InputError, ModelMismatchError, NotProcessedError
from laps.evaluation import evaluate
from laps.latent import LatentStream
from laps.segments import detections, make_segment_id, primitives, segment_file, segment_hour, segment_rows
from laps.timegrid import CameraHour, SampleGrid, parse_utc

GRID = SampleGrid()
HOUR = CameraHour("cam1", parse_utc("2026-11-21T05:00:00Z"))
FIRST, STOP = GRID.hour_samples(HOUR.hour_ns)


def make_calibration(
    settings: DetectorSettings | None = None, camera: str = "cam1", how: Cut = "energy"
) -> Calibration:
    weights = np.random.default_rng(0).normal(0, 1, (1920, 40)).astype(np.float32)
    return Calibration(
        camera=camera,
        tokenizer_id="t000000000000",
        form="velocity",
        method="log_energy",
        settings=settings or DetectorTimes().with_thresholds(1.0, 0.8),
        code_energy=None,
        ok=True,
        message="",
        diagnostics=Diagnostics(
            sample_count=1, null_count=0, minutes=1, spans=[], segment_count=0, segments_per_minute=0, active_share=0
        ),
        cut=how,
        boundaries=None if how == "energy" else BoundaryModel(weights, 0.0, 9.0, 8),
    )


def make_stream(energy: np.ndarray, first: int, tokenizer_id: str = "t000000000000") -> LatentStream:
    values = energy.astype(np.float32)
    code = np.where(np.isnan(values), -1, (np.arange(len(values)) + first) % 1920).astype(np.int32)
    return LatentStream(
        first=first,
        code=code,
        latent_action_energy=values,
        decoded_motion_energy=values,
        velocity_energy=values,
        prequantized_energy=values,
        null_reason=["no_footage" if value < 0 else None for value in code],
        tokenizer_id=tokenizer_id,
    )


def random_energy(length: int, seed: int) -> np.ndarray:
    """Bursts, rests and gaps."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < length:
        parts.append(rng.uniform(1.2, 4.0, int(rng.integers(3, 60))))
        parts.append(rng.uniform(0.0, 0.5, int(rng.integers(2, 40))))
        if rng.random() < 0.02:
            parts.append(np.full(int(rng.integers(1, 300)), np.nan))
        if rng.random() < 0.01:
            parts.append(rng.uniform(1.2, 4.0, 3000))
    return np.concatenate(parts)[:length]


def rows_of(energy: np.ndarray, calibration: Calibration, first: int = 0) -> list[dict]:
    stream = make_stream(energy, first)
    found = detections([stream], calibration, ended=True)
    return segment_rows(primitives(found, stream.code, first, calibration, GRID), calibration, release="r1").to_pylist()


def test_times_are_corrected_for_the_interval_and_the_smoother() -> None:
    sharp = make_calibration(DetectorTimes(time_constant_s=0).with_thresholds(1.0, 0.8))
    energy = np.zeros(400)
    energy[100:130] = 2.0
    (row,) = rows_of(energy, sharp)
    # Without smoothing: half a step before the first sample of the ON and of the OFF run, 9.95 s and 12.95 s.
    assert (row["start_sample"], row["end_sample"], row["decided_sample"]) == (100, 130, 132)
    assert row["start_time"].timestamp() == pytest.approx(9.95)
    assert row["end_time"].timestamp() == pytest.approx(12.95)
    assert row["duration_s"] == pytest.approx(3.0)
    assert row["codes"] == list(range(100, 130))

    smoothed = make_calibration(DetectorTimes(time_constant_s=0.109).with_thresholds(1.0, 0.8))
    (row,) = rows_of(energy, smoothed)
    delay_s = smoothed.settings.delay_samples(100) / 10
    assert delay_s == pytest.approx(0.0666, abs=0.0005)
    assert row["start_time"].timestamp() == pytest.approx(row["start_sample"] / 10 - 0.05 - delay_s, abs=2e-6)
    assert row["end_time"].timestamp() == pytest.approx(row["end_sample"] / 10 - 0.05 - delay_s, abs=2e-6)
    # Codes for start <= t < end: 0.117 s earlier is one sample earlier.
    assert row["codes"] == list(range(row["start_sample"] - 1, row["end_sample"] - 1))


def test_a_segment_between_nulls_keeps_to_the_samples_that_there_are() -> None:
    calibration = make_calibration(DetectorTimes(time_constant_s=1.0).with_thresholds(1.0, 0.8))
    energy = np.full(60, np.nan)
    energy[20:40] = 2.0
    (row,) = rows_of(energy, calibration)
    assert (row["start_sample"], row["end_sample"], row["end_reason"]) == (20, 40, "gap")
    assert row["start_time"].timestamp() == pytest.approx(1.95)
    assert row["end_time"].timestamp() == pytest.approx(3.95)
    assert row["codes"] == list(range(20, 40))


def test_pieces_of_unbroken_motion_touch_and_share_no_code() -> None:
    rows = rows_of(np.random.default_rng(0).uniform(2, 3, 2000), make_calibration())
    assert len(rows) > 5
    for row, after in pairwise(rows):
        assert row["end_time"] == after["start_time"]
        assert row["end_reason"] == "maximum"
        assert row["duration_s"] <= 30
    codes = [code for row in rows for code in row["codes"]]
    assert codes == [n % 1920 for n in range(2000)]


def test_codes_lie_within_the_times_that_the_table_states() -> None:
    rows = rows_of(random_energy(20_000, 3), make_calibration(), FIRST)
    assert len(rows) > 100
    for row in rows:
        start_ns, end_ns = (int(row[name].timestamp() * 1e6) * 1000 for name in ("start_time", "end_time"))
        inside = [
            n for n in range(row["start_sample"] - 20, row["end_sample"] + 1) if start_ns <= GRID.time_ns(n) < end_ns
        ]
        assert row["codes"] == [n % 1920 for n in inside]


def test_ids_tell_models_apart_and_are_stable() -> None:
    base = ("cam1", 5, "t1", "c1", "r1")
    assert make_segment_id(*base) == make_segment_id(*base)
    others = {make_segment_id(*(*base[:place], "9" if place != 1 else 9, *base[place + 1 :])) for place in range(5)}  # type: ignore[arg-type]
    assert len(others | {make_segment_id(*base)}) == 6


def test_learned_boundaries_are_not_delayed_by_the_smoother() -> None:
    calibration = make_calibration(how="rests")
    rows = rows_of(random_energy(20_000, 5), calibration, FIRST)
    assert {row["end_reason"] for row in rows} >= {"rest", "boundary"}
    for row, after in pairwise(rows):
        if row["end_reason"] == "boundary":
            assert row["end_time"] == after["start_time"]
            assert row["end_time"].timestamp() == pytest.approx(row["end_sample"] / 10 - 0.05, abs=2e-6)
            assert row["codes"][-1] == (row["end_sample"] - 1) % 1920
            assert after["codes"][0] == after["start_sample"] % 1920


@pytest.mark.parametrize("how", ["energy", "rests", "boundaries"])
def test_hours_together_equal_one_pass_over_the_recording(how: Cut) -> None:
    calibration = make_calibration(how=how)
    hours = [HOUR, HOUR.next, HOUR.next.next]
    energy = random_energy(3 * 36_000, 11)
    energy[35_990:36_300] = 2.0  # over the first boundary
    energy[72_000 - 31 : 72_000 + 1] = 2.0  # decided just after the second
    energy[72_000 + 1 : 72_010] = 0.1
    energy[-40:] = 2.0  # open at the end
    streams = [make_stream(energy[n * 36_000 : (n + 1) * 36_000], FIRST + n * 36_000) for n in range(3)]
    parts = [
        segment_hour(before, stream, calibration, hour, release="r1")
        for before, stream, hour in zip([None, *streams], streams, hours, strict=False)
    ]
    for part, hour in zip(parts, hours, strict=True):
        first, stop = GRID.hour_samples(hour.hour_ns)
        assert all(first <= sample < stop for sample in part["decided_sample"].to_pylist())
    whole = make_stream(energy, FIRST)
    found = detections([whole], calibration, ended=False)
    expected = segment_rows(primitives(found, whole.code, FIRST, calibration, GRID), calibration, release="r1")
    assert expected.num_rows > 1000
    together = pa.concat_tables(parts)
    assert together.equals(expected)
    assert together["segment_id"].combine_chunks().equals(expected["segment_id"].combine_chunks())


def test_an_hour_without_footage_closes_what_the_one_before_left_open() -> None:
    energy = np.zeros(36_000)
    energy[-50:] = 2.0
    calibration = make_calibration()
    before = make_stream(energy, FIRST)
    assert segment_hour(None, before, calibration, HOUR, release="r1").num_rows == 0
    empty = make_stream(np.full(36_000, np.nan), STOP)
    (row,) = segment_hour(before, empty, calibration, HOUR.next, release="r1").to_pylist()
    assert (row["end_sample"], row["decided_sample"], row["end_reason"]) == (STOP, STOP, "gap")
    assert (
        segment_hour(
            empty, make_stream(np.zeros(36_000), STOP + 36_000), calibration, HOUR.next.next, release="r1"
        ).num_rows
        == 0
    )


def test_no_segments_is_a_table_without_rows() -> None:
    empty = segment_hour(None, make_stream(np.zeros(36_000), FIRST), make_calibration(), HOUR, release="r1")
    assert empty.num_rows == 0
    assert empty.schema.equals(tables.SEGMENTS.schema())


def test_what_does_not_belong_together_is_refused() -> None:
    stream = make_stream(np.zeros(36_000), FIRST)
    calibration = make_calibration()
    with pytest.raises(ModelMismatchError, match="cam2"):
        segment_hour(None, stream, make_calibration(camera="cam2"), HOUR, release="r1")
    with pytest.raises(ModelMismatchError, match="tokenizer"):
        segment_hour(None, make_stream(np.zeros(36_000), FIRST, "t1"), calibration, HOUR, release="r1")
    with pytest.raises(NotProcessedError, match="Observe"):
        segment_hour(None, make_stream(np.zeros(100), FIRST), calibration, HOUR, release="r1")
    with pytest.raises(NotProcessedError, match="04:00"):
        segment_hour(stream, stream, calibration, HOUR, release="r1")
    with pytest.raises(InputError, match="samples a second"):
        segment_hour(None, stream, make_calibration(DetectorTimes(rate_hz=5).with_thresholds(1, 1)), HOUR, release="r1")
    long = DetectorTimes(max_duration_s=4000).with_thresholds(1.0, 0.8)
    with pytest.raises(InputError, match="memory"):
        segment_hour(None, stream, make_calibration(long), HOUR, release="r1")


def test_a_file_is_cut_in_seconds_from_its_first_frame() -> None:
    calibration = make_calibration(DetectorTimes(time_constant_s=0).with_thresholds(1.0, 0.8))
    energy = np.zeros(300)
    energy[:12] = np.nan
    energy[50:80] = 2.0
    energy[280:] = 3.0
    start_ns = GRID.time_ns(FIRST) - 30_000_000  # the first frame lies 30 ms before the first sample
    document = segment_file(
        make_stream(energy, FIRST), calibration, recording_start_ns=start_ns, duration_s=29.96, video="a.mp4"
    )
    first, last = document["segments"]
    assert first["start_sec"] == pytest.approx(5.0 - 0.05 + 0.03)
    assert first["end_sec"] == pytest.approx(8.0 - 0.05 + 0.03)
    assert first["codes"] == [(FIRST + n) % 1920 for n in range(50, 80)]
    assert last["end_reason"] == "gap"
    assert last["end_sec"] == 29.96
    assert document["segmentation_params"]["stride"] == 4
    assert document["segmentation_params"]["target_fps"] == 10
    truth = {"duration_sec": 29.96, "segments": [{"start_sec": 5.0, "end_sec": 8.0}]}
    assert evaluate(truth, document, [0.25])["counts"]["predicted"] == 2
