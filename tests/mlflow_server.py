"""A real MLflow server, and a way to it that can fall silent."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest


class Server:
    """``mlflow server`` on a free port of this machine; ``store``: the database, if not one of SQLite."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self._store = store or f"sqlite:///{folder}/server.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri, self.folder = f"http://127.0.0.1:{self.port}", folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port",
                   str(self.port), "--backend-store-uri", self._store,
                   "--artifacts-destination", str(self.folder / "artifacts")]  # fmt: skip
        log = open(self.folder / "server.log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def end(self) -> None:
        """If it was started."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)


def hurry(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Requests to a server are given up after so long, and made once."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds))


Answer = Literal["passed on", "silent", "lost", "refused"]
"""To a request: the server's; none, the server has not heard it; none, though it has; that it does not take it."""


REFUSAL = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}'


class Link:
    """Stands between a client and a server on this machine.

    ``answer`` decides by the number of the request since it was set (from 0), its method and its path.
    """

    def __init__(self, port: int) -> None:
        self._port, self._lock = port, threading.Lock()
        self.asked: list[tuple[str, str]] = []
        self.through(lambda number, method, path: "passed on")

    def through(self, answer: Callable[[int, str, str], Answer]) -> None:
        """Answer so from here on."""
        with self._lock:
            self._answer, self.asked = answer, []

    def decide(self, method: str, path: str) -> Answer:
        with self._lock:
            self.asked.append((method, path))
            return self._answer(len(self.asked) - 1, method, path)

    def pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            server.request(method, path, body, headers)
            answer = server.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            server.close()


@contextmanager
def linked(server: Server) -> Iterator[tuple[Link, str]]:
    """A link to a running server, and its address."""
    link = Link(server.port)

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body, answer = self.rfile.read(length), link.decide(self.command, self.path)
            self.close_connection = True
            status, kind, content = 400, "application/json", REFUSAL
            if answer in ("passed on", "lost"):
                own = ("host", "connection", "accept-encoding")  # answers are handed on as they are
                headers = {key: value for key, value in self.headers.items() if key.lower() not in own}
                status, kind, content = link.pass_on(self.command, self.path, headers, body)
            if answer in ("passed on", "refused"):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    door = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        yield link, f"http://127.0.0.1:{door.server_port}"
    finally:
        door.shutdown()
        door.server_close()
