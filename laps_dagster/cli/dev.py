"""``laps dev``: the Dagster UI on the store's definitions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port of the UI on this machine.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def dev(port: int, host: str) -> None:
    """Start the Dagster UI and daemon, with the runs of this store's instance."""
    from laps_dagster.cli.backfill import register_cameras
    from laps_dagster.instance import ensure_home
    from resources.recordings import Recordings
    from resources.store import Store

    ensure_home()
    register_cameras(Recordings(Store()).cameras())
    program = Path(sys.executable).with_name("dagster")
    arguments = ["dagster", "dev", "-m", "laps_dagster.definitions", "-h", host, "-p", str(port)]
    os.execv(program, arguments)
