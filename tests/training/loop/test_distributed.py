"""N ranks equal one process: gradients, training, rows."""

from __future__ import annotations

import io
import math
import os
import re
import resource
import socket
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldwise.features.errors import IntegrityError
from fieldwise.features.snapshot.manifest import Snapshot, load_snapshot
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import Trainer, train
from fieldwise.training.models import MODELS
from fieldwise.training.models.base import build_model
from fieldwise.training.ranks.shared import SharedMemory
from fieldwise.training.ranks.world import World, join_world
from fieldwise.training.step.fused import FusedStep
from fieldwise.training.step.plain import PlainStep
from tests.snapshots import hash_spec, random_slots, write_snapshot
from tests.training.ranks import forkserver, run_ranks

KINDS = sorted(MODELS)
SPEC = hash_spec((20, 30, 5, 9), (1, 1, 1, 3))
CONFIG = TrainingConfig(epochs=2, batch_size=256, patience=None, threads=1)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    files = {"train": [1500, 1, 700], "valid": [500], "test": [400]}
    return write_snapshot(tmp_path_factory.mktemp("data") / "snapshot", SPEC, files, weighted=True)


def small(kind: str) -> ModelConfig:
    return ModelConfig(kind=kind, pair_buckets=512 if kind == "poly2" else None)


def batch_of(rows: int, weighted: bool, seed: int = 1) -> Batch:
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.3).astype(np.float32)
    weight = rng.choice(np.array([0.0, 0.5, 3.0], np.float32), rows) if weighted else None
    return Batch(np.asfortranarray(random_slots(SPEC, rows, rng)), label, weight, [])


def part(batch: Batch, start: int, stop: int) -> Batch:
    weight = None if batch.weight is None else batch.weight[start:stop]
    return Batch(batch.slots[start:stop], batch.label[start:stop], weight, [])


CASES = [([37, 27], False), ([60, 4], True), ([64, 0], True), ([0, 64], False)]


def on_hosts_apart(run: TrainRun, world: World) -> Trainer:
    """A trainer whose ranks have a table each, as on hosts of their own."""
    of = SharedMemory.of
    SharedMemory.of = staticmethod(lambda world: None)  # type: ignore[method-assign]
    try:
        return Trainer(run, world)
    finally:
        SharedMemory.of = staticmethod(of)  # type: ignore[method-assign]


def shared_gradients(world: World, directory: str) -> dict[str, list[tuple[np.ndarray, np.ndarray, float]]]:
    data = TrainData.of_one(load_snapshot(directory))
    found: dict[str, list[tuple[np.ndarray, np.ndarray, float]]] = {}
    for kind in KINDS:
        trainer = on_hosts_apart(TrainRun(data, small(kind), CONFIG, "unused"), world)
        plain = PlainStep(trainer.network.model, trainer.network.table, trainer.optimizer, trainer.exchange)
        for counts, weighted in CASES:
            start = sum(counts[: world.rank])
            own = (
                part(batch_of(64, weighted), start, start + counts[world.rank])
                if world.size > 1
                else batch_of(64, weighted)
            )
            compact = trainer.network.lookup(own.slots)
            union = trainer.exchange.union(compact, own.rows, own.weight_sum)
            step = plain.gradient(compact, union, own.label, own.weight)
            table = np.zeros(trainer.network.table.weight.shape, np.float32)
            table[union.ids.numpy()] = step.grad.numpy()
            bias = trainer.network.model.bias.grad
            assert bias is not None
            found.setdefault(kind, []).append((table, bias.numpy().copy(), step.loss))
    return found


