"""``laps dev``: the Dagster UI on the store's definitions."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import click

from laps.errors import InputError


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI on this machine."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def dev(port: int, host: str) -> None:
    """Start the Dagster UI and daemon, with this store's runs."""
    from laps_dagster.cli.backfill import register_cameras
    from laps_dagster.instance import ensure_home
    from resources.recordings import Recordings
    from resources.store import Store

    _check_free(host, port)
    ensure_home()
    register_cameras(Recordings(Store()).cameras())
    program = Path(sys.executable).with_name("dagster")
    arguments = ["dagster", "dev", "-m", "laps_dagster.definitions", "-h", host, "-p", str(port)]
    os.execv(program, arguments)


def _check_free(host: str, port: int) -> None:
    """Raise where the address cannot be listened on: Dagster says so late, among the lines of its services."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise InputError(
            f"cannot be listened on: {error.strerror}",
            where=f"{host}:{port}",
            fix="Give another --port or --host, or end what uses it.",
        ) from error
