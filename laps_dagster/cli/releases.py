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
def discard(release: str) -> None:
    """Remove the draft RELEASE.

    Its tables, its report and its list of models go. The models themselves and their latent streams stay, because
    other releases may use them. A release that is or was current is never removed.
    """
    from resources.models import ModelRegistry

    removed = ModelRegistry(existing_store()).discard(release)
    click.echo(f"discarded draft {release}; removed:")
    for folder, count in removed.items():
        click.echo(f"    {folder}  ({count} file{'' if count == 1 else 's'})")
