"""A real S3 server (moto's) on this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import s3fs

from fieldwise.features import store

BUCKET = "shop"


class S3:
    """A running server with an empty bucket, which processes find by the file that AWS_CONFIG_FILE names."""

    def __init__(self, config: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.endpoint, self._log = f"http://127.0.0.1:{self.port}", config.with_name("s3.log")
        with open(self._log, "ab") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
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
