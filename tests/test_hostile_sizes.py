"""Small files that stand for much: refused by name before memory goes where they lead."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldwise.features.fields.fitting import fit_spec
from fieldwise.features.fields.spec import VOCABULARY_FILE, FeatureSpec
from fieldwise.features.fields.vocabulary import VocabularyField
from fieldwise.training.models import settings_of
from fieldwise.training.network.bundle import MODEL, WEIGHTS, save_bundle
from fieldwise.training.network.network import Network

pytestmark = pytest.mark.slow
"""Each file is refused in a process of its own, whose memory tells."""

MOST_MB = 300
"""That refusing a file may take, beyond what the process has imported."""
LOAD = """
import sys
from fieldwise.features.errors import ArtifactError
from fieldwise.features.snapshot.manifest import load_snapshot
from fieldwise.features.fields.spec import FeatureSpec
if sys.argv[1] == "bundle":
    from fieldwise.training.network.bundle import load_bundle
def peak():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()  # numba and torch are large, and not the file's fault
load = {"spec": FeatureSpec.load, "snapshot": load_snapshot, "bundle": globals().get("load_bundle")}[sys.argv[1]]
try:
    load(sys.argv[2])
except ArtifactError as error:
    print(f"{error}\\n{peak()} {peak() - before}")
"""


def spec(values: int = 3) -> FeatureSpec:
    keys = [f"v{n}".encode() for n in range(values)]
    columns = {"field": pa.array([0] * values, pa.int32()), "key": pa.array(keys, pa.binary())}
    return fit_spec([VocabularyField(kind="vocabulary", name="user")], pa.table({**columns, "count": [9] * values}))


def refusal(kind: str, place: Path) -> str:
    """What is said of an artifact, by a process of its own whose memory is watched."""
    done = subprocess.run([sys.executable, "-c", LOAD, kind, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said, _, peaks = done.stdout.rstrip().rpartition("\n")
    peak, added = map(int, peaks.split())
    print(f"{kind}: peak {peak} MB, {added} MB beyond the imports")
    assert added < MOST_MB
    assert str(place) in said
    return said


def vocabulary(place: Path, rows: int, text: str, compression: str = "snappy", index: bool = True) -> None:
    """A spec whose vocabulary file claims ``rows`` rows of one long text, in very few bytes."""
    small = spec()
    small.save(str(place))
    document = json.loads((place / "spec.json").read_text())
    document["fields"][0]["values"] = rows
    (place / "spec.json").write_text(json.dumps(document))
    schema = pq.read_schema(place / VOCABULARY_FILE)
    count = min(rows, 1 << 20)
    value = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))
    field = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["user"]))
    number = pa.array(np.arange(3, 3 + count, dtype=np.int32) if index else np.full(count, 3, np.int32))
    table = pa.table([field, number, value, pa.array(np.full(count, 9))], names=schema.names)
    with pq.ParquetWriter(place / VOCABULARY_FILE, table.schema, compression=compression) as writer:
        for _ in range(-(-rows // count)):
            writer.write_table(table, row_group_size=1 << 20)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda place: vocabulary(place, 40 << 20, "x", index=False), "occur twice"),
        (lambda place: vocabulary(place, 1 << 20, "x" * 4_000_000), "occur twice"),
        (lambda place: vocabulary(place, 1000, "x" * 150_000_000, "zstd"), "ZSTD"),
    ],
    ids=["rows", "one text", "compressed"],
)
def test_a_vocabulary_is_read_no_further_than_its_bytes_allow(
    tmp_path: Path, write: Callable[[Path], None], said: str
) -> None:
    write(tmp_path)
    assert (tmp_path / VOCABULARY_FILE).stat().st_size < 8 << 20
    assert said in refusal("spec", tmp_path)


def test_a_header_of_a_million_tensors(tmp_path: Path) -> None:
    network = Network(spec(), settings_of("lr"), seed=1)
    save_bundle(tmp_path / "bundle", network.bundle(network.table.weight.numpy(), network.dense(), 0.0))
    header = json.dumps({f"{n:x}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(1_000_000)})
    weights = len(header).to_bytes(8, "little") + header.encode()
    (tmp_path / "bundle" / WEIGHTS).write_bytes(weights)
    model = json.loads((tmp_path / "bundle" / MODEL).read_text())
    model["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    (tmp_path / "bundle" / MODEL).write_text(json.dumps(model))
    assert "at most" in refusal("bundle", tmp_path / "bundle")


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("snapshot", "manifest.json", "expected at most 3,050,402 values, found up to 12,000,002"),
        ("spec", "spec.json", "expected at most 16,777,216 bytes, found 18,000,004"),
    ],
)
def test_a_json_file_of_many_megabytes(tmp_path: Path, kind: str, name: str, told: str) -> None:
    (tmp_path / name).write_bytes(b"[" + b"[]," * 6_000_000 + b"[]]")
    assert told in refusal(kind, tmp_path)
