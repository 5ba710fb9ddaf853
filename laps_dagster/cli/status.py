"""``laps status``: how far each camera has come, which hours are not complete and why, and what was quarantined."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from laps.errors import InputError
from laps.timegrid import parse_utc
from laps_dagster.cli.places import existing_store

if TYPE_CHECKING:
    from laps_dagster.coverage import HourState

_SHOWN = ("camera", "uri", "reason")


@click.command()
@click.option("--camera", "cameras", multiple=True, help="Camera to look at; may be repeated. Default: all.")
@click.option("--from", "start", help="First time, ISO 8601 with a zone. Default: the first recording.")
@click.option("--to", "stop", help="End (exclusive), ISO 8601 with a zone. Default: the last recording.")
@click.option("--all", "every", is_flag=True, help="List complete hours too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every hour, for scripts.")
@click.option("--check", is_flag=True, help="Exit code 1 where an hour is not complete or a file cannot be used.")
def status(
    cameras: tuple[str, ...], start: str | None, stop: str | None, every: bool, as_json: bool, check: bool
) -> None:
    """Print coverage, and what is missing, failed or quarantined.

    Hours that are complete are counted, the others listed, each with what it lacks and what its latest run did.
    Quarantined files are of the time at which they start, or were registered where that is not known. Those that a
    person quarantined (laps quarantine) stand apart, and are no reason for exit code 1.
    """
    from laps_dagster.coverage import EMPTIED, expected_hours, hour_states
    from resources.models import ModelRegistry
    from resources.recordings import Recordings, by_person

    store = existing_store()
    recordings = Recordings(store)
    registry = ModelRegistry(store)
    release = registry.current() or next(iter(registry.drafts()), None)
    known = recordings.offered()
    for camera in cameras:
        if camera not in known:
            raise InputError(f"camera {camera!r} has no recordings", fix=f"Cameras: {', '.join(known) or 'none yet'}.")
    from_ns, to_ns = (parse_utc(text) if text else None for text in (start, stop))
    chosen = [camera for camera in known if not cameras or camera in cameras]
    expected = expected_hours(store, recordings, chosen)
    hours = [
        hour
        for hour in expected
        if (from_ns is None or hour.stop_ns > from_ns) and (to_ns is None or hour.start_ns < to_ns)
    ]
    states = hour_states(store, hours, release.name if release else "")
    for state in states:
        state.note = expected[state.hour]
    # An hour that was made again without its footage is as if it never had any.
    states = [state for state in states if not (state.note == EMPTIED and state.complete)]
    _add_runs(states)
    found = [row for camera in chosen for row in recordings.quarantined(camera, from_ns, to_ns)]
    quarantined = [row for row in found if not by_person(row)]
    set_aside = [row for row in found if by_person(row)]
    missing = sum(not state.complete for state in states)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "store": store.root,
                    "release": release.name if release else None,
                    "hours": [state.as_dict() for state in states],
                    "quarantined": [{name: row[name] for name in _SHOWN} for row in quarantined],
                    "quarantined_by_a_person": [{name: row[name] for name in _SHOWN} for row in set_aside],
                },
                indent=2,
            )
        )
    else:
        click.echo(f"store    {store.root}")
        click.echo(f"release  {f'{release.name} ({release.status})' if release else 'none yet'}")
        for camera, of_camera in groupby(states, key=lambda state: state.hour.camera):
            _echo_camera(camera, list(of_camera), every)
        _echo_quarantined("quarantined", quarantined)
        _echo_quarantined("quarantined by a person", set_aside)
        if missing:
            are = "hour is" if missing == 1 else "hours are"
            click.echo(f"\n{missing} {are} not complete: `laps backfill --only missing`")
    if check and (missing or quarantined):
        raise SystemExit(1)


def _add_runs(states: list[HourState]) -> None:
    """What the runs say, where there is a Dagster instance: none is made."""
    from laps_dagster.coverage import add_runs
    from laps_dagster.instance import existing_instance, records_error

    try:
        with existing_instance() as instance:
            if instance is not None:
                add_runs(instance, states)
    except Exception as error:
        # The tables say most of it, and somebody may look because a disk is full.
        said = records_error(error)
        if said is None:
            raise
        click.echo(f"laps: what runs did is not shown. {said}", err=True)


def _echo_camera(camera: str, states: list[HourState], every: bool) -> None:
    filmed = [state for state in states if not state.note]
    complete = sum(state.complete for state in filmed)
    covered = sum(state.covered or 0.0 for state in filmed)
    described = sum(state.covered is not None for state in filmed)
    first, last = (state.hour.hour_key for state in ((filmed or states)[0], (filmed or states)[-1]))
    click.echo(f"\ncamera {camera}: {first} to {last} UTC")
    click.echo(f"  {complete} of {len(filmed)} hours complete, {covered:.1f} h of footage in {described} described")
    for state in states:
        if state.complete and not state.run and not every:
            continue
        share = "" if state.covered is None or state.note else f"{100 * state.covered:.0f}%"
        said = f"not yet {', '.join(state.lacking)}" if state.lacking else "out of date" if state.stale else "complete"
        said += f" ({state.note})" if state.note else ""
        said += f" (removed by age: {', '.join(state.removed)})" if state.removed else ""
        click.echo(f"  {state.hour.hour_key} UTC  {share:>4}  {said}" + (f"; {state.run}" if state.run else ""))


def _echo_quarantined(heading: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        click.echo(f"\n{heading}")
    for row in rows:
        click.echo(f"  {row['camera']}  {row['uri']}: {row['reason']}")
