"""Which hours a weekly draft is made from."""

from __future__ import annotations

from collections import Counter

from laps.timegrid import HOUR_NS, CameraHour, parse_utc
from laps_dagster.weekly import spread

MONDAY = parse_utc("2026-01-05T06:00Z")


def week(camera: str, days: int = 7, hours: int = 10) -> list[CameraHour]:
    return [CameraHour(camera, MONDAY + (day * 24 + hour) * HOUR_NS) for day in range(days) for hour in range(hours)]


def test_few_hours_are_all_used() -> None:
    hours = week("a") + week("b")
    assert spread(hours, 140) == hours


def test_of_many_hours_whole_days_are_left_out_of_each_camera_and_the_last_one_stays() -> None:
    hours = [hour for camera in "abcd" for hour in week(camera)]
    kept = spread(hours, 130)
    assert Counter(hour.camera for hour in kept) == dict.fromkeys("abcd", 30)
    days = {hour.date for hour in kept}
    assert days == {"2026-01-07", "2026-01-09", "2026-01-11"}, "spread over the week"
    assert set(kept) == {hour for hour in hours if hour.date in days}, "whole days"


def test_a_camera_with_few_hours_is_not_lost_among_many() -> None:
    hours = [hour for camera in "abcd" for hour in week(camera)] + week("new", days=1, hours=2)
    kept = Counter(hour.camera for hour in spread(hours, 20))
    assert kept == {**dict.fromkeys("abcd", 10), "new": 2}


def test_a_day_that_has_only_begun_does_not_stand_for_the_others() -> None:
    night = [CameraHour(camera, MONDAY + (7 * 24 - 6 + hour) * HOUR_NS) for camera in "abcd" for hour in range(4)]
    kept = spread([hour for camera in "abcd" for hour in week(camera)] + night, 40)
    assert {hour.date for hour in kept} == {"2026-01-11"} and len(kept) == 40
