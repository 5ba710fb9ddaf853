"""The Dagster instance that the ``laps`` command uses: its home, its settings, its list of cameras."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

DEFAULT_HOME = ".laps/dagster"
SETTINGS = Path(__file__).with_name("instance.yaml")


def ensure_home() -> Path:
    """Set ``DAGSTER_HOME`` (default ``./.laps/dagster``) and write its settings file where there is none."""
    home = Path(os.environ.get("DAGSTER_HOME") or DEFAULT_HOME).expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["DAGSTER_HOME"] = str(home)
    settings = home / "dagster.yaml"
    if not settings.exists():
        temporary = home / f".dagster.yaml.{os.getpid()}"
        temporary.write_text(SETTINGS.read_text().replace("CORES", str(os.cpu_count() or 1)))
        temporary.replace(settings)
    return home


def open_instance() -> dg.DagsterInstance:
    """The instance of ``DAGSTER_HOME``."""
    import dagster

    ensure_home()
    return dagster.DagsterInstance.get()
