"""``laps simulate``: recordings of the simulated workstation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from laps.timegrid import parse_utc


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--scenario", default="clean", show_default=True, help="clean, distractors, hard or no_rest.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of what happens.")
@click.option("--seconds", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Length.")
@click.option("--size", default="1280x720", show_default=True, help="Width x height in pixels.")
@click.option("--fps", type=click.FloatRange(1, 240), default=30.0, show_default=True, help="Frames a second.")
@click.option(
    "--start", default="2026-01-05T09:00:00Z", show_default=True, help="Time of the first frame, with a zone."
)
def simulate(folder: Path, scenario: str, seed: int, seconds: float, size: str, fps: float, start: str) -> None:
    """Record the simulated workstation into FOLDER.

    Two cameras film it: FOLDER/cam1/ and FOLDER/cam2/, with the truth beside each file.
    """
    from laps.errors import InputError
    from laps.simulation import SCENARIOS, VIEWS, record

    if scenario not in SCENARIOS:
        raise InputError(f"there is no scenario {scenario!r}", fix=f"Choose one of {', '.join(SCENARIOS)}.")
    try:
        width, height = (int(part) for part in size.lower().split("x"))
    except ValueError as error:
        raise InputError(f"{size!r} is no picture size", fix="Write it as 1280x720.") from error
    chosen = replace(SCENARIOS[scenario], seed=seed, duration_s=seconds, width_px=width, height_px=height, fps=fps)
    for view in VIEWS:
        path = record(folder, chosen, camera=f"cam{view + 1}", view=view, start_ns=parse_utc(start))
        click.echo(str(path))
