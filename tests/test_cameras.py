"""Cameras as people describe them: what the texts mean, what is refused, and what the store keeps."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from laps.cameras import Camera, Shift, check_shifts, check_time_zone, parse_region, parse_shift
from laps.errors import InputError
from laps_dagster.cli.main import laps
from resources.cameras import Cameras
from resources.catalog import connect, run_query
from resources.settings import store_settings
from resources.store import Store
from tests.export_store import ExportStore

SHIFTS = st.builds(
    Shift,
    name=st.from_regex(r"\w[\w .-]{0,38}\w", fullmatch=True),
    start_min=st.integers(0, 1439),
    end_min=st.integers(0, 1439),
    days=st.sets(st.integers(0, 6), min_size=1).map(sorted).map(tuple),
)


# --- texts -----------------------------------------------------------------------------------------------------


@given(SHIFTS)
def test_a_shift_is_read_as_it_is_written(shift):
    assert parse_shift(str(shift)) == shift


@pytest.mark.parametrize(
    ("text", "shift"),
    [
        ("early=06:00-14:00", Shift("early", 360, 840)),
        ("night=22:00-06:00@Sun-Thu", Shift("night", 1320, 360, (0, 1, 2, 3, 6))),
        ("weekend=08:00-24:00@sat,SUN", Shift("weekend", 480, 0, (5, 6))),
        ("long=06:00-06:00@Fri-Mon", Shift("long", 360, 360, (0, 4, 5, 6))),
        (" Früh 1 = 05:45-13:15 @ Mon , Wed-Fri", None),
        ("Früh 1 =05:45-13:15@Mon , Wed-Fri", Shift("Früh 1", 345, 795, (0, 2, 3, 4))),
    ],
)
def test_shifts_as_people_write_them(text, shift):
    if shift is None:
        with pytest.raises(InputError, match="is no shift"):
            parse_shift(text)
    else:
        assert parse_shift(text) == shift


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("06:00-14:00", "is no shift"),
        ("=06:00-14:00", "cannot be a shift's name"),
        ("a,b=06:00-14:00", "cannot be a shift's name"),
        ("early=6:00-14:00", "'6:00' in .* is no time of day"),
        ("early=06:00-25:00", "'25:00' in .* is no time of day"),
        ("early=24:00-08:00", "'24:00' in .* is no time of day"),
        ("early=06:00-14:00@", "'' in .* is no day"),
        ("early=06:00-14:00@Mo-Fr", "'Mo-Fr' in .* is no day"),
        ("early=06:00-14:00@Mon-Wed-Fri", "is no day"),
    ],
)
def test_texts_that_are_no_shift_say_how_to_write_one(text, says):
    with pytest.raises(InputError, match=says) as caught:
        parse_shift(text)
    assert "Write NAME=HH:MM-HH:MM" in str(caught.value) or "Use 1 to 40" in str(caught.value)


@given(st.lists(SHIFTS, max_size=4))
def test_shifts_pass_exactly_when_no_minute_of_the_week_has_two(shifts):
    minutes = [
        (day * 1440 + shift.start_min + minute) % 10080
        for shift in shifts
        for day in shift.days
        for minute in range(shift.length_min)
    ]
    if len(minutes) == len(set(minutes)):
        check_shifts(shifts)
    else:
        with pytest.raises(InputError, match="overlap on"):
            check_shifts(shifts)


def test_an_overlap_over_the_end_of_the_week_is_found_and_named():
    check_shifts([parse_shift("night=22:00-06:00"), parse_shift("early=06:00-14:00"), parse_shift("late=14:00-22:00")])
    with pytest.raises(InputError, match=r"night=22:00-06:00@Sun and early=05:30-14:00@Mon overlap on Mon at 05:30"):
        check_shifts([parse_shift("night=22:00-06:00@Sun"), parse_shift("early=05:30-14:00@Mon")])


def test_time_zones_are_iana_names():
    for name in ("Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC"):
        assert check_time_zone(name) == name
    for name in ("CET", "+02:00", "Berlin", "europe/berlin", ""):
        with pytest.raises(InputError, match="is no time zone"):
            check_time_zone(name)
    with pytest.raises(InputError, match="Do you mean Europe/Berlin"):
        check_time_zone("Europe/Berln")


@pytest.mark.parametrize(
    "text", ["", "0,0,1", "0,0,1,1,1", "0,0,a,1", "0.5,0,0.5,1", "0,1,1,0", "0,0,1.1,1", "-0.1,0,1,1", "nan,0,1,1"]
)
def test_regions_are_shares_of_the_picture(text):
    assert parse_region("0.8, 0,1,0.1") == (0.8, 0.0, 1.0, 0.1)
    with pytest.raises(InputError, match="is no region"):
        parse_region(text)


# --- the store and the command ---------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    store_settings(store)
    return store


def run(store: Store, *arguments: str) -> Result:
    return CliRunner().invoke(laps, ["--store", store.root, "camera", *arguments], env={"LAPS_STORE": store.root})


def test_what_is_set_is_listed_and_in_the_catalog(store):
    given_ = ["--site", "Ulm", "--station", "press 3", "--time-zone", "Europe/Berlin"]
    given_ += ["--shift", "early=06:00-14:00@Mon-Fri", "--shift", "night=22:00-06:00", "--ignore-region", "0.8,0,1,0.1"]
    result = run(store, "set", "01", *given_)
    assert result.exit_code == 0, result.output
    assert "01 has no recordings yet" in result.stderr
    listed = run(store, "list").stdout
    for text in (
        "01  Ulm, press 3",
        "Europe/Berlin",
        "early=06:00-14:00@Mon-Fri",
        "night=22:00-06:00\n",
        "0.8,0,1,0.1",
    ):
        assert text in listed
    (row,) = run_query(connect(store), "SELECT * FROM cameras").to_pylist()
    assert row.pop("updated_at") == row.pop("ignore_regions_set_at")
    assert row == {
        "camera": "01",
        "site": "Ulm",
        "station": "press 3",
        "time_zone": "Europe/Berlin",
        "shifts": ["early=06:00-14:00@Mon-Fri", "night=22:00-06:00"],
        "ignore_regions": [0.8, 0.0, 1.0, 0.1],
        "blur_regions": [],
        "blur_regions_set_at": None,
    }


def test_other_regions_say_what_brings_the_hours_up_to_date(fresh: ExportStore) -> None:
    region = ("--ignore-region", "0,0.5,1,1")
    assert "`laps backfill --camera a --only missing`" in run(fresh.store, "set", "a", *region).stdout
    for same in (region, ("--site", "Ulm")):
        assert run(fresh.store, "set", "a", *same).stdout == "camera a is set\n"
    assert "--only missing" in run(fresh.store, "set", "a", "--ignore-region", "").stdout


def test_what_is_not_given_stays_and_an_empty_value_removes(store):
    assert run(store, "set", "a", "--site", "Ulm", "--time-zone", "UTC", "--shift", "day=06:00-18:00").exit_code == 0
    assert run(store, "set", "a", "--station", "3").exit_code == 0
    full = Camera("a", "Ulm", "3", "UTC", (Shift("day", 360, 1080),))
    assert Cameras(store).read("a") == full
    assert run(store, "set", "a", "--shift", "", "--site", "").exit_code == 0
    assert Cameras(store).read("a") == Camera("a", None, "3", "UTC")
    assert Cameras(store).read("b") == Camera("b")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "--time-zone", "Europe/Nowhere"], "is no time zone"),
        (["a", "--shift", "day=06:00-18:00"], "shifts need a time zone"),
        (
            ["a", "--time-zone", "UTC", "--shift", "a=06:00-18:00", "--shift", "b=17:00-19:00"],
            "overlap on Mon at 17:00",
        ),
        (["a", "--ignore-region", "1,1,0,0"], "is no region"),
        (["A/b", "--site", "x"], "cannot be a camera's name"),
        (["a"], "say something about the camera"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(store, arguments, says):
    result = run(store, "set", *arguments)
    assert result.exit_code != 0
    assert says in result.stderr + str(result.exception)
    assert Cameras(store).described() == []


def test_cameras_that_are_set_at_once_do_not_overwrite_each_other(store):
    names = [f"cam{number}" for number in range(8)]
    start = threading.Barrier(len(names))

    def write(name: str) -> None:
        start.wait()
        for site in ("first", "last"):
            Cameras(Store(store.root)).write(Camera(name, site=site))

    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Cameras(store).described() == [Camera(name, site="last") for name in names]
