"""``laps benchmark``: a public action-segmentation benchmark, from its folder to the paper's Table 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from laps.tokenizer import TrainingProgress

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("folder", type=FILE, metavar="DATASET_FOLDER")
@click.option("--out", required=True, type=FILE, help="File for the results (JSON).")
@click.option("--layout", type=click.Choice(["auto", "gtea", "breakfast", "50salads"]), default="auto",
              show_default=True)  # fmt: skip
@click.option("--split", type=click.IntRange(1), help="Split to score. Default: all, one after the other.")
@click.option("--setting", type=click.Choice(["inductive", "transductive"]), default="inductive", show_default=True,
              help="Learn from the split's training videos, or from the scored ones (without labels).")  # fmt: skip
@click.option("--model", type=FILE, help="Folder that `laps train` wrote. Default: one is trained.")
@click.option("--preset", type=click.Choice(["full", "small"]), default="full", show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True,
              help="Longest training time of a model.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Most optimizer steps.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--tracker-preset", type=click.Choice(["ultrafast", "fast", "medium"]), default="ultrafast",
              show_default=True, help="Speed of the optical flow.")  # fmt: skip
@click.option("--form", default="decoded_motion", show_default=True, help="Energy to cut by; latent_action is the "
              "paper's.")  # fmt: skip
@click.option("--method", default="log_energy", show_default=True, help="Calibration; sweep is the paper's.")
@click.option("--label-fps", type=click.FloatRange(min=0, min_open=True),
              help="Frame rate of the labels, where it is not the videos'.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Score at most this many videos of a split, for a look.")
@click.option("--work", type=FILE, help="Folder to keep models and finished videos in; a later run goes on from it. "
              "Default: beside --out.")  # fmt: skip
def benchmark(
    folder: Path,
    out: Path,
    layout: str,
    split: int | None,
    model: Path | None,
    label_fps: float | None,
    work: Path | None,
    **settings: Any,
) -> None:
    """Score this program on GTEA, Breakfast or 50 Salads.

    DATASET_FOLDER holds groundTruth/, mapping.txt and splits/ as MS-TCN distributes them, and videos/ with the
    dataset's own videos.
    """
    from tqdm import tqdm

    from laps.benchmarks.layouts import load_dataset
    from laps.benchmarks.run import Settings, run_benchmark, write_results
    from laps.benchmarks.table import render_benchmark

    chosen = Settings(split=split, **settings)
    with tqdm(desc="reading", unit="video", leave=False) as bar:

        def read(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        dataset = load_dataset(folder, layout, split=split, label_fps=label_fps, progress=read)
    watcher = _Bars()
    try:
        results = run_benchmark(dataset, chosen, work or out.with_suffix(".work"), watcher, model=model)
    finally:
        watcher.close()
    write_results(out, results)
    click.echo(render_benchmark(results).rstrip())


class _Bars:
    """One progress bar after the other, a new one for each stage."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def message(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is None:
            click.echo(text, err=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def progress(self, stage: str, done: float, total: float) -> None:
        """Minutes of video."""
        bar = self._of(stage, "min")
        bar.total, bar.n = round(total / 60, 1), round(done / 60, 1)
        bar.refresh()

    def training(self, progress: TrainingProgress) -> None:
        """Optimizer steps."""
        bar = self._of("training", "step")
        bar.total, bar.n = progress.last_step, progress.step
        bar.set_postfix_str(
            f"loss {progress.loss:.3f}, perplexity {progress.perplexity:.0f}, {progress.eta_s / 60:.1f} min left"
        )
        if progress.warning:
            self.message(f"warning: {progress.warning}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _of(self, stage: str, unit: str) -> Any:
        from tqdm import tqdm

        if stage != self._stage or self._bar is None:
            self.close()
            self._stage, self._bar = stage, tqdm(desc=stage, unit=unit)
        return self._bar
