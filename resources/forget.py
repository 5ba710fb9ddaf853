"""Forgetting a time of a camera: what holds something of it, and removing that.

Of an hour that the time touches everything goes, because its tables are whole files; the rest of the hour is made again
from the video (``laps backfill --only missing``), without the time. First the time is put on record
(:mod:`resources.forgotten`), so that nothing that is made from then on holds it, then files are removed. A removal that
was killed goes on when it is asked for again.

What is looked for, and where a picture or row of a time hides:

- Hour tables, of every tokenizer and release: those of the hours that the time lies in, and of the hour after where
  that begins less than 20 s after it: its first windows, frames and clips reach back.
- A primitive that began in the time, or less than 20 s after it, and was decided an hour later: that hour's primitives
  go as well.
- A clip of the hour before may hold, hidden, a picture that is shown just after its last: that clip goes.
- Data sets in the store, by the times on their cards; the report, which shows pictures of all hours; scores of
  recordings of that time; imported work; compacted copies of the catalog; what was set aside of the camera.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

from laps import tables
from laps.errors import InputError, NotProcessedError, StoreError
from laps.export.card import CARD_JSON
from laps.forgotten import REACHES_AHEAD_NS, REACHES_BACK_NS, Forgotten, outside
from laps.tables import TABLES, Table
from laps.timegrid import CameraHour, from_datetime, parse_utc, to_datetime
from resources.datasets import DATASETS
from resources.forgotten import ForgottenTimes
from resources.hour_files import copies_of, files_of_hours, month_of
from resources.publishing import QUARANTINE
from resources.recordings import Recordings, file_info
from resources.retention import Retention
from resources.settings import first_hour_ns
from resources.store import PART, Store, rows_table

# Tables with a row for each primitive of an hour.
OF_PRIMITIVES = (
    tables.SEGMENTS,
    tables.CLIPS,
    tables.SEGMENT_EMBEDDINGS,
    tables.VISUAL_FEATURES,
    tables.CLUSTER_ASSIGNMENTS,
)
HOUR_TABLES = tuple(table for table in TABLES.values() if table.partitioned == "camera_hour")
REPORTS = "reports"


@dataclass
class Part:
    """What is to be removed of a table, or of what else lies in the store.

    Attributes:
        what: the table's name, or what it is.
        files: the files to remove, the last one after the others.
        rows: rows that go; None where they are not counted.
        rewritten: files of which only some rows go, with the table and the rows that stay.
    """

    what: str
    files: list[str] = field(default_factory=list)
    rows: int | None = None
    rewritten: dict[str, tuple[Table, Any]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.files or self.rewritten)

    def count(self, rows: int) -> None:
        self.rows = (self.rows or 0) + rows

    def __str__(self) -> str:
        rows = "" if self.rows is None else f"{self.rows:,} rows, "
        rewritten = f", {len(self.rewritten):,} written again without them" if self.rewritten else ""
        files = "file" if len(self.files) == 1 else "files"
        return f"{self.what}: {rows}{len(self.files):,} {files} removed{rewritten}"


@dataclass(frozen=True)
class Held:
    """A video file that shows a time: it belongs to whoever keeps the recordings, and stays.

    Attributes:
        uri: where it lies.
        there: whether it is there still.
    """

    uri: str
    there: bool


@dataclass(frozen=True)
class Plan:
    """What holds something of a time.

    Attributes:
        time: the time.
        parts: what is to be removed.
        hours: the hours of which something is to be removed.
        lost: for hours of which more goes than was filmed in the time, and cannot come back: why.
        held: video files that show the time.
    """

    time: Forgotten
    parts: list[Part]
    hours: list[CameraHour]
    lost: dict[CameraHour, str]
    held: list[Held]


def plan(store: Store, time: Forgotten) -> Plan:
    """Look at everything in the store that may hold something of a time; nothing is changed.

    Raises InputError where the camera has neither recordings nor rows.
    """
    recordings = Recordings(store)
    registered = recordings.of_camera(time.camera)
    times = ForgottenTimes(store)
    hours = time.hours()
    parts, touched = _hour_parts(store, time, hours)
    filmed = [row for row in registered if _shows(row, time)]
    parts += [
        *_imported(store, time),
        _quarantined(store, time),
        _scores(store, {row["recording_id"] for row in filmed}, time.camera),
        *_datasets(store, time),
    ]
    parts = [part for part in parts if part]
    if not registered and not parts and not store.exists(times.path(time)):
        known = recordings.cameras()
        raise InputError(
            f"nothing is known of a camera {time.camera!r}",
            where=store.root,
            fix=f"Cameras: {', '.join(known) or 'none yet'}.",
        )
    # What is made of all hours shows nothing of the time only if it was made when nothing of it was left in any. All of
    # it goes or none, for the record is written again where something does.
    reports = _reports(store)
    copies = copies_of(store, {month_of(hour) for hour in (hours[0].previous, *hours, *touched)})
    removed_s = times.removed_s(time)
    if parts or removed_s is None or min([*reports.values(), *copies.values()], default=inf) <= removed_s:
        made_again = Part("report (made again by the next backfill or `laps report`)", list(reports))
        # Until they are made again the hours are read.
        parts += [part for part in (made_again, Part("compacted copies", list(copies))) if part]
    held = [Held(uri, _is_there(uri)) for uri in dict.fromkeys(str(row["uri"]) for row in filmed)]
    lost = dict(_lost(registered, time, touched, Retention.of(store), first_hour_ns(store.root)))
    return Plan(time, parts, touched, lost, held)


def remove(store: Store, planned: Plan) -> Iterator[Part]:
    """Put the time on record, and remove what was planned; gives each part when it is gone, then notes that all is."""
    times = ForgottenTimes(store)
    times.put(planned.time, removed=not planned.parts)
    for part in planned.parts:
        # The last one last: of a data set it is the card, which says of what times there are pictures.
        store.delete_files(part.files[:-1])
        store.delete_files(part.files[-1:])
        # Then the rows: what still names a removed clip is found again, a clip that nothing names is not.
        for path, (table, rows) in part.rewritten.items():
            store.write_table(table, path, rows)
        yield part
    times.put(planned.time, removed=True)


# --- hours -----------------------------------------------------------------------------------------------------


def _hour_parts(store: Store, time: Forgotten, hours: list[CameraHour]) -> tuple[list[Part], list[CameraHour]]:
    """What is to be removed of the hour tables, and the hours that this concerns."""
    before, after = hours[0].previous, hours[-1].next
    listed = {table: files_of_hours(store, table, {before, *hours, after}) for table in HOUR_TABLES}
    # Of the hour after, the releases whose primitives reach back into the time.
    releases = {_model(path) for path in listed[tables.SEGMENTS].get(after, []) if _reaches_back(store, path, time)}
    parts, touched = [], set()
    # Primitives last: as long as they are there, a removal that was killed finds what else goes with them.
    for table, by_hour in sorted(listed.items(), key=lambda item: item[0] is tables.SEGMENTS):
        part = Part(table.name, rows=0)
        for hour in (*hours, after):
            for path in by_hour.get(hour, []):
                if hour == after and not (table in OF_PRIMITIVES and _model(path) in releases):
                    continue
                part.files.append(path)
                part.count(_rows(store, table, path))
                touched.add(hour)
        if table is tables.CLIPS and time.start_ns - REACHES_AHEAD_NS < hours[0].start_ns:
            for path in by_hour.get(before, []):
                if path.endswith(PART):
                    _clips_that_reach_ahead(store, path, time, part)
        parts.append(part)
    return parts, sorted(touched)


def _model(path: str) -> str:
    """The folder that names the model of a file."""
    return path.split("/")[1]


def _reaches_back(store: Store, path: str, time: Forgotten) -> bool:
    if not path.endswith(PART):
        return False
    rows = store.read_table(tables.SEGMENTS, path, ["start_time", "end_time"]).to_pylist()
    # A clip holds, hidden, up to 15 s before its primitive.
    return any(
        time.touches(from_datetime(row["start_time"]) - REACHES_BACK_NS, from_datetime(row["end_time"])) for row in rows
    )


def _clips_that_reach_ahead(store: Store, path: str, time: Forgotten, part: Part) -> None:
    """Add the clips of an hour that end so late that they may hold a hidden picture of the time."""
    rows = store.read_table(tables.CLIPS, path).to_pylist()
    gone = []
    for row in rows:
        last = row["last_frame_time"]
        if last is not None and from_datetime(last) >= time.start_ns - REACHES_AHEAD_NS:
            gone.append(row["clip_path"])
            kept = {name: row[name] for name in ("segment_id", "camera", "recording_id", "release")}
            row.clear()
            row |= kept | {"status": "failed", "reason": f"removed with what may show {time}: cut the hour again"}
    if gone:
        part.files += gone
        part.count(len(gone))
        part.rewritten[path] = (tables.CLIPS, rows_table(tables.CLIPS, rows))


def _rows(store: Store, table: Table, path: str) -> int:
    """Rows of a file; one that is no table, or damaged, has none."""
    import pyarrow.parquet as pq

    if not path.endswith(f"/{PART}"):
        return 0
    try:
        with store.open(path) as source:
            return int(pq.ParquetFile(source).metadata.num_rows)
    except (StoreError, NotProcessedError, OSError, ValueError):  # ArrowInvalid is a ValueError
        return 0


def _lost(
    registered: Iterable[dict[str, Any]],
    time: Forgotten,
    touched: Iterable[CameraHour],
    kept: Retention,
    first_ns: int,
) -> Iterator[tuple[CameraHour, str]]:
    """The hours of which more goes than the time and cannot come back, and why: the video is gone, or they are old.

    ``first_ns`` is the store's first hour.
    """
    rows = [row for row in registered if row["status"] == "ok"]
    there: dict[str, bool] = {}
    for hour in touched:
        if hour.start_ns < first_ns:
            yield hour, "it lies before the store's first hour"
            continue
        rest = list(outside((hour.start_ns, hour.stop_ns), [(time.start_ns, time.stop_ns)]))
        for row in rows:
            start, stop = from_datetime(row["start_time"]), from_datetime(row["end_time"])
            if not any(start < end and begin < stop for begin, end in rest):
                continue
            uri = str(row["uri"])
            if uri not in there:
                there[uri] = _is_there(uri)
            if not there[uri]:
                yield hour, f"{uri} is gone"
                break
            # Primitives are cut, and described, from the hour before as well.
            needed = {
                tables.KEYPOINT_TRACKS: hour,
                tables.KEYFRAMES: hour.previous,
                tables.LATENT_STREAM: hour.previous,
            }
            old = [table.name for table, oldest in needed.items() if kept.is_over_age(table, oldest)]
            if old:
                yield hour, f"{', '.join(old)} of that age are not kept (laps retention)"
                break


def _is_there(uri: str) -> bool:
    try:
        file_info(uri)
    except InputError:
        return False
    return True


def _shows(row: dict[str, Any], time: Forgotten) -> bool:
    if row["start_time"] is None:
        return False
    start = from_datetime(row["start_time"])
    stop = start if row["end_time"] is None else from_datetime(row["end_time"])
    return time.touches(start, max(stop, start + 1))


# --- what is not kept by the hour ------------------------------------------------------------------------------


def _imported(store: Store, time: Forgotten) -> Iterator[Part]:
    import pyarrow.compute as pc

    start, stop = to_datetime(time.start_ns), to_datetime(time.stop_ns)
    for table, begins, ends in (
        (tables.IMPORTED_SEGMENTS, "start_time", "end_time"),
        (tables.IMPORTED_ENERGY, "time", "time"),
    ):
        part = Part(table.name, rows=0)
        for path in store.files(f"{table.name}/camera={time.camera}", ".parquet"):
            rows = store.read_table(table, path)
            after = pc.greater_equal(rows[ends], start) if begins == ends else pc.greater(rows[ends], start)
            inside = pc.and_(pc.less(rows[begins], stop), after)
            kept = rows.filter(pc.invert(inside))
            if kept.num_rows == rows.num_rows:
                continue
            part.count(rows.num_rows - kept.num_rows)
            if kept.num_rows:
                part.rewritten[path] = (table, kept)
            else:
                part.files.append(path)
        yield part


def _scores(store: Store, recording_ids: set[str], camera: str) -> Part:
    """Scores of a recording of that time go with those over all recordings, in which they were counted."""
    table = tables.EVALUATION
    part = Part(table.name, rows=0)
    for path in store.files(table.name, PART):
        rows = store.read_table(table, path, ["camera", "recording_id"]).to_pylist()
        if any(row["camera"] == camera and row["recording_id"] in recording_ids for row in rows):
            part.files.append(path)
            part.count(len(rows))
    return part


def _quarantined(store: Store, time: Forgotten) -> Part:
    """What was set aside of the camera, whatever its hour: nothing is made from it."""
    of_camera = f"/camera={time.camera}/"
    return Part(QUARANTINE, [path for path in store.files(QUARANTINE) if of_camera in path])


def _reports(store: Store) -> dict[str, float]:
    """The reports of all releases, and when they were written."""
    return {path: made_s for path, made_s in sorted(store.modified(REPORTS).items()) if path.endswith(".html")}


def _datasets(store: Store, time: Forgotten) -> Iterator[Part]:
    for name in store.folders(DATASETS):
        for version in store.folders(f"{DATASETS}/{name}"):
            folder = f"{DATASETS}/{name}/{version}"
            files = sorted(store.modified(folder))
            card = f"{folder}/{CARD_JSON}"
            if card not in files:
                yield Part(f"data set {name}/{version}, of a run that did not finish", files)
            elif _dataset_shows(store.read_json(card)["contents"], time):
                # The card last: as long as there is a picture one can tell of which time.
                yield Part(f"data set {name}/{version}", [path for path in files if path != card] + [card])


def _dataset_shows(contents: dict[str, Any], time: Forgotten) -> bool:
    if time.camera not in contents["cameras"]:
        return False
    # Cards of older versions say only from when to when, over all cameras.
    whole = [[contents["first_start"], contents["last_end"]]]
    spans = contents.get("filmed", {}).get(time.camera, whole)
    return any(time.touches(parse_utc(start), parse_utc(stop)) for start, stop in spans)