def absolute_terms(kind: str, weighted: bool, trainer: Trainer) -> np.ndarray:
    """Sum over rows of |their gradient|, from the float64 reference, row by row."""
    batch = batch_of(64, weighted)
    network = trainer.network
    model = build_model(network.settings, network.model.layout, fused=False).double()
    terms = np.zeros(network.table.weight.shape)
    for row in range(batch.rows):
        compact = network.lookup(batch.slots[row : row + 1])
        rows = network.table.weight[compact.ids].double().requires_grad_()
        z = model(rows, compact.index, compact.factor)
        weight = 1.0 if batch.weight is None else float(batch.weight[row])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, torch.tensor([batch.label[row]]).double())
        (weight / batch.weight_sum * loss).backward()
        assert rows.grad is not None
        terms[compact.ids.numpy()] += rows.grad.abs().numpy()
    return terms


def test_ranks_give_the_gradient_of_one_process(snapshot: Snapshot, tmp_path: Path) -> None:
    """Of rows (to 1e-6 of the sum of absolute terms) and bias, for every model, uneven, weighted and empty shares."""
    one = shared_gradients(World(), snapshot.dir)
    two = run_ranks(2, tmp_path, shared_gradients, snapshot.dir)
    for kind in KINDS:
        trainer = Trainer(TrainRun(TrainData.of_one(snapshot), small(kind), CONFIG, "unused"), World())
        for case, (counts, weighted) in enumerate(CASES):
            table, bias, loss = one[kind][case]
            terms = absolute_terms(kind, weighted, trainer)
            for rank in range(2):
                shared_table, shared_bias, shared_loss = two[rank][kind][case]
                where = f"{kind} {counts} rank {rank}"
                assert (np.abs(shared_table - table) <= 1e-6 * terms + 1e-12).all(), where
                np.testing.assert_allclose(shared_bias, bias, rtol=1e-5, err_msg=where)
                assert shared_loss == pytest.approx(loss, rel=1e-6), where


def trained(world: World, directory: str, bundles: str) -> dict[str, tuple[str, list[float], list[int], int]]:
    data = TrainData.of_one(load_snapshot(directory))
    found = {}
    for kind in KINDS:
        result = train(TrainRun(data, small(kind), CONFIG, f"{bundles}/{world.size}-{kind}"), world)
        losses = [record.train_logloss for record in result.history] + [result.evaluations["test"].values["logloss"]]
        rows = [n for record in result.history for n in (record.rows_planned, record.rows_read, record.rows_trained)]
        found[kind] = (result.bundle_digest, losses, rows, result.history[0].exchanged_bytes)
    return found


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_training_on_ranks_equals_training_alone(snapshot: Snapshot, tmp_path: Path, size: int) -> None:
    alone = trained(World(), snapshot.dir, str(tmp_path))
    shared = run_ranks(size, tmp_path, trained, snapshot.dir, str(tmp_path))
    for kind in KINDS:
        digest, losses, rows, sent = shared[0][kind]
        assert all(other[kind][0] == digest for other in shared)
        np.testing.assert_allclose(losses, alone[kind][1], rtol=1e-5)
        assert rows == [2201] * 6
        assert sent > 0
        assert alone[kind][3] == 0


def by_both_ways(world: World, directory: str, bundles: str) -> list[tuple[bool, list[float], str]]:
    data, found = TrainData.of_one(load_snapshot(directory)), []
    for threads in (1, 2):
        config = CONFIG.model_copy(update={"threads": threads})
        for make, steps_left in ((Trainer, None), (Trainer, 3), (on_hosts_apart, None)):
            trainer = make(TrainRun(data, small("ffm"), config, f"{bundles}/bundle"), world)
            if steps_left:  # before the marks start anew
                trainer.exchange._next = 2**31 - 2 - 2 * steps_left * trainer.network.table.rows
            result = trainer.train()
            losses = [record.train_logloss for record in result.history]
            found.append((trainer.network.table.shared is not None, losses, result.bundle_digest))
    return found


def test_one_table_of_all_ranks_equals_one_for_each(snapshot: Snapshot, tmp_path: Path) -> None:
    first, second = run_ranks(2, tmp_path, by_both_ways, snapshot.dir, str(tmp_path))
    assert first == second
    for together, again, apart in (first[:3], first[3:]):
        assert (together[0], apart[0]) == (True, False)
        assert together == again  # bit for bit
        np.testing.assert_allclose(together[1], apart[1], rtol=1e-6)


