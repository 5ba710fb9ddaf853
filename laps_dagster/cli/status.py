"""``laps status``: what has been processed, camera by camera and hour by hour."""

from __future__ import annotations

import click

from laps_dagster.cli.places import existing_store


@click.command()
def status() -> None:
    """Print what is processed, missing and quarantined, hour by hour."""
    from laps.tables import CLUSTER_ASSIGNMENTS, KEYPOINT_TRACKS, LATENT_STREAM, RAW_VIDEO
    from laps.timegrid import CameraHour
    from resources.models import ModelRegistry
    from resources.recordings import Recordings

    store = existing_store()
    recordings = Recordings(store)
    registry = ModelRegistry(store)
    release = registry.current() or next(iter(registry.drafts()), None)
    click.echo(f"store    {store.root}")
    click.echo(f"release  {f'{release.name} ({release.status})' if release else 'none yet'}")
    done: dict[str, set[CameraHour]] = {
        "described": set(store.partitions(RAW_VIDEO)),
        "tracked": set(store.partitions(KEYPOINT_TRACKS)),
        "encoded": set(store.partitions(LATENT_STREAM, release.tokenizer)) if release and release.tokenizer else set(),
        "clustered": set(store.partitions(CLUSTER_ASSIGNMENTS, release.name)) if release else set(),
    }
    missing = 0
    for camera in recordings.cameras():
        click.echo(f"\ncamera {camera}")
        for hour in recordings.hours(camera):
            stages = [name for name, hours in done.items() if hour in hours]
            lacking = [name for name in done if name not in stages]
            missing += bool(lacking)
            click.echo(f"  {hour.hour_key} UTC  " + (f"not yet {', '.join(lacking)}" if lacking else "complete"))
    quarantined = [
        row
        for camera in sorted({path.split("/")[1].removeprefix("camera=") for path in store.files("recordings")})
        for row in recordings.of_camera(camera)
        if row["status"] == "quarantined"
    ]
    if quarantined:
        click.echo("\nquarantined")
        for row in quarantined:
            click.echo(f"  {row['camera']}  {row['uri']}: {row['reason']}")
    if missing:
        click.echo(f"\n{missing} hour{' is' if missing == 1 else 's are'} not complete: `laps backfill --only missing`")
