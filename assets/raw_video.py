"""Which ranges of which files cover the camera hour and its pre-roll.

Read from packet timestamps, without decoding a picture and without copying the video. A range is `ok`, `truncated`
(the file ends before its container claims), `corrupt`, `overlap` (another recording covers it and is used), `gap` or
`forgotten` (`laps forget`), each with its reason; only ranges with `used = true` are read further on.
"""

import shlex
from collections.abc import Callable
from typing import Any

import dagster as dg

from assets.partitions import camera_hour, camera_hours
from assets.retries import Steady, tried_again
from assets.specs import OBSERVE, describe
from laps.errors import InputError, MediaError, NotProcessedError
from laps.forgotten import outside
from laps.tables import RAW_VIDEO
from laps.timegrid import NS_PER_S, CameraHour, format_utc, from_datetime, now_ns
from resources.configured import RecordingsResource, StoreResource
from resources.forgotten import ForgottenTimes
from resources.freshness import hours_from
from resources.publishing import publish
from resources.recordings import Recordings, by_person, open_uri
from resources.settings import store_grid
from resources.store import Store, rows_table

# Two copies of a file need not end at the same nanosecond.
_SLACK_NS = NS_PER_S // 10


@dg.asset(
    deps=["landing_zone"],
    partitions_def=camera_hours,
    **describe(__doc__, group=OBSERVE, kinds={"parquet", "ffmpeg"}, table=RAW_VIDEO),
)
@tried_again
def raw_video(
    context: dg.AssetExecutionContext, store: StoreResource, recordings: RecordingsResource
) -> dg.MaterializeResult:
    from laps.recordings import describe_hour

    hour, files = camera_hour(context), store.open()
    grid = store_grid(files)
    registered = Steady(
        _recordings_around(recordings.open(files), hour),
        "its recordings",
        hour,
        # Those of the next hour arrive while this one is made.
        counts=lambda rows: [row for row in rows if hour in hours_from(hour.camera, row)],
    )
    # The part of a running hour that has not happened yet is no gap: it is not known.
    present_ns = now_ns()
    if present_ns <= hour.start_ns:
        raise InputError(f"the hour has not begun: it is {format_utc(present_ns)}", where=hour.key)
    rows = describe_hour(
        hour,
        grid,
        registered.value,
        open_uri,
        until_ns=min(hour.stop_ns, present_ns),
        forgotten=ForgottenTimes(files).of_camera(hour.camera),
    )
    _refuse_lost_footage(files, hour, rows, registered.value)
    # Describing the hour takes a while on S3, and recordings go on arriving.
    registered.check()
    publish(files, RAW_VIDEO, hour, rows_table(RAW_VIDEO, rows))
    registered.check(lambda: files.delete(files.partition_path(RAW_VIDEO, hour)))

    footage_s = 0.0
    lines = []
    for row in rows:
        start_ns, stop_ns = from_datetime(row["start_time"]), from_datetime(row["end_time"])
        if row["used"]:
            footage_s += max(0, stop_ns - max(start_ns, hour.start_ns)) / NS_PER_S
        if row["status"] != "ok":
            lines.append(f"{format_utc(start_ns)} to {format_utc(stop_ns)}: {row['status']}: {row['reason'] or ''}")
    if lines:
        context.log.warning("not all of the hour is plain footage:\n" + "\n".join(lines))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "footage_s": footage_s,
            "hour_covered": footage_s / 3600,
            "frames": sum(row["frame_count"] or 0 for row in rows if row["used"]),
            "files": sorted({row["uri"] for row in rows if row["used"]}),
            "not_plain": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines) or "nothing"),
        }
    )


def _recordings_around(register: Recordings, hour: CameraHour) -> Callable[[], list[dict[str, Any]]]:
    """Reads the recordings that may show something of an hour; again only when the register has changed."""
    around = (hour.previous.start_ns, hour.next.stop_ns)
    marks: dict[str, str] | None = None
    rows: list[dict[str, Any]] = []

    def read() -> list[dict[str, Any]]:
        nonlocal marks, rows
        now = register.marks(hour.camera)
        if now != marks:
            marks, rows = now, register.of_camera(hour.camera, touching=around)
        return rows

    return read


def _span_ns(row: dict[str, Any]) -> tuple[int, int]:
    return from_datetime(row["start_time"]), from_datetime(row["end_time"])


def _refuse_lost_footage(
    files: Store, hour: CameraHour, rows: list[dict[str, Any]], registered: list[dict[str, Any]]
) -> None:
    """Stop when a recording that this hour used before cannot be read any more: good results would be emptied.

    Its time may be shown by another file by now, as when it was moved or renamed, or one of two copies removed: then
    nothing is lost. Neither is what a person quarantined: who did it wants the hour without it.
    """
    try:
        columns = ["used", "recording_id", "start_time", "end_time"]
        known = files.read_partition(RAW_VIDEO, hour, columns=columns).to_pylist()
    except NotProcessedError:
        return
    shown = [_span_ns(row) for row in rows if row["used"]]
    lost = {
        row["recording_id"]
        for row in known
        if row["used"] and any(stop_ns - start_ns > _SLACK_NS for start_ns, stop_ns in outside(_span_ns(row), shown))
    }
    used_now = {row["recording_id"] for row in rows if row["used"]}
    set_aside = {row["recording_id"] for row in registered if by_person(row)}
    for row in rows:
        if row["status"] == "corrupt" and row["recording_id"] in lost - used_now - set_aside:
            raise MediaError(
                f"a recording that this hour was made from cannot be read any more ({row['reason']}); "
                "the earlier result is kept",
                where=hour.key,
                fix="Put the file back (is a share not mounted?), then run this hour again; or, where it is gone for "
                f"good, say so: `laps quarantine {shlex.quote(row['uri'])} --camera {hour.camera} --reason TEXT`. "
                "`laps backfill --only missing` then makes the hour without it.",
            )
