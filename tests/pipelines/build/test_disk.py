"""Disks that are full or read-only: one line, an exit code, nothing half-written; later the same command goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fieldwise.jobs.cli import main
from fieldwise.training.network.bundle import load_bundle
from tests.snapshots import hash_spec, write_snapshot

NOWHERE = "http://127.0.0.1:9"
"""An MLflow server that refuses at once: these tests are about disks."""
CONFIG = """
name: planted
source: {path: log.csv}
label: click
split: {by: hash, key: f0, valid: 0.1, test: 0.1}
fields: [{name: f0, kind: hash, buckets: 200000}, {name: f1, kind: hash, buckets: 10}]
model: {kind: lr}
training: {batch_size: 256, epochs: 2, threads: 1, checkpoint: {every_steps: 2}}
tracking: {uri: "%s"}
"""
Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Put a small file system of its own at a directory, or change the one there."""
    mounted: list[Path] = []

    def place(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        again = ["-o", f"remount,{options}"] if folder in mounted else ["-o", options]
        done = subprocess.run(["mount", "-t", "tmpfs", *again, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no right to mount a small file system: {done.stderr.decode().strip()}")
        mounted.append(folder)

    yield place
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "planted.yaml").write_text(CONFIG % NOWHERE)
    return tmp_path / "planted.yaml"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = main(list(argv))
    return code, capsys.readouterr().err.strip()


def test_a_bundle_on_a_full_disk(config: Path, mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither checkpoints nor the bundle fit; the reports do. With room, the same command ends in a whole bundle."""
    files = {"train": [900], "valid": [300], "test": [300]}
    write_snapshot(config.parent / "work/planted/snapshots/all", hash_spec((200_000, 10)), files)
    place = config.parent / "work/planted/training"
    mount(place, "size=200k")
    code, told = run(capsys, "train", "--config", str(config))
    assert code == 1
    assert "checkpoint not saved, training goes on: " in told
    last = told.splitlines()[-1]
    assert last.startswith(f"fieldwise train: {place}")
    assert "bundle: expected room to write, found No space left on device. Free some" in last
    assert not [path for path in place.rglob("*") if path.name.endswith(".tmp") or path.name == "bundle"]
    mount(place, "size=64m")
    code, told = run(capsys, "train", "--config", str(config))
    assert code == 1
    assert "Nothing is lost" in told.splitlines()[-1]  # of what MLflow should have got
    (bundle,) = place.glob("*/bundle")
    assert load_bundle(bundle).kind == "lr"


def test_a_read_only_workspace_is_refused_before_training(
    config: Path, mount: Mount, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"train": [900], "valid": [300], "test": [300]}
    workspace = config.parent / "work/planted"
    mount(workspace, "size=8m")
    write_snapshot(workspace / "snapshots/all", hash_spec((200_000, 10)), files)
    mount(workspace, "ro")
    code, told = run(capsys, "train", "--config", str(config))
    assert code == 2
    (line,) = told.splitlines()
    assert line.startswith(f"fieldwise train: {workspace}/training")
    assert "expected a place to write, found Read-only file system. Set another workspace" in line


def test_a_snapshot_on_a_full_disk(config: Path, mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{i * 7919 % 100003},{i % 13},{int(i % 7 == 0)}\n" for i in range(30_000))
    (config.parent / "log.csv").write_text("f0,f1,click\n" + rows)
    place = config.parent / "work/planted/snapshots"
    mount(place, "size=48k")
    code, told = run(capsys, "features", "--config", str(config))
    assert code == 1
    last = told.splitlines()[-1]
    assert last.startswith(f"fieldwise features: {place}/all/data-")
    assert ": expected room to write, found No space left on device. Free some" in last
    assert not [path for path in place.rglob("*") if path.is_file()]
    mount(place, "size=64m")
    assert main(["features", "--config", str(config)]) == 0
    assert sum(json.loads(capsys.readouterr().out.splitlines()[-1])["rows"].values()) == 30_000
