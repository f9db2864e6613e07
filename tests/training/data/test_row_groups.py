"""Whatever decodes snapshots gives the same rows, and leaves the libraries that it shares as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fieldwise.features import store
from fieldwise.features.build.files import snapshot_schema, write_rows
from fieldwise.features.snapshot.manifest import Snapshot
from fieldwise.training.data.adapter import ADAPTED
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.cache import Reader, Seen
from fieldwise.training.data.files import DataFile
from fieldwise.training.data.plan import Plan
from fieldwise.training.data.reader import PlanReader
from fieldwise.training.data.splits import TrainData
from tests.snapshots import hash_spec, random_slots, write_snapshot

ROWS = [40, 1, 300, 7, 120]


def batches(files: list[DataFile], names: list[str], reader: Reader) -> tuple[list[Batch], str]:
    plan = Plan([file.rows for file in files], batch_size=64, seed=5, epoch=1)
    read = PlanReader(files, plan, range(8), names)
    return list(read.read(Seen(reader=reader))), read.digest.hexdigest()


def same_bytes(files: list[DataFile], names: list[str]) -> None:
    (petastorm, digest), (arrow, same) = (batches(files, names, reader) for reader in ("petastorm", "arrow"))
    assert digest == same
    assert sum(batch.rows for batch in arrow) == sum(file.rows for file in files)
    for one, other in zip(petastorm, arrow, strict=True):
        for name in ("slots", "label", "weight"):
            left, right = getattr(one, name), getattr(other, name)
            assert (left is None) == (right is None)
            if left is not None:
                assert (left.dtype, left.shape, left.strides) == (right.dtype, right.shape, right.strides)
                assert left.tobytes("A") == right.tobytes("A")


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("max_values", [(1, 1, 1), (1, 4, 1)])
def test_both_readers_give_the_same_bytes(tmp_path: Path, weighted: bool, max_values: tuple[int, ...]) -> None:
    spec = hash_spec((2000, 30, 5), max_values)
    files = TrainData.of([write_snapshot(tmp_path / "a #1", spec, {"train": ROWS}, weighted=weighted)]).train.files
    path = Path(files[2].path)
    pq.write_table(pq.read_table(path), path, row_group_size=17)
    same_bytes(list(files), spec.slot_names)


@pytest.mark.parametrize("weighted", [True, False])
def test_both_readers_give_the_same_bytes_of_what_builds_write(tmp_path: Path, weighted: bool) -> None:
    spec, rng = hash_spec((1 << 22, 30, 5), (1, 3, 1)), np.random.default_rng(1)
    files = []
    for number, rows in enumerate([2000, 70_000, 1]):
        slots, label = random_slots(spec, rows, rng), rng.integers(0, 2, rows).astype(np.float32)
        weight = rng.random(rows, np.float32) if weighted else None
        schema = snapshot_schema(spec.slot_names, weighted)
        entry = write_rows(str(tmp_path), 0, f"{number:06d}", schema, np.asfortranarray(slots), label, weight)
        files.append(DataFile(str(tmp_path / entry.path), entry.rows, entry.sha256))
    same_bytes(files, spec.slot_names)


@pytest.fixture
def spread(tmp_path: Path) -> list[DataFile]:
    """Files of one snapshot in two stores."""
    snapshot: Snapshot = write_snapshot(tmp_path / "s", hash_spec(), {"train": ROWS}, weighted=True)
    files = []
    for number, file in enumerate(TrainData.of([snapshot]).train.files):
        remote = f"memory://bucket{tmp_path}/{number}.parquet"
        if number % 2:
            store.write_new(remote, Path(file.path).read_bytes())
        files.append(DataFile(remote if number % 2 else file.path, file.rows, file.sha256))
    return files


@pytest.mark.skipif(not ADAPTED, reason="on pyarrow 14 petastorm reads local files and HDFS alone")
def test_both_readers_read_from_several_stores(spread: list[DataFile]) -> None:
    same_bytes(spread, hash_spec().slot_names)


def test_the_arrow_reader_reads_from_several_stores(spread: list[DataFile]) -> None:
    read, _ = batches(spread, hash_spec().slot_names, "arrow")
    assert sum(batch.rows for batch in read) == sum(ROWS)


UNTOUCHED = """
import sys
import numpy, pyarrow, pyarrow.lib, pyarrow.parquet as pq
modules = [numpy, pyarrow, pyarrow.lib, pq]
numpy.random, numpy.testing  # loaded when first asked for
names, loaded = [set(vars(module)) for module in modules], set(sys.modules)
datasets = pq.ParquetDataset
from fieldwise.training.data import petastorm_reader
assert pq.ParquetDataset is datasets
added = [sorted(set(vars(module)) - before) for module, before in zip(modules, names)]
submodules = {name.rpartition(".")[2] for name in sys.modules}
assert not [name for names in added for name in names if name not in submodules], added
assert not [name for name in sys.modules if name in ("pyarrow.filesystem", "pyarrow.hdfs", "petastorm.hdfs.namenode")]
"""


@pytest.mark.skipif(not ADAPTED, reason="pyarrow 14 has the names that petastorm looks up")
def test_the_adapter_leaves_pyarrow_and_numpy_as_they_are() -> None:
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", UNTOUCHED], check=True)


WITHOUT = """
import sys
sys.modules["petastorm"] = None  # as if it were not installed
from fieldwise.training.data.cache import Seen
from fieldwise.features.errors import ConfigError
import fieldwise.training.loop.trainer, fieldwise.training.data.reader
Seen(reader="arrow")
try:
    Seen()
except ConfigError as error:
    print(error)
"""


def test_who_reads_by_arrow_needs_no_petastorm() -> None:
    told: Any = subprocess.run([sys.executable, "-c", WITHOUT], check=True, capture_output=True, text=True).stdout
    assert told.startswith("training.reader: expected petastorm 0.12.1, or arrow, found petastorm does not import (")
    assert "set training.reader: arrow, which reads the same rows" in told
