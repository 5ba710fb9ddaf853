"""The motion tokenizer: causal Transformer encoder, finite scalar quantization, and a decoder (paper section 3.1).

Trained without labels on the keypoint tracks of the configured hours; by default on a sample of at most two hours,
spread evenly over all cameras and hours that have tracks. The model's id is the hash of its content; it goes into
the draft release. Training curve and codebook use are in the metadata.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.partitions import any_hours
from assets.plots import training_plot
from assets.retries import patiently, tried_again
from assets.specs import MODELS, describe, picture
from laps.errors import InputError, NotProcessedError
from laps.tables import KEYPOINT_TRACKS
from laps.timegrid import CameraHour
from resources.configured import StoreResource
from resources.models import TOKENIZER, ModelRegistry, Release
from resources.release import ReleaseResource
from resources.settings import store_grid
from resources.tracks import read_windows


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
    deps=any_hours("keypoint_tracks"),
    pool="gpu",
    **describe(__doc__, group=MODELS, kinds={"pytorch"}),
)
@tried_again
def motion_tokenizer(
    context: dg.AssetExecutionContext,
    config: TokenizerTraining,
    store: StoreResource,
    release: ReleaseResource,
) -> dg.MaterializeResult:
    import itertools

    from laps.tokenizer import TokenizerConfig, TrainingProgress, from_tracks, save, train

    files = store.open()
    grid = store_grid(files)
    hours = [CameraHour.parse(key) for key in config.hours] or files.partitions(KEYPOINT_TRACKS)
    windows = read_windows(files, hours)
    first = next(windows, None)
    if first is None:
        raise NotProcessedError(
            f"the {len(hours)} chosen hours hold no window of keypoint tracks to train on",
            where=files.root,
            fix="Materialize keypoint_tracks of hours with footage first, or run `laps backfill`.",
        )
    if config.preset not in ("full", "small"):
        raise InputError(f"there is no preset {config.preset!r}", fix="Choose full or small.")
    preset = TokenizerConfig.full if config.preset == "full" else TokenizerConfig.small
    model = preset(first.tracker_id, rate_hz=grid.rate_hz, points=first.displacements.shape[2], steps=grid.window - 1)

    def log(progress: TrainingProgress) -> None:
        if progress.step % 50 == 0 or progress.warning:
            context.log.info(str(progress))

    trained = train(
        from_tracks(itertools.chain([first], windows), grid, model),
        model,
        seed=config.seed,
        max_minutes=config.max_minutes,
        max_steps=config.max_steps or None,
        max_windows=round(config.sample_hours * grid.samples_per_hour / grid.stride),
        progress=log,
    )
    registry = ModelRegistry(files)
    with tempfile.TemporaryDirectory() as folder:
        report = {**trained.report(), "hours": [hour.key for hour in hours]}
        tokenizer_id = save(trained.tokenizer, Path(folder), training=report)

        def keep() -> Release:
            registry.put(TOKENIZER, tokenizer_id, Path(folder))
            target = release.to_fill(files, TOKENIZER)
            registry.fill(target, TOKENIZER, tokenizer_id)
            return target

        # A step that is tried again would train again.
        target = patiently(keep, context.log.warning)
    for warning in trained.warnings:
        context.log.warning(warning)
    quality = {name: value for name, value in asdict(trained.quality).items() if value is not None}
    return dg.MaterializeResult(
        metadata={
            "tokenizer_id": tokenizer_id,
            "release": target.name,
            "preset": config.preset,
            "hours": [hour.key for hour in hours],
            "sample": f"{trained.windows_used} of {trained.windows_seen} windows "
            f"({trained.windows_used * grid.stride * grid.step_s / 60:.1f} min), spread evenly",
            "ended_by": trained.ended_by,
            "warnings": "; ".join(trained.warnings) or "none",
            "codes": model.code_count,
            **quality,
            "training": picture(training_plot(trained.history), "training curve"),
        }
    )