def in_bfloat16(world: World, directory: str, bundles: str) -> list[tuple[bool, list[float], str]]:
    data, found = TrainData.of_one(load_snapshot(directory)), []
    config = CONFIG.model_copy(update={"table": "bfloat16"})
    for make in (Trainer, Trainer, on_hosts_apart):
        trainer = make(TrainRun(data, small("ffm"), config, f"{bundles}/bundle"), world)
        shared = trainer.network.table.shared is not None
        result = trainer.train()
        found.append((shared, [record.train_logloss for record in result.history], result.bundle_digest))
    return found


@pytest.mark.slow
def test_ranks_train_a_table_in_bfloat16(snapshot: Snapshot, tmp_path: Path) -> None:
    alone = in_bfloat16(World(), snapshot.dir, str(tmp_path))[0][1]
    first, second = run_ranks(2, tmp_path, in_bfloat16, snapshot.dir, str(tmp_path))
    assert first == second
    assert first[0] == first[1]
    assert (first[0][0], first[2][0]) == (True, False)
    for _, losses, _ in first:
        np.testing.assert_allclose(losses, alone, rtol=1e-3)


def in_one_memory(world: World) -> tuple[list[float], bool, bool]:
    memory = SharedMemory.of(world)
    assert memory is not None
    array = memory.zeros(3, 500_000)  # over the borders of huge pages
    was_zero = not array.any()
    world.meet()
    array[world.rank] = world.rank + 1
    array[2, world.rank] = 7
    world.meet()
    if world.first:  # as if there were no more memory
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(MemoryError, match=r"for 2 ranks to share"):
        memory.zeros(1 << 20)
    return [float(row.sum()) for row in array], was_zero, Path("/dev/shm/fieldwise").exists()


def test_ranks_see_each_others_numbers(tmp_path: Path) -> None:
    assert SharedMemory.of(World()) is None
    for found in run_ranks(2, tmp_path, in_one_memory):
        assert found == ([500_000.0, 1_000_000.0, 14.0], True, False)


def one_step(world: World, directory: str) -> list[np.ndarray]:
    """What a step of plain SGD at rate 1 takes off the table: the gradient."""
    data, found = TrainData.of_one(load_snapshot(directory)), []
    config = CONFIG.model_copy(update={"optimizer": "sgd"})
    for kind in ("fm", "ffm"):
        trainer = Trainer(TrainRun(data, small(kind), config, "unused"), world)
        assert isinstance(trainer.step, FusedStep)
        assert (trainer.network.table.shared is None) == (world.size == 1)
        for counts, weighted in CASES:
            start = sum(counts[: world.rank])
            own = part(batch_of(64, weighted), start, start + counts[world.rank] if world.size > 1 else 64)
            world.meet()
            before = trainer.network.table.weight.clone()
            compact = trainer.network.lookup(own.slots)
            union = trainer.exchange.union(compact, own.rows, own.weight_sum)
            trainer.step(compact, union, own.label, own.weight, 1.0)
            world.meet()
            found.append((before - trainer.network.table.weight).numpy())
    return found


def test_a_step_on_one_table_of_all_ranks_is_that_of_one_process(snapshot: Snapshot, tmp_path: Path) -> None:
    one = one_step(World(), snapshot.dir)
    two = run_ranks(2, tmp_path, one_step, snapshot.dir)
    for number, gradient in enumerate(one):
        assert np.abs(gradient).max() > 1e-3
        for rank in range(2):
            np.testing.assert_allclose(two[rank][number], gradient, atol=1e-6, err_msg=f"{number}, rank {rank}")


def drifting(world: World, directory: str) -> None:
    trainer = on_hosts_apart(TrainRun(TrainData.of_one(load_snapshot(directory)), small("fm"), CONFIG, "unused"), world)
    if world.rank == 1:
        trainer.network.table.weight[5, 1] += 1e-3
    trainer.train()


