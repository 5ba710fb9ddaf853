"""``laps ingest``: register recordings where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from laps.errors import LapsError
from laps.timegrid import parse_utc


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH|URI]...")
@click.option("--camera", help="Camera that filmed the files: lower-case letters, digits, '_' and '-'.")
@click.option("--start", help="Time of the first frame, ISO 8601 with a zone, for example 2026-11-21T05:00:00Z.")
@click.option(
    "--landing", metavar="PATH|URL", help="Landing zone to scan. Default: LAPS_LANDING, then ./.laps/landing."
)
def ingest(paths: tuple[str, ...], camera: str | None, start: str | None, landing: str | None) -> None:
    """Register recordings. Without PATH, everything in <landing>/<camera>/… is registered.

    Files are read where they lie and never copied. A file that cannot be used is quarantined with its reason, and
    the others go on; the exit code is then 1. A start time comes from --start, else from a sidecar JSON
    (<file>.json with {"start": "…Z"}), else from a UTC stamp in the file name (cam1_20261121T050000Z.mp4), else
    from the container's creation time.
    """
    from resources.recordings import Recordings
    from resources.settings import store_settings
    from resources.store import Store

    store = Store()
    store_settings(store)
    recordings = Recordings(store, landing)
    problems = 0
    count = 0
    outcome: dict[str, Any] | LapsError
    if paths:
        if camera is None:
            raise click.UsageError("--camera is needed with PATH")
        found = [file for path in paths for file in _files(path)]
        if start and len(found) > 1:
            raise click.UsageError("--start is the time of one recording: give one file")
        start_ns = parse_utc(start) if start else None
        for file in found:
            try:
                outcome = recordings.register(file, camera, start_ns)
            except LapsError as error:
                outcome = error
            count += 1
            problems += _say(outcome)
    else:
        for outcome in recordings.scan():
            count += 1
            problems += _say(outcome)
        if not count:
            click.echo(f"nothing to register in {recordings.landing}: put videos into <camera>/ folders there")
    if problems:
        click.echo(f"{problems} of {count} files cannot be used; they are in the table recordings", err=True)
        raise SystemExit(1)


def _files(path: str) -> list[str]:
    """A folder stands for the videos in it."""
    from resources.recordings import VIDEO_SUFFIXES

    if "://" not in path and Path(path).is_dir():
        return [str(file) for file in sorted(Path(path).rglob("*")) if file.name.lower().endswith(VIDEO_SUFFIXES)]
    return [path]


def _say(outcome: dict[str, Any] | LapsError) -> int:
    if isinstance(outcome, LapsError):
        click.echo(f"refused      {outcome}", err=True)
        return 1
    if outcome["status"] == "ok":
        click.echo(
            f"ok           {outcome['camera']}  {outcome['start_time']:%Y-%m-%d %H:%M:%S} to "
            f"{outcome['end_time']:%H:%M:%S} UTC ({outcome['start_source']})  {outcome['uri']}"
        )
        return 0
    click.echo(f"quarantined  {outcome['camera']}  {outcome['uri']}: {outcome['reason']}", err=True)
    return 1
