"""``laps alarm``: whether alarms arrive."""

from __future__ import annotations

import platform

import click

from laps.errors import AlarmError, InputError


@click.group()
def alarm() -> None:
    """Alarms about failed runs and checks."""


@alarm.command("test")
def test() -> None:
    """Send a message to every receiver that the environment names.

    LAPS_ALARM_WEBHOOK is a URL that takes JSON by POST, LAPS_ALARM_EMAIL one or more addresses. The exit code is 1
    where one did not take it.
    """
    from resources.alarms import EMAIL, WEBHOOK, Message, channels

    receivers = channels()
    if not receivers:
        raise InputError("no receiver of alarms is named", fix=f"Set {WEBHOOK} or {EMAIL}.")
    subject = f"LAPS: a test of the alarms from {platform.node()}"
    message = Message(
        subject, f"{subject}\nNothing is wrong: somebody ran `laps alarm test`.", {"count": 0, "alarms": []}
    )
    failed = False
    for channel in receivers:
        try:
            refused = channel.send(message)
        except AlarmError as error:
            failed = True
            click.echo(f"{channel.name}: {error}", err=True)
        else:
            click.echo(f"{channel.name}: sent")
            if refused:
                failed = True
                click.echo(f"{channel.name}: refused for {', '.join(refused)}", err=True)
    if failed:
        raise SystemExit(1)
