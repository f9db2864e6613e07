"""A real S3 server (moto's) on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import s3fs

from fieldwise.features import store

BUCKET = "shop"


class S3:
    """A running server with an empty bucket, which processes find by the file that AWS_CONFIG_FILE names."""

    def __init__(self, config: Path, *, open_for: int | None = None) -> None:
        """``open_for``: after so many requests only known users are served, and may do what their policies say."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.endpoint, self._log = f"http://127.0.0.1:{self.port}", config.with_name("s3.log")
        with open(self._log, "ab") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            more = {} if open_for is None else {"INITIAL_NO_AUTH_ACTION_COUNT": str(open_for)}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | more)
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "a-secret-of-tests", "region": "us-east-1"}
        lines = [f"{name} = {value}" for name, value in (keys | {"endpoint_url": self.endpoint}).items()]
        config.write_text("\n".join(["[default]", *lines]) + "\n")
        self._wait()
        self.files().mkdir(BUCKET)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                urllib.request.urlopen(f"{self.endpoint}/moto-api/", timeout=1).close()
                return
            time.sleep(0.05)
        raise AssertionError(self._log.read_text())

    def writes(self) -> int:
        """Requests so far that change what is stored."""
        return sum(self._log.read_bytes().count(f'"{verb} /'.encode()) for verb in ("PUT", "POST", "DELETE"))

    @staticmethod
    def files() -> s3fs.S3FileSystem:
        """The store, past this project's code."""
        return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def upload(local: Path, url: str) -> None:
    """Every file below a folder, under the same names."""
    for path in sorted(path for path in local.rglob("*") if path.is_file()):
        store.write_atomic(store.join(url, path.relative_to(local).as_posix()), path.read_bytes())


def races(times: int) -> dict[str, int]:
    """Two publishers with a connection each, let go together."""
    one = 0
    for number in range(times):
        path, gate = f"s3://shop/races-{time.time_ns()}/{number}/manifest.json", threading.Barrier(2)
        won: list[bytes] = []

        def publish(mine: bytes, path: str = path, won: list[bytes] = won, gate: threading.Barrier = gate) -> None:
            gate.wait()
            try:
                store.create_exclusive(path, mine)
            except FileExistsError:
                return
            won.append(mine)

        both = [threading.Thread(target=publish, args=(name * 1000,)) for name in (b"a", b"b")]
        for each in both:
            each.start()
        for each in both:
            each.join()
        one += len(won) == 1 and store.read_bytes(path) == won[0]
    return {"times": times, "exactly_one_won": one}
