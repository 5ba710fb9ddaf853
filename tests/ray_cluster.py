"""A real Ray cluster for the tests: nodes that are processes of this machine, each of which can be killed like one.

Every port is free and on 127.0.0.1, and the files lie in a folder of their own. A node is what ``ray start --block``
starts, and everything that comes from that.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.kills import kill

_STARTS_WITHIN_S = 240.0
# A node that is gone is noticed after some seconds rather than half a minute.
_IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_SCHEDULER_EVENTS": "0",
}


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        address: of its job server.
        nodes: the processes that keep the nodes; the first one is the head.
    """

    address: str
    nodes: list[subprocess.Popen[bytes]]


@contextmanager
def cluster(environment: Mapping[str, str], nodes: int = 2, cpus: int = 1) -> Iterator[Cluster]:
    """A cluster of so many nodes, with so many cores each and this environment; it is gone after the block."""
    # Ray puts sockets below it, whose paths may not be long.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    gcs, server = _free_port(), _free_port()
    # A run is the program `dagster` of the node.
    programs = Path(sys.executable).parent
    environment = {**environment, **_IMPATIENT, "PATH": f"{programs}{os.pathsep}{environment.get('PATH', os.defpath)}"}
    everywhere = [
        "--block", "--disable-usage-stats", f"--num-cpus={cpus}", "--memory=4000000000",
        "--object-store-memory=80000000", "--node-ip-address=127.0.0.1", "--include-log-monitor=false",
    ]  # fmt: skip
    head = ["--head", f"--port={gcs}", f"--dashboard-port={server}", "--include-dashboard=true"]
    head += [f"--temp-dir={folder}", f"--ray-client-server-port={_free_port()}"]
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> None:
        ports = [f"--dashboard-agent-listen-port={_free_port()}"]
        command = [str(programs / "ray"), "start", *everywhere, *ports, *arguments]
        with (folder / "start.log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            )

    try:
        start(*head)
        address = f"http://127.0.0.1:{server}"
        _wait(f"{address}/api/version", started, folder / "start.log")
        for _ in range(nodes - 1):
            start(f"--address=127.0.0.1:{gcs}")
        yield Cluster(address, started)
    finally:
        for node in reversed(started):
            kill_node(node)
        shutil.rmtree(folder, ignore_errors=True)


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """What a power cut does: all processes of a node end at once, and nothing is told to anybody."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(node.pid)
        kill([node.pid, *(one.pid for one in process.children(recursive=True))])
    node.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait(url: str, started: list[subprocess.Popen[bytes]], log: Path) -> None:
    until = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < until and all(node.poll() is None for node in started):
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(f"Ray did not start: {log.read_text()[-2000:]}")
