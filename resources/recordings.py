"""Recordings: video files where they lie, and the register of those that were offered.

Files are never copied. The register is the table ``recordings``: one small Parquet file for each uri of a camera, so
that two ingestions never overwrite each other's rows. Such a file holds one row that counts, and before it the rows
that stood there until the video or its start was corrected, or a person quarantined it.

A year of short files is tens of thousands of rows for a camera. They are read from the compacted copy of the table
(:mod:`resources.copies`) where they have not changed since, which the listing tells, and from their own files else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from laps.compaction import COPIES, SOURCE
from laps.errors import InputError, LapsError, MediaError, NotProcessedError, StoreError, UnreachableError
from laps.tables import RECORDINGS
from laps.timegrid import (
    NS_PER_S,
    CameraHour,
    check_camera,
    format_utc,
    from_datetime,
    hours_between,
    now_ns,
    to_datetime,
)
from resources.apart import APART
from resources.copies import MANIFEST, copy_folder, read_manifest, rows_of_copy
from resources.settings import SETTINGS, first_hour_ns
from resources.store import Store, file_system, reason, rows_table, store_root
from resources.urls import refuse_credentials

if TYPE_CHECKING:
    import pyarrow as pa

    from laps.recordings import Sidecar

# The blocks in which a URL is read: by a decoder, which goes from one end to the other, and by a look at both ends.
BLOCK_BYTES = 8 * 2**20
LOOK_BYTES = 2**19

# Why a row that was used before `laps quarantine` is superseded.
_SET_ASIDE = "quarantined by a person (laps quarantine)"

# Later than anything.
_NEVER_NS = 2**63

# Rows of the register that are read at once.
_ROWS_AT_ONCE = 500

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp",
)  # fmt: skip


def landing_root(landing: str | None = None) -> str:
    """The landing zone: the argument, else ``LAPS_LANDING``, else ``./.laps/landing``."""
    return store_root(landing or os.environ.get("LAPS_LANDING") or ".laps/landing")


def open_uri(uri: str, block_bytes: int = BLOCK_BYTES) -> BinaryIO:
    """Open a path or URL for reading with seeks, a URL by blocks of ``block_bytes``; the caller closes it.

    See :mod:`resources.read_ahead`: up to five blocks are in memory.
    """
    if "://" not in uri:
        return Path(uri).open("rb")
    from resources.read_ahead import ReadAhead

    fs, path = file_system(uri)
    return fs.open(path, "rb", cache_type=ReadAhead.name, block_size=block_bytes)


@dataclass(frozen=True)
class FileInfo:
    """Size, modification time and change marker of a file that may lie anywhere."""

    uri: str
    size_bytes: int
    modified_ns: int | None
    etag: str | None


@dataclass(frozen=True)
class Landed:
    """A video file in the landing zone.

    Attributes:
        camera: the camera in whose folder it lies; empty where it lies in none.
        uri: its path or URL.
        marker: changes when the file or its sidecar does: size and modification time, or the store's etag.
        sidecars: URLs of the JSON files beside it that may be its sidecar; None on a disk, where looking costs nothing.
        modified_ns: when it last changed, where the listing tells.
    """

    camera: str
    uri: str
    marker: str
    sidecars: tuple[str, ...] | None = None
    modified_ns: int | None = None


def full_uri(uri: str) -> str:
    """How the register names a path or URL, whether or not something lies there; InputError where that cannot be."""
    refuse_credentials(uri)
    try:
        uri.encode()
    except UnicodeEncodeError as error:
        raise InputError("its name is not UTF-8", where=ascii(uri), fix="Give the file another name.") from error
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def file_info(uri: str) -> FileInfo:
    """Look at a path or URL without opening it.

    Raises:
        InputError: there is no such file, it is forbidden, or the URL holds credentials.
        UnreachableError: the object storage cannot be asked.
    """
    uri = full_uri(uri)
    if "://" not in uri:
        path = Path(uri)
        try:
            stat = path.stat()
        except FileNotFoundError as error:
            raise InputError("there is no such file", where=str(path)) from error
        except OSError as error:
            raise InputError(f"cannot be looked at: {error.strerror}", where=str(path)) from error
        if not path.is_file():
            raise InputError("is no file", where=str(path))
        return FileInfo(str(path), stat.st_size, stat.st_mtime_ns, None)
    fs, path_there = file_system(uri)
    try:
        info = fs.info(path_there)
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=uri) from error
    except PermissionError as error:
        raise _unreadable(uri, error) from error
    except OSError as error:
        raise _unreachable(uri, error) from error
    when = info.get("LastModified")
    modified = from_datetime(when) if isinstance(when, datetime) else None
    return FileInfo(uri, int(info["size"]), modified, str(info["ETag"]).strip('"') if "ETag" in info else None)


class Recordings:
    """The register of recordings of a store, and the landing zone that it is fed from."""

    def __init__(self, store: Store, landing: str | None = None) -> None:
        self.store = store
        self.landing = landing_root(landing)

    # --- the register ------------------------------------------------------------------------------------------

    def register(
        self, uri: str, camera: str, start_ns: int | None = None, *, sidecars: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Register one file for a camera and return its row; a file that cannot be used is quarantined.

        The same file offered again keeps its row. When its start has been corrected (another ``start_ns``, sidecar or
        name), or the file was changed, the new row takes the place of the old one, which becomes ``superseded``.
        A ``start_ns`` that was once given stands until another is given, as long as the file keeps its size. What a
        person quarantined stays so, whoever offers it, until the file changes: another size, time or etag.

        Args:
            uri: path or URL of the file.
            camera: the camera that filmed it.
            start_ns: its start, where a person gives it, nanoseconds since the epoch.
            sidecars: the files beside it that may be its sidecar, where a listing has shown which there are.

        Raises:
            InputError: there is no such file, it or its sidecar cannot be opened, or the camera's name is no name.
            UnreachableError: the object storage that it lies in does not answer.
        """
        check_camera(camera)
        info = file_info(uri)
        before = self.rows_of(camera, info.uri)
        set_aside = next(filter(by_person, before), None)
        if set_aside and set_aside["recording_id"] == _id_of(camera, info):
            return set_aside
        sidecar = self._sidecar(info.uri, sidecars)
        current = next((row for row in before if row["status"] == "ok"), None)
        known = current or set_aside
        if start_ns is None and known and known["start_source"] == "option":
            # Whoever touches or moves back a file gives no new start; a file of another size is another recording.
            start_ns = from_datetime(known["start_time"]) if known["size_bytes"] == info.size_bytes else None
        offered = {
            "camera": camera,
            "uri": info.uri,
            "size_bytes": info.size_bytes,
            "modified_ns": info.modified_ns,
            "etag": info.etag,
            "registered_ns": now_ns(),
            "option_ns": start_ns,
            "sidecar": sidecar,
            "first_hour_ns": first_hour_ns(self.store.root),
            "first_hour_file": self.store.url(SETTINGS),
        }
        try:
            row = _registration_row(offered)
        except OSError as error:
            raise unreadable(info.uri, error) from error
        if current and current["recording_id"] == row["recording_id"]:
            # Nothing that was said before is taken back by silence, for example a sidecar that is gone.
            silent = row["start_time"] is None and sidecar is None
            if silent or row["start_time"] == current["start_time"]:
                return current
        same = next((old for old in before if old["status"] == "quarantined" and _same_footage(old, row)), None)
        if same and row["status"] == "quarantined":
            # It was told of when it came, and is no other file because somebody looks again.
            row["registered_at"] = same["registered_at"]
            if row == same:
                return same
        rows = [old for old in before if old["status"] == "superseded"]
        if current:
            rows.append({**current, "status": "superseded", "reason": _superseded_by(row)})
        # Corrected there and back: the start that is right again is no longer superseded.
        self._write([*(old for old in rows if not _same_footage(old, row)), row])
        return row

    def quarantine(self, uri: str, camera: str, reason: str) -> dict[str, Any]:
        """Use a registered file no more, for a person's reason; its row. The file may be gone: it is not looked at.

        The row that was ``ok`` becomes ``superseded``, as that of a corrected file does, so the hours that were made
        from it are out of date.

        Raises:
            InputError: the file is not in the register, or there is no reason.
        """
        if not reason.strip():
            raise InputError("is no reason", where=repr(reason), fix="Say why the file is not to be used.")
        rows = self.rows_of(check_camera(camera), full_uri(uri))
        current = next((row for row in rows if row["status"] != "superseded"), None)
        if current is None:
            raise self._not_registered(uri, camera)
        others = [row for row in rows if row is not current]
        if current["status"] == "ok":
            others.append({**current, "status": "superseded", "reason": _SET_ASIDE})
        elif not by_person(current):
            reason = f"{reason} (before: {current['reason']})"
        elif reason == current["reason"]:
            return current  # written once more, its hours would look out of date
        row = {**current, "status": "quarantined", "reason": reason, "quarantined_at": to_datetime(now_ns())}
        self._write([*others, row])
        return row

    def lift(self, uri: str, camera: str) -> dict[str, Any]:
        """Take back what :meth:`quarantine` said; the row that counts then.

        What was used before is used again as it was, without a look at it. Another file is looked at as a new one is.

        Raises:
            InputError: no person quarantined the file; or it was never used, and there is none to look at.
            UnreachableError: it was never used, and the object storage that it lies in does not answer.
        """
        rows = self.rows_of(check_camera(camera), full_uri(uri))
        if not rows:
            raise self._not_registered(uri, camera)
        set_aside = next(filter(by_person, rows), None)
        if set_aside is None:
            raise InputError(
                "no person quarantined this file, so there is nothing to take back",
                where=uri,
                fix="`laps status` says how it stands; `laps ingest FILE --camera NAME` offers it again.",
            )
        used = next((row for row in rows if row is not set_aside and _same_footage(row, set_aside)), None)
        others = [row for row in rows if row not in (set_aside, used)]
        if used is not None:
            row = {**used, "status": "ok", "reason": None}
            self._write([*others, row])
            return row
        file_info(uri)  # before anything is written
        self._write([*others, {**set_aside, "quarantined_at": None}])
        return self.register(uri, camera)

    def row_path(self, camera: str, recording_id: str) -> str:
        """Where a recording's row lies in the store, together with those of other versions of the file."""
        return f"{RECORDINGS.name}/camera={camera}/{recording_id.partition('-')[0]}.parquet"

    def of_camera(
        self, camera: str, *, touching: tuple[int, int] | None = None, columns: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """The registered recordings of a camera, by start time; rows of every status.

        Args:
            camera: the camera.
            touching: only recordings that touch ``[start_ns, stop_ns)`` as far as their containers claim, or whose
                end is not known. Containers claim a little less than they hold: give the range a margin.
            columns: those that are wanted beside uri, status and times; all where none is named.
        """
        chosen = ["uri", "status", "start_time", "end_time", *columns] if columns else None
        rows = self._register(camera, columns=chosen, touching=touching).to_pylist()
        return sorted(rows, key=lambda row: (row["start_time"] is None, row["start_time"], row["uri"]))

    def cameras(self, *, besides: Collection[str] = (), include_superseded: bool = False) -> list[str]:
        """Cameras with at least one recording that can be used.

        Args:
            besides: cameras that need not be looked for; the register of the others is read.
            include_superseded: also those of which one could be used before it was corrected or quarantined.
        """
        statuses = _with_footage(include_superseded)
        looked_for = [camera for camera in self.offered() if camera not in besides]
        return [
            camera
            for camera in looked_for
            if any(statuses & set(rows["status"].to_pylist()) for rows in self._parts(camera, columns=["status"]))
        ]

    def offered(self) -> list[str]:
        """Cameras of which files were offered, also where all of them are quarantined; no row is read."""
        return [name.removeprefix("camera=") for name in self.store.folders(RECORDINGS.name)]

    def quarantined(
        self, camera: str, start_ns: int | None = None, stop_ns: int | None = None, *, or_registered: bool = False
    ) -> list[dict[str, Any]]:
        """The camera's quarantined files of ``[start_ns, stop_ns)``, by whomever, in order of time.

        A file is of the time at which it starts. Where nothing says when, or that cannot be (before the first hour, or
        later than it was registered), it is of the time at which it was registered.

        Args:
            camera: the camera.
            start_ns: start of the range; None: all before its end.
            stop_ns: end of the range (exclusive); None: all from its start.
            or_registered: also those of another time that were registered in the range.
        """
        import pyarrow.compute as pc

        columns = ["camera", "uri", "status", "reason", "start_time", "registered_at", "quarantined_at"]
        register = self._register(camera, columns=columns)
        first_ns = first_hour_ns(self.store.root)
        low, high = start_ns or 0, _NEVER_NS if stop_ns is None else stop_ns
        found = []
        for row in register.filter(pc.equal(register["status"], "quarantined")).to_pylist():
            registered_ns = from_datetime(row["registered_at"])
            claimed_ns = registered_ns if row["start_time"] is None else from_datetime(row["start_time"])
            time_ns = claimed_ns if first_ns <= claimed_ns <= registered_ns else registered_ns
            if low <= time_ns < high or (or_registered and low <= registered_ns < high):
                found.append((time_ns, row["uri"], row))
        return [row for _, _, row in sorted(found, key=lambda one: one[:2])]

    def uris(self, camera: str) -> set[str]:
        """The files of a camera that were offered, whatever became of them."""
        return set(self._register(camera, columns=["uri", "status"])["uri"].to_pylist())

    def marks(self, camera: str) -> dict[str, str]:
        """A mark for each file of the camera's rows, other when the file is: what a listing tells of it."""
        return self.store.marks(f"{RECORDINGS.name}/camera={camera}", ".parquet")

    def hours(self, camera: str, include_superseded: bool = False) -> list[CameraHour]:
        """The hours that a camera's usable recordings claim to touch, from the store's first hour on.

        Args:
            camera: the camera.
            include_superseded: also the hours that footage stood in before its start or its file was corrected, or
                it was quarantined.
        """
        statuses = _with_footage(include_superseded)
        # An earlier one is no partition, where the first hour was moved: what there is of it stays, and is not made.
        first_ns = first_hour_ns(self.store.root)
        hours: set[CameraHour] = set()
        for row in self._register(camera, columns=["status", "start_time", "end_time"]).to_pylist():
            if row["status"] in statuses:
                start, stop = from_datetime(row["start_time"]), from_datetime(row["end_time"])
                hours.update(hours_between(camera, start, max(stop, start + 1)))
        return sorted(hour for hour in hours if hour.start_ns >= first_ns)

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the rows of every version of a file."""
        path = self.row_path(rows[-1]["camera"], rows[-1]["recording_id"])
        self.store.write_table(RECORDINGS, path, rows_table(RECORDINGS, rows))

    def _not_registered(self, uri: str, camera: str) -> InputError:
        return InputError(
            f"is not in the register of {camera}",
            where=full_uri(uri),
            fix=f"Name it as the register does: `laps sql \"select uri from recordings where camera = '{camera}'\"`. "
            f"Cameras: {', '.join(self.offered()) or 'none yet'}.",
        )

    def rows_of(self, camera: str, uri: str) -> list[dict[str, Any]]:
        """The rows of every version of the file at a uri."""
        from laps.recordings import place_id

        try:
            return self.store.read_table(RECORDINGS, self.row_path(camera, place_id(camera, uri))).to_pylist()
        except NotProcessedError:  # not asked for first: in object storage that would be one more request
            return []

    def _register(
        self, camera: str, *, columns: Sequence[str] | None = None, touching: tuple[int, int] | None = None
    ) -> pa.Table:
        """A camera's part of the register, read as one."""
        import pyarrow as pa

        return pa.concat_tables(self._parts(camera, columns=columns, touching=touching))

    def _parts(
        self, camera: str, *, columns: Sequence[str] | None = None, touching: tuple[int, int] | None = None
    ) -> Iterator[pa.Table]:
        """A camera's part of the register: the rows that its copy holds as they are, then the others, some at once."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        schema = RECORDINGS.schema()
        names = list(columns or schema.names)
        wanted = pa.schema([schema.field(name) for name in names])
        chosen = None
        if touching is not None:
            start, stop = (to_datetime(time_ns) for time_ns in touching)
            ends = ds.field("end_time")
            chosen = (ds.field("start_time") < stop) & (ends.is_null() | (ends >= start))
            chosen |= ds.field("status").is_null()
        marks = self.marks(camera)
        held, rows = self._copied(camera, marks, wanted, chosen)
        yield rows
        paths = [path for path in marks if path not in held]
        for first in range(0, len(paths), _ROWS_AT_ONCE):
            yield self._read_rows(paths[first : first + _ROWS_AT_ONCE], names, chosen)

    def _copied(
        self, camera: str, marks: Mapping[str, str], wanted: pa.Schema, chosen: Any
    ) -> tuple[set[str], pa.Table]:
        """Which of the listed files a camera's copy holds as they are, and the rows of those that are chosen.

        A copy that is not there, or cannot be read, costs time only: it holds none.
        """
        import pyarrow.dataset as ds

        none: tuple[set[str], pa.Table] = set(), wanted.empty_table()
        copy = COPIES[RECORDINGS.name]
        folder = f"{copy_folder(copy, None)}/camera={camera}"
        manifest = read_manifest(self.store, f"{folder}/{MANIFEST}") if marks else None
        if manifest is None or manifest.version != copy.version:
            return none
        table = f"{RECORDINGS.name}/"
        held = {source for source, of in manifest.sources.items() if (marks.get(f"{table}{source}"),) == of}
        if gone := manifest.sources.keys() - held:
            still = ~ds.field(SOURCE.name).isin(sorted(gone))
            chosen = still if chosen is None else still & chosen
        rows = rows_of_copy(self.store, folder, manifest, wanted, chosen)
        return none if rows is None else ({f"{table}{source}" for source in held}, rows)

    def _read_rows(self, paths: Sequence[str], wanted: list[str], chosen: Any) -> pa.Table:
        """The chosen rows of some of the register's files."""
        import pyarrow as pa
        import pyarrow.dataset as ds
        import pyarrow.fs

        schema = RECORDINGS.schema()
        if not self.store.is_local:
            # A data set would look at each file twice before it is read.
            whole = pa.concat_tables(self.store.read_tables(RECORDINGS, paths))
            return (whole if chosen is None else whole.filter(chosen)).select(wanted)
        files = [self.store.full_path(path) for path in paths]
        try:
            # pyarrow's own file system reads local files several times faster than one that passes through Python.
            rows = ds.dataset(files, schema=schema, format="parquet", filesystem=pa.fs.LocalFileSystem())
            found = rows.to_table(columns=wanted, filter=chosen)
            if found["status"].null_count:
                # Every row has one; those of another table's file have none.
                raise pa.ArrowInvalid("a row has no status")
            return found
        except (pa.ArrowInvalid, OSError) as error:
            for path in paths:
                # Names the file, which a data set's error does not always.
                self.store.read_table(RECORDINGS, path)
            raise StoreError(f"the register cannot be read: {error}", where=self.store.url(RECORDINGS.name)) from error

    # --- the landing zone --------------------------------------------------------------------------------------

    def listed(self) -> Iterator[Landed]:
        """Every video file in ``<landing>/<camera>/…``, in order, by one listing; none is opened.

        A file that lies in no camera's folder comes with an empty name.

        Raises StoreError where the landing zone cannot be listed.
        """
        from laps.recordings import sidecar_names

        landing = Store(self.landing)
        found = landing.listing("")
        for path in sorted(found):
            name = path.rpartition("/")[2]
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."):
                # A start that is corrected in a sidecar changes the recording as well.
                beside = [other for other in sidecar_names(path) if other in found]
                marker = " ".join(_change_marker(found[part]) for part in (path, *beside))
                sidecars = None if landing.is_local else tuple(map(landing.url, beside))
                camera = path.split("/")[0] if "/" in path else ""
                yield Landed(camera, landing.url(path), marker, sidecars, _modified_ns(found[path]))

    def camera_of(self, uri: str) -> str:
        """The camera in whose folder of the landing zone a file lies; empty where it lies in none."""
        folder, slash, _ = uri.removeprefix(f"{self.landing.rstrip('/')}/").partition("/")
        return folder if slash else ""

    @contextmanager
    def to_land(self) -> Iterator[Path]:
        """A local folder for ``<camera>/…``; what it holds when the block ends without an error is in the landing zone.

        For a landing zone on a local disk it is the landing zone. In object storage each file appears whole, and
        videos after all other files, so that no recording is seen without its sidecar.
        """
        if "://" not in self.landing:
            Path(self.landing).mkdir(parents=True, exist_ok=True)
            yield Path(self.landing)
            return
        landing = Store(self.landing)
        with tempfile.TemporaryDirectory(prefix="laps-landing-") as temporary:
            folder = Path(temporary)
            yield folder
            files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
            for path in sorted(files, key=lambda path: (path.lower().endswith(VIDEO_SUFFIXES), path)):
                landing.put_file(folder / path, path)

    def scan(self) -> Iterator[dict[str, Any] | LapsError]:
        """Register every file of the landing zone; one that lies in no camera's folder gives its error instead.

        Raises:
            UnreachableError: the object storage of the landing zone does not answer. What was registered before stays.
            StoreError: the landing zone cannot be listed.
        """
        for landed in self.listed():
            try:
                yield self.register_landed(landed)
            except UnreachableError:
                raise
            except LapsError as error:
                yield error

    def register_landed(self, landed: Landed) -> dict[str, Any]:
        """Register a file of the landing zone for the camera in whose folder it lies.

        Raises InputError as :meth:`register` does, and where it lies in no camera's folder.
        """
        if not landed.camera:
            raise InputError(
                "lies in no camera's folder",
                where=landed.uri,
                fix=f"Move it to {self.landing}/<camera>/, or name its camera: laps ingest FILE --camera NAME.",
            )
        return self.register(landed.uri, landed.camera, sidecars=landed.sidecars)

    def _sidecar(self, uri: str, listed: Sequence[str] | None) -> Sidecar | None:
        """The JSON file beside a recording that says when it starts, where there is one."""
        from laps.recordings import Sidecar, sidecar_names

        names = sidecar_names(uri) if listed is None else listed
        for name, content in zip(names, _small_files(names), strict=True):
            if isinstance(content, FileNotFoundError):
                continue
            if isinstance(content, OSError):
                raise unreadable(name, content) from content
            sidecar = Sidecar(name, content)
            if sidecar.concerns(uri):
                return sidecar
        return None


def by_person(row: Mapping[str, Any]) -> bool:
    """Whether the file of a row of the register is not used because a person said so (``laps quarantine``)."""
    return row["quarantined_at"] is not None


def _with_footage(include_superseded: bool) -> set[str]:
    return {"ok", "superseded"} if include_superseded else {"ok"}


def _same_footage(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows say of the same version of a file that it starts at the same time."""
    return all(one[name] == other[name] for name in ("recording_id", "start_time"))


def _id_of(camera: str, info: FileInfo) -> str:
    from laps.recordings import recording_id

    return recording_id(camera, info.uri, info.size_bytes, info.modified_ns, info.etag)


def _small_files(uris: Sequence[str]) -> Iterator[bytes | OSError]:
    """The content of each file or its error; object storage is asked for all of them at once, once for each."""
    if uris and uris[0].startswith("s3://"):
        fs, _ = file_system(uris[0])
        yield from fs.read_files([uri.removeprefix("s3://") for uri in uris])
        return
    for uri in uris:
        try:
            with open_uri(uri) as file:
                yield file.read()
        except OSError as error:
            yield error


def _registration_row(offered: dict[str, Any]) -> dict[str, Any]:
    """The row of a file that was offered; one that a decoder does not survive is quarantined."""
    from laps.recordings import registration_row

    try:
        return APART.call(offered["uri"], _look, offered)
    except MediaError as error:
        return registration_row(error, **offered)


def _look(offered: dict[str, Any]) -> dict[str, Any]:
    from laps.recordings import registration_row

    with open_uri(offered["uri"], LOOK_BYTES) as file:
        return registration_row(file, **offered)


def _change_marker(info: Mapping[str, Any]) -> str:
    """Size, and etag or modification time, of a file as a listing gives them."""
    return f"{info['size']}-{info.get('ETag') or info.get('mtime') or info.get('LastModified')}".replace('"', "")


def _modified_ns(info: Mapping[str, Any]) -> int | None:
    """When a file last changed, as a listing gives it."""
    when = info.get("LastModified") or info.get("mtime")
    if isinstance(when, datetime):
        return from_datetime(when)
    return None if when is None else int(when * NS_PER_S)


def unreadable(uri: str, error: OSError) -> LapsError:
    """The error to raise for a file: its own trouble (InputError), or the network's (UnreachableError)."""
    if "://" in uri and not isinstance(error, FileNotFoundError | PermissionError):
        return _unreachable(uri, error)
    return _unreadable(uri, error)


def _unreachable(uri: str, error: OSError) -> UnreachableError:
    fix = None
    if uri.startswith("s3://"):
        from resources.object_storage import advice

        fix = advice(error)
    return UnreachableError(f"cannot be reached: {reason(error)}", where=uri, fix=fix)


def _unreadable(uri: str, error: OSError) -> InputError:
    return InputError(
        f"cannot be read: {reason(error)}",
        where=uri,
        fix="Make it a file that this user may read, or take it away; then register the recording again.",
    )


def _superseded_by(row: dict[str, Any]) -> str:
    what = f"superseded by {row['recording_id']}, registered {row['registered_at']:%Y-%m-%d %H:%M:%S} UTC: "
    if row["status"] != "ok":
        return f"{what}quarantined"
    return f"{what}it starts at {format_utc(from_datetime(row['start_time']))} ({row['start_source']})"
