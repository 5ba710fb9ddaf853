"""A camera's earlier hours, as far as they tell what is usual: how much was filmed, how many primitives there were.

Every figure is read from the tables themselves, so that it is right for a new Dagster instance too. At most
:data:`laps.vitals.HISTORY_HOURS` hours are read, two small columns of each.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from laps.compaction import COPIES, SOURCE
from laps.tables import LATENT_STREAM, RAW_VIDEO, SEGMENTS
from laps.timegrid import HOUR_NS, CameraHour, SampleGrid, from_datetime, to_datetime
from laps.vitals import HISTORY_DAYS, HISTORY_HOURS, LEAST_MINUTES
from resources.cameras import Cameras
from resources.copies import at_once, copy_folder, read_manifests, rows_of_copy, source_marks
from resources.store import PART, Store, hour_folder

_DAY_NS = 24 * HOUR_NS
_WEEKS = 4
_SHARE_COLUMNS = ["used", "start_time", "end_time"]


def footage_share(store: Store, hour: CameraHour) -> float:
    """The share of a described hour that has footage, 0 to 1."""
    return _share(hour, store.read_partition(RAW_VIDEO, hour, columns=_SHARE_COLUMNS).to_pylist())


def footage_shares(store: Store, hours: Iterable[CameraHour]) -> dict[CameraHour, float]:
    """:func:`footage_share` of many described hours: a year's from a few compacted copies where these hold them."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    wanted = {f"{hour_folder(hour)}/{PART}": hour for hour in hours}
    if not wanted:
        return {}
    copy = COPIES[RAW_VIDEO.name]
    folder = copy_folder(copy, None)
    marks = source_marks(store, copy, None, {RAW_VIDEO.name: store.partition_marks(RAW_VIDEO)})
    schema = pa.schema([*(RAW_VIDEO.schema().field(name) for name in _SHARE_COLUMNS), (SOURCE.name, pa.string())])
    shares: dict[CameraHour, float] = {}
    for group, manifest in read_manifests(store, [folder])[folder].items():
        held = [source for source, of in manifest.sources.items() if source in wanted and marks.get(source) == of]
        if not held or manifest.version != copy.version:
            continue
        rows = rows_of_copy(store, f"{folder}/{group}", manifest, schema, ds.field(SOURCE.name).isin(held))
        if rows is None:
            continue
        of_source: dict[str, list[dict[str, Any]]] = {source: [] for source in held}
        for row in rows.to_pylist():
            of_source[row[SOURCE.name]].append(row)
        shares |= {wanted[source]: _share(wanted[source], some) for source, some in of_source.items()}
    rest = [hour for hour in wanted.values() if hour not in shares]
    return shares | dict(zip(rest, at_once(store, lambda hour: footage_share(store, hour), rest), strict=True))


def _share(hour: CameraHour, rows: Iterable[dict[str, Any]]) -> float:
    total = 0
    for row in rows:
        if row["used"]:
            begin, end = from_datetime(row["start_time"]), from_datetime(row["end_time"])
            total += max(0, min(end, hour.stop_ns) - max(begin, hour.start_ns))
    return total / HOUR_NS


def same_hour_earlier(store: Store, hour: CameraHour, days: Sequence[int]) -> list[CameraHour]:
    """The hours that stood on the wall clock as this one does, so many days before.

    By the camera's time zone, else that of the schedules: who works at six does so too when the clocks have changed.
    """
    zone = ZoneInfo(Cameras(store).read(hour.camera).time_zone or os.environ.get("LAPS_SCHEDULE_ZONE") or "UTC")
    local = to_datetime(hour.start_ns).astimezone(zone)
    starts = [from_datetime(local - timedelta(days=day)) for day in days]  # of the wall clock: the zone does not count
    return [CameraHour(hour.camera, start_ns // HOUR_NS * HOUR_NS) for start_ns in starts]


def same_hour_shares(store: Store, hour: CameraHour) -> tuple[list[float], list[float]]:
    """The footage of the same local hour on the last days, and on the same weekday of the last weeks.

    A day on which the camera filmed, and not in this hour, counts with 0; one on which it did not film at all is left
    out, as a holiday.
    """
    filmed = set(store.folders(f"{RAW_VIDEO.name}/camera={hour.camera}"))

    lately, weekly = range(1, HISTORY_DAYS + 1), [7 * week for week in range(1, _WEEKS + 1)]
    days = sorted({*lately, *weekly})
    shares = {
        day: footage_share(store, one) if store.has_partition(RAW_VIDEO, one) else 0.0
        for day, one in zip(days, same_hour_earlier(store, hour, days), strict=True)
        if f"date={one.date}" in filmed
    }
    of_days, of_weeks = ([shares[day] for day in some if day in shares] for some in (lately, weekly))
    return of_days, of_weeks


def earlier_hours(store: Store, hour: CameraHour, release: str, same_hour: Collection[CameraHour]) -> list[CameraHour]:
    """Hours of the last two weeks that were cut in a release, the latest last.

    Those of the same local hour, and others drawn from all of the time. Drawn by the hour's name, so that the same hour
    is judged by the same ones; every n-th would be the same few hours of each day.

    Args:
        store: the store.
        hour: the hour that is judged.
        release: the release.
        same_hour: :func:`same_hour_earlier` of these days.
    """
    folder = f"{store.table_path(SEGMENTS, release)}/camera={hour.camera}"
    days = [CameraHour(hour.camera, hour.hour_ns - day * _DAY_NS).date for day in range(HISTORY_DAYS, -1, -1)]
    known = set(store.folders(folder))
    found = [
        one
        for date in days
        if f"date={date}" in known
        for name in store.folders(f"{folder}/date={date}")
        if (one := CameraHour.parse(f"{hour.camera}|{date}-{name.removeprefix('hour=')}:00")) < hour
    ]
    same = set(same_hour) & set(found)
    others = [one for one in found if one not in same]
    drawn = random.Random(hour.key).sample(others, min(len(others), HISTORY_HOURS - len(same)))
    return sorted([*same, *drawn])


def rate_of(store: Store, hour: CameraHour, release: str, tokenizer: str, grid: SampleGrid) -> tuple[int, float]:
    """The number of primitives of an hour, and the minutes of it that have codes."""
    codes = store.read_partition(LATENT_STREAM, hour, tokenizer, columns=["code"])["code"]
    return store.partition_rows(SEGMENTS, hour, release), (len(codes) - codes.null_count) * grid.step_s / 60


def usual_rates(
    store: Store, hour: CameraHour, release: str, tokenizer: str, grid: SampleGrid
) -> tuple[list[float], list[float]]:
    """Primitives a minute of the camera's earlier hours, and of those among them at the same local hour of the day.

    Hours with hardly any codes are left out.
    """
    rates: dict[CameraHour, float] = {}
    same = set(same_hour_earlier(store, hour, range(1, HISTORY_DAYS + 1)))
    for one in earlier_hours(store, hour, release, same):
        if store.has_partition(LATENT_STREAM, one, tokenizer) and store.has_partition(SEGMENTS, one, release):
            count, minutes = rate_of(store, one, release, tokenizer, grid)
            if minutes >= LEAST_MINUTES:
                rates[one] = count / minutes
    return list(rates.values()), [rate for one, rate in rates.items() if one in same]
