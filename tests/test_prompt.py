"""The prompt of ``laps sql`` on a real terminal (a pty), and one statement from standard input without one."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from laps_dagster.cli.prompt import history_file, is_complete
from resources.models import ModelRegistry
from resources.settings import store_settings
from resources.store import Store
from tests.catalogs import RELEASE, TOKENIZER, Primitive, write_primitives

LAPS_SQL = [sys.executable, "-m", "laps_dagster.cli.main", "sql", "--release", RELEASE]
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A store with a release of three primitives, and a user's state folder."""
    store = Store(str(tmp_path / "store"))
    store_settings(store)
    write_primitives(store, [Primitive("a", datetime(2026, 3, 1, 5, minute, tzinfo=UTC), 2.0) for minute in range(3)])
    registry = ModelRegistry(store)
    registry.fill(registry.open_draft("test"), "tokenizer", TOKENIZER)
    return {
        **os.environ,
        "LAPS_STORE": store.root,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TERM": "xterm",
        "INPUTRC": os.devnull,
    }


class Terminal:
    """A process on a pseudo terminal; output is compared without the terminal's control sequences."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*LAPS_SQL, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._text = ""

    def send(self, text: str, end: str = "\r") -> None:
        os.write(self._master, (text + end).encode())

    def cancel(self) -> None:
        """Press Ctrl-C until there is a new prompt, as a person would.

        readline waits for the terminal without a time limit; a Ctrl-C that comes just before is seen at the next key.
        """
        for _ in range(60):
            self.send(CTRL_C, end="")
            with contextlib.suppress(AssertionError):
                self.until("laps> ", timeout_s=1.0)
                return
        raise AssertionError(f"Ctrl-C gave no new prompt: {self._text!r}")

    def until(self, pattern: str, timeout_s: float = 60.0) -> str:
        """What is shown up to the end of the next match; it is taken off."""
        stop = time.monotonic() + timeout_s
        while (found := re.search(pattern, self._text)) is None:
            ready, _, _ = select.select([self._master], [], [], max(0.0, stop - time.monotonic()))
            assert ready, f"{pattern!r} was not shown: {self._text!r}"
            self._text += re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", os.read(self._master, 65536).decode())
        shown, self._text = self._text[: found.end()], self._text[found.end() :]
        return shown

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(environment)
    terminal.until("laps> ")
    yield terminal
    terminal.close()


def test_a_conversation(terminal, environment):
    terminal.send("select count(*) as n,")
    terminal.until(r"  \.\.\. ")
    terminal.send("  ';' as semicolon -- not the end;")
    terminal.until(r"  \.\.\. ")
    terminal.send("from primitives;")
    assert re.search(r"n +semicolon", shown := terminal.until(r"\(1 row\)")), shown
    assert re.search(r"3 +;", shown)
    # An error does not end it.
    terminal.send("select colour from primitives;")
    terminal.until("Columns of primitives: segment_id")
    terminal.send("drop view primitives;")
    terminal.until("the catalog is for reading")
    # A line that is cancelled is forgotten.
    terminal.send("select nonsense from")
    terminal.until(r"  \.\.\. ")
    terminal.cancel()
    terminal.send("select 40 + 2 as answer;")
    terminal.until(r"42\s+\(1 row\)")
    # A query that takes too long is cancelled, and the next one works.
    terminal.send("select sum(hash(i)) from range(1000000000000) t(i);")
    time.sleep(1)
    terminal.cancel()
    terminal.send("select 6 * 7 as answer;")
    terminal.until(r"(?s)42\s+\(1 row\).*laps> ")  # before the prompt is there, the terminal would eat the Ctrl-D
    terminal.send(CTRL_D, end="")
    assert terminal.process.wait(60) == 0


def test_commands_explain_what_there_is(terminal):
    terminal.send(".help")
    terminal.until(r"\.columns NAME")
    terminal.send(".tables")
    shown = terminal.until(r"(?s)partitions\r.*laps> ")
    assert "One row for each action primitive" in shown and "cameras" in shown
    terminal.send(".columns segments")
    shown = terminal.until(r"(?s)duration_s DOUBLE.*laps> ")
    assert "Unit: s." in shown and "codes USMALLINT[]" in shown
    terminal.send(".columns colours")
    terminal.until("give one of primitives, recordings")
    terminal.send(".colours")
    terminal.until(r"\.colours is no command")
    terminal.send(".quit")
    assert terminal.process.wait(60) == 0


def test_new_hours_are_seen_after_a_refresh_and_vanished_files_are_no_end(terminal, environment):
    store = Store(environment["LAPS_STORE"])
    count = "select count(*) as n from segments;"
    terminal.send(count)
    terminal.until(r"3\s+\(1 row\)")
    write_primitives(store, [Primitive("a", datetime(2026, 3, 1, 7, tzinfo=UTC), 2.0)])
    terminal.send(".refresh")
    terminal.send(count)
    terminal.until(r"4\s+\(1 row\)")
    store.delete(store.files("segments")[-1])
    terminal.send(count)
    terminal.until("vanished while the catalog was open")
    terminal.send(count)
    terminal.until(r"3\s+\(1 row\)")


def test_the_history_outlives_the_prompt(terminal, environment, tmp_path):
    terminal.send("select 1 as")
    terminal.until(r"  \.\.\. ")
    terminal.send("remembered;")
    terminal.until(r"\(1 row\)")
    file = tmp_path / "state" / "laps" / "sql_history"
    assert file.read_text().splitlines() == ["select 1 as remembered;"]
    assert file.stat().st_mode & 0o077 == 0
    terminal.send(".quit")
    terminal.process.wait(60)
    second = Terminal(environment)
    try:
        second.until("laps> ")
        second.send(UP + UP)
        second.until(r"(?s)select 1 as remembered;.*\(1 row\)")
    finally:
        second.close()


def test_the_history_lies_in_the_users_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert history_file() == tmp_path / ".local" / "state" / "laps" / "sql_history"
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert history_file() == Path("/elsewhere/laps/sql_history")


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("select 1;", True),
        ("select 1;  -- done", True),
        ("select 'ü';", True),
        ("select 1", False),
        ("select ';", False),
        ("select ';'", False),
        ('select ";', False),
        ("select 1 -- ;", False),
        ("select 1 /* ;", False),
        ("select $$;", False),
        ("-- nothing", False),
        ("", False),
    ],
)
def test_a_statement_ends_with_a_semicolon_of_its_own(text, complete):
    assert is_complete(text) == complete


def test_without_a_terminal_one_statement_is_read_from_standard_input(environment):
    def laps(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*LAPS_SQL, *arguments], input=text, env=environment, capture_output=True, text=True, timeout=120
        )

    answered = laps("select count(*) as n\nfrom primitives;\n", "--format", "csv")
    assert (answered.returncode, answered.stdout, answered.stderr) == (0, "n\n3\n", "")
    for text, says in (("select 1; select 2;", "one query at a time"), (" \n", "no query on standard input")):
        refused = laps(text)
        assert refused.returncode == 1
        assert says in refused.stderr


def test_a_prompt_has_no_file_to_write(environment, tmp_path):
    terminal = Terminal(environment, "--out", str(tmp_path / "answer"))
    try:
        terminal.until("a file gets the answer of one query")
        assert terminal.process.wait(60) == 2
    finally:
        terminal.close()
