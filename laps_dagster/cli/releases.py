"""``laps releases`` and ``laps promote``: which models belong together, and which are in use."""

from __future__ import annotations

import click


@click.command()
def releases() -> None:
    """List the releases and their models."""
    from resources.models import ModelRegistry
    from resources.store import Store

    found = ModelRegistry(Store()).releases()
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
def promote(release: str) -> None:
    """Make RELEASE the one that runs, catalog and report use."""
    from resources.models import ModelRegistry
    from resources.store import Store

    promoted = ModelRegistry(Store()).promote(release)
    click.echo(f"release {promoted.name} is now current")
