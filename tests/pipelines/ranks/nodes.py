"""Two nodes on this machine: each in a network and process namespace of its own where that is allowed, else two plain
processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fieldwise.features.process import end_at_once
from tests.snapshots import PLANTED, hash_spec, write_snapshot

ROOT = Path(__file__).resolve().parents[3]


def planted(place: Path, training: str, *, rows: int = 4000, kind: str = "fm, dim: 4") -> Path:
    """A snapshot and a config that trains on it; the config."""
    files = {"train": [rows] * 4, "valid": [1000], "test": [1000]}
    write_snapshot(place / "work/planted/snapshots/all", hash_spec((10, 10)), files)
    config = place / "planted.yaml"
    config.write_text(PLANTED.replace("kind: lr", f"kind: {kind}") + f"training: {{{training}}}\n")
    return config


class Nodes:
    """Two nodes; ``apart``: in namespaces, with a wire between them."""

    def __init__(self, name: str, place: Path) -> None:
        self.name, self.place, self.apart = name, place, True
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def host(self) -> str:
        return "10.77.0.1" if self.apart else "127.0.0.1"

    def start(self, number: int, config: Path, *more: str, rdzv: str | None = None) -> subprocess.Popen[bytes]:
        """``fieldwise train`` as this node; what it says is appended to ``said-<number>``."""
        command = [sys.executable, "-m", "fieldwise.jobs.cli", "train", "--config", str(config), "--no-register",
                   "--nnodes=2", f"--rdzv={rdzv or f'{self.host}:29517'}", f"--node-rank={number}", *more]  # fmt: skip
        if self.apart:  # SIGKILL to `unshare` ends everything in the namespace at once
            space = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
            command = ["ip", "netns", "exec", f"{self.name}-{number}", *space, *command]
        with (self.place / f"said-{number}").open("ab") as said:
            own = os.environ | {"PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=said)
        self.processes[number] = process
        return process

    def kill(self, number: int) -> None:
        """SIGKILL to all that runs there."""
        end_at_once(self.processes[number].pid)
        self.processes[number].wait(30)

    def interrupt(self, number: int) -> None:
        """Ctrl-C to the command there."""
        pid = self.processes[number].pid
        if self.apart:  # unshare, then the command
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        os.kill(pid, signal.SIGINT)

    def said(self, number: int) -> str:
        path = self.place / f"said-{number}"
        return path.read_text() if path.exists() else ""

    def result(self, number: int, seconds: float = 600) -> dict[str, Any]:
        output, _ = self.processes[number].communicate(timeout=seconds)
        assert self.processes[number].returncode == 0, self.said(number)[-3000:]
        return dict(json.loads(output.splitlines()[-1]))


@contextmanager
def two_nodes(place: Path) -> Iterator[Nodes]:
    nodes = Nodes(f"fw{os.getpid()}", place)
    try:
        nodes.apart = _wired(nodes.name)
        yield nodes
    finally:
        for number, process in nodes.processes.items():
            if process.poll() is None:
                nodes.kill(number)
        for number in range(2):
            subprocess.run(["ip", "netns", "del", f"{nodes.name}-{number}"], stderr=subprocess.DEVNULL, check=False)


def _wired(name: str) -> bool:
    commands = [f"ip netns add {name}-0", f"ip netns add {name}-1",
                f"ip link add {name}v0 netns {name}-0 type veth peer name {name}v1 netns {name}-1"]  # fmt: skip
    for number in range(2):
        inside = f"ip -n {name}-{number}"
        commands += [f"{inside} link set lo up", f"{inside} addr add 10.77.0.{number + 1}/24 dev {name}v{number}",
                     f"{inside} addr add fd77::{number + 1}/64 dev {name}v{number} nodad",
                     f"{inside} link set {name}v{number} up"]  # fmt: skip
    commands.append(f"ip netns exec {name}-0 unshare --pid --fork --mount-proc true")
    try:
        return all(
            subprocess.run(each.split(), stderr=subprocess.DEVNULL, check=False).returncode == 0 for each in commands
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False


def wait_for(what: str, found: Callable[[], Any], seconds: float = 400) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


def epochs(config: Path) -> dict[int, dict[str, float]]:
    """What the training has reported of each epoch: by number, what was reported last."""
    journal = next(config.parent.glob("work/planted/training/*/reports/journal.jsonl"))
    told = [json.loads(line) for line in journal.read_text().splitlines()]
    return {each["step"]: each["values"] for each in told if "rows_trained" in each.get("values", {})}


def checkpoints(config: Path) -> list[str]:
    return sorted(path.name for path in config.parent.glob("work/planted/training/*/checkpoints/state-*"))
