"""The prompt of ``laps sql``: statements over several lines, a history, and errors that do not end it."""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from laps.errors import LapsError, StoreError

if TYPE_CHECKING:
    import duckdb

    from laps.tables import Table

FIRST, MORE = "laps> ", "  ... "
HELP = """\
A statement ends with ';' and may go over several lines. Ctrl-C cancels it, Ctrl-D leaves.

.tables         the views, and what a row of each is
.columns NAME   the columns of a view, with type and meaning
.refresh        look for hours that came since the prompt was opened
.help           this text
.quit           leave

local_time(camera, t), shift_of(camera, t) and shift_date_of(camera, t) give any UTC time on the camera's wall clock.
"""
_HISTORY_LINES = 1000


def history_file() -> Path:
    """Where the history is kept: the user's folder for state (XDG)."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "laps" / "sql_history"


def is_complete(text: str) -> bool:
    """Whether the last thing in the text is a ';' that ends a statement: not within a string or a comment."""
    import duckdb

    tokens = [(start, kind) for start, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    if not tokens:
        return False
    start, kind = tokens[-1]
    # Positions are of UTF-8.
    return kind == duckdb.token_type.operator and text.encode()[start : start + 1] == b";"


class Prompt:
    """A conversation with the catalog on a terminal.

    Args:
        open_catalog: opens the catalog; again after ``.refresh`` and when a file of the store has vanished.
        form: how answers are shown: table, csv or json.
    """

    def __init__(self, open_catalog: Callable[[], duckdb.DuckDBPyConnection], form: str = "table") -> None:
        self._open = open_catalog
        self._form = form
        self._connection: duckdb.DuckDBPyConnection | None = open_catalog()
        self._history = _History()

    def run(self) -> None:
        """Read and answer until the person leaves."""
        click.echo("The catalog, for reading. .help tells more, Ctrl-D leaves.")
        lines: list[str] = []
        while True:
            try:
                line = input(MORE if lines else FIRST)
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                lines = []
                continue
            if not lines and line.strip().startswith("."):
                self._history.add(line)
                if line.split()[0] in (".quit", ".exit"):
                    return
                self._command(line)
                continue
            if lines or line.strip():
                lines.append(line)
            if lines and is_complete("\n".join(lines)):
                self._history.add(*lines)
                self._answer("\n".join(lines))
                lines = []

    def close(self) -> None:
        """Close the catalog."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, statement: str) -> None:
        from resources.catalog import render, run_query

        try:
            if self._connection is None:
                self._connection = self._open()
            content = render(run_query(self._connection, statement), self._form)
        except KeyboardInterrupt:
            click.echo("cancelled", err=True)
        except LapsError as error:
            click.echo(f"{error}", err=True)
            if isinstance(error, StoreError):
                # The list of files may be out of date.
                self.close()
        else:
            click.echo(content, nl=False)

    def _command(self, line: str) -> None:
        from laps.catalog import sql_type, view_columns

        command, *names = line.split()
        relations = _relations()
        if command == ".help":
            click.echo(HELP, nl=False)
        elif command == ".refresh":
            self.close()
        elif command == ".tables":
            for table in relations.values():
                _echo_described(table.name, table.description)
        elif command == ".columns" and len(names) == 1 and names[0].rstrip(";").lower() in relations:
            for column in view_columns(relations[names[0].rstrip(";").lower()]):
                unit = f" Unit: {column.unit}." if column.unit else ""
                _echo_described(f"{column.name} {sql_type(column)}", column.description + unit)
        elif command == ".columns":
            click.echo(f"give one of {', '.join(relations)}, for example .columns primitives", err=True)
        else:
            click.echo(f"{command} is no command; .help lists them", err=True)


def _relations() -> dict[str, Table]:
    from laps.catalog import PARTITIONS, PRIMITIVES
    from laps.tables import TABLES

    return {table.name: table for table in (PRIMITIVES, *TABLES.values(), PARTITIONS)}


def _echo_described(name: str, description: str) -> None:
    click.echo(name)
    click.echo(textwrap.fill(description, 100, initial_indent="    ", subsequent_indent="    "))


class _History:
    """The lines of this conversation and earlier ones, for the arrow keys; nothing where there is no readline."""

    def __init__(self) -> None:
        self._readline = _readline()
        self._file = history_file()
        if self._readline is None:
            return
        # A statement becomes one entry, not one for each of its lines.
        self._readline.set_auto_history(False)
        self._readline.set_history_length(_HISTORY_LINES)
        # A history that cannot be read or kept is no reason to refuse an answer.
        with contextlib.suppress(OSError):
            self._readline.read_history_file(self._file)

    def add(self, *lines: str) -> None:
        if self._readline is None:
            return
        # A comment up to the end of its line would swallow the lines after it.
        entries = lines if any("--" in line for line in lines) else (" ".join(line.strip() for line in lines),)
        for entry in entries:
            self._readline.add_history(entry)
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            # Appended at once: other prompts write to the same file, and this one may be killed.
            self._readline.append_history_file(len(entries), self._file)


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:  # Windows
        return None
    return readline
