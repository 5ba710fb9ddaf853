"""Fixtures that several test modules share."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy.engine import Engine

from laps_dagster.cli.main import main
from resources.store import Store
from tests.export_store import ExportStore, make_export_store

Laps = Callable[..., tuple[int, str, str]]
"""The command ``laps`` with some arguments; returns exit code, standard output and standard error."""


# A shell starts what goes to the background with Ctrl-C ignored, and so would everything be that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Modules that take minutes. They come first, so that no process is left with one of them when the others are done.
LONGEST = tuple(
    f"test_{subject}.py"
    for subject in (
        "pipeline", "pipeline_s3", "kills", "ray", "compaction", "runs", "bad_input", "clips", "sensors", "cli",
    )
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, the others in the order of their names."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> Iterator[None]:
    """Dagster executes the files of all migrations of its databases five times in a run, to compare one number."""
    with pytest.MonkeyPatch.context() as patch:
        read = ScriptDirectory.from_config
        known: dict[str | None, ScriptDirectory] = {}

        def once(config: Config) -> ScriptDirectory:
            place = config.get_main_option("script_location")
            if place not in known:
                known[place] = read(config)
            return known[place]

        patch.setattr(ScriptDirectory, "from_config", staticmethod(once))
        yield


@pytest.fixture(scope="session", autouse=True)
def engines_made_once() -> Iterator[None]:
    """Dagster makes a new engine for every question to its SQLite databases, which takes longer than most answers.

    None of them keeps a connection (``NullPool``), so that files can be removed as before.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patch.setattr(module, "create_engine", remembered(module.create_engine))
        yield


def remembered(create_engine: Callable[..., Engine]) -> Callable[..., Engine]:
    known: dict[tuple[str, str], Engine] = {}

    def once(url: str, **options: object) -> Engine:
        place = (url, repr(sorted(options.items())))
        if place not in known:
            known[place] = create_engine(url, **options)
        return known[place]

    return once


@pytest.fixture
def laps_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Laps:
    """Runs ``laps`` in this process; which store it works on is for the test to set."""

    def laps(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["laps", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return laps


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> ExportStore:
    """A small store with clips and clusters; for reading only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
        return make_export_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def fresh(made: ExportStore, tmp_path: Path) -> ExportStore:
    """A copy of it, which the test may spoil."""
    shutil.copytree(made.store.root, tmp_path / "fresh")
    return replace(made, store=Store(str(tmp_path / "fresh")))
