"""The times of cameras that were forgotten: one small file for each in the store.

What is put on record here is never used again, by whatever run, whoever asks: ``raw_video`` leaves its footage out, and
an import its rows. Nobody takes a time off the record again; the files of a store belong to those who run it.
"""

from __future__ import annotations

from datetime import UTC, datetime

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

    def put(self, one: Forgotten) -> None:
        """Put a time on record; one that is there keeps when it was forgotten, and its reason unless another is given.

        Written again, it would make hours that are up to date look old.
        """
        path = self.path(one)
        if self.store.exists(path):
            (before,) = self.store.read_table(FORGOTTEN, path).to_pylist()
            if one.reason in (None, before["reason"]):
                return
            forgotten_at = before["forgotten_at"]
        else:
            forgotten_at = datetime.now(UTC)
        row = {
            "camera": one.camera,
            "start_time": to_datetime(one.start_ns),
            "end_time": to_datetime(one.stop_ns),
            "reason": one.reason,
            "forgotten_at": forgotten_at,
        }
        self.store.write_table(FORGOTTEN, path, rows_table(FORGOTTEN, [row]))
        self._by_camera.pop(one.camera, None)

    def paths_touching(self, hour: CameraHour) -> list[str]:
        """Where the times are on record that an hour is made without, or from which its pre-roll may come."""
        return [self.path(one) for one in self.of_camera(hour.camera) if hour in one.hours()]
