"""Killed anywhere, the run ends in the same bundle; no row is lost or trained twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldwise.features.errors import ArtifactError
from fieldwise.features.snapshot.manifest import Snapshot, load_snapshot
from fieldwise.training.config import CheckpointConfig, ModelConfig, TrainingConfig
from fieldwise.training.data.batches import Work
from fieldwise.training.data.plan import Plan
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop.checkpoint import Checkpoints, read_into
from fieldwise.training.loop.progress import Progress
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import Trainer, train
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.ranks.world import StopSignal, World
from tests.snapshots import hash_spec, write_snapshot
from tests.training.ranks import run_ranks

SPEC = hash_spec((20, 30, 5, 6), (1, 1, 1, 2))
CONFIG = TrainingConfig(
    epochs=3, batch_size=256, threads=1, patience=None, checkpoint=CheckpointConfig(every_steps=3, every_minutes=None)
)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    files = {"train": [900, 1, 1200], "valid": [400]}
    return write_snapshot(tmp_path_factory.mktemp("data") / "snapshot", SPEC, files)


class Killed(BaseException):
    """Nothing may catch this: what SIGKILL looks like from inside one process."""


def run_of(directory: str, where: Path, kind: str, **training: Any) -> TrainRun:
    config = CONFIG.model_copy(update=training)
    own = {"hidden": [8, 4], "dropout": 0.3} if kind == "deepfm" else {}
    model = ModelConfig.model_validate({"kind": kind, "pair_buckets": 256 if kind == "poly2" else None, **own})
    return TrainRun(
        TrainData.of_one(load_snapshot(directory)), model, config, str(where / "bundle"), str(where / "checkpoints")
    )


def dying(world: World, run: TrainRun, steps: int) -> tuple[str, list[int]] | None:
    """Train, die after ``steps`` steps; None when dead, else (bundle digest, rows read and trained per epoch)."""
    trainer = Trainer(run, world)
    taken, step = [0], trainer._step

    def counted(plan: Plan, work: Work) -> int:
        if taken[0] == steps:
            raise Killed
        taken[0] += 1
        return step(plan, work)

    trainer._step = counted  # type: ignore[method-assign]
    try:
        result = trainer.train()
    except Killed:
        return None
    return result.bundle_digest, [n for r in result.history for n in (r.rows_planned, r.rows_read, r.rows_trained)]


def test_a_run_resumes_under_settings_that_do_not_decide_the_result(snapshot: Snapshot, tmp_path: Path) -> None:
    request = run_of(snapshot.dir, tmp_path, "ffm").request
    assert run_of(snapshot.dir, tmp_path, "ffm", cache_mb=0, threads=2, epochs=9, restarts=0).request == request
    assert run_of(snapshot.dir, tmp_path, "ffm", seed=1).request != request


@pytest.mark.parametrize(
    ("kind", "optimizer", "table"),
    [
        ("ffm", "adagrad", "float32"),
        ("fm", "adam", "bfloat16"),
        ("poly2", "ftrl", "float32"),
        ("lr", "sgd", "float32"),
        ("fwfm", "adam", "float32"),
        ("deepfm", "adagrad", "float32"),
    ],
)
def test_a_killed_run_ends_in_the_same_bundle(
    snapshot: Snapshot, tmp_path: Path, kind: str, optimizer: str, table: str
) -> None:
    whole = train(run_of(snapshot.dir, tmp_path / "whole", kind, optimizer=optimizer, table=table), World())
    run = run_of(snapshot.dir, tmp_path / "killed", kind, optimizer=optimizer, table=table)
    lives = [2, 4, 5, 7, 11]  # before any checkpoint, just behind one, across an epoch's end
    for steps in lives:
        assert dying(World(), run, steps) is None
    done = dying(World(), run, 1000)
    assert done == (whole.bundle_digest, [2101] * 9)
    files = sorted(path.name.partition(".")[0] for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert len([name for name in files if name.startswith("state-")]) == 2


def die_on_two_ranks(world: World, directory: str, where: str) -> list[tuple[str, list[int]] | None]:
    lives = [("whole", 1000), ("killed", 13), ("killed", 1000), ("regrouped", 7)]
    found = [dying(world, run_of(directory, Path(where) / name, "ffm"), steps) for name, steps in lives]
    lives = [("half", 1000), ("half killed", 13), ("half killed", 1000)]
    return found + [
        dying(world, run_of(directory, Path(where) / name, "ffm", table="bfloat16"), steps) for name, steps in lives
    ]


def die_with_layers(world: World, directory: str, where: str) -> list[tuple[str, list[int]] | None]:
    lives = [("whole", 1000), ("killed", 13), ("killed", 1000)]
    return [dying(world, run_of(directory, Path(where) / name, "deepfm"), steps) for name, steps in lives]


def test_two_ranks_with_layers_and_dropout_resume_to_the_same_bytes(snapshot: Snapshot, tmp_path: Path) -> None:
    first, second = run_ranks(2, tmp_path, die_with_layers, snapshot.dir, str(tmp_path))
    assert first == second
    whole, killed, resumed = first
    assert killed is None
    assert whole == resumed is not None


def finish_on_three_ranks(world: World, directory: str, where: str) -> tuple[str, list[int]] | None:
    return dying(world, run_of(directory, Path(where), "ffm"), 1000)


def test_ranks_resume_to_the_same_bytes_and_any_number_of_ranks_trains_each_row_once(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    first, second = run_ranks(2, tmp_path, die_on_two_ranks, snapshot.dir, str(tmp_path))
    assert first == second
    whole, killed, resumed, regrouped, half, half_killed, half_resumed = first
    assert whole == resumed
    assert half == half_resumed != whole
    assert (killed, regrouped, half_killed) == (None, None, None)
    where = tmp_path / "regrouped"
    saved = Checkpoints(where / "checkpoints", run_of(snapshot.dir, where, "ffm").request).latest()
    assert saved is not None
    assert (saved.progress.epoch, saved.progress.step, saved.progress.rows_trained) == (0, 6, 6 * 256)
    three = run_ranks(3, tmp_path, finish_on_three_ranks, snapshot.dir, str(where))
    assert three == [three[0]] * 3
    assert three[0][1] == [2101] * 9
    weights = [load_bundle(tmp_path / name / "bundle").weight for name in ("whole", "regrouped")]
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-4)


def train_slowly(directory: str, where: str) -> None:
    trainer = Trainer(run_of(directory, Path(where), "fm"), World())
    step = trainer._step
    trainer._step = lambda plan, work: (time.sleep(0.05), step(plan, work))[1]  # type: ignore[method-assign]
    with StopSignal() as stop:
        trainer.stop = stop
        trainer.train()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_signals(snapshot: Snapshot, tmp_path: Path, how: signal.Signals) -> None:
    """SIGTERM: checkpoint, exit 143. SIGKILL: the last checkpoint stands. Both resume to the same bytes."""
    where = tmp_path / "run"
    process = multiprocessing.get_context("spawn").Process(target=train_slowly, args=(snapshot.dir, str(where)))
    process.start()
    deadline = time.monotonic() + 60
    while not list(where.glob("checkpoints/state-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join(30)
    assert process.exitcode == (143 if how == signal.SIGTERM else -signal.SIGKILL)
    assert not (where / "bundle").exists()
    resumed = train(run_of(snapshot.dir, where, "fm"), World())
    whole = train(run_of(snapshot.dir, tmp_path / "whole", "fm"), World())
    assert resumed.bundle_digest == whole.bundle_digest


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Checkpoints, dict[str, torch.Tensor]]:
    checkpoints = Checkpoints(tmp_path / "c", "request")
    state = {"table": torch.arange(12.0).reshape(4, 3), "optimizer.steps": torch.tensor(7)}
    for step in (1, 2, 3):
        assert checkpoints.save(Progress(epoch=1, step=step, best_epoch=0), state, {"table": state["table"] * step})
    return checkpoints, state


def test_old_checkpoints_are_pruned_and_the_newest_whole_one_is_found(
    saved: tuple[Checkpoints, dict[str, torch.Tensor]], capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints, state = saved
    names = sorted(path.name.partition(".")[0] for path in checkpoints.directory.iterdir())
    assert names == ["best-000000", "state-000001-0000000002", "state-000001-0000000003"]
    found = checkpoints.latest()
    assert found is not None
    assert found.progress.step == 3
    blank = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    read_into(found.state, blank)
    assert torch.equal(blank["table"], state["table"])
    content = bytearray(found.state.read_bytes())
    content[-1] ^= 1
    found.state.write_bytes(content)
    older = checkpoints.latest()
    assert older is not None
    assert older.progress.step == 2
    assert "checkpoint passed over" in capfd.readouterr().err
    assert checkpoints.save(Progress(epoch=1, step=3, best_epoch=0), state, {"table": state["table"]})
    checkpoints.clear()
    assert list(checkpoints.directory.iterdir()) == []
    assert checkpoints.latest() is None


def test_strangers_are_refused(saved: tuple[Checkpoints, dict[str, torch.Tensor]]) -> None:
    checkpoints, _ = saved
    with pytest.raises(ArtifactError, match="expected checkpoints of this config and data"):
        Checkpoints(checkpoints.directory, "another request").latest()
    found = checkpoints.latest()
    assert found is not None
    with pytest.raises(ArtifactError, match=r"expected table \(5, 3\) torch.float32, found \(4, 3\)"):
        read_into(found.state, {"table": torch.zeros(5, 3), "optimizer.steps": torch.tensor(0)})
    with pytest.raises(ArtifactError, match="expected tensors"):
        read_into(found.state, {"other": torch.zeros(5, 3)})


def test_a_full_disk_stops_no_training(snapshot: Snapshot, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "full"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        run = run_of(snapshot.dir, tmp_path, "fm")
        object.__setattr__(run, "checkpoint_dir", str(small / "checkpoints"))
        result = train(run, World())
        assert "checkpoint not saved, training goes on: " in capfd.readouterr().err
        assert not list((small / "checkpoints").glob(".*"))
        checkpoints = Checkpoints(small / "checkpoints", run.request)
        assert all(checkpoints.latest() is not None for _ in (small / "checkpoints").glob("state-*"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert result.bundle_digest == train(run_of(snapshot.dir, tmp_path / "w", "fm"), World()).bundle_digest
