"""Which hours are missing, or older than what they are made from.

As `make` does: by the times at which files were written. It decides only what is worth running again; whether rows
of different models would mix is never judged by time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from laps.timegrid import NS_PER_S, CameraHour, from_datetime, hours_between
from resources.recordings import Recordings
from resources.store import Store

# An hour's first window and the frame shown there reach less than 2 s back, and a container may claim 5 s too little.
_PREROLL_NS = 7 * NS_PER_S


class Freshness:
    """The writing times of a store's files, read once for each folder that is asked for.

    Args:
        store: the store.
        by_day: list only the folders that are asked for, such as days and cameras' parts of the register, and not
            whole tables: for a few hours of a large store.
    """

    def __init__(self, store: Store, *, by_day: bool = False) -> None:
        self.store = store
        self.by_day = by_day
        self._folders: dict[str, dict[str, float]] = {}

    def written(self, path: str) -> float | None:
        """When a file was written, in seconds since the epoch; None when it is not there."""
        day, hour, _ = path.partition("/hour=")
        folder = path.split("/", 1)[0]
        if self.by_day:
            folder = day if hour else path.rpartition("/")[0]
        if folder not in self._folders:
            self._folders[folder] = self.store.modified(folder)
        return self._folders[folder].get(path)

    def out_of_date(
        self,
        hours: Iterable[CameraHour],
        result: Callable[[CameraHour], str],
        inputs: Callable[[CameraHour], Iterable[str]],
    ) -> list[CameraHour]:
        """The hours whose result is missing or older than one of its inputs.

        Args:
            hours: hours to look at.
            result: path of an hour's result.
            inputs: paths that an hour is made from; such as are not there do not count.
        """
        stale = []
        for hour in hours:
            made = self.written(result(hour))
            needed = [when for path in inputs(hour) if (when := self.written(path)) is not None]
            if made is None or any(when > made for when in needed):
                stale.append(hour)
        return stale


def touched_hours(camera: str, start_ns: int, stop_ns: int) -> Iterator[CameraHour]:
    """The hours that are made from a recording: those that it covers, and one whose pre-roll it may fill."""
    return hours_between(camera, start_ns, max(stop_ns, start_ns + 1) + _PREROLL_NS)


def hours_from(camera: str, row: Mapping[str, Any]) -> Iterator[CameraHour]:
    """The hours that are made from a recording, by its row in the register; also those that it was taken away from."""
    if row["status"] in ("ok", "superseded"):
        yield from touched_hours(camera, from_datetime(row["start_time"]), from_datetime(row["end_time"]))


def registrations(recordings: Recordings, cameras: Iterable[str]) -> dict[CameraHour, list[str]]:
    """Paths of the register's rows for the recordings that touch each hour."""
    touching: dict[CameraHour, list[str]] = {}
    for camera in cameras:
        for row in recordings.of_camera(camera, columns=["recording_id"]):
            path = recordings.row_path(camera, row["recording_id"])
            for hour in hours_from(camera, row):
                touching.setdefault(hour, []).append(path)
    return touching
