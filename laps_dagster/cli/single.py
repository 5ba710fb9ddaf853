"""``laps train``, ``segment``, ``evaluate`` and ``calibrate``: single files, without a store and without Dagster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from laps.errors import CalibrationError, InputError, LapsError
from laps_dagster.cli.places import check_output_file, check_output_folder

if TYPE_CHECKING:
    from laps.boundaries import Teacher
    from laps.calibration import Calibration
    from laps.cutting import Cut
    from laps.keyframes import Keyframe
    from laps.tokenizer import TrainingProgress

FILE = click.Path(path_type=Path)
FORMS = ("decoded_motion", "latent_action", "velocity", "prequantized")
METHODS = ("log_energy", "sweep")
CUTS = ("energy", "rests", "boundaries")
TEACHERS = ("rests", "pictures")


@click.command()
@click.argument("videos", nargs=-1, required=True, type=FILE, metavar="VIDEO...")
@click.option("--out", required=True, type=FILE, help="Folder for the model.")
@click.option("--preset", type=click.Choice(["full", "small"]), default="full", show_default=True,
              help="Size of the tokenizer; small for a quick look.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True,
              help="Longest training time.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Most optimizer steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the weights and of the batches.")
@click.option("--tracker-preset", type=click.Choice(["ultrafast", "fast", "medium"]), default="ultrafast",
              show_default=True, help="Speed of the optical flow.")  # fmt: skip
def train(
    videos: tuple[Path, ...],
    out: Path,
    preset: str,
    minutes: float,
    steps: int | None,
    seed: int,
    tracker_preset: str,
) -> None:
    """Train a motion tokenizer on VIDEOs, without labels."""
    from tqdm import tqdm

    from laps.single import read_recording, track_recording
    from laps.timegrid import SampleGrid
    from laps.tokenizer import TokenizerConfig, from_tracks, save
    from laps.tokenizer import train as train_tokenizer
    from laps.trackers.flow import FlowTracker
    from laps.tracks import TrackWindows

    check_output_folder(out)
    grid = SampleGrid()
    recordings = []
    for path in videos:
        try:
            recordings.append(read_recording(path, grid))
        except LapsError as error:
            click.echo(f"left out: {error}", err=True)
    if not recordings:
        raise InputError("none of the files can be used", fix="The lines above say why.")
    tracker = FlowTracker(preset=tracker_preset)

    def windows() -> Iterator[TrackWindows]:
        total = sum(recording.stop - recording.first for recording in recordings) // grid.stride
        with tqdm(total=total, desc="tracking", unit="window", leave=False) as bar:
            for recording in recordings:
                for batch in track_recording(recording, tracker, grid, on_problem=bar.write):
                    bar.update(len(batch.end_samples))
                    yield batch

    bar: Any = None

    def show(progress: TrainingProgress) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=progress.last_step, desc="training", unit="step")
        bar.total = progress.last_step
        bar.n = progress.step
        bar.set_postfix_str(
            f"loss {progress.loss:.3f}, perplexity {progress.perplexity:.0f}, "
            f"codes {progress.codes_used_share:.0%}, {progress.windows_per_s:.0f} windows/s, "
            f"{progress.eta_s / 60:.1f} min left"
        )
        if progress.warning:
            bar.write(f"warning: {progress.warning}")

    make = TokenizerConfig.full if preset == "full" else TokenizerConfig.small
    config = make(tracker.tracker_id, rate_hz=grid.rate_hz, steps=grid.window - 1)
    trained = train_tokenizer(
        from_tracks(windows(), grid, config), config, seed=seed, max_minutes=minutes, max_steps=steps, progress=show
    )
    if bar is not None:
        bar.close()
    tokenizer_id = save(trained.tokenizer, out, training=trained.report())
    quality = trained.quality
    click.echo(
        f"{tokenizer_id} in {out}: ended by {trained.ended_by}; on {quality.moving_windows} moving windows "
        f"{'that training did not see' if quality.held_out else 'of the training data'}: "
        f"perplexity {quality.perplexity:.0f}, {quality.codes_used} of {config.code_count} codes used"
        + (
            f"; displacement class right for {quality.moving_accuracy:.0%} of moving points "
            f"(commonest class {quality.commonest_class_share:.0%})"
            if quality.moving_accuracy is not None and quality.commonest_class_share is not None
            else ""
        )
    )


@click.command()
@click.argument("video", type=FILE)
@click.option("--model", required=True, type=FILE, help="Folder that `laps train` wrote.")
@click.option("--out", type=FILE, help="File for the segments (JSON). Default: standard output.")
@click.option("--calibration", type=FILE, help="Thresholds of an earlier --save-calibration. Default: VIDEO's.")
@click.option("--save-calibration", type=FILE, help="File to keep the thresholds in.")
@click.option("--form", type=click.Choice(FORMS), default="decoded_motion", show_default=True, help="Energy to cut by.")
@click.option("--method", type=click.Choice(METHODS), default="log_energy", show_default=True,
              help="Calibration; sweep is the paper's.")  # fmt: skip
@click.option("--cut", "how", type=click.Choice(CUTS),
              help="energy: between rests, the paper's; rests: the same, divided where boundaries without rest were "
              "learned; boundaries: these alone, for work that never rests.  [default: rests for decoded_motion, "
              "else energy]")  # fmt: skip
@click.option("--teacher", type=click.Choice(TEACHERS), default="rests", show_default=True,
              help="What boundaries are learned from with --cut boundaries.")  # fmt: skip
def segment(
    video: Path,
    model: Path,
    out: Path | None,
    calibration: Path | None,
    save_calibration: Path | None,
    form: str,
    method: str,
    how: Cut | None,
    teacher: Teacher,
) -> None:
    """Cut VIDEO into action primitives, written as JSON.

    Each has its start and end in seconds and its latent action codes.
    """
    from laps.single import (
        calibrate_recording,
        encode_recording,
        read_recording,
        segment_recording,
        track_recording,
    )
    from laps.timegrid import SampleGrid
    from laps.tokenizer import load
    from laps.trackers.flow import tracker_from_id

    check_output_file(out)
    check_output_file(save_calibration)
    given = None if calibration is None else _read_calibration(calibration)
    grid = SampleGrid()
    recording = read_recording(video, grid)
    for problem in recording.problems:
        click.echo(f"note: {problem}", err=True)
    tokenizer = load(model)
    tracker = tracker_from_id(tokenizer.config.tracker_id)
    keyframes: list[Keyframe] = []
    windows = track_recording(recording, tracker, grid, keyframes=keyframes if teacher == "pictures" else None)
    stream = encode_recording(recording, windows, tokenizer, grid)
    try:
        chosen = given or calibrate_recording(
            stream, tokenizer, grid, form=form, method=method, how=how, teacher=teacher, keyframes=keyframes
        )
    except CalibrationError as error:
        raise CalibrationError(
            f"no thresholds can be found in it: {error.what}",
            where=str(video),
            fix="Give a longer recording, or thresholds of another one with --calibration.",
        ) from error
    if not chosen.ok:
        click.echo(f"note: {chosen.message}", err=True)
    if save_calibration is not None:
        save_calibration.write_text(chosen.to_json(), encoding="utf-8")
    document = segment_recording(recording, stream, chosen, grid)
    text = json.dumps(document, indent=1)
    if out is None:
        click.echo(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")
        click.echo(f"{len(document['segments'])} primitives in {recording.duration_s:.1f} s: {out}")


def _read_calibration(path: Path) -> Calibration:
    from laps.calibration import Calibration

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("the file is no UTF-8 text", where=str(path)) from error
    return Calibration.from_json(text, name=str(path))


@click.command()
@click.argument("truth", type=FILE, metavar="TRUTH.json")
@click.argument("prediction", type=FILE, metavar="PRED.json")
@click.option("--tolerance", "tolerances", type=float, multiple=True, default=(0.25, 0.5, 1.0, 2.0, 5.0),
              show_default=True, help="Tolerance in seconds; may be repeated.")  # fmt: skip
@click.option("--cycle-ends-fps", type=float,
              help="TRUTH lists the frames at which cycles end instead; this is their rate.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    truth: Path, prediction: Path, tolerances: tuple[float, ...], cycle_ends_fps: float | None, as_json: bool
) -> None:
    """Score PRED.json against TRUTH.json.

    Each figure stands beside what chance would reach.
    """
    from laps.evaluation import evaluate as score
    from laps.evaluation import render, truth_from_cycle_ends
    from laps.reference_files import read_segments_json

    predicted = read_segments_json(prediction)
    if cycle_ends_fps is None:
        true = read_segments_json(truth)
    else:
        if not truth.is_file():
            raise InputError("there is no such file", where=str(truth))
        true = truth_from_cycle_ends(
            truth.read_text(encoding="utf-8"),
            fps=cycle_ends_fps,
            duration_s=float(predicted["video_duration_sec"]),
        )
    result = score(true, predicted, tolerances)
    click.echo(json.dumps(result, indent=1) if as_json else render(result).rstrip())


@click.command()
@click.argument("energy", type=FILE, metavar="ENERGY.jsonl")
@click.argument("proxy", type=FILE, metavar="PROXY.jsonl")
@click.option("--method", type=click.Choice(METHODS), default="sweep", show_default=True,
              help="Calibration; sweep is the paper's.")  # fmt: skip
def calibrate(energy: Path, proxy: Path, method: str) -> None:
    """Find the threshold of an energy stream and print it as JSON.

    Both files are the reference implementation's and hold lines {"window": …, "energy": …}; PROXY is the velocity
    energy that gives pseudo-labels.
    """
    from laps.calibration import calibrate_files

    click.echo(json.dumps(calibrate_files(energy, proxy, method=method), indent=1))
