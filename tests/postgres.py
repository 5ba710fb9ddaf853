"""A real PostgreSQL server for the tests, on a free port, with its data in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from laps_dagster import instance

SETTINGS = instance.SETTINGS.with_name("instance_postgres.yaml")


def program(name: str) -> str | None:
    found = sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))
    return found[-1] if found else shutil.which(name)


def absent() -> str:
    """Why no server can be started here; empty where one can."""
    if program("initdb") is None or program("pg_ctl") is None:
        return "PostgreSQL's programs (initdb, pg_ctl) are not on this machine"
    if os.getuid() == 0 and _user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    return ""


def _user() -> str | None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


@contextmanager
def serve() -> Iterator[str]:
    """A server that ends with the block; yields the URL of its database."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    assert initdb is not None and pg_ctl is not None, absent()
    folder = Path(tempfile.mkdtemp(prefix="laps-postgres-"))
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:
        # It refuses to run as root.
        name = _user()
        assert name is not None, absent()
        as_user = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
        shutil.chown(folder, name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    how = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL, **as_user}
    try:
        data = str(folder / "data")
        subprocess.run([initdb, "-D", data, "-U", "laps", "-A", "trust", "--no-sync", "--locale=C"], **how)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = str(folder / "log")
        subprocess.run([pg_ctl, "-D", data, "-w", "-t", "60", "-l", log, "-o", options, "start"], **how)
        try:
            yield f"postgresql+psycopg2://laps@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([pg_ctl, "-D", data, "-m", "immediate", "stop"], **how)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def skip_where_absent() -> None:
    """Skip the test where no server can be started, or nothing can talk to one."""
    pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
    if reason := absent():
        pytest.skip(reason)


def on_postgresql(home: Path) -> None:
    """A ``DAGSTER_HOME`` whose records PostgreSQL keeps."""
    home.mkdir()
    shutil.copyfile(SETTINGS, home / "dagster.yaml")


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a server's database."""
    skip_where_absent()
    with serve() as url:
        yield url
