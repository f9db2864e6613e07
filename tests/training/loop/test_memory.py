"""The memory stated before the start."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop.memory import Memory, needed, peak, resident
from tests.snapshots import hash_spec, write_snapshot


def test_tables_count_rows_times_columns_times_four_bytes(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path / "s", hash_spec((997, 94, 2)), {"train": [60, 40]})
    data = TrainData.of([snapshot])
    rows = 1000 + 97 + 5
    ffm = needed(data, ModelConfig(kind="ffm", dim=4), TrainingConfig(streams=1, batch_size=64))
    assert (ffm.rows, ffm.width) == (rows, 1 + 3 * 4)
    assert ffm.table == ffm.best == ffm.state == rows * 13 * 4
    assert ffm.lookup == rows * 4
    assert ffm.reading == 2 * 100 * (3 + 1) * 4  # kept, and on their way
    assert needed(data, ModelConfig(kind="lr"), TrainingConfig(cache_mb=0, streams=1)).reading == 100 * (3 + 1) * 4
    assert ffm.total == sum(getattr(ffm, part) for part in ("table", "state", "best", "lookup", "reading", "step")) + (
        ffm.process
    )
    assert str(ffm).startswith(f"memory: {ffm.total / 1e6:,.0f} MB (table 0, state 0, best 0, lookup 0,")
    assert str(ffm).endswith("table of 1,102 x 13 float32")
    half = needed(data, ModelConfig(kind="ffm", dim=4), TrainingConfig(streams=1, batch_size=64, table="bfloat16"))
    assert (half.table, half.best, half.state) == (ffm.table // 2, ffm.best // 2, ffm.state)
    small = TrainingConfig(table="bfloat16", optimizer="rowwise_adagrad")
    rowwise = needed(data, ModelConfig(kind="ffm", dim=4), small)
    assert rowwise.best + rowwise.state == ffm.best  # the bundle's float32 come in their place
    assert str(half).endswith("table of 1,102 x 13 bfloat16")

    def state(kind: str, optimizer: str) -> int:
        return needed(data, ModelConfig(kind=kind), TrainingConfig.model_validate({"optimizer": optimizer})).state

    assert state("ffm", "rowwise_adagrad") == rows * 2 * 4
    assert state("ffm", "adam") == 2 * ffm.table
    assert state("lr", "ftrl") == rows * 2 * 4
    assert state("ffm", "sgd") == 0
    assert needed(data, ModelConfig(kind="poly2", pair_buckets=50), TrainingConfig()).rows == rows + 50


def test_ranks_of_one_host_have_one_table(tmp_path: Path) -> None:
    data = TrainData.of([write_snapshot(tmp_path / "s", hash_spec((997, 94, 2)), {"train": [60, 40]})])

    def of(kind: str, ranks: int, here: int) -> Memory:
        return needed(data, ModelConfig(kind=kind), TrainingConfig(streams=2), ranks, 1, here)

    together, apart = of("ffm", 2, 2), of("ffm", 2, 1)
    own = together.lookup + together.reading + together.step + together.process
    assert together.total == 3 * together.table + 2 * own
    assert str(together).startswith(
        f"memory: {together.total / 1e6:,.0f} MB for 2 ranks (table 0, state 0, best 0 in all;"
    )
    assert apart.total == 3 * apart.table + apart.lookup + apart.reading + apart.step + apart.process
    assert apart.step > together.step
    assert of("lr", 2, 2).total > 2 * 3 * of("lr", 2, 2).table  # no compiled step for these: each has its own


def test_what_the_process_holds_is_counted() -> None:
    before = resident()
    held = mmap.mmap(-1, 50_000_000)  # pages of its own: the allocator may have some left over
    np.frombuffer(held, np.uint8)[:] = 1
    assert resident() - before == pytest.approx(len(held), rel=0.1)
    assert peak() >= resident() * 0.9
