"""The times of cameras that were forgotten: one small file for each in the store.

What is put on record here is never used again, by whatever run, whoever asks: ``raw_video`` leaves its footage out, and
an import its rows. Nobody takes a time off the record again; the files of a store belong to those who run it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from laps.forgotten import Forgotten
from laps.tables import FORGOTTEN
from laps.timegrid import CameraHour, from_datetime, to_datetime
from resources.store import Store, rows_table


class ForgottenTimes:
    """Read and write the table ``forgotten``.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._by_camera: dict[str, list[Forgotten]] = {}

    def path(self, one: Forgotten) -> str:
        """Where a time is on record, below the store's root."""
        start, stop = (f"{to_datetime(time_ns):%Y%m%dT%H%M%S.%fZ}" for time_ns in (one.start_ns, one.stop_ns))
        return f"{FORGOTTEN.name}/camera={one.camera}/{start}-{stop}.parquet"

    def of_camera(self, camera: str) -> list[Forgotten]:
        """The camera's times that were forgotten, in order; read once."""
        if camera not in self._by_camera:
            paths = self.store.files(f"{FORGOTTEN.name}/camera={camera}", ".parquet")
            rows = [row for file in self.store.read_tables(FORGOTTEN, paths) for row in file.to_pylist()]
            self._by_camera[camera] = sorted(
                Forgotten(camera, from_datetime(row["start_time"]), from_datetime(row["end_time"]), row["reason"])
                for row in rows
            )
        return self._by_camera[camera]

    def put(self, one: Forgotten, *, removed: bool) -> None:
        """Put a time on record; one that is there keeps when it was forgotten, and its reason unless another is given.

        What is on record as it should be is not written again: hours that are up to date would look old. Where a
        removal begins or ends it is, and hours that were made in between are made once more.

        Args:
            one: the time.
            removed: whether all that was made of it is removed by now.
        """
        path = self.path(one)
        before: dict[str, Any] = {"forgotten_at": datetime.now(UTC), "reason": None, "removed_at": None}
        if self.store.exists(path):
            (before,) = self.store.read_table(FORGOTTEN, path).to_pylist()
            if one.reason in (None, before["reason"]) and removed == (before["removed_at"] is not None):
                return
        row = {
            "camera": one.camera,
            "start_time": to_datetime(one.start_ns),
            "end_time": to_datetime(one.stop_ns),
            "reason": before["reason"] if one.reason is None else one.reason,
            "forgotten_at": before["forgotten_at"],
            "removed_at": (before["removed_at"] or datetime.now(UTC)) if removed else None,
        }
        self.store.write_table(FORGOTTEN, path, rows_table(FORGOTTEN, [row]))
        self._by_camera.pop(one.camera, None)

    def removed_s(self, one: Forgotten) -> float | None:
        """When the record of a time was written, seconds since the epoch; None unless it says that all was removed."""
        path = self.path(one)
        if not self.store.exists(path):
            return None
        (row,) = self.store.read_table(FORGOTTEN, path, ["removed_at"]).to_pylist()
        return None if row["removed_at"] is None else self.store.modified(path)[path]

    def paths_touching(self, hour: CameraHour) -> list[str]:
        """Where the times are on record that an hour is made without, or from which its pre-roll may come."""
        return [self.path(one) for one in self.of_camera(hour.camera) if hour in one.hours()]
