"""Keypoint tracks of every window, and small keyframes, from one pass over the hour's frames.

A 20 x 20 grid of points starts anew in each window of 16 samples and is followed through it (paper section 3.1).
Keyframes are JPEG pictures, two a second, for the vision encoder, the report and contact sheets; regions that nobody
may see (`laps camera set --blur`) are grey in them. Each frame is decoded once in its life, here.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import BinaryIO

import dagster as dg

from assets.partitions import camera_hour, camera_hours
from assets.retries import Steady, tried_again
from assets.specs import OBSERVE, describe
from laps.tables import KEYFRAMES, KEYPOINT_TRACKS, RAW_VIDEO
from resources.cameras import Cameras
from resources.configured import RecordingsResource, StoreResource, TrackerResource
from resources.hours import observed_samples
from resources.publishing import partition_writer
from resources.recordings import open_uri
from resources.settings import store_grid
from resources.time_limit import within


@dg.multi_asset(
    name="observe_frames",
    partitions_def=camera_hours,
    pool="decode",
    specs=[
        dg.AssetSpec(
            "keypoint_tracks",
            deps=["raw_video"],
            **describe(__doc__, group=OBSERVE, kinds={"parquet", "opencv"}, table=KEYPOINT_TRACKS),
        ),
        dg.AssetSpec(
            "keyframes",
            deps=["raw_video"],
            **describe(__doc__, group=OBSERVE, kinds={"parquet", "opencv"}, table=KEYFRAMES),
        ),
    ],
)
@tried_again
def keypoint_tracks(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    recordings: RecordingsResource,
    tracker: TrackerResource,
) -> Iterator[dg.MaterializeResult]:
    from laps.keyframes import to_table
    from laps.observe import observe
    from laps.sampling import pieces_of, sample_frames
    from laps.tracks import TrackWindows

    hour, files = camera_hour(context), store.open()
    grid = store_grid(files)
    rows = files.read_partition(RAW_VIDEO, hour).to_pylist()
    first, stop = observed_samples(rows, hour, grid)
    follower = tracker.build()
    covered = Steady(lambda: Cameras(files).read(hour.camera).blur_regions, "the regions to blur", hour)
    problems: list[str] = []

    def opened(uri: str) -> BinaryIO:
        # Where a decoder takes the process with it, this is the last that is heard of the run.
        context.log.info(f"decoding {uri}")
        return open_uri(uri)

    samples = sample_frames(
        pieces_of(rows),
        opened,
        grid,
        first - grid.preroll,
        stop,
        threads=recordings.decode_threads,
        on_problem=problems.append,
    )
    began, cpu_began = time.perf_counter(), time.process_time()
    visible = 0.0
    with (
        partition_writer(files, KEYPOINT_TRACKS, hour) as tracks,
        partition_writer(files, KEYFRAMES, hour) as frames,
        # Closed also where a tracker or a disk fails: a limit that is left behind would end the process later.
        contextlib.closing(within(samples, recordings.decode_limit_s)) as limited,
    ):
        for batch in observe(limited, follower, grid, first=first, covered=covered.value):
            if isinstance(batch, TrackWindows):
                visible += float(batch.visible.mean()) * len(batch.end_samples)
                tracks.write(batch.to_table(hour.camera, grid))
            else:
                frames.write(to_table(batch, hour.camera, grid))
        covered.check()
    covered.check(lambda: files.delete(files.partition_path(KEYFRAMES, hour)))
    seconds = time.perf_counter() - began
    for problem in problems:
        context.log.warning(problem)
    observed_s = tracks.rows * grid.stride * grid.step_s
    yield dg.MaterializeResult(
        asset_key="keypoint_tracks",
        metadata={
            "dagster/row_count": tracks.rows,
            "tracker": follower.tracker_id,
            "observed_s": observed_s,
            "visible_share": visible / tracks.rows if tracks.rows else 0.0,
            "decoding_problems": len(problems),
            "wall_s": seconds,
            "cpu_s": time.process_time() - cpu_began,
            "real_time_factor": observed_s / seconds if seconds else 0.0,
            "size_bytes": files.fs.size(files.full_path(files.partition_path(KEYPOINT_TRACKS, hour))),
        },
    )
    yield dg.MaterializeResult(
        asset_key="keyframes",
        metadata={
            "dagster/row_count": frames.rows,
            "blurred_regions": [list(region) for region in covered.value],
            "size_bytes": files.fs.size(files.full_path(files.partition_path(KEYFRAMES, hour))),
        },
    )
