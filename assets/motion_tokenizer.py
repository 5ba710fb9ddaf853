"""The motion tokenizer: causal Transformer encoder, finite scalar quantization, and a decoder (paper section 3.1).

Trained without labels on the keypoint tracks of the configured hours; by default on a sample of at most two hours,
spread evenly over all cameras and hours that have tracks. The model's id is the hash of its content; it goes into
the draft release. Training curve and codebook use are in the metadata.
"""

import tempfile
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.plots import training_plot
from assets.specs import MODELS, describe, picture
from laps.errors import InputError, NotProcessedError
from laps.tables import KEYPOINT_TRACKS
from laps.timegrid import CameraHour
from resources.configured import StoreResource
from resources.models import TOKENIZER, ModelRegistry
from resources.release import ReleaseResource
from resources.settings import store_grid
from resources.windows import training_windows


class TokenizerTraining(dg.Config):
    """What to train on, and for how long."""

    preset: str = Field("full", description="full: the paper's size. small: for demonstrations and tests.")
    hours: list[str] = Field(
        default=[],
        description="Camera hours to train on, for example cam1|2026-11-21-05:00. Empty: all that have tracks.",
    )
    sample_hours: float = Field(2.0, gt=0, description="Hours of tracks to take at most, spread evenly.")
    max_minutes: float = Field(60.0, gt=0, description="Longest training time; it ends earlier at a plateau.")
    max_steps: int = Field(0, ge=0, description="Most optimizer steps; 0: no limit.")
    seed: int = Field(0, description="Seed of initialisation and sampling.")


@dg.asset(
    deps=["keypoint_tracks"],
    pool="gpu",
    **describe(__doc__, group=MODELS, kinds={"pytorch"}),
)
def motion_tokenizer(
    context: dg.AssetExecutionContext,
    config: TokenizerTraining,
    store: StoreResource,
    release: ReleaseResource,
) -> dg.MaterializeResult:
    from laps.tokenizer import TrainingProgress, preset_config, save, train

    files = store.open()
    grid = store_grid(files)
    hours = [CameraHour.parse(key) for key in config.hours] or files.partitions(KEYPOINT_TRACKS)
    if not hours:
        raise NotProcessedError(
            "there are no keypoint tracks to train on",
            where=files.root,
            fix="Materialize keypoint_tracks of some hours first, or run `laps backfill`.",
        )
    sample = training_windows(files, hours, grid, sample_hours=config.sample_hours)
    if sample.count == 0:
        raise InputError(
            f"the {len(hours)} chosen hours hold no window of tracks",
            fix='Choose hours with footage (laps sql "select * from raw_video where used").',
        )
    context.log.info(sample.description)

    def report(progress: TrainingProgress) -> None:
        context.log.info(str(progress))

    trained = train(
        sample.velocities,
        preset_config(config.preset, tracker_id=sample.tracker_id, points=sample.points, rate_hz=grid.rate_hz),
        visible=sample.visible,
        seed=config.seed,
        max_minutes=config.max_minutes,
        max_steps=config.max_steps or None,
        progress=report,
    )
    target = release.to_fill(files, TOKENIZER)
    registry = ModelRegistry(files)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer_id = save(trained, Path(folder))
        registry.put(TOKENIZER, tokenizer_id, Path(folder))
    registry.fill(target, TOKENIZER, tokenizer_id)
    statistics = trained.statistics
    if statistics.warning:
        context.log.warning(statistics.warning)
    return dg.MaterializeResult(
        metadata={
            "tokenizer_id": tokenizer_id,
            "release": target.name,
            "sample": sample.description,
            "preset": config.preset,
            "warning": statistics.warning or "none",
            **statistics.as_metadata(),
            "training": picture(training_plot(trained.history), "training curve"),
        }
    )
