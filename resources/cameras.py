"""The cameras as people describe them: one small file for each in the store.

Two people who set different cameras at once do not meet. Of two who set the same camera at once the later one wins,
whole: its file is replaced in one step.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from laps.cameras import Camera, parse_shift
from laps.errors import NotProcessedError
from laps.tables import CAMERAS
from laps.timegrid import check_camera
from resources.store import PART, Store, rows_table

# The two kinds of regions of a picture, by the names of their columns.
IGNORE, BLUR = "ignore_regions", "blur_regions"


class Cameras:
    """Read and write the table ``cameras``.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def path(self, camera: str) -> str:
        """Where a camera's file lies, below the root; InputError when the name cannot be a camera's."""
        return f"{CAMERAS.name}/camera={check_camera(camera)}/{PART}"

    def read(self, camera: str) -> Camera:
        """The camera; one of which nothing is known when nobody described it."""
        row = self._row(camera)
        return Camera(camera) if row is None else _camera(row)

    def regions_set_at(self, camera: str, kind: str = IGNORE) -> datetime | None:
        """When the camera's regions of a kind last changed, UTC; None where it never had any."""
        return _regions_set_at(self._row(camera), kind)

    def write(self, camera: Camera) -> None:
        """Store what is known of a camera, in place of what was."""
        now = datetime.now(UTC)
        before = self._row(camera.name)
        former = _camera(before) if before else Camera(camera.name)

        def set_at(kind: str) -> datetime | None:
            same = getattr(camera, kind) == getattr(former, kind)
            return _regions_set_at(before, kind) if same else now

        row = {
            "camera": camera.name,
            "site": camera.site,
            "station": camera.station,
            "time_zone": camera.time_zone,
            "shifts": [str(shift) for shift in camera.shifts],
            "ignore_regions": [share for region in camera.ignore_regions for share in region],
            "ignore_regions_set_at": set_at(IGNORE),
            "blur_regions": [share for region in camera.blur_regions for share in region],
            "blur_regions_set_at": set_at(BLUR),
            "updated_at": now,
        }
        self.store.write_table(CAMERAS, self.path(camera.name), rows_table(CAMERAS, [row]))

    def described(self) -> list[Camera]:
        """The cameras that somebody described, by name."""
        names = {path.split("/")[1].removeprefix("camera=") for path in self.store.files(CAMERAS.name, PART)}
        return [self.read(name) for name in sorted(names)]

    def _row(self, camera: str) -> dict[str, Any] | None:
        try:
            (row,) = self.store.read_table(CAMERAS, self.path(camera)).to_pylist()
        except NotProcessedError:
            return None
        return dict(row)


def _regions_set_at(row: dict[str, Any] | None, kind: str) -> datetime | None:
    """Of a row; one that is older than this column may have got its regions whenever it was written."""
    if row is None:
        return None
    return row[f"{kind}_set_at"] or (row["updated_at"] if row[kind] else None)


def _regions(shares: list[float] | None) -> tuple[tuple[float, float, float, float], ...]:
    return tuple(zip(*[iter(shares or [])] * 4, strict=True))


def _camera(row: dict[str, Any]) -> Camera:
    return Camera(
        name=row["camera"],
        site=row["site"],
        station=row["station"],
        time_zone=row["time_zone"],
        shifts=tuple(parse_shift(shift) for shift in row["shifts"] or ()),
        ignore_regions=_regions(row[IGNORE]),
        blur_regions=_regions(row[BLUR]),
    )
