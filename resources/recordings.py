"""Recordings: video files where they lie, and the register of those that were offered.

Files are never copied. The register is the table ``recordings``: one small Parquet file for each recording, so
that two ingestions never overwrite each other's rows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from laps.errors import InputError, LapsError
from laps.tables import RECORDINGS
from laps.timegrid import CameraHour, check_camera, from_datetime, hours_between
from resources.settings import first_hour_ns
from resources.store import Store, rows_table

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp",
)  # fmt: skip


def landing_root(landing: str | None = None) -> str:
    """The landing zone: the argument, else ``LAPS_LANDING``, else ``./.laps/landing``."""
    chosen = landing or os.environ.get("LAPS_LANDING") or ".laps/landing"
    return chosen.rstrip("/") if "://" in chosen else str(Path(chosen).expanduser().absolute())


def open_uri(uri: str) -> BinaryIO:
    """Open a path or URL for reading with seeks; the caller closes it."""
    if "://" not in uri:
        return Path(uri).open("rb")
    import fsspec

    # Demuxers read forwards with a few jumps: whole blocks ahead keep the number of requests small.
    return fsspec.open(uri, "rb", cache_type="readahead", block_size=8 * 2**20).open()


@dataclass(frozen=True)
class FileInfo:
    """Size, modification time and change marker of a file that may lie anywhere."""

    uri: str
    size_bytes: int
    modified_ns: int | None
    etag: str | None


def file_info(uri: str) -> FileInfo:
    """Look at a path or URL without opening it; InputError when there is no such file."""
    if "://" not in uri:
        path = Path(uri).expanduser().absolute()
        try:
            stat = path.stat()
        except FileNotFoundError as error:
            raise InputError("there is no such file", where=str(path)) from error
        except OSError as error:
            raise InputError(f"cannot be looked at: {error.strerror}", where=str(path)) from error
        if not path.is_file():
            raise InputError("is no file", where=str(path))
        return FileInfo(str(path), stat.st_size, stat.st_mtime_ns, None)
    import fsspec

    fs, path_there = fsspec.core.url_to_fs(uri)
    try:
        info = fs.info(path_there)
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=uri) from error
    when = info.get("LastModified")
    modified = from_datetime(when) if isinstance(when, datetime) else None
    return FileInfo(uri, int(info["size"]), modified, str(info["ETag"]).strip('"') if "ETag" in info else None)


class Recordings:
    """The register of recordings of a store, and the landing zone that it is fed from."""

    def __init__(self, store: Store, landing: str | None = None) -> None:
        self.store = store
        self.landing = landing_root(landing)

    # --- the register ------------------------------------------------------------------------------------------

    def register(self, uri: str, camera: str, start_ns: int | None = None) -> dict[str, Any]:
        """Register one file for a camera and return its row; a file that cannot be used is quarantined.

        The same file offered again keeps its first row, unless that was quarantined: then it is tried anew.
        """
        from laps.recordings import registration_row

        check_camera(camera)
        info = file_info(uri)
        with open_uri(info.uri) as file:
            row = registration_row(
                file,
                camera=camera,
                uri=info.uri,
                size_bytes=info.size_bytes,
                modified_ns=info.modified_ns,
                etag=info.etag,
                registered_ns=from_datetime(datetime.now(UTC)),
                option_ns=start_ns,
                sidecar=self._sidecar(info.uri),
                first_hour_ns=first_hour_ns(self.store.root),
            )
        path = self.row_path(camera, row["recording_id"])
        if self.store.exists(path):
            known = self.store.read_table(RECORDINGS, path).to_pylist()[0]
            if known["status"] == "ok" and (start_ns is None or known["start_time"] == row["start_time"]):
                return dict(known)
        self.store.write_table(RECORDINGS, path, rows_table(RECORDINGS, [row]))
        return row

    def row_path(self, camera: str, recording_id: str) -> str:
        """Where a recording's row lies in the store."""
        return f"{RECORDINGS.name}/camera={camera}/{recording_id}.parquet"

    def of_camera(self, camera: str) -> list[dict[str, Any]]:
        """All registered recordings of a camera, by start time."""
        rows = []
        for path in self.store.files(f"{RECORDINGS.name}/camera={camera}", ".parquet"):
            rows += self.store.read_table(RECORDINGS, path).to_pylist()
        return sorted(rows, key=lambda row: (row["start_time"] is None, row["start_time"], row["uri"]))

    def cameras(self) -> list[str]:
        """Cameras with at least one recording that is not quarantined."""
        cameras = {path.split("/")[1].removeprefix("camera=") for path in self.store.files(RECORDINGS.name)}
        return sorted(c for c in cameras if any(row["status"] == "ok" for row in self.of_camera(c)))

    def hours(self, camera: str) -> list[CameraHour]:
        """The hours that a camera's usable recordings claim to touch."""
        hours: set[CameraHour] = set()
        for row in self.of_camera(camera):
            if row["status"] == "ok":
                start, stop = from_datetime(row["start_time"]), from_datetime(row["end_time"])
                hours.update(hours_between(camera, start, max(stop, start + 1)))
        return sorted(hours)

    # --- the landing zone --------------------------------------------------------------------------------------

    def landed(self) -> Iterator[tuple[str, str]]:
        """Camera and URI of every video file in ``<landing>/<camera>/…``, in order."""
        import fsspec

        fs, base = fsspec.core.url_to_fs(self.landing)
        if not fs.exists(base):
            return
        prefix = self.landing.split("://")[0] + "://" if "://" in self.landing else ""
        for path in sorted(fs.find(base)):
            camera, _, rest = path.removeprefix(base.rstrip("/") + "/").partition("/")
            if rest and rest.lower().endswith(VIDEO_SUFFIXES) and not rest.split("/")[-1].startswith("."):
                yield camera, f"{prefix}{path}"

    def scan(self) -> Iterator[dict[str, Any] | LapsError]:
        """Register every file of the landing zone; a folder that cannot be a camera gives its error instead."""
        for camera, uri in self.landed():
            try:
                yield self.register(uri, camera)
            except LapsError as error:
                yield error

    def _sidecar(self, uri: str) -> str | None:
        """Text of the JSON file beside a recording, where there is one."""
        from laps.recordings import sidecar_names

        for name in sidecar_names(uri):
            try:
                with open_uri(name) as file, io.TextIOWrapper(file, encoding="utf-8") as text:
                    return text.read()
            except FileNotFoundError:
                continue
        return None
