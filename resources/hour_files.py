"""Which files of a store belong to a camera hour, and which compacted copies hold rows of its month.

Clips have folders of their own, ``clip_files/release=<name>/camera=…/date=…/hour=…/<segment_id>.mp4``: whoever lists
the table `clips` lists its few Parquet files, and not the clips of a year. In stores of earlier versions they lie
beside the Parquet file; the table's ``clip_path`` says of each where it is, and an hour that is cut again moves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from laps.compaction import FOLDER, folders_of
from laps.tables import CLIPS, Table
from laps.timegrid import CameraHour, parse_hour
from resources.store import Store, hour_folder

CLIP_FILES = "clip_files"


def clip_folder(hour: CameraHour, release: str) -> str:
    """The folder of the clips of an hour, below the store's root."""
    return f"{clip_files_path(release)}/{hour_folder(hour)}"


def clip_files_path(release: str) -> str:
    """The folder of all clips of a release."""
    return f"{CLIP_FILES}/release={release}"


def roots_of(table: Table) -> tuple[str, ...]:
    """The folders of a table: that of its rows, and that of the files which they name, where there are such."""
    return (table.name, CLIP_FILES) if table is CLIPS else (table.name,)


def files_of_hours(store: Store, table: Table, hours: Collection[CameraHour]) -> dict[CameraHour, list[str]]:
    """The files of a table in some hours, also what killed runs left, for all models; only their days are listed."""
    days = sorted({hour_folder(hour).rpartition("/")[0] for hour in hours})
    found: dict[CameraHour, list[str]] = {}
    for root in roots_of(table):
        parts = [root] if table.model_level is None else [f"{root}/{model}" for model in store.folders(root)]
        for path in (path for part in parts for day in days for path in sorted(store.listing(f"{part}/{day}"))):
            hour = hour_of(path)
            if hour is not None and hour in hours:
                found.setdefault(hour, []).append(path)
    return found


def days_of(store: Store, root: str) -> Iterator[tuple[str, CameraHour]]:
    """The folders of days below a folder of an hour table, for all models, and the first hour of each day.

    What the days hold is not listed: a year of clips is millions of files.
    """
    for name in store.folders(root):
        folder = f"{root}/{name}"
        if name.startswith("date="):
            names = folders_of(folder)
            yield folder, CameraHour(names["camera"], parse_hour(f"{names['date']}-00:00"))
        elif "=" in name:
            yield from days_of(store, folder)


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
