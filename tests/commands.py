"""Commands as processes of their own, with all that they said, and what their children were called and listened to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.listeners import beyond_loopback

ROOT = Path(__file__).resolve().parents[1]


class Commands:
    """Runs ``fieldwise NAME --config shop.yaml ...`` in a folder, with temporary files and Spark's event log there.

    Args:
        umask: of the processes, if not this one's.
        more: environment variables.
    """

    def __init__(self, folder: Path, umask: int = -1, **more: str) -> None:
        for name in ("conf", "events", "tmp"):
            (folder / name).mkdir()
        log = f"spark.eventLog.enabled true\nspark.eventLog.dir file://{folder}/events\n"
        (folder / "conf" / "spark-defaults.conf").write_text(log)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # spark-submit asks for python
        own = {"PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"),
               "SPARK_CONF_DIR": str(folder / "conf"), "SPARK_MASTER": "local[2]",
               "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # fmt: skip
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | own | more
        self._umask = umask
        self.folder = folder
        self.said = ""
        """Stdout and stderr of all."""
        self.lines, self.listeners = set[str](), set[str]()
        """Command lines of children; sockets of all that other machines can reach."""

    def __call__(
        self,
        name: str,
        *arguments: str,
        code: int | tuple[int, ...] = 0,
        meanwhile: Callable[[int], None] | None = None,
        **more: str,
    ) -> str:
        """Its stdout. ``meanwhile`` is told its process id."""
        return self.run(
            [sys.executable, "-m", "fieldwise.jobs.cli", name], *arguments, code=code, meanwhile=meanwhile, **more
        )

    def run(
        self,
        command: list[str],
        *arguments: str,
        code: int | tuple[int, ...] = 0,
        meanwhile: Callable[[int], None] | None = None,
        **more: str,
    ) -> str:
        """The same of a command line of one's own."""
        process = subprocess.Popen(
            [*command, "--config", "shop.yaml", *arguments], cwd=self.folder, env=self._environment | more,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, umask=self._umask,
        )  # fmt: skip
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(process.pid, over))
        watcher.start()
        if meanwhile is not None:
            threading.Thread(target=meanwhile, args=(process.pid,), daemon=True).start()
        out, err = process.communicate()
        over.set()
        watcher.join()
        assert process.returncode in (code if isinstance(code, tuple) else (code,)), (
            f"{command} {arguments}\n{out.decode()}\n{err.decode()}"
        )
        self.said += out.decode() + err.decode()
        return out.decode()

    def _watch(self, pid: int, over: threading.Event) -> None:
        while not over.wait(0.2):
            try:
                children = psutil.Process(pid).children(recursive=True)
                self.listeners |= set(beyond_loopback([pid, *(child.pid for child in children)]))
                self.lines |= {" ".join(child.cmdline()) for child in children}
            except psutil.Error:
                continue


def together(code: str, arguments: Sequence[Sequence[str]]) -> list[str]:
    """What Python processes print after ``ready``, which each says before it waits for a line, so that all begin at
    once."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    started = [
        subprocess.Popen([*command, *each], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in arguments
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate()[0].strip() for process in started]
