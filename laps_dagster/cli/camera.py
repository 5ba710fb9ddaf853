"""``laps camera``: what people say about their cameras."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from laps_dagster.cli.places import existing_store


@click.group()
def camera() -> None:
    """Say where cameras hang, their time zones, shifts and regions."""


@camera.command("set")
@click.argument("name")
@click.option("--site", help="Plant or building.")
@click.option("--station", help="Workstation that it looks at.")
@click.option("--time-zone", metavar="ZONE", help="IANA name of its time zone, for example Europe/Berlin.")
@click.option("--shift", "shifts", multiple=True, metavar="NAME=HH:MM-HH:MM[@DAYS]",
              help="A shift by the wall clock, for example early=06:00-14:00@Mon-Fri. It may go over midnight; DAYS "
              "are those on which it begins. Repeatable.")  # fmt: skip
@click.option("--ignore-region", "regions", multiple=True, metavar="X0,Y0,X1,Y1",
              help="A part of the picture that is no work (a clock, a belt, a monitor), as shares of width and height "
              "from the top left corner. Points of the tracks that come into it do not count. Repeatable.")  # fmt: skip
@click.option("--blur", "blurred", multiple=True, metavar="X0,Y0,X1,Y1",
              help="A part of the picture that nobody may see (faces, a neighbour's place), written likewise. It is "
              "grey in keyframes and clips, so in report and exports too. Tracks follow it. Repeatable.")  # fmt: skip
def set_(
    name: str,
    site: str | None,
    station: str | None,
    time_zone: str | None,
    shifts: tuple[str, ...],
    regions: tuple[str, ...],
    blurred: tuple[str, ...],
) -> None:
    """Say something about the camera NAME; the rest stays as it was.

    Shifts and regions that are given take the place of all that there were. An empty value removes: --site "",
    --shift "". Views of the catalog then have local time and shift of the camera beside UTC. Regions count in hours
    that are made from now on; `laps backfill --only missing` makes again what was made with others.
    """
    from laps.cameras import parse_region, parse_shift
    from resources.cameras import Cameras
    from resources.recordings import Recordings

    store = existing_store()
    cameras = Cameras(store)
    changes: dict[str, Any] = {
        field: value.strip() or None
        for field, value in (("site", site), ("station", station), ("time_zone", time_zone))
        if value is not None
    }
    if shifts:
        changes["shifts"] = tuple(parse_shift(text) for text in shifts if text.strip())
    if regions:
        changes["ignore_regions"] = tuple(parse_region(text) for text in regions if text.strip())
    if blurred:
        changes["blur_regions"] = tuple(parse_region(text) for text in blurred if text.strip())
    before = cameras.read(name)
    if not changes:
        raise click.UsageError("say something about the camera: see laps camera set --help")
    after = replace(before, **changes)
    cameras.write(after)
    click.echo(f"camera {name} is set")
    known = name in Recordings(store).cameras()
    if known and after.ignore_regions != before.ignore_regions:
        click.echo(
            f"its hours were encoded with other regions: `laps backfill --camera {name} --only missing` encodes and "
            "cuts them again, without decoding video. Thresholds stay those of the release; "
            "`laps backfill --new-release` finds new ones"
        )
    if known and after.blur_regions != before.blur_regions:
        click.echo(
            f"pictures that are there were made with other regions: `laps backfill --camera {name} --only missing` "
            "makes keyframes and clips again from the video, and then the report. Data sets stay as they are, and so "
            "do pictures whose video is gone: see docs/privacy.md"
        )
    if not known:
        click.echo(f"note: {name} has no recordings yet", err=True)


@camera.command("list")
def list_() -> None:
    """List the cameras, with what is known of them."""
    from laps.cameras import Camera
    from resources.cameras import Cameras
    from resources.recordings import Recordings

    store = existing_store()
    found = {camera.name: camera for camera in Cameras(store).described()}
    found |= {name: Camera(name) for name in Recordings(store).cameras() if name not in found}
    if not found:
        click.echo("no camera yet: `laps ingest PATH --camera NAME` registers recordings of one")
    for name in sorted(found):
        camera = found[name]
        click.echo(f"{name}  {', '.join(filter(None, (camera.site, camera.station))) or '-'}")
        click.echo(f"    time zone      {camera.time_zone or 'not set (laps camera set)'}")
        for shift in camera.shifts:
            click.echo(f"    shift          {shift}")
        for region in camera.ignore_regions:
            click.echo(f"    ignore region  {_shares(region)}")
        for region in camera.blur_regions:
            click.echo(f"    blur           {_shares(region)}")


def _shares(region: tuple[float, ...]) -> str:
    return ",".join(f"{share:g}" for share in region)
