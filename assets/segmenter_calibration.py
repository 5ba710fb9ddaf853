"""How a camera's streams are cut, found without labels: thresholds, background, what boundaries look like.

By default from the energy's own logarithm: a two-state model of rest and motion, with the threshold where the two
are equally likely. The paper's sweep against Otsu pseudo-labels of the velocity energy (section 3.1.2) can be
chosen. The camera's background, found here too, belongs to the release and never to the hour being processed.

Primitives that follow each other without a rest are told apart by what ends and beginnings look like in the codes. That
is learned here, from those that are known by their rests, or by changes of the picture where nothing rests.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field

from assets.partitions import SAME_CAMERA, cameras
from assets.plots import calibration_plot
from assets.retries import tried_again
from assets.specs import MODELS, describe, picture
from laps.errors import NotProcessedError
from laps.tables import KEYFRAMES, LATENT_STREAM
from laps.timegrid import CameraHour
from resources.cameras import Cameras
from resources.configured import StoreResource
from resources.models import CALIBRATION, CALIBRATION_FILE, TOKENIZER, ModelRegistry, naming
from resources.release import ReleaseResource
from resources.settings import store_grid


class CalibrationSettings(dg.Config):
    """How to find the thresholds."""

    hours: list[str] = Field(
        default=[],
        description="Camera hours to calibrate on. Empty: the camera's first 24 with a latent stream.",
    )
    form: str = Field(
        "decoded_motion",
        description="Energy to cut by: decoded_motion, latent_action, velocity, prequantized.",
    )
    method: str = Field("log_energy", description="log_energy, or sweep (the paper's).")
    cut: Literal["", "energy", "rests", "boundaries"] = Field(
        "",
        description="energy: what lies between rests (the paper's). rests: the same, divided at learned boundaries. "
        "boundaries: what lies between learned boundaries, for work that does not rest. Empty: rests for "
        "decoded_motion, else energy.",
    )
    teacher: Literal["rests", "pictures"] = Field(
        "rests", description="What boundaries are learned from with cut = boundaries: rests, or changes of keyframes."
    )


@dg.asset(
    deps=[
        dg.AssetDep("latent_stream", partition_mapping=SAME_CAMERA),
        dg.AssetDep("keyframes", partition_mapping=SAME_CAMERA),
        "motion_tokenizer",
    ],
    partitions_def=cameras,
    **describe(__doc__, group=MODELS, kinds={"numpy"}),
)
@tried_again
def segmenter_calibration(
    context: dg.AssetExecutionContext,
    config: CalibrationSettings,
    store: StoreResource,
    release: ReleaseResource,
) -> dg.MaterializeResult:
    import numpy as np

    from laps.calibration import calibrate
    from laps.detector import DetectorTimes, smooth
    from laps.energy import series
    from laps.latent import LatentStream
    from laps.picture_changes import keyframe_segments
    from laps.tokenizer import load

    camera, files = context.partition_key, store.open()
    grid = store_grid(files)
    registry = ModelRegistry(files)
    target = release.to_fill(files, CALIBRATION, camera)
    tokenizer_id = target.require(TOKENIZER)
    hours = [CameraHour.parse(key) for key in config.hours] or [
        hour for hour in files.partitions(LATENT_STREAM, tokenizer_id) if hour.camera == camera
    ][:24]
    if not hours:
        raise NotProcessedError(
            f"has no latent stream of tokenizer {tokenizer_id}",
            where=f"camera {camera}",
            fix=f"Materialize latent_stream of some hours of this camera first{target.in_run}.",
        )
    with naming(target):
        streams = [LatentStream.from_table(files.read_partition(LATENT_STREAM, hour, tokenizer_id)) for hour in hours]
    tokenizer = load(registry.folder(TOKENIZER, tokenizer_id))
    pictures = None
    if config.teacher == "pictures":
        regions = Cameras(files).read(camera).ignore_regions
        pictures = []
        for hour in hours:  # one at a time: an hour of pictures is some 60 MB
            rows = files.read_partition(KEYFRAMES, hour, columns=["sample", "jpeg"])
            pictures.append(keyframe_segments(rows["sample"].to_pylist(), rows["jpeg"].to_pylist(), grid, regions))
    calibration = calibrate(
        streams,
        camera=camera,
        form=config.form,
        method=config.method,
        decoded_motion=tokenizer.decoded_motion() if tokenizer.config.decoding == "token" else None,
        times=DetectorTimes(rate_hz=float(grid.rate_hz)),
        how=config.cut or None,
        teacher=config.teacher,
        pictures=pictures,
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CALIBRATION_FILE).write_text(calibration.to_json(), encoding="utf-8")
        registry.put(CALIBRATION, calibration.calibration_id, Path(folder))
    registry.fill(target, CALIBRATION, calibration.calibration_id, camera)
    if not calibration.ok:
        context.log.warning(calibration.message)
    smoothed = np.concatenate([smooth(series(stream, calibration), calibration.settings) for stream in streams])
    figures = {
        name: value
        for name, value in asdict(calibration.diagnostics).items()
        if value is not None and not isinstance(value, list)
    }
    return dg.MaterializeResult(
        metadata={
            "calibration_id": calibration.calibration_id,
            "release": target.name,
            "tokenizer_id": tokenizer_id,
            "ok": calibration.ok,
            "message": calibration.message,
            "form": calibration.form,
            "method": calibration.method,
            "cut": calibration.cut,
            "theta_on": calibration.settings.theta_on,
            "theta_off": calibration.settings.theta_off,
            "hours": [hour.key for hour in hours],
            **figures,
            "histogram": picture(calibration_plot(smoothed, calibration), "smoothed energy and thresholds"),
        }
    )
