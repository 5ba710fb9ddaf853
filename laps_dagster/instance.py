"""The Dagster instance that the ``laps`` command uses: its home, its settings, its list of cameras."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from laps.errors import InputError, LapsError

if TYPE_CHECKING:
    import dagster as dg

DEFAULT_HOME = ".laps/dagster"
SETTINGS = Path(__file__).with_name("instance.yaml")
POSTGRES_URL = "LAPS_POSTGRES_URL"

_A_URL = "postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE"
# What SQLAlchemy takes for URLs that name no driver, and for some that name another than Dagster's.
_OTHER_DRIVERS = ("psycopg", "asyncpg", "pg8000", "MySQLdb")
# PostgreSQL's code of "insufficient privilege", for instance where the user may make no tables.
_NOT_ALLOWED = "42501"
# An @ in a password makes the rest of it a part of the host's name, which PostgreSQL's client then repeats.
_PART_OF_URL = re.compile(r"[^\s\"]*@")


def dagster_home() -> Path:
    """``DAGSTER_HOME``, by default ``./.laps/dagster``."""
    return Path(os.environ.get("DAGSTER_HOME") or DEFAULT_HOME).expanduser().absolute()


def ensure_home() -> Path:
    """Set ``DAGSTER_HOME`` and write its settings file where there is none."""
    home = dagster_home()
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

    home = ensure_home()
    # What remains when the tries are used up is told once (`records_error`).
    logging.getLogger().addFilter(_is_no_retry)
    # In a new home it makes databases, and two processes that do so at the same time spoil them.
    folder = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        return dagster.DagsterInstance.get()
    finally:
        os.close(folder)


@contextmanager
def existing_instance() -> Iterator[dg.DagsterInstance | None]:
    """The instance of ``DAGSTER_HOME`` where there is one, else None: none is made."""
    if not (dagster_home() / "dagster.yaml").exists():
        yield None
        return
    with open_instance() as instance:
        yield instance


def records_error(error: BaseException) -> LapsError | None:
    """What to tell a person where Dagster's records cannot be opened, read or written; None for any other error.

    Their database says so in errors of its own, which name no place and are often only the cause of what is raised: a
    disk that is full, a server that is away, a URL that cannot be used.
    """
    # Not imported for this: where it is not loaded, the error is none of its.
    if "dagster" not in sys.modules:
        return None
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        if (said := _opening_error(one) or _database_error(one)) is not None:
            return said
        seen.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return None


def _database_error(error: BaseException) -> LapsError | None:
    """Where the database could not do what was asked of it."""
    database = sys.modules.get("sqlalchemy.exc")
    if database is None or not isinstance(error, database.DBAPIError):
        return None
    if not isinstance(error, database.OperationalError) and getattr(error.orig, "pgcode", None) != _NOT_ALLOWED:
        return None
    if type(error.orig).__module__.startswith("psycopg2"):
        look = f"Start its database, or correct {POSTGRES_URL} (host, port, database, user) or the rights of its user"
    else:
        look = "Look whether its disk is full, or whether the database that its dagster.yaml names is away"
    # psycopg2 adds lines with hints and the statement.
    said = str(error.orig).strip().partition("\n")[0]
    return LapsError(
        f"Dagster's records of its runs cannot be read or written: {_PART_OF_URL.sub('…@', said)}",
        where=_place(),
        fix=f"{look}; then run it again: `laps backfill --only missing` completes what was not made.",
    )


def _opening_error(error: BaseException) -> LapsError | None:
    """Where the database of dagster.yaml cannot even be asked. The URL is not shown: it may hold a password."""
    from dagster import DagsterInvalidConfigError
    from dagster._check import CheckError

    if isinstance(error, CheckError) and "import module dagster_postgres" in str(error):
        what = "its dagster.yaml needs PostgreSQL's extra of this project, which is not installed"
        return InputError(what, where=_place(), fix="Run `make install`, or pip install '.[postgres]' in the project.")
    if "has more than one head present" in str(error):
        what = "two programs made Dagster's databases at the same time, and they cannot be used"
        fix = (
            "Stop daemon and web server, move history/ and schedules/ away (a new home has nothing in them), and run "
            "`laps doctor` before they start again: it makes them alone."
        )
        return LapsError(what, where=_place(), fix=fix)
    unset = isinstance(error, DagsterInvalidConfigError) and f'"{POSTGRES_URL}" which is not set' in str(error)
    empty = isinstance(error, CheckError) and "`postgres_url`" in str(error) and not os.environ.get(POSTGRES_URL)
    if unset or empty:
        return InputError("is not set, and the dagster.yaml asks for it", where=POSTGRES_URL, fix=f"Set it: {_A_URL}.")
    if isinstance(error, ModuleNotFoundError) and error.name in _OTHER_DRIVERS:
        what = f"the URL leads to the driver {error.name}, which is not installed"
    elif type(error).__name__ == "NoSuchModuleError":
        what = "the URL begins with a database or a driver that is not known"
    elif _raised_in(error) == "sqlalchemy.engine.url":
        what = "is no URL of a database"
    else:
        return None
    where = POSTGRES_URL if os.environ.get(POSTGRES_URL) else f"{_place()}/dagster.yaml"
    return InputError(what, where=where, fix=f"Name database and driver: {_A_URL}; %40 is an @ in a password.")


def _place() -> str:
    return f"DAGSTER_HOME {os.environ.get('DAGSTER_HOME') or DEFAULT_HOME}"


def _raised_in(error: BaseException) -> str:
    """Name of the module that raised an error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__")) if frames else ""


def _is_no_retry(record: logging.LogRecord) -> bool:
    """Whether a line of the log is none of those in which dagster_postgres tells each try to connect."""
    return not str(record.msg).startswith("Retrying failed database")
