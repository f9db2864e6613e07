"""A standalone Spark cluster of two workers on this machine, each of one core and 1 GB."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyspark

from fieldwise.features.java.home import java_environment


def wait_for(what: str, found: Callable[[], Any], seconds: float = 240.0) -> Any:
    """The first true value of ``found()``."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


@contextmanager
def standalone_cluster(
    place: Path, inside: Callable[[list[str], int], list[str]] = lambda command, worker: command, **more: str
) -> Iterator[tuple[str, list[int]]]:
    """(master URL, process ids of the two workers).

    Args:
        inside: a worker's command line and number become another command line that starts it.
        more: environment variables of all three.
    """
    environment = (
        os.environ | java_environment() | {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"} | more
    )
    environment.pop("SPARK_MASTER", None)
    starter = str(Path(pyspark.__path__[0]) / "bin" / "spark-class")
    processes = []

    def command(main: str, *arguments: str) -> list[str]:
        about = ["--host", "127.0.0.1", "--webui-port", "0", *arguments]
        return [starter, f"org.apache.spark.deploy.{main}", *about]

    def start(name: str, line: list[str]) -> int:
        with (place / f"{name}.log").open("w") as log:
            processes.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log, cwd=place))
        return processes[-1].pid

    def logged(pattern: str) -> re.Match[str] | None:
        told = "".join(path.read_text() for path in place.glob("*.log"))
        assert all(process.poll() is None for process in processes), told[-3000:]
        return re.search(pattern, told)

    try:
        start("master", command("master.Master", "--port", "0"))
        url = wait_for("the master", lambda: logged(r"spark://127\.0\.0\.1:\d+")).group(0)
        workers = [
            start(f"worker-{i}", inside(
                command("worker.Worker", "--cores", "1", "--memory", "1g", "-d", str(place / f"w{i}"), url), i
            ))
            for i in (0, 1)
        ]  # fmt: skip
        wait_for("both workers", lambda: logged(r"(?s)Registering worker.*Registering worker"))
        yield url, workers
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
