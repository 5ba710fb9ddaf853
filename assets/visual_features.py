"""v_i: the vision encoder's descriptor of each primitive, pooled over several of its keyframes.

Used only to judge clusters (ICSS, paper section 3.2.3), never to make them. The encoder is part of the release.
Where no weights of a vision-language model are to be had, a weight-free descriptor stands in and is named as such
in every row.
"""

import dagster as dg

from assets.partitions import camera_hour, camera_hours, with_previous
from assets.retries import tried_again
from assets.specs import SEGMENT, describe
from laps.errors import ModelMismatchError
from laps.tables import KEYFRAMES, VISUAL_FEATURES
from resources.configured import RecordingsResource, StoreResource, VisionResource
from resources.hours import read_with_previous
from resources.models import ENCODER, ModelRegistry
from resources.release import ReleaseResource
from resources.segments import read_segments
from resources.store import rows_table


@dg.asset(
    deps=["segments", with_previous("keyframes"), with_previous("raw_video")],
    partitions_def=camera_hours,
    pool="gpu",
    **describe(__doc__, group=SEGMENT, kinds={"parquet", "pytorch"}, table=VISUAL_FEATURES),
)
@tried_again
def visual_features(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    recordings: RecordingsResource,
    release: ReleaseResource,
    vision: VisionResource,
) -> dg.MaterializeResult:
    from laps.visual_features import describe_primitives

    hour, files = camera_hour(context), store.open()
    chosen = release.read(files)
    primitives = read_segments(files, hour, chosen).to_pylist()
    encoder = vision.build()
    if chosen.encoder is None:
        ModelRegistry(files).fill(chosen, ENCODER, encoder.encoder_id)
    elif chosen.encoder != encoder.encoder_id:
        raise ModelMismatchError(
            f"release {chosen.name} judges with {chosen.encoder}, but {encoder.encoder_id} is configured",
            where=hour.key,
            fix="Open a draft release for the other one, or configure the release's encoder (LAPS_VISION)"
            f"{chosen.in_run}.",
        )
    keyframes = read_with_previous(files, recordings.open(files), KEYFRAMES, hour)
    rows = [
        {"camera": hour.camera, "encoder_id": encoder.encoder_id, "release": chosen.name, **described}
        for described in describe_primitives(primitives, keyframes, encoder)
    ]
    files.write_partition(VISUAL_FEATURES, hour, rows_table(VISUAL_FEATURES, rows), chosen.name)
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        context.log.warning(f"{len(failed)} primitives have no features; the first: {failed[0]['reason']}")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "release": chosen.name,
            "encoder_id": encoder.encoder_id,
            "frames": sum(row["frames_used"] for row in rows),
            "failed": len(failed),
        }
    )
