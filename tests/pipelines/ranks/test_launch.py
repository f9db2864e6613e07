"""The launcher of ranks: a killed rank starts again, SIGTERM ends in a checkpoint, nobody outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.ranks import launch
from tests.listeners import beyond_loopback
from tests.snapshots import PLANTED, hash_spec, write_snapshot

ROOT = Path(__file__).resolve().parents[3]
CONFIG = (
    PLANTED
    + """\
training: {batch_size: 64, epochs: 100000, patience: null, threads: 1, checkpoint: {every_steps: 5}}
tracking: {uri: "http://127.0.0.1:9"}
"""
)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            found += [int(path.parent.name), *descendants(int(path.parent.name))]
    return found


def ranks_of(pid: int) -> list[int]:
    """Processes that the launcher's torchrun started."""
    return [child for torchrun in descendants(pid)[:1] for child in descendants(torchrun)]


def wait(until: Callable[[], object], launcher: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        assert launcher.poll() is None, launcher.stderr and launcher.stderr.read().decode()[-3000:]
        time.sleep(0.2)


@pytest.mark.slow
def test_killed_ranks_start_again_and_sigterm_leaves_a_checkpoint_and_nobody(tmp_path: Path) -> None:
    files = {"train": [900], "valid": [300], "test": [300]}
    write_snapshot(tmp_path / "work/planted/snapshots/all", hash_spec((10, 10)), files)
    (tmp_path / "planted.yaml").write_text(CONFIG)
    command = [
        sys.executable,
        "-m",
        "fieldwise.jobs.cli",
        "train",
        "--config",
        str(tmp_path / "planted.yaml"),
        "--ranks",
        "2",
        "--set",
        "model.kind=fm",
    ]
    own = os.environ | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    launcher = subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def saved() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("work/planted/training/*/checkpoints/state-*"))

    try:
        wait(saved, launcher)
        first, before = ranks_of(launcher.pid), saved()[-1]
        assert len(first) == 2
        assert beyond_loopback([launcher.pid, *descendants(launcher.pid)]) == []
        os.kill(first[1], signal.SIGKILL)
        wait(lambda: not set(first) & set(ranks_of(launcher.pid)), launcher)
        wait(lambda: saved()[-1] > before and len(ranks_of(launcher.pid)) == 2, launcher)
        everyone = descendants(launcher.pid)
        assert beyond_loopback(everyone) == []
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(60) == 128 + signal.SIGTERM
        assert not [pid for pid in everyone if Path(f"/proc/{pid}").exists()]
    finally:
        launcher.kill()
    assert launcher.stdout is not None
    assert launcher.stdout.read() == b""
    assert len(saved()) == 2
    assert not list(tmp_path.glob("work/planted/training/*/bundle"))


@pytest.mark.parametrize(("kind", "processes"), [("lr", 1), ("poly2", 1), ("fm", 3), ("fwfm", 3)])
def test_ranks_of_linear_models_are_threads_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, processes: int
) -> None:
    (tmp_path / "planted.yaml").write_text(CONFIG.replace("threads: 1", "threads: 2"))
    started: list[tuple[list[str], int]] = []

    def run(arguments: list[str], ranks: int, extra: object, *, restarts: int) -> launch.Ended:
        started.append((arguments, ranks))
        return launch.Ended(0, {}, [])

    monkeypatch.setattr(launch, "run_ranks", run)
    launch.train_ranks(load_config(tmp_path / "planted.yaml").of_kind(kind), 3)
    [(arguments, ranks)] = started
    assert ranks == processes
    assert (arguments[-1] == "--set=training.threads=6") == (processes == 1)
