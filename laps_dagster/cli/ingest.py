"""``laps ingest``: register recordings where they lie."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from laps.errors import InputError, LapsError, UnreachableError
from laps.timegrid import parse_utc


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH|URI]...")
@click.option("--camera", metavar="NAME", help="Camera that filmed the files: lower-case letters, digits, '_' and '-'.")
@click.option(
    "--start", metavar="TIME", help="Time of the first frame, ISO 8601 with a zone, for example 2026-11-21T05:00:00Z."
)
@click.option(
    "--landing", metavar="PATH|URL", help="Landing zone to scan. Default: LAPS_LANDING, then ./.laps/landing."
)
def ingest(paths: tuple[str, ...], camera: str | None, start: str | None, landing: str | None) -> None:
    """Register recordings. Without PATH, everything in <landing>/<camera>/… is registered.

    PATH may be a folder: it stands for the videos in it. Files are read where they lie and never copied. A file that
    cannot be used is quarantined with its reason, and the others go on; the exit code is then 1. One that a person
    quarantined (laps quarantine) is left out as long as it is the same file. A start time comes
    from --start, else from a sidecar JSON (<file>.json with {"start": "…Z"}), else from a UTC stamp in the file name
    (cam1_20261121T050000Z.mp4), else from the container's creation time.
    """
    from resources.compaction import compact_register
    from resources.recordings import Recordings
    from resources.settings import store_settings
    from resources.store import Store

    if not paths and (camera or start):
        raise click.UsageError("--camera and --start go with PATH: without one the whole landing zone is registered")
    store = Store()
    store_settings(store)
    recordings = Recordings(store, landing)
    said: Counter[str] = Counter()
    cameras: set[str] = set()
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
            except UnreachableError:
                raise
            except LapsError as error:
                outcome = error
            said[_say(outcome)] += 1
        cameras.add(camera)
    else:
        for outcome in recordings.scan():
            said[_say(outcome)] += 1
            if not isinstance(outcome, LapsError):
                cameras.add(outcome["camera"])
        if not said:
            click.echo(f"nothing to register in {recordings.landing}: put videos into <camera>/ folders there")
    for one in sorted(cameras):
        try:
            compact_register(store, one)
        except LapsError as error:
            click.echo(f"the register of {one} could not be copied, reading it takes longer: {error}", err=True)
    if quarantined := said["quarantined"]:
        click.echo(
            f"{quarantined} of {said.total()} files quarantined: registered with the reason and not used "
            "(`laps status` lists them)",
            err=True,
        )
    if refused := said["refused"]:
        click.echo(f"{refused} of {said.total()} files refused: not registered, for the reasons above", err=True)
    if quarantined or refused:
        raise SystemExit(1)


def _files(path: str) -> list[str]:
    """A folder stands for the videos in it."""
    from resources.recordings import VIDEO_SUFFIXES

    if "://" in path or not Path(path).is_dir():
        return [path]
    found = [str(file) for file in sorted(Path(path).rglob("*")) if file.name.lower().endswith(VIDEO_SUFFIXES)]
    if not found:
        raise InputError(
            "there is no video in this folder", where=path, fix=f"Videos end in {', '.join(VIDEO_SUFFIXES)}."
        )
    return found


def _say(outcome: dict[str, Any] | LapsError) -> str:
    """Print what became of one file; returns ``ok``, ``left out``, ``quarantined`` or ``refused``."""
    from resources.recordings import by_person

    if isinstance(outcome, LapsError):
        click.echo(f"refused      {outcome}", err=True)
        return "refused"
    if outcome["status"] == "ok":
        click.echo(
            f"ok           {outcome['camera']}  {outcome['start_time']:%Y-%m-%d %H:%M:%S} to "
            f"{outcome['end_time']:%H:%M:%S} UTC ({outcome['start_source']})  {outcome['uri']}"
        )
        return "ok"
    if by_person(outcome):
        click.echo(f"left out     {outcome['camera']}  {outcome['uri']}: quarantined by a person: {outcome['reason']}")
        return "left out"
    click.echo(f"quarantined  {outcome['camera']}  {outcome['uri']}: {outcome['reason']}", err=True)
    return "quarantined"
