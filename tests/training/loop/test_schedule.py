"""Learning rates by step, and parts of a step: what they give and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldwise.features.errors import ConfigError
from fieldwise.features.snapshot.manifest import Snapshot
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.plan import Plan
from fieldwise.training.data.reader import PlanReader
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.schedule import rate_at
from fieldwise.training.loop.trainer import Trainer
from fieldwise.training.ranks.world import World
from fieldwise.training.step.plain import PlainStep
from tests.snapshots import hash_spec, write_snapshot

SPEC = hash_spec((12, 10, 5), (1, 1, 2))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_snapshot(tmp_path_factory.mktemp("data") / "snapshot", SPEC, {"train": [600], "valid": [100]})


def trainer(snapshot: Snapshot, kind: str = "fm", **training: Any) -> Trainer:
    config = TrainingConfig(batch_size=256, threads=1, **training)
    return Trainer(TrainRun(TrainData.of_one(snapshot), ModelConfig(kind=kind), config, "unused"), World())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.4, 0.8, 0.8, 0.8, 0.8, 0.8]),
        ("linear", [0.4, 0.8, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.4, 0.8, 0.8, 0.4 * (1 + 0.5**0.5), 0.4, 0.4 * (1 - 0.5**0.5)]),
    ],
)
def test_rates_by_step(schedule: Any, expected: list[float]) -> None:
    config = TrainingConfig(learning_rate=0.8, schedule=schedule, warmup_steps=2)
    assert [rate_at(config, step, 6) for step in range(6)] == pytest.approx(expected)


def test_every_optimizer_of_the_run_takes_the_rate_of_the_step(snapshot: Snapshot, tmp_path: Path) -> None:
    run = trainer(snapshot, optimizer="sgd", epochs=2, learning_rate=0.5, schedule="linear", patience=None)
    run.task = replace(run.task, bundle_dir=str(tmp_path / "bundle"))
    rates: list[float] = []
    dense: list[float] = []
    begin, step = run.optimizer.begin, run.dense_optimizer.step

    def note(rate: float, l2: float) -> Any:
        rates.append(rate)
        return begin(rate, l2)

    def note_dense(rate: float) -> None:
        dense.append(rate)
        step(rate)

    run.optimizer.begin, run.dense_optimizer.step = note, note_dense  # type: ignore[method-assign]
    run.train()
    assert rates == pytest.approx([0.5 * (1 - step / 6) for step in range(6)])
    assert dense == rates


@pytest.mark.parametrize("kind", ["fm", "fwfm"])
def test_a_step_in_parts_is_the_same_step(snapshot: Snapshot, kind: str) -> None:
    found = []
    for accumulate in (1, 3):
        run = trainer(snapshot, kind, fused=False, accumulate=accumulate)
        plan = Plan([600], batch_size=256)
        reader = PlanReader(run.data.train.files, plan, range(8), SPEC.slot_names)
        batch = next(iter(reader))
        compact = run.network.lookup(batch.slots)
        union = run.exchange.union(compact, batch.rows, batch.weight_sum)
        assert isinstance(run.step, PlainStep)
        step = run.step.gradient(compact, union, batch.label, batch.weight)
        found.append((step.grad, torch.tensor(step.loss), step.logits, run.network.model.bias.grad))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-8)
    assert len(found[1][2]) == 256


@pytest.mark.parametrize(
    ("kind", "training", "message"),
    [
        ("lr", {"optimizer": "ftrl", "schedule": "cosine"}, "training.schedule: expected one rate throughout for ftrl"),
        ("lr", {"optimizer": "ftrl", "warmup_steps": 1}, "training.schedule: expected one rate throughout for ftrl"),
        ("lr", {"epochs": 2, "warmup_steps": 6}, "training.warmup_steps: expected fewer than the 6 steps"),
        ("lr", {"accumulate": 2}, "training.accumulate: expected 1: compiled kernels keep nothing"),
        ("fwfm", {"accumulate": 257}, "training.accumulate: expected at most the 256 rows of a step, found 257"),
    ],
)
def test_what_cannot_work_is_refused_before_the_start(
    snapshot: Snapshot, kind: str, training: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        trainer(snapshot, kind, **training)
    assert message in str(error.value)
