"""What a command costs: CPU seconds of all its processes, by kind, and when it says something to a terminal."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import psutil

LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Cost:
    """Seconds; None for words that never came."""

    cpu: dict[str, float]
    first_words: float | None
    """Until something stands on stderr, which is a terminal."""
    silence: float
    """The longest time without a word there, or a sign of life."""
    result: float | None
    """Until something stands on stdout, where only the result does."""
    wall: float


def fieldwise(tree: str, *arguments: str, environment: Mapping[str, str] = os.environ) -> Cost:
    """A command of a checkout. SystemExit, with its last words, for one that fails."""
    command = [sys.executable, "-m", "fieldwise.jobs.cli", *arguments]
    environment = {**environment, "PYTHONPATH": tree}
    seen: dict[tuple[int, float], tuple[str, float]] = {}
    moments: dict[str, float] = {}
    ours, theirs = os.openpty()
    with tempfile.TemporaryFile() as told, ThreadPoolExecutor(1) as listener:  # a pipe would fill and stop it
        started = time.perf_counter()
        process = psutil.Popen(command, env=environment, cwd=tree, stdout=told, stderr=theirs)
        os.close(theirs)
        hearing = listener.submit(_hear, ours)
        while process.poll() is None:
            if "result" not in moments and os.fstat(told.fileno()).st_size:
                moments["result"] = time.perf_counter() - started
            for each in [process, *_children(process)]:
                try:
                    times, words = each.cpu_times(), " ".join(each.cmdline())
                    seen[each.pid, each.create_time()] = (_kind(words), times.user + times.system)
                except psutil.Error:  # gone between two looks: what it used until the last one counts
                    continue
            time.sleep(LOOK_SECONDS)
        wall = time.perf_counter() - started
        heard, said = hearing.result()
        os.close(ours)
        lines = said.decode(errors="replace").splitlines()
    if process.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)}\n" + "\n".join(lines[-20:]))
    total: dict[str, float] = defaultdict(float)
    for name, seconds in seen.values():
        total[name] += seconds
    spoken = [moment - started for moment in heard]
    silence = max(after - before for before, after in pairwise([0.0, *spoken, wall]))
    return Cost(dict(total), spoken[0] if spoken else None, silence, moments.get("result"), wall)


def _hear(terminal: int) -> tuple[list[float], bytes]:
    """Moments of what is written to a terminal until nobody can any more, and all of it."""
    moments: list[float] = []
    said = b""
    while True:
        try:
            words = os.read(terminal, 1 << 16)
        except OSError:  # the last who could has ended
            return moments, said
        moments.append(time.perf_counter())
        said += words


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _kind(command: str) -> str:
    known = {"java": "JVM", "spark.daemon": "Spark's Python", "distributed.run": "torchrun", "jobs/train.py": "rank",
             "fieldwise.jobs.cli": "driver"}  # fmt: skip
    return next((name for word, name in known.items() if word in command), "other")