def test_replicas_that_drift_apart_stop_the_run(snapshot: Snapshot, tmp_path: Path) -> None:
    for error in run_ranks(2, tmp_path, drifting, snapshot.dir):
        assert isinstance(error, IntegrityError)
        assert "ranks [1] apart from rank 0" in str(error)


def overflowing(world: World, directory: str) -> None:
    config = CONFIG.model_copy(update={"verify_checksums": False})
    trainer = Trainer(TrainRun(TrainData.of_one(load_snapshot(directory)), small("lr"), config, "unused"), world)
    trainer.network.table.weight[trainer.network.model.layout.offset_of_slot[2] + 4] = torch.inf
    trainer.train()


def test_an_infinite_loss_stops_all_ranks_in_the_same_step_and_names_rows(snapshot: Snapshot, tmp_path: Path) -> None:
    first, second = run_ranks(2, tmp_path, overflowing, snapshot.dir)
    assert isinstance(first, IntegrityError)
    assert str(first) == str(second)
    assert "epoch 1, step 1: expected a finite loss" in str(first)
    assert "train-00000.parquet rows " in str(first)


def falling_silent(world: World, directory: str) -> None:
    run = TrainRun(TrainData.of_one(load_snapshot(directory)), small("lr"), CONFIG, "unused")
    if world.rank == 1:
        Trainer(run, world)
        time.sleep(12)
    train(run, world)


def test_a_rank_that_hangs_is_named(snapshot: Snapshot, tmp_path: Path) -> None:
    error, _ = run_ranks(2, tmp_path, falling_silent, snapshot.dir, seconds=6)
    assert isinstance(error, IntegrityError)
    assert "rank 0: expected every rank to take part in each step" in str(error)
    assert "1" in error.found


def meeting(rank: int, port: int, results: Any) -> None:
    """A rank as torchrun starts it on a host of its own, after as many restarts of its agent as its number."""
    facts = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
             "TORCHELASTIC_RESTART_COUNT": rank, "TORCHELASTIC_USE_AGENT_STORE": False,
             "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    os.environ |= {name: str(value) for name, value in facts.items()}
    with join_world(30) as world:
        results.put((world.rank, world.size, world.ranks_on_host, world.gather(rank)))


def test_ranks_meet_though_their_agents_restarted_a_different_number_of_times() -> None:
    context = forkserver()
    results = context.Queue()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = [context.Process(target=meeting, args=(rank, port, results)) for rank in range(2)]
    for process in ranks:
        process.start()
    found = sorted(results.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(30)
    assert found == [(0, 2, 2, [0, 1]), (1, 2, 2, [0, 1])]


def straggling(world: World, directory: str) -> str:
    config = CONFIG.model_copy(update={"batch_size": 1024})
    trainer = Trainer(TrainRun(TrainData.of_one(load_snapshot(directory)), small("fm"), config, "unused"), world)
    fused = trainer.step
    with redirect_stderr(io.StringIO()) as told, trainer.network.passes(trainer._readers(0, 0)) as works:
        for epoch in range(2):
            plan = trainer._plan(epoch)
            trainer._end_epoch(plan, trainer._train_epoch(plan, works), works)
            trainer.warned_at = -math.inf  # the first epoch compiles, and may have named a rank a moment ago
            # from now on rank 1 is slow between two exchanges
            trainer.step = lambda *parts: (time.sleep(0.5 * world.rank), fused(*parts))[1]  # type: ignore[assignment]
    return told.getvalue()


def test_a_straggler_is_named_with_its_seconds(snapshot: Snapshot, tmp_path: Path) -> None:
    first, second = run_ranks(2, tmp_path, straggling, snapshot.dir)
    (told,) = re.findall(r"rank 1 is slow: ([0-9.]+) s per step in epoch 2 against ([0-9.]+) s of the others", first)
    assert float(told[0]) > 0.3 > float(told[1])  # of three steps, the last one's time has not travelled
    assert second == ""
