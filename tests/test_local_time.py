"""Local time and shifts of the catalog against an independent reading of the same zones, minute by minute."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.cameras import DAY_MIN, Camera, Shift, check_shifts, parse_shift
from laps.errors import InputError, StoreError
from laps.local_time import functions_sql
from resources.cameras import Cameras
from resources.catalog import connect, run_query
from resources.store import Store
from tests.catalogs import RELEASE, TOKENIZER, Primitive, write_primitives

MINUTE = timedelta(minutes=1)
# Days around a change of the clocks in 2026 (the last two of Lord Howe Island: by half an hour), and none.
CHANGES = {
    "Europe/Berlin": (date(2026, 3, 29), date(2026, 10, 25)),
    "America/New_York": (date(2026, 3, 8), date(2026, 11, 1)),
    "America/Santiago": (date(2026, 4, 5), date(2026, 9, 6)),  # at midnight
    "Australia/Lord_Howe": (date(2026, 4, 5), date(2026, 10, 4)),
    "Asia/Kathmandu": (date(2026, 6, 1), date(2026, 6, 7)),
}


def catalog_of(zone: str | None, shifts: list[Shift]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    for statement in functions_sql([("a", zone, shifts), ("other", "Asia/Tokyo", [])]):
        connection.execute(statement)
    return connection


def by_catalog(zone: str, shifts: list[Shift], times: list[datetime]) -> list[tuple[Any, ...]]:
    return (
        catalog_of(zone, shifts)
        .execute(
            "SELECT local_time('a', t), shift_of('a', t), shift_date_of('a', t) FROM (SELECT unnest(?) AS t)", [times]
        )
        .fetchall()
    )


def expected(zone: str, shifts: list[Shift], times: list[datetime]) -> list[tuple[Any, ...]]:
    """The same with zoneinfo: a shift begins and ends at the first minute whose clock shows that time or later.

    ``times`` are minutes without a hole, and begin a day before the first time that is looked at.
    """
    clock = [time.astimezone(zoneinfo.ZoneInfo(zone)).replace(tzinfo=None) for time in times]
    latest = list(accumulate(clock, max))

    def first(local: datetime) -> int:
        return next((place for place, shown in enumerate(latest) if shown >= local), len(latest))

    answers: list[tuple[Any, ...]] = [(shown, None, None) for shown in clock]
    for shift in shifts:
        day = clock[0].date() - timedelta(days=1)
        while day <= clock[-1].date():
            if day.weekday() in shift.days:
                start = datetime.combine(day, datetime.min.time()) + shift.start_min * MINUTE
                for place in range(first(start), first(start + shift.length_min * MINUTE)):
                    answers[place] = (clock[place], shift.name, day)
            day += timedelta(days=1)
    return answers


@st.composite
def calendars(draw: st.DrawFn) -> list[Shift]:
    """Shifts of each day that follow each other, with holes; on quarter hours, or on any minute."""
    step = draw(st.sampled_from([60, 15, 1]))
    # Most clocks change between 01:00 and 03:00: one boundary there, the others anywhere.
    minutes = draw(st.sets(st.integers(0, DAY_MIN - 1), min_size=1, max_size=5)) | {draw(st.integers(61, 179))}
    cuts = sorted({minute // step for minute in minutes} | {0})
    shifts = [
        Shift(f"s{place}", start * step, end * step, draw(st.sampled_from([(0, 1, 2, 3, 4, 5, 6), (5,), (6,), (0, 5)])))
        for place, (start, end) in enumerate(zip(cuts, cuts[1:] + cuts[:1], strict=True))
    ]
    check_shifts(shifts)
    return shifts


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(CHANGES)), st.integers(0, 1), calendars())
def test_local_time_and_shift_agree_with_the_zone_around_changes_of_the_clocks(zone, which, shifts):
    day = datetime.combine(CHANGES[zone][which], datetime.min.time(), UTC)
    times = [day + minute * MINUTE for minute in range(-3 * DAY_MIN, 2 * DAY_MIN)]
    found, wanted = by_catalog(zone, shifts, times), expected(zone, shifts, times)
    assert found[DAY_MIN:] == wanted[DAY_MIN:]


def test_the_night_shift_is_one_hour_longer_or_shorter_when_the_clocks_change():
    shifts = [parse_shift("night=22:00-06:00"), parse_shift("day=06:00-22:00")]
    for started, hours in ((date(2026, 3, 28), 7), (date(2026, 10, 24), 9), (date(2026, 6, 1), 8)):
        first = datetime.combine(started, datetime.min.time(), UTC)
        times = [first + minute * MINUTE for minute in range(3 * DAY_MIN)]
        found = by_catalog("Europe/Berlin", shifts, times)
        assert sum(row[1:] == ("night", started) for row in found) == hours * 60


def test_a_shift_that_ends_in_the_repeated_hour_ends_once():
    shifts = [parse_shift("late=18:00-02:30"), parse_shift("night=02:30-06:00")]
    times = [datetime(2026, 10, 24, 22, tzinfo=UTC) + minute * MINUTE for minute in range(6 * 60)]
    names = [row[1] for row in by_catalog("Europe/Berlin", shifts, times)]
    # 02:30 in summer time is 00:30 UTC.
    assert names == ["late"] * 150 + ["night"] * 210


def test_seconds_belong_to_their_minute_and_ends_are_exclusive():
    shifts = [parse_shift("early=06:00-14:00@Mon-Fri")]
    before, start = datetime(2026, 6, 1, 3, 59, 59, 999999, UTC), datetime(2026, 6, 1, 4, tzinfo=UTC)
    last, end = datetime(2026, 6, 1, 11, 59, 59, 999999, UTC), datetime(2026, 6, 1, 12, tzinfo=UTC)
    saturday = datetime(2026, 6, 6, 8, tzinfo=UTC)
    found = by_catalog("Europe/Berlin", shifts, [before, start, last, end, saturday])
    assert [row[1] for row in found] == [None, "early", "early", None, None]
    assert found[2][0] == datetime(2026, 6, 1, 13, 59, 59, 999999)


def test_cameras_without_zone_or_shifts_have_nulls():
    moment = datetime(2026, 6, 1, tzinfo=UTC)
    query = (
        "SELECT local_time(c, ?::TIMESTAMPTZ), shift_of(c, ?::TIMESTAMPTZ) FROM (VALUES ('a'), ('other'), ('b')) v(c)"
    )
    found = catalog_of(None, []).execute(query, [moment, moment]).fetchall()
    assert found == [(None, None), (datetime(2026, 6, 1, 9), None), (None, None)]


# --- in the catalog --------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    starts = [datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in range(8)]
    write_primitives(store, [Primitive(camera, start, 2.0) for camera in ("a", "b") for start in starts])
    shifts = (parse_shift("night=22:00-06:00"), parse_shift("early=06:00-14:00"))
    Cameras(store).write(Camera("a", time_zone="Europe/Berlin", shifts=shifts))
    return store


def test_views_carry_local_time_and_shift_beside_utc(store):
    connection = connect(store, release=RELEASE, tokenizer=TOKENIZER)
    for view in ("primitives", "segments"):
        rows = run_query(
            connection,
            f"SELECT camera, start_time, start_local, shift, shift_date FROM {view} ORDER BY camera, start_time",
        ).to_pylist()
        local = [row["start_local"] for row in rows if row["camera"] == "a"]
        assert [when.hour for when in local] == [2, 2, 3, 4, 5, 6, 7, 8]  # 02:30 comes twice
        assert all(when.tzinfo is None for when in local)
        shifts = [(row["shift"], row["shift_date"].day) for row in rows if row["camera"] == "a"]
        assert shifts == [("night", 24)] * 5 + [("early", 25)] * 3
        assert all(
            row["start_local"] is row["shift"] is row["shift_date"] is None for row in rows if row["camera"] == "b"
        )
    types = connection.sql("SELECT start_local, shift, shift_date FROM recordings").types
    assert types == ["TIMESTAMP", "VARCHAR", "DATE"]
    found = run_query(connection, "SELECT count(*) AS n FROM primitives WHERE shift_of(camera, end_time) = 'early'")
    assert found.to_pylist() == [{"n": 3}]


def test_cameras_that_cannot_be_read_take_only_local_time_away(store):
    path = Path(store.full_path("cameras/camera=a/part-0.parquet"))
    path.write_bytes(path.read_bytes()[:100])
    connection = connect(store, release=RELEASE, tokenizer=TOKENIZER)
    found = run_query(connection, "SELECT count(*) AS n, max(start_time) AS t FROM primitives WHERE camera = 'a'")
    assert found.to_pylist()[0]["n"] == 8
    with pytest.raises(StoreError, match="is no readable Parquet file"):
        run_query(connection, "SELECT * FROM cameras")
    with pytest.raises((StoreError, InputError), match="is no readable Parquet file") as caught:
        run_query(connection, "SELECT start_local FROM primitives")
    assert str(path) in str(caught.value)
