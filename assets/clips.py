"""One playable mp4 for each primitive, cut by stream copy from the keyframe before.

An edit list makes players start and end at the right frames; nothing is encoded again unless the codec cannot be
put into an mp4 that browsers play, or the keyframe before is more than 15 s away. A primitive that lies in two
recordings is cut from the one that holds more of it. What could not be cut is a row with status failed and the
reason. Where a region of the picture may not be seen (`laps camera set --blur`) every clip is encoded again, with the
region grey; no clip holds a picture of a time that was forgotten. Where the video is gone, a clip that was cut before
of the same primitive stays.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from assets.partitions import camera_hour, camera_hours, with_previous
from assets.retries import Steady, tried_again
from assets.specs import SEGMENT, describe
from laps.tables import CLIPS, RAW_VIDEO
from laps.timegrid import CameraHour, to_datetime
from resources.cameras import BLUR, Cameras
from resources.configured import RecordingsResource, StoreResource
from resources.forgotten import ForgottenTimes
from resources.hour_files import clip_folder
from resources.hours import read_with_previous
from resources.publishing import publish
from resources.recordings import open_uri
from resources.release import ReleaseResource
from resources.segments import read_segments
from resources.store import Store, rows_table
from resources.time_limit import within
from resources.uploads import uploads

SUFFIX = ".mp4"


class ClipSettings(dg.Config):
    """How clips are cut."""

    reencode: bool = Field(False, description="Encode every clip again: exact without an edit list, but slow.")


@dg.asset(
    deps=["segments", with_previous("raw_video")],
    partitions_def=camera_hours,
    pool="decode",
    **describe(__doc__, group=SEGMENT, kinds={"parquet", "ffmpeg"}, table=CLIPS),
)
@tried_again
def clips(
    context: dg.AssetExecutionContext,
    config: ClipSettings,
    store: StoreResource,
    recordings: RecordingsResource,
    release: ReleaseResource,
) -> dg.MaterializeResult:
    from laps.clip_set import cut_primitives
    from laps.sampling import pieces_of

    hour, files = camera_hour(context), store.open()
    chosen = release.read(files)
    primitives = read_segments(files, hour, chosen).to_pylist()
    footage = read_with_previous(files, recordings.open(files), RAW_VIDEO, hour)
    table_path = files.partition_path(CLIPS, hour, chosen.name)
    folder = clip_folder(hour, chosen.name)
    # What earlier runs left: there, or beside the table, where clips were kept by earlier versions.
    there = files.modified(folder) | files.modified(table_path.rpartition("/")[0])
    kept: set[str] = set()
    rows: list[dict[str, Any]] = []
    covered = Steady(lambda: Cameras(files).read(hour.camera).blur_regions, "the regions to blur", hour)
    before = _clips_before(files, hour, table_path, there)
    spans = {row["segment_id"]: (row["start_time"], row["end_time"]) for row in primitives}
    cut = cut_primitives(
        primitives,
        pieces_of(footage.to_pylist()),
        open_uri,
        reencode=config.reencode,
        covered=covered.value,
        forgotten=ForgottenTimes(files).of_camera(hour.camera),
    )
    with uploads(files) as write:
        for clip in within(cut, recordings.decode_limit_s):
            row: dict[str, Any] = {
                "segment_id": clip.segment_id,
                "camera": hour.camera,
                "recording_id": clip.recording_id,
                "release": chosen.name,
            }
            earlier = before.get(clip.segment_id)
            if (
                clip.content is None
                and earlier is not None
                and earlier["recording_id"] == clip.recording_id
                and spans[clip.segment_id][0] <= earlier["first_frame_time"]
                and earlier["last_frame_time"] < spans[clip.segment_id][1]
            ):
                row = earlier
                kept.add(earlier["clip_path"])
            elif clip.content is None or clip.info is None:
                row |= {"status": "failed", "reason": clip.reason}
            else:
                path = f"{folder}/{clip.segment_id}{SUFFIX}"
                write(path, clip.content)
                kept.add(path)
                row |= {
                    "status": "ok",
                    "clip_path": path,
                    "first_frame_time": to_datetime(clip.info.first_frame_time_ns),
                    "last_frame_time": to_datetime(clip.info.last_frame_time_ns),
                    "frame_count": clip.info.frame_count,
                    "lead_in_s": clip.info.lead_in_s,
                    "size_bytes": clip.info.size_bytes,
                }
            rows.append(row)
    covered.check()
    publish(files, CLIPS, hour, rows_table(CLIPS, rows), chosen.name)
    covered.check(lambda: files.delete(table_path))
    # Clips of an earlier run of this hour that no row names any more.
    files.delete_files([path for path in there if path.endswith(SUFFIX) and path not in kept])
    size_bytes = sum(clip_size for row in rows if isinstance(clip_size := row.get("size_bytes"), int))
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        context.log.warning(f"{len(failed)} clips could not be cut; the first: {failed[0]['reason']}")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "release": chosen.name,
            "failed": len(failed),
            "blurred_regions": [list(region) for region in covered.value],
            "size_bytes": size_bytes,
        }
    )


def _clips_before(
    files: Store, hour: CameraHour, table_path: str, written: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """The rows of clips that an earlier run cut of the hour and that may still be shown, by segment."""
    if table_path not in written:
        return {}
    blurred_at = Cameras(files).regions_set_at(hour.camera, BLUR)
    if blurred_at is not None and written[table_path] < blurred_at.timestamp():
        return {}
    rows = files.read_table(CLIPS, table_path).to_pylist()
    return {row["segment_id"]: row for row in rows if row["status"] == "ok" and row["clip_path"] in written}
