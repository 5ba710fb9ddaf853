"""``laps backfill``: process hours in the foreground, without a daemon."""

from __future__ import annotations

import os

import click

from laps.errors import LapsError
from laps.timegrid import parse_utc
from laps_dagster.cli.places import existing_store


@click.command()
@click.option("--camera", "cameras", multiple=True, help="Camera to process; may be repeated. Default: all.")
@click.option("--from", "start", help="First time to process, ISO 8601 with a zone. Default: the first recording.")
@click.option("--to", "stop", help="End (exclusive), ISO 8601 with a zone. Default: the last recording.")
@click.option(
    "--only", type=click.Choice(["missing"]), help="Only hours that are missing, or older than what they are made from."
)
@click.option("--dry-run", is_flag=True, help="Print the hours and their stages, and do nothing.")
@click.option("--release", default="", help="Release to work with. Default: the current one.")
@click.option("--new-release", is_flag=True, help="Open a draft release with models of its own, made from these hours.")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Runs at once.")
@click.option("--preset", type=click.Choice(["full", "small"]), default="full", show_default=True,
              help="Size of the tokenizer, where one is trained first.")  # fmt: skip
@click.option(
    "--train-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Longest training time.",
)
@click.option("--cut", type=click.Choice(["energy", "rests", "boundaries"]), default="rests", show_default=True,
              help="How cameras that are calibrated first are cut. energy: between rests, as in the paper; rests: the "
              "same, divided where boundaries without rest were learned; boundaries: by these alone, for work that "
              "never rests.")  # fmt: skip
@click.option("--teacher", type=click.Choice(["rests", "pictures"]), default="rests", show_default=True,
              help="What boundaries are learned from with --cut boundaries: rests, or changes of the picture, for "
              "work that rests inside of actions and not between them.")  # fmt: skip
@click.option("--clusters", "k", type=click.IntRange(1), default=6, show_default=True,
              help="Number of clusters, where they are fitted first.")  # fmt: skip
def backfill(
    cameras: tuple[str, ...],
    start: str | None,
    stop: str | None,
    only: str | None,
    dry_run: bool,
    release: str,
    new_release: bool,
    workers: int,
    preset: str,
    train_minutes: float,
    cut: str,
    teacher: str,
    k: int,
) -> None:
    """Process recorded hours: observe, segment, report.

    Without --only missing, hours that are complete are made again too.

    On a store without a release the first call also trains the tokenizer, calibrates and fits the clusters. The
    hour after each recorded one is processed too, because it closes what is open. Failed hours are listed at the
    end, with exit code 1; `laps backfill --only missing` tries them again.
    """
    from laps_dagster.pipeline import Backfill, Options, Progress, select_hours
    from resources.models import ModelRegistry
    from resources.recordings import Recordings
    from resources.settings import store_settings

    store = existing_store()
    store_settings(store)
    hours = select_hours(
        Recordings(store), cameras, parse_utc(start) if start else None, parse_utc(stop) if stop else None
    )
    if new_release and release:
        raise click.UsageError("give --release or --new-release, not both")
    if new_release and dry_run:
        raise click.UsageError("--dry-run is of a release that is there: a new one encodes and cuts every hour")
    if teacher == "pictures" and cut != "boundaries":
        raise click.UsageError("--teacher pictures goes with --cut boundaries")
    if dry_run:
        planned = Backfill(store, hours, Options(release=release, only_missing=only == "missing"), Progress(click.echo))
        for hour, stages in planned.plan().items():
            click.echo(f"{hour.key}  {', '.join(stages)}")
        return
    register_cameras(sorted({hour.camera for hour in hours}))
    if new_release:
        release = ModelRegistry(store).open_draft("opened by laps backfill").name
        click.echo(f"draft release {release}")
    progress = Progress(report=click.echo)
    options = Options(
        release=release,
        only_missing=only == "missing",
        workers=workers,
        preset=preset,
        train_minutes=train_minutes,
        cut=cut,
        teacher=teacher,
        k=k,
    )
    try:
        made = Backfill(store, hours, options, progress).run()
    except LapsError as error:
        click.echo(f"laps: {error}", err=True)
        raise SystemExit(1) from error
    if progress.failures:
        click.echo(f"{len(progress.failures)} runs failed:", err=True)
        for outcome in progress.failures:
            click.echo(f"  {outcome.task}: {outcome.error}", err=True)
        click.echo(
            "`laps backfill --only missing` with the same other options runs them again; their logs are in the "
            "Dagster UI (laps dev)",
            err=True,
        )
        raise SystemExit(1)
    if made.status == "draft":
        click.echo(
            f"release {made.name} is a draft: look at its report, then `laps promote {made.name}` or "
            f"`laps discard {made.name}`"
        )


def register_cameras(cameras: list[str]) -> None:
    """Make the cameras partitions of the Dagster instance."""
    from laps_dagster.instance import open_instance
    from laps_dagster.sensors import add_cameras

    with open_instance() as instance:
        add_cameras(instance, cameras)
