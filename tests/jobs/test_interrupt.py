"""Ctrl-C and SIGTERM: exit code 130 or 143, one line, nobody left, nothing half-written; run again, it goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.shop import shop_config, write_bundle, write_shop
from tests.snapshots import PLANTED, hash_spec, write_snapshot

ROOT = Path(__file__).resolve().parents[2]
MARK = "FIELDWISE_TEST_MARK"
SIGNALS = [signal.SIGINT, signal.SIGTERM]
SCRIPT = """
import contextlib, os, subprocess, sys, time
from fieldwise.features.interrupt import Interruptible, Interrupted, held
stderr = sys.stderr
child = subprocess.Popen(["sleep", "300"])
with Interruptible(lambda number: print("last words", number, file=stderr)) as signals:
    try:
        {body}
    except Interrupted as interrupted:
        signals.leave(interrupted.number)
"""
UNWOUND = """
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("unwound", flush=True)
"""
HELD = """
        with held():
            print("ready", flush=True)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                time.sleep(0.1)
            print("whole", flush=True)
        print("never", flush=True)
"""
STUCK = """
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            time.sleep(60)
"""
CONFIG = PLANTED + "training: {batch_size: 64, epochs: 100000, patience: null, threads: 1}\n"


class Command:
    """A process in a group of its own; whatever it starts carries its mark."""

    def __init__(self, *argv: str) -> None:
        self.mark, self.stderr = uuid.uuid4().hex, tempfile.TemporaryFile()  # noqa: SIM115
        own = os.environ | {MARK: self.mark, "SPARK_MASTER": "local[2]", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        self.process = subprocess.Popen(
            [sys.executable, *argv], cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=self.stderr,
            start_new_session=True,
        )  # fmt: skip

    def words(self) -> str:
        """All of stderr."""
        self.stderr.seek(0)
        return self.stderr.read().decode()

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def end(self, number: int, *, group: bool, seconds: float = 30) -> tuple[int, str, list[str]]:
        """Signal the process, or all of its group; (exit code, stdout, lines of stderr), and nobody is left."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        try:
            out, _ = self.process.communicate(timeout=seconds)
            deadline = time.monotonic() + 2
            while self.living() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert self.living() == []
        finally:
            for pid in self.living():
                os.kill(pid, signal.SIGKILL)
        return self.process.returncode, out.decode(), [line for line in self.words().splitlines() if line.strip()]

    def living(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found


def script(body: str) -> Command:
    command = Command("-c", SCRIPT.format(body=body.strip()))
    command.ready()
    return command


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("body", "said"), [(UNWOUND, "unwound\n"), (HELD, "whole\n")])
def test_what_is_open_is_closed_and_children_end(number: signal.Signals, body: str, said: str) -> None:
    command = script(body)
    code, out, words = command.end(number, group=False)
    assert (code, out, words) == (128 + number, said, [f"last words {number.value}"])


def test_a_second_signal_does_not_wait() -> None:
    command = script(STUCK)
    os.kill(command.process.pid, signal.SIGTERM)
    os.kill(command.process.pid, signal.SIGTERM)  # a launcher that passes on what the terminal said
    time.sleep(3.5)
    assert command.process.poll() is None
    assert command.end(signal.SIGINT, group=False, seconds=5)[::2] == (130, ["last words 2"])


