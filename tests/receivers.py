"""Receivers of alarms on this machine: an HTTP server and an SMTP server that keep what they are given."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WebhookReceiver(ThreadingHTTPServer):
    """Answers every POST with ``status`` and keeps the JSON of those that it took (200).

    With a status of 3xx it sends the caller to ``elsewhere``, where a GET is answered with 200 and keeps nothing.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.status = 200
        self.attempts = 0
        self.taken: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/secret-token"

    @property
    def elsewhere(self) -> str:
        return f"{self.url}/elsewhere"


class _Post(BaseHTTPRequestHandler):
    server: WebhookReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.attempts += 1
        if self.server.status == 200:
            assert self.headers["Content-Type"].startswith("application/json")
            self.server.taken.append(json.loads(body))
        self._answer(self.server.status)

    def do_GET(self) -> None:
        self.server.attempts += 1
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", self.server.elsewhere)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        """Nothing is printed."""


class MailReceiver(socketserver.ThreadingTCPServer):
    """A mail server that keeps what it takes; with ``login`` it wants user and password first (AUTH PLAIN).

    It takes none for the addresses in ``refused``.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.login: tuple[str, str] | None = None
        self.refused: set[str] = set()
        self.taken: list[EmailMessage] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Session(socketserver.StreamRequestHandler):
    server: MailReceiver

    def handle(self) -> None:
        self._say("220 receiver")
        known = self.server.login is None
        while line := self.rfile.readline().decode().strip():
            word, _, rest = line.partition(" ")
            match word.upper():
                case "EHLO" | "HELO":
                    self._say("250-receiver\r\n250 AUTH PLAIN" if self.server.login else "250 receiver")
                case "AUTH":
                    given = base64.b64decode(rest.rpartition(" ")[2]).decode().split("\0")[1:]
                    known = tuple(given) == self.server.login
                    self._say("235 welcome" if known else "535 no")
                case "MAIL" | "RCPT" if not known:
                    self._say("530 who are you?")
                case "RCPT" if rest.removeprefix("TO:<").partition(">")[0] in self.server.refused:
                    self._say("550 no such user")
                case "DATA":
                    self._say("354 go on")
                    self._take()
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def _take(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        self.server.taken.append(email.message_from_bytes(b"".join(lines), policy=email.policy.default))  # type: ignore[arg-type]
        self._say("250 taken")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """The server answers while the block runs."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
