"""The checks that a person is called for: what is usual passes, what is not fails, and both say why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps import vitals
from laps.calibration import Calibration, Diagnostics
from laps.cameras import Camera
from laps.clustering import fit, fit_figures
from laps.detector import DetectorTimes
from laps.latent import ENERGIES, LatentStream
from laps.tables import LATENT_STREAM, RAW_VIDEO, SEGMENTS
from laps.timegrid import HOUR_NS, CameraHour, SampleGrid, to_datetime
from resources.cameras import Cameras
from resources.history import earlier_hours, footage_share, same_hour_earlier, same_hour_shares, usual_rates
from resources.settings import store_settings
from resources.store import Store, rows_table

GRID = SampleGrid()
HOUR = CameraHour.parse("cam1|2026-02-27-08:00")  # a Friday
DAY_NS = 24 * HOUR_NS


# --- the rules ---------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=3, max_size=14), st.floats(0, 1))
def test_coverage_is_judged_by_the_same_hour(history: list[float], share: float) -> None:
    verdict = vitals.coverage(share, history, [])
    assert verdict.passed == (share >= np.median(history) - vitals.COVERAGE_DROP)
    assert f"{share:.0%}" in verdict.said and "usual" in verdict.said


def test_a_camera_that_is_gone_is_an_error_and_an_early_friday_is_usual() -> None:
    assert vitals.coverage(0.0, [1.0] * 14, []).severity == "error"
    assert vitals.coverage(0.7, [1.0] * 14, []).severity == "warn"
    assert vitals.coverage(0.0, [1.0] * 14, [0.0, 0.0, 0.0]).passed
    assert vitals.coverage(0.0, [1.0, 1.0], []).passed, "two days say nothing yet"


def test_lost_points_are_noticed() -> None:
    assert vitals.tracking(np.full(100, 0.95)).passed
    assert not vitals.tracking(np.full(100, 0.7)).passed
    assert not vitals.tracking(np.r_[np.full(85, 1.0), np.full(15, 0.2)]).passed
    assert vitals.tracking(np.zeros(0)).passed, "an hour without footage has no windows"


def test_footage_without_codes_is_an_error() -> None:
    verdict = vitals.values(600, 3600)
    assert not verdict.passed and verdict.severity == "error"
    assert vitals.values(3500, 3600).passed and vitals.values(0, 0).passed


@settings(max_examples=50)
@given(st.floats(2, 40), st.integers(0, 2**32 - 1))
def test_a_steady_camera_does_not_cry(middle: float, seed: int) -> None:
    """Hours that scatter like the history stay inside; half and double the rate do not."""
    rng = np.random.default_rng(seed)
    history = (middle * np.exp(rng.normal(0, 0.08, 20))).tolist()
    for factor, passes in ((1.0, True), (0.4, False), (2.5, False)):
        count = round(60 * middle * factor)
        assert vitals.rate(count, 60.0, history, [], middle).passed == passes


def test_a_break_that_is_taken_every_day_is_usual() -> None:
    history = [12.0] * 20
    assert not vitals.rate(30, 60.0, history, [], 12.0).passed
    assert vitals.rate(30, 60.0, history, [0.4, 0.5, 0.6], 12.0).passed
    assert not vitals.rate(0, 60.0, history, [], 12.0).passed
    assert vitals.rate(5, 1.0, history, [], 12.0).passed, "a minute says nothing"
    assert vitals.rate(0, 60.0, [0.0] * 20, [], 12.0).passed, "a camera before which nobody works"
    assert not vitals.rate(60, 60.0, [0.0] * 20, [], 12.0).passed


def test_without_history_the_calibration_says_what_is_usual() -> None:
    assert vitals.rate(600, 60.0, [], [], 12.0).passed
    verdict = vitals.rate(3600, 60.0, [1.0] * 7, [], 12.0)
    assert not verdict.passed and "calibration" in verdict.said


def test_few_codes_are_noticed() -> None:
    rng = np.random.default_rng(0)
    assert vitals.codes(rng.integers(0, 200, 5000), 250.0).passed
    few = vitals.codes(rng.integers(0, 20, 5000), 250.0)
    assert not few.passed and few.figures["perplexity"] == pytest.approx(20, abs=0.5)
    assert not vitals.codes(rng.integers(0, 1900, 50_000), 250.0).passed, "noise"
    assert vitals.codes(rng.integers(0, 20, 5000), None).passed
    assert vitals.codes(np.zeros(10, np.int64), 250.0).passed


CALIBRATION = Calibration(
    camera="cam1",
    tokenizer_id="t1",
    form="velocity",
    method="log_energy",
    settings=DetectorTimes().with_thresholds(1.0, 0.8),
    code_energy=None,
    ok=True,
    message="",
    diagnostics=Diagnostics(
        sample_count=36_000, null_count=0, minutes=60.0, spans=[], segment_count=600, segments_per_minute=10.0,
        active_share=0.5,
    ),
)  # fmt: skip


def stream(rest: float, motion: float, share: float = 0.5) -> LatentStream:
    """An hour of rest and motion by turns, 20 s each, with some noise."""
    rng = np.random.default_rng(0)
    level = np.where(np.arange(36_000) % 400 < 400 * share, motion, rest)
    energy = (level * np.exp(rng.normal(0, 0.3, len(level)))).astype(np.float32)
    energies = dict.fromkeys(ENERGIES, energy)
    return LatentStream(
        first=0, code=np.ones(36_000, np.int32), null_reason=[None] * 36_000, tokenizer_id="t1", **energies
    )


@pytest.mark.parametrize(
    ("rest", "motion", "share", "passes"),
    [
        (0.2, 4.0, 0.5, True),
        (0.2, 4.0, 0.2, True),
        (0.2, 4.0, 0.0, True),  # nobody works
        (0.2, 0.2, 0.5, True),  # nothing to be seen
        (3.0, 3.0, 0.5, False),  # noise, as of a lens that is covered
        (2.0, 40.0, 0.5, False),  # all energies rose, rest above the threshold
        (0.02, 0.6, 0.5, False),  # all fell, motion below it
    ],
)
def test_thresholds_that_no_longer_fit_are_noticed(rest: float, motion: float, share: float, passes: bool) -> None:
    assert vitals.thresholds(stream(rest, motion, share), CALIBRATION).passed == passes


def test_thresholds_from_elsewhere_are_not_judged() -> None:
    swept = replace(CALIBRATION, method="sweep")
    assert vitals.thresholds(stream(2.0, 40.0), swept).said.startswith("not judged")


def test_clusters_that_drift_are_noticed() -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(4, 16)) * 4
    embeddings = np.concatenate([place + rng.normal(size=(100, 16)) for place in places])
    fitted = fit(embeddings, 4, tokenizer_id="t1", embedder_id="e1")
    figures = fit_figures(fitted, embeddings)
    assert sum(figures["shares"].values()) == pytest.approx(1) and figures["primitives"] == 400

    def verdict(later: np.ndarray) -> vitals.Verdict:
        return vitals.clusters(*fitted.model.assign(later), figures)

    assert verdict(np.concatenate([place + rng.normal(size=(25, 16)) for place in places])).passed
    assert not verdict(rng.normal(size=(100, 16)) * 4).passed, "far from every centroid"
    assert not verdict(places[0] + rng.normal(size=(100, 16))).passed, "one action only"
    assert vitals.clusters(np.zeros(5, np.int32), np.zeros(5), figures).passed
    assert vitals.clusters(np.zeros(500, np.int32), np.zeros(500), None).passed


def test_the_night_is_named_by_what_is_missing() -> None:
    assert vitals.night("2026-02-26", {"cam1": []}, []).passed
    verdict = vitals.night("2026-02-26", {"cam1": [f"{hour:02}:00" for hour in range(8)]}, ["cam2"])
    assert not verdict.passed and verdict.severity == "error"
    assert "8 hours of cam1 not complete (00:00" in verdict.said and "cam2 has no footage" in verdict.said


def test_every_rule_has_its_section_in_the_docs() -> None:
    docs = (Path(__file__).parent.parent / "docs" / "alarms.md").read_text(encoding="utf-8")
    for rule in vitals.RULES:
        assert f"\n### {rule.name}\n" in docs and f"| [{rule.name}](#{rule.name}) | `{rule.table}` |" in docs


# --- what is usual, from the store --------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    store = Store(str(tmp_path / "store"))
    store_settings(store)
    return store


def film(store: Store, hour: CameraHour, share: float) -> None:
    row = {
        "camera": hour.camera,
        "start_time": to_datetime(hour.start_ns),
        "end_time": to_datetime(hour.start_ns + round(share * HOUR_NS)),
        "status": "ok",
        "used": True,
        "recording_id": "r",
    }
    store.write_partition(RAW_VIDEO, hour, rows_table(RAW_VIDEO, [row] if share else []))


def earlier(days: int) -> CameraHour:
    return CameraHour(HOUR.camera, HOUR.hour_ns - days * DAY_NS)


def test_days_without_this_hour_count_and_holidays_do_not(store: Store) -> None:
    film(store, HOUR, 0.5)
    for days in (1, 2, 3):
        film(store, earlier(days), 0.8)
    film(store, earlier(7).next, 1.0)  # that Friday it filmed, but not in this hour
    film(store, earlier(14), 0.9)
    same_hour, same_hour_of_week = same_hour_shares(store, HOUR)
    assert same_hour == pytest.approx([0.8, 0.8, 0.8, 0.0, 0.9])
    assert same_hour_of_week == pytest.approx([0.0, 0.9])
    assert footage_share(store, HOUR) == pytest.approx(0.5)


def cut(store: Store, hour: CameraHour, count: int, minutes: float) -> None:
    first, _ = GRID.hour_samples(hour.hour_ns)
    valued = round(minutes * 600)
    codes = [
        {
            "camera": hour.camera,
            "sample": first + place,
            "time": to_datetime(GRID.time_ns(first + place)),
            "code": 1 if place < valued else None,
            "null_reason": None if place < valued else "no_footage",
            "tokenizer_id": "t1",
        }
        for place in range(valued + 5)
    ]
    store.write_partition(LATENT_STREAM, hour, rows_table(LATENT_STREAM, codes), "t1")
    when = to_datetime(hour.start_ns)
    rows = [
        {
            **{column.name: 0.0 for column in SEGMENTS.columns if column.type.startswith("float")},
            **{column.name: 0 for column in SEGMENTS.columns if column.type.startswith("int")},
            **{column.name: "x" for column in SEGMENTS.columns if column.type == "string"},
            "segment_id": str(place),
            "start_time": when,
            "end_time": when,
            "end_reason": "rest",
            "codes": [1],
        }
        for place in range(count)
    ]
    store.write_partition(SEGMENTS, hour, rows_table(SEGMENTS, rows), "r1")


def test_the_usual_rate_is_that_of_earlier_hours_only(store: Store) -> None:
    for days, count in ((0, 99), (1, 30), (2, 60), (13, 15), (15, 1)):
        cut(store, earlier(days), count, 3.0)
    cut(store, earlier(1).previous, 45, 3.0)
    cut(store, HOUR.previous, 3, 0.2)  # hardly any codes
    cut(store, HOUR.next, 3, 3.0)
    assert earlier_hours(store, HOUR, "r1", same_hour_earlier(store, HOUR, range(1, 15))) == [
        earlier(13),
        earlier(2),
        earlier(1).previous,
        earlier(1),
        HOUR.previous,
    ]
    history, same_hour = usual_rates(store, HOUR, "r1", "t1", GRID)
    assert history == pytest.approx([5, 20, 15, 10])
    assert same_hour == pytest.approx([5, 20, 10])


def test_the_same_hour_is_that_of_the_wall_clock(store: Store) -> None:
    """A shift begins at six before and after the clocks go forward: at 05:00 UTC, then at 04:00."""
    Cameras(store).write(Camera("cam1", time_zone="Europe/Berlin"))
    after = CameraHour.parse("cam1|2026-03-30-04:00")  # a Monday, the day after
    same = same_hour_earlier(store, after, [1, 2, 7])
    assert [one.key for one in same] == ["cam1|2026-03-29-04:00", "cam1|2026-03-28-05:00", "cam1|2026-03-23-05:00"]
    film(store, after, 1.0)
    for days in range(2, 9):
        film(store, same_hour_earlier(store, after, [days])[0], 1.0)
        film(store, same_hour_earlier(store, after, [days])[0].previous, 0.0)
    assert same_hour_shares(store, after) == ([1.0] * 7, [1.0])


def test_the_same_hour_of_earlier_days_is_always_among_the_history(store: Store) -> None:
    """Of a camera that films day and night, every n-th hour would be the same few hours of each day."""
    for days in range(15):
        for hour in range(24):
            one = CameraHour.parse(f"cam1|{earlier(days).date}-{hour:02}:00")
            if one < HOUR:
                store.write_partition(SEGMENTS, one, rows_table(SEGMENTS, []), "r1")
    found = earlier_hours(store, HOUR, "r1", same_hour_earlier(store, HOUR, range(1, 15)))
    assert {earlier(days) for days in range(1, 15)} <= set(found)
    assert len({one.hour for one in found}) > 5


def test_history_is_spread_evenly_and_bounded(store: Store) -> None:
    for days in range(1, 11):
        for hour in range(6, 16):
            one = CameraHour.parse(f"cam1|{earlier(days).date}-{hour:02}:00")
            store.write_partition(SEGMENTS, one, rows_table(SEGMENTS, []), "r1")
    found = earlier_hours(store, HOUR, "r1", same_hour_earlier(store, HOUR, range(1, 15)))
    assert len(found) == vitals.HISTORY_HOURS and found == sorted(set(found))
    assert len({one.date for one in found}) == 10 and len({one.hour for one in found}) > 4
