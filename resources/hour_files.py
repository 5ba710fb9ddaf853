"""Which files of a store belong to a camera hour, and which compacted copies hold rows of its month."""

from __future__ import annotations

from collections.abc import Collection

from laps.compaction import FOLDER, folders_of
from laps.timegrid import CameraHour, parse_hour
from resources.store import Store


def hour_of(path: str) -> CameraHour | None:
    """The camera hour of a file of an hour table; None where it is of none."""
    folders = folders_of(path.rpartition("/")[0])
    if "hour" not in folders:
        return None
    return CameraHour(folders["camera"], parse_hour(f"{folders['date']}-{folders['hour']}:00"))


def month_of(hour: CameraHour) -> tuple[str, str]:
    """The camera and month (YYYY-MM) in whose compacted copies an hour's rows are."""
    return hour.camera, hour.date[:7]


def copies_of(store: Store, months: Collection[tuple[str, str]]) -> dict[str, float]:
    """The files of the compacted copies of cameras' months, and when they were written, seconds since the epoch.

    Those that name the others come first: what none of them names is not read.
    """
    found = {}
    for path, written_s in store.modified(FOLDER).items():
        folders = folders_of(path.rpartition("/")[0])
        if (folders.get("camera"), folders.get("month")) in months:
            found[path] = written_s
    return dict(sorted(found.items(), key=lambda item: (not item[0].endswith(".json"), item[0])))
