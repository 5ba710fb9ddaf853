"""The Dagster instance that the ``laps`` command uses: its home, its settings, its list of cameras."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from laps.errors import LapsError

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


@contextmanager
def existing_instance() -> Iterator[dg.DagsterInstance | None]:
    """The instance of ``DAGSTER_HOME`` where there is one, else None: none is made."""
    home = Path(os.environ.get("DAGSTER_HOME") or DEFAULT_HOME).expanduser()
    if not (home / "dagster.yaml").exists():
        yield None
        return
    with open_instance() as instance:
        yield instance


def records_error(error: BaseException) -> LapsError | None:
    """What to tell a person where Dagster's records could not be read or written; None for any other error.

    Its database says so in an error of its own, which names no place: a disk that is full, a server that is away.
    """
    # Not imported for this: where it is not loaded, the error is none of its.
    database = sys.modules.get("sqlalchemy.exc")
    if database is None or not isinstance(error, database.OperationalError):
        return None
    return LapsError(
        f"Dagster's records of its runs cannot be read or written: {error.orig}",
        where=f"DAGSTER_HOME {os.environ.get('DAGSTER_HOME') or DEFAULT_HOME}",
        fix="Look whether its disk is full, or whether the database that its dagster.yaml names is away; then run it "
        "again: `laps backfill --only missing` completes what was not made.",
    )
