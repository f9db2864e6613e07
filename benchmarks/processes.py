"""What a command costs: CPU seconds of all processes that it starts, by kind, and when it says something."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Cost:
    """Seconds; None for words that never came."""

    cpu: dict[str, float]
    first_words: float | None
    """Until something stands on stderr."""
    result: float | None
    """Until something stands on stdout, where only the result does."""
    wall: float


def fieldwise(tree: str, *arguments: str, environment: Mapping[str, str] = os.environ) -> Cost:
    """A command of a checkout. SystemExit, with its last words, for one that fails."""
    command = [sys.executable, "-m", "fieldwise.jobs.cli", *arguments]
    environment = {**environment, "PYTHONPATH": tree}
    seen: dict[tuple[int, float], tuple[str, float]] = {}
    moments: dict[str, float] = {}
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:  # a pipe would fill and stop it
        started = time.perf_counter()
        process = psutil.Popen(command, env=environment, cwd=tree, stdout=told, stderr=said)
        while process.poll() is None:
            for name, file in (("result", told), ("first_words", said)):
                if name not in moments and os.fstat(file.fileno()).st_size:
                    moments[name] = time.perf_counter() - started
            for each in [process, *_children(process)]:
                try:
                    times, words = each.cpu_times(), " ".join(each.cmdline())
                    seen[each.pid, each.create_time()] = (_kind(words), times.user + times.system)
                except psutil.Error:  # gone between two looks: what it used until the last one counts
                    continue
            time.sleep(LOOK_SECONDS)
        wall = time.perf_counter() - started
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    if process.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)}\n" + "\n".join(lines[-20:]))
    total: dict[str, float] = defaultdict(float)
    for name, seconds in seen.values():
        total[name] += seconds
    return Cost(dict(total), moments.get("first_words"), moments.get("result"), wall)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _kind(command: str) -> str:
    known = {"java": "JVM", "spark.daemon": "Spark's Python", "distributed.run": "torchrun", "jobs/train.py": "rank",
             "fieldwise.jobs.cli": "driver"}  # fmt: skip
    return next((name for word, name in known.items() if word in command), "other")
