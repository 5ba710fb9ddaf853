"""``laps releases``, ``laps promote`` and ``laps discard``: which models belong together, and which are in use."""

from __future__ import annotations

import click

from laps_dagster.cli.places import existing_store


@click.command()
def releases() -> None:
    """List the releases and their models."""
    from resources.models import ModelRegistry

    found = ModelRegistry(existing_store()).releases()
    if not found:
        click.echo("no release yet: `laps backfill` makes the first")
    for release in found:
        click.echo(f"{release.name}  {release.status}  created {release.created_at}")
        for slot in ("tokenizer", "embedder", "encoder", "cluster_model"):
            click.echo(f"    {slot.replace('_', ' '):14} {getattr(release, slot) or '-'}")
        for camera, calibration in sorted(release.calibrations.items()):
            click.echo(f"    calibration    {calibration} ({camera})")


@click.command()
@click.argument("release")
@click.option("--even-incomplete", is_flag=True, help="Also where it lacks hours that the current release has.")
def promote(release: str, even_incomplete: bool) -> None:
    """Make RELEASE the one that runs, catalog and report use.

    It must hold the primitives of every hour that the current release has; `laps backfill --release RELEASE --only
    missing` makes those that it lacks.
    """
    from resources.models import ModelRegistry

    promoted = ModelRegistry(existing_store()).promote(release, even_incomplete=even_incomplete)
    click.echo(f"release {promoted.name} is now current")


@click.command()
@click.argument("release")
@click.option("--yes", is_flag=True, help="Do not ask, where RELEASE was current once.")
def discard(release: str, yes: bool) -> None:
    """Remove RELEASE, a draft or one that is not current any more.

    Its primitives, clips, report and list of models go, and of the models and their latent streams what no other
    release names. Data sets that were exported from it stay. The current release is never removed.
    """
    from resources.models import ModelRegistry

    registry = ModelRegistry(existing_store())
    chosen = registry.release(release)
    if chosen.status == "retired" and not yes:
        alone = len(registry.hours_beside(release, chosen.current)) if chosen.current else 0
        lost = f" {alone:,} of its hours are not in release {chosen.current}." if alone else ""
        question = "Remove its primitives, clips and models?"
        click.confirm(f"Release {release} was current once.{lost} {question}", abort=True)
    removed = registry.discard(release)
    click.echo(f"discarded {release} ({chosen.status}); removed:")
    for folder, count in removed.items():
        click.echo(f"    {folder}  ({count} file{'' if count == 1 else 's'})")