def wait(until: Callable[[], object], command: Command, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        assert command.process.poll() is None, command.words()[-3000:]
        time.sleep(0.1)


def planted(tmp_path: Path, more: str = 'tracking: {uri: "http://127.0.0.1:9"}\n') -> str:
    write_snapshot(
        tmp_path / "work/planted/snapshots/all", hash_spec((10, 10)), {"train": [900], "valid": [300], "test": [300]}
    )
    (tmp_path / "planted.yaml").write_text(CONFIG + more)
    return str(tmp_path / "planted.yaml")


def states(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("work/planted/training/*/checkpoints/state-*"))


def line_of(name: str, number: signal.Signals) -> str:
    return f"fieldwise {name}: interrupted by {number.name}; nothing half-written is left, run it again to go on"


def test_a_training_leaves_a_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    train = ("-m", "fieldwise.jobs.cli", "train", "--config", planted(tmp_path))
    command = Command(*train)
    wait(lambda: "epoch 3:" in command.words(), command)
    code, out, words = command.end(signal.SIGINT, group=True)
    assert (code, out, words[-1]) == (130, "", line_of("train", signal.SIGINT))
    assert not any("Traceback" in line for line in words)
    first = states(tmp_path)
    assert len(first) == 1
    again = Command(*train, "--set", "training.checkpoint.every_steps=5")
    wait(lambda: states(tmp_path)[-1] > first[-1], again)
    assert again.end(signal.SIGTERM, group=False)[0] == 143
    assert not list(tmp_path.glob("work/planted/training/*/bundle"))


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("group", [False, True])
def test_ranks(tmp_path: Path, number: signal.Signals, group: bool) -> None:
    command = Command("-m", "fieldwise.jobs.cli", "train", "--ranks", "2", "--config", planted(tmp_path),
                      "--set", "model.kind=fm", "--set", "training.checkpoint.every_steps=5")  # fmt: skip
    wait(lambda: states(tmp_path), command)
    code, out, words = command.end(number, group=group, seconds=60)
    assert (code, out, words[-1]) == (128 + number, "", line_of("train", number))
    assert not any("Traceback" in line or "SignalException" in line for line in words)


COMMANDS = {
    "features": [],
    "score-rows": ["--model", "BUNDLE"],
    "score-catalog": ["--model", "BUNDLE", "--date", "2026-01-02"],
    "evaluate-lists": ["--lists", "lists", "--from", "2026-01-06"],
    "similar-items": ["--model", "BUNDLE", "--date", "2026-01-02"],
    "similar-contexts": ["--model", "BUNDLE", "--date", "2026-01-02"],
    "explain": ["--model", "BUNDLE"],
    "doctor": [],
    "send": [],
    "demo": ["--rows", "30000"],
    "sweep": ["--trials", "30"],
    "daily": ["--date", "2026-01-02"],
}
TRIES = 4


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_at_random_moments(tmp_path: Path, name: str) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path)
    bundle = write_bundle(tmp_path, config)
    options = [bundle if option == "BUNDLE" else option for option in COMMANDS[name]]
    place = planted(tmp_path, "") if name == "sweep" else str(tmp_path / "shop.yaml")
    draw = random.Random(name)
    for attempt in range(TRIES):
        number, group = SIGNALS[attempt % 2], draw.random() < 0.5
        command = Command("-m", "fieldwise.jobs.cli", name, "--config", place, *options)
        try:
            command.process.wait(draw.uniform(0.5, 25))
        except subprocess.TimeoutExpired:
            code, out, words = command.end(number, group=group)
            if code in (0, 1, 2, 3) and "interrupted" not in "".join(words[-1:]):  # `send` may have no words
                continue  # it had come to its own end at that very moment
            assert (code, out) == (128 + number, ""), words
            assert words[-1] == line_of(name, number)
            assert not any("Traceback" in line or "Exception" in line for line in words), words
        command.process.communicate()
        hidden = [p for p in tmp_path.glob("work/**/*") if p.name.startswith("_") and ".parquet" not in p.name]
        assert [p for p in hidden if p.name != "_manifest.json"] == []
        assert not list(tmp_path.glob("work/**/lease-*"))
        assert all((p.parent / "manifest.json").exists() for p in tmp_path.glob("work/**/data-*"))


def test_unwinding_of_who_has_handlers_of_its_own_has_its_time_too() -> None:
    """As of a training, which writes a checkpoint first: what hangs afterwards is ended."""
    code = (
        "import time; from fieldwise.features import interrupt\n"
        "interrupt.GRACE_SECONDS = 0.5\n"
        "with interrupt.Interruptible(lambda number: print('last words', number, flush=True)):\n"
        "    try:\n        raise interrupt.hurrying(interrupt.Interrupted(2))\n"
        "    finally:\n        time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (130, "last words 2\n"), done.stderr
