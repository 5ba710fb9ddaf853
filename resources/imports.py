"""Work of the reference implementation in the store: tables of their own, never mixed with what is made here.

A file holds the segments, or one energy, of one video of a camera. Importing the same again changes nothing; importing
others of the same video and kind takes the place of what was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from laps.errors import InputError
from laps.tables import IMPORTED_ENERGY, IMPORTED_SEGMENTS, Table
from laps.timegrid import NS_PER_S, check_camera, from_datetime
from resources.forgotten import ForgottenTimes
from resources.recordings import Recordings
from resources.store import Store, rows_table

if TYPE_CHECKING:
    from laps.forgotten import Forgotten
    from laps.reference_import import Place, Rows, Work


@dataclass(frozen=True)
class Imported:
    """What became of one part of an import.

    Attributes:
        table: the table.
        video: the video's name.
        what: the part, in words.
        rows: its rows.
        status: ``new``, ``replaced`` or ``unchanged``.
    """

    table: Table
    video: str
    what: str
    rows: int
    status: str


def import_work(
    store: Store,
    path: Path,
    camera: str,
    *,
    video: str | None = None,
    start_ns: int | None = None,
    stride: int | None = None,
    target_fps: float | None = None,
) -> list[Imported]:
    """Bring the files of a folder, or a single one, into the catalog.

    Everything is read and checked before anything is written.

    Args:
        store: the store.
        path: a folder, or one file.
        camera: the camera that filmed the videos.
        video: name of the video without suffix; None: from the names of files and folder.
        start_ns: time of the first frame, nanoseconds since the epoch; None: of the registered recording of that name,
            else what the segments file says, else a UTC stamp in the name.
        stride: samples between windows; None: what the segments file says, else 4.
        target_fps: samples a second; None: what the segments file says, else 10.

    Raises:
        InputError: a file cannot be used, or nothing says when the video starts. Nothing was imported then.
    """
    from laps.reference_import import energy_rows, read_work, segment_rows

    check_camera(camera)
    works = read_work(path)
    if (start_ns is not None or video is not None) and len(works) > 1:
        raise InputError(
            f"a start or name is that of one video, and there are {len(works)}: "
            f"{', '.join(work.video for work in works)}",
            where=str(path),
            fix="Import one at a time, or register the recordings first (laps ingest): then their start is known.",
        )
    if video is not None:
        works = [replace(works[0], video=video)]
    registered = [row for row in Recordings(store).of_camera(camera) if row["status"] == "ok"]
    times = ForgottenTimes(store).of_camera(camera)
    parts: list[tuple[Table, str, str, Rows]] = []
    for work in works:
        place = _place(work, registered, camera, start_ns, work.rates(stride, target_fps))
        segments = segment_rows(work, place)
        if segments is not None:
            segments, left_out = _without(segments, times)
            with_codes = sum(row["codes"] is not None for row in segments.rows)
            what = f"{len(segments.rows)} segments, {with_codes} of them with codes{left_out}"
            parts.append((IMPORTED_SEGMENTS, work.video, what, segments))
        for curve, made in zip(work.curves, energy_rows(work, place), strict=True):
            energy, left_out = _without(made, times)
            what = f"{len(energy.rows)} windows of energy ({curve.source}, {curve.mode}){left_out}"
            parts.append((IMPORTED_ENERGY, work.video, what, energy))
    tables = [rows_table(table, made.rows) for table, _, _, made in parts]
    for (table, *_), rows in zip(parts, tables, strict=True):
        table.validate(rows)
    return [
        Imported(table, video, what, rows.num_rows, _write(store, table, camera, made, rows))
        for (table, video, what, made), rows in zip(parts, tables, strict=True)
    ]


def _without(made: Rows, times: Sequence[Forgotten]) -> tuple[Rows, str]:
    """The rows of times that were not forgotten, and in words how many others there were."""
    kept = []
    for row in made.rows:
        start = from_datetime(row["start_time"] if "start_time" in row else row["time"])
        stop = from_datetime(row["end_time"]) if "end_time" in row else start + 1
        if not any(time.touches(start, stop) for time in times):
            kept.append(row)
    gone = len(made.rows) - len(kept)
    return replace(made, rows=kept), f"; {gone} of times that were forgotten are left out" if gone else ""


def _write(store: Store, table: Table, camera: str, made: Rows, rows: Any) -> str:
    path = f"{table.name}/camera={camera}/{made.key}.parquet"
    status = "new"
    if store.exists(path):
        before = store.read_table(table, path)
        if before.equals(rows):
            return "unchanged"
        status = "replaced"
    store.write_table(table, path, rows)
    return status


def _place(
    work: Work, registered: Iterable[dict[str, Any]], camera: str, start_ns: int | None, rates: tuple[int, float]
) -> Place:
    """Where the video stands in time."""
    from laps.recordings import resolve_start
    from laps.reference_import import Place

    of_name = [row for row in registered if work.video in (row["recording_id"], PurePosixPath(row["uri"]).stem)]
    if len(of_name) > 1 and start_ns is None:
        raise InputError(
            f"{len(of_name)} recordings of camera {camera} have this name: {', '.join(row['uri'] for row in of_name)}",
            where=work.where,
            fix="Say which one is meant by its start: --start TIME.",
        )
    if start_ns is not None:
        of_name = [row for row in of_name if from_datetime(row["start_time"]) == start_ns]
    recording = of_name[0] if of_name else None
    duration_s = work.duration_s
    if recording is not None:
        begin_ns = from_datetime(recording["start_time"])
        if recording["end_time"] is not None:
            duration_s = (from_datetime(recording["end_time"]) - begin_ns) / NS_PER_S
    elif start_ns is not None:
        begin_ns = start_ns
    elif work.start_ns is not None:
        begin_ns = work.start_ns
    else:
        try:
            begin_ns, _ = resolve_start(work.video, option_ns=None, sidecar=None, info=None)
        except InputError as error:
            raise InputError(
                f"nothing says when the video {work.video} starts",
                where=work.where,
                fix="Give --start 2026-11-21T05:00:00Z, or register its recording first (laps ingest).",
            ) from error
    return Place(camera, begin_ns, duration_s, None if recording is None else recording["recording_id"], *rates)
