"""The action primitives: from where the energy rises to where it falls, or from one learned boundary to the next.

The detector (paper section 3.1.2) is one causal pass. An hour replays the hour before as warm-up and keeps what is
decided in its own samples, so any hourly split gives the same primitives as one pass over the whole recording.
"""

import dagster as dg

from assets.partitions import SAME_CAMERA, camera_hour, camera_hours, with_previous
from assets.plots import duration_plot
from assets.retries import tried_again
from assets.specs import SEGMENT, describe, picture
from laps.tables import LATENT_STREAM, SEGMENTS
from resources.configured import RecordingsResource, StoreResource
from resources.hours import read_previous
from resources.models import CALIBRATION, TOKENIZER, ModelRegistry, naming
from resources.publishing import publish
from resources.release import ReleaseResource
from resources.settings import store_grid


@dg.asset(
    deps=[
        with_previous("latent_stream"),
        with_previous("raw_video"),
        dg.AssetDep("segmenter_calibration", partition_mapping=SAME_CAMERA),
    ],
    partitions_def=camera_hours,
    **describe(__doc__, group=SEGMENT, kinds={"parquet", "numpy"}, table=SEGMENTS),
)
@tried_again
def segments(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    recordings: RecordingsResource,
    release: ReleaseResource,
) -> dg.MaterializeResult:
    from laps.latent import LatentStream
    from laps.segments import segment_hour

    hour, files = camera_hour(context), store.open()
    grid = store_grid(files)
    chosen = release.read(files)
    tokenizer_id = chosen.require(TOKENIZER)
    calibration_id = chosen.require(CALIBRATION, hour.camera)
    calibration = ModelRegistry(files).calibration(chosen, hour.camera)
    with naming(chosen):
        current = files.read_partition(LATENT_STREAM, hour, tokenizer_id)
        previous = read_previous(files, recordings.open(files), LATENT_STREAM, hour, tokenizer_id)
    rows = segment_hour(
        LatentStream.from_table(previous) if previous is not None else None,
        LatentStream.from_table(current),
        calibration,
        hour,
        release=chosen.name,
        grid=grid,
    )
    publish(files, SEGMENTS, hour, rows, chosen.name)
    durations = rows["duration_s"].to_numpy()
    valued_minutes = (current.num_rows - current["code"].null_count) * grid.step_s / 60
    metadata = {
        "dagster/row_count": rows.num_rows,
        "release": chosen.name,
        "tokenizer_id": tokenizer_id,
        "calibration_id": calibration_id,
        "segments_a_minute": rows.num_rows / valued_minutes if valued_minutes else 0.0,
        "active_share": float(durations.sum()) / (60 * valued_minutes) if valued_minutes else 0.0,
    }
    if rows.num_rows:
        metadata["durations"] = picture(duration_plot(durations), "durations")
    return dg.MaterializeResult(metadata=metadata)
