"""A training leaves its bundle and checkpoints, and nothing else: no thread, child, open file or temporary file."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from fieldwise.features.snapshot.manifest import load_snapshot
from fieldwise.training.config import CheckpointConfig, ModelConfig, TrainingConfig
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import train
from fieldwise.training.ranks.world import World
from tests.snapshots import hash_spec, write_snapshot


def run_once(directory: str, where: Path, epochs: int) -> None:
    config = TrainingConfig(
        epochs=epochs,
        batch_size=256,
        threads=1,
        patience=None,
        checkpoint=CheckpointConfig(every_steps=3, every_minutes=None),
    )
    data = TrainData.of_one(load_snapshot(directory))
    train(TrainRun(data, ModelConfig(kind="fm"), config, str(where / "bundle"), str(where / "checkpoints")), World())


def standing() -> tuple[set[str], int, int]:
    threads = {thread.name for thread in threading.enumerate()}
    return threads, len(os.listdir("/proc/self/fd")), len(multiprocessing.active_children())


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    snapshot = write_snapshot(tmp_path / "snapshot", hash_spec((20, 30)), {"train": [900, 600], "valid": [300]})
    before_files = sorted(path.name for path in (tmp_path / "snapshot").rglob("*"))
    run_once(snapshot.dir, tmp_path / "first", 1)  # what is set up once and kept
    before = standing()
    run_once(snapshot.dir, tmp_path / "second", 3)
    assert standing() == before
    left = [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]  # torch's cache
    assert left == []
    assert sorted(path.name for path in (tmp_path / "snapshot").rglob("*")) == before_files
    assert {path.name for path in (tmp_path / "second").iterdir()} == {"bundle", "checkpoints"}
    assert not [path for path in (tmp_path / "second").rglob("*") if path.name.startswith(".")]
