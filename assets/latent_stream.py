"""The latent action code and energies of every sample, ten a second.

Each window of tracks goes through the tokenizer in one fixed batch shape, so that codes do not depend on how the
recording was split; a window gives the values of its last four samples (paper sections 3.1 and 3.1.1). Where there
is no value it is null, with the reason. Points in the camera's regions to ignore do not count.
"""

import time
from collections import Counter

import dagster as dg

from assets.partitions import camera_hour, camera_hours
from assets.plots import energy_plot
from assets.retries import Steady, tried_again
from assets.specs import OBSERVE, describe, picture
from laps.tables import LATENT_STREAM, RAW_VIDEO
from resources.cameras import Cameras
from resources.configured import StoreResource
from resources.hours import observed_samples
from resources.models import TOKENIZER, ModelRegistry
from resources.publishing import publish
from resources.release import ReleaseResource
from resources.settings import store_grid
from resources.tracks import read_windows


@dg.asset(
    deps=["raw_video", "keypoint_tracks", "motion_tokenizer"],
    partitions_def=camera_hours,
    pool="gpu",
    **describe(__doc__, group=OBSERVE, kinds={"parquet", "pytorch"}, table=LATENT_STREAM),
)
@tried_again
def latent_stream(
    context: dg.AssetExecutionContext, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    import numpy as np

    from laps.latent import encode_stream
    from laps.sampling import covered
    from laps.tokenizer import load
    from laps.tokenizer.training import code_perplexity

    hour, files = camera_hour(context), store.open()
    grid = store_grid(files)
    tokenizer_id = release.read(files).require(TOKENIZER)
    tokenizer = load(ModelRegistry(files).folder(TOKENIZER, tokenizer_id))
    rows = files.read_partition(RAW_VIDEO, hour).to_pylist()
    first, stop = observed_samples(rows, hour, grid)
    ignored = Steady(lambda: Cameras(files).read(hour.camera).ignore_regions, "the regions to ignore", hour)
    began = time.perf_counter()
    stream = encode_stream(
        read_windows(files, [hour]),
        tokenizer,
        grid,
        first=first,
        stop=stop,
        covered=covered(rows, grid, first, stop),
    )
    ignored.check()
    publish(files, LATENT_STREAM, hour, stream.to_table(hour.camera, grid), tokenizer_id)
    ignored.check(lambda: files.delete(files.partition_path(LATENT_STREAM, hour, tokenizer_id)))
    seconds = time.perf_counter() - began
    present = stream.code[stream.code >= 0]
    counts = np.bincount(present, minlength=tokenizer.config.code_count)
    reasons = Counter(reason for reason in stream.null_reason if reason)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": stop - first,
            "tokenizer_id": tokenizer_id,
            "valued_s": len(present) * grid.step_s,
            "codes_used": int((counts > 0).sum()),
            "code_perplexity": code_perplexity(counts) if len(present) else 0.0,
            "null_reasons": dict(reasons),
            "ignored_regions": [list(region) for region in ignored.value],
            "wall_s": seconds,
            "real_time_factor": len(present) * grid.step_s / seconds if seconds else 0.0,
            "energy": picture(energy_plot(stream, grid), "energies over the hour"),
        }
    )
