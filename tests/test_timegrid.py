"""The absolute grid: hours tile it, windows own each sample once, names and times round-trip."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.errors import InputError
from laps.timegrid import (
    HOUR_NS,
    CameraHour,
    SampleGrid,
    check_camera,
    format_utc,
    from_datetime,
    hours_between,
    parse_hour,
    parse_utc,
    to_datetime,
)

times = st.integers(0, 4_000_000_000_000_000_000)
hours = st.integers(0, 1_000_000).map(lambda n: n * HOUR_NS)
grids = st.sampled_from([SampleGrid(), SampleGrid(rate_hz=5, window=8, stride=2), SampleGrid(rate_hz=20, stride=8)])


@given(grids, hours)
def test_every_sample_of_an_hour_is_owned_by_exactly_one_window(grid: SampleGrid, hour_ns: int) -> None:
    first, stop = grid.hour_samples(hour_ns)
    owned = [s for end in grid.window_ends(first, stop) for s in range(end - grid.stride + 1, end + 1)]
    assert owned == list(range(first, stop))


def test_an_hour_holds_nine_thousand_windows() -> None:
    first, stop = SampleGrid().hour_samples(100 * HOUR_NS)
    ends = SampleGrid().window_ends(first, stop)
    assert len(ends) == 9000
    assert all(end % 4 == 3 for end in ends[:10])
    assert ends[0] - 15 == first - SampleGrid().preroll


@given(grids, hours, st.integers(0, 400), st.integers(0, 400))
def test_window_ends_of_neighbouring_ranges_join(grid: SampleGrid, hour_ns: int, a: int, b: int) -> None:
    first, _ = grid.hour_samples(hour_ns)
    middle = first + a * grid.stride
    stop = middle + b
    joined = [*grid.window_ends(first, middle), *grid.window_ends(middle, stop)]
    assert joined == list(grid.window_ends(first, stop))


@given(grids, times)
def test_neighbouring_samples_enclose_a_time(grid: SampleGrid, time_ns: int) -> None:
    before, after = grid.last_sample_at_or_before(time_ns), grid.first_sample_at_or_after(time_ns)
    assert grid.time_ns(before) <= time_ns <= grid.time_ns(after)
    assert after - before in (0, 1)


@given(times)
def test_times_round_trip_to_the_microsecond(time_ns: int) -> None:
    rounded = time_ns - time_ns % 1000
    assert parse_utc(format_utc(time_ns)) == rounded
    assert from_datetime(to_datetime(time_ns)) == rounded


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), hours)
def test_partition_keys_round_trip(camera: str, hour_ns: int) -> None:
    hour = CameraHour(camera, hour_ns)
    assert CameraHour.parse(hour.key) == hour
    assert hour.previous.next == hour


@pytest.mark.parametrize("name", ["a/b", "..", "a|b", "", "Cam", "-a", "a" * 64, "cam 1", "é"])
def test_names_that_cannot_be_cameras_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="camera's name"):
        check_camera(name)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(InputError, match="no zone"):
        parse_utc("2026-11-21T05:00:00")
    with pytest.raises(InputError, match="ISO 8601"):
        parse_utc("yesterday")
    with pytest.raises(InputError, match="start of an hour"):
        parse_hour("2026-11-21T05:30:00Z")


def test_other_zones_become_utc() -> None:
    local = datetime(2026, 11, 21, 7, 0, tzinfo=timezone(timedelta(hours=2)))
    assert from_datetime(local) == from_datetime(datetime(2026, 11, 21, 5, 0, tzinfo=UTC))
    assert format_utc(parse_utc("2026-11-21T07:00:00+02:00")) == "2026-11-21T05:00:00Z"


@given(hours, st.integers(1, 5 * HOUR_NS))
def test_hours_between_covers_the_range(start_ns: int, length_ns: int) -> None:
    covered = list(hours_between("cam1", start_ns, start_ns + length_ns))
    assert covered[0].start_ns <= start_ns < covered[0].stop_ns
    assert covered[-1].start_ns < start_ns + length_ns <= covered[-1].stop_ns


@pytest.mark.parametrize("settings", [{"rate_hz": 7}, {"rate_hz": 0}, {"stride": 16}, {"rate_hz": 1, "stride": 7}])
def test_impossible_grids_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError):
        SampleGrid(**settings)
