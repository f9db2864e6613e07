"""Good artifacts, records and sources of every kind, small, for `fuzz_loaders.py` to damage."""

from __future__ import annotations

import bz2
import decimal
import gzip
import json
import lzma
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fieldwise.features.fields import AnyField
from fieldwise.features.fields.fitting import fit_spec
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.number import NumberField
from fieldwise.features.fields.vocabulary import VocabularyField
from fieldwise.features.process import machine
from fieldwise.features.store.kept import write_record
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.cycle.record import Record
from fieldwise.pipelines.score.output import Output, write_part
from fieldwise.pipelines.train.sweep import Trial
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.loop.checkpoint import Checkpoints
from fieldwise.training.loop.progress import Progress
from fieldwise.training.models import settings_of
from fieldwise.training.network.bundle import save_bundle
from fieldwise.training.network.network import Network
from fieldwise.training.tracking.journal import Journal
from tests.snapshots import write_snapshot

DAY = "2026-01-01"
REQUEST = "what was asked for"
TRIAL = Trial("fm", 1, ModelConfig(kind="fm"), TrainingConfig(), {})
COLUMNS = ["user", "age", "text"]
CONFIG = """
name: planted
source: {path: log.csv, separator: ",", encoding: utf-8}
join: [{path: side.csv, on: user, select: [age]}]
label: rating >= 4
time: {column: timestamp, format: "%Y-%m-%d"}
split: {by: time, valid: 0.1, test: 0.1}
fields:
  - {name: "f{0..3}", kind: hash, buckets: 100}
  - {name: age, kind: number, quantiles: 10}
  - {name: genre, kind: vocabulary, separator: "|", max_values: 4, pooling: mean}
  - {name: pair, kind: cross, of: [f0, f1], buckets: 50}
model: {kind: ffm, dim: 4}
training: {batch_size: 256, epochs: 2, checkpoint: {every_steps: 3}}
"""


def artifacts(folder: Path) -> None:
    """One good artifact of every kind."""
    configs: list[AnyField] = [
        HashField(kind="hash", name="user", buckets=20),
        VocabularyField(kind="vocabulary", name="genre", separator="|", max_values=3),
        NumberField(kind="number", name="age", edges=(1.0, 5.0, 9.0)),
    ]
    tally = pa.table(
        {
            "field": pa.array([1] * 3, pa.int32()),
            "key": [b"a", "ü".encode(), b"long" * 9],
            "count": pa.array([9, 5, 2]),
        }
    )
    spec = fit_spec(configs, tally)
    write_snapshot(folder / "snapshot", spec, {"train": [30, 20], "valid": [10]})
    network = Network(spec, settings_of("ffm", dim=2), seed=1)
    save_bundle(folder / "bundle", network.bundle(network.table.weight.numpy(), network.dense(), 0.5))
    state = {"table": torch.arange(12.0).reshape(4, 3), "optimizer.steps": torch.tensor(7)}
    Checkpoints(folder / "checkpoint", "request").save(
        Progress(epoch=1, step=3, best_epoch=0), state, {"table": state["table"]}
    )
    shutil.copytree(folder / "snapshot", folder / "data")
    _leases(folder / "lease")
    _sources(folder / "source")
    (folder / "config").mkdir()
    (folder / "config" / "c.yaml").write_text(CONFIG)
    _records(folder)
    journal = Journal(folder / "journal", lambda report, answers: {"run": "1"})
    journal.open(name="fm")
    journal.metrics({"loss": 0.5}, 0)


def _leases(place: Path) -> None:
    """A published snapshot, and what jobs of other machines work on."""
    shutil.copytree(place.parent / "snapshot", place)
    for name, host in (("a", "elsewhere"), ("b", machine())):
        (place / f"data-{name}").mkdir()
        (place / f"lease-{name}.json").write_text(json.dumps({"host": host, "pid": os.getpid(), "start": 1}))


def _records(folder: Path) -> None:
    """What a workspace keeps: a day of `daily`, a trial of `sweep`, scores."""
    (folder / "day").mkdir()
    (folder / "day" / "config").write_text(CONFIG)
    day = Record(str(folder / "day"), DAY)
    day.step("config", lambda: load_config(folder / "day" / "config").record)
    day.step(f"features {DAY}", lambda: {"dir": f"{folder}/day/snapshots/{DAY}", "rows": {"all": 3}})
    day.step("challenger", lambda: {"metrics": {"test": {"logloss": 0.5}}, "model_uri": "models:/m-1"})
    result = {"kind": "fm", "number": 1, "valid": 0.5, "test": None, "epochs": 3, "seconds": 1.5}
    write_record(str(folder / "trial" / TRIAL.file), result)
    output = Output(str(folder / "scores" / "date=all"), REQUEST)
    with output:
        part = write_part(output.staging, 0, pa.table({"probability": [0.5]}), dictionary=[])
        output.publish([part], {"rows": 1, "filtered": 0, "quarantined": {}})


def _sources(place: Path) -> None:
    """The same few rows in every format."""
    place.mkdir()
    rows = [(f"u{n % 7}", str(n % 50), f'say "{n}", ü' if n % 5 == 0 else "") for n in range(200)]
    lines = [",".join(COLUMNS)] + [f'{user},{age},"{text.replace(chr(34), 2 * chr(34))}"' for user, age, text in rows]
    csv = ("\n".join(lines) + "\n").encode()
    for suffix, compress in (("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        (place / f"log.csv{suffix}").write_bytes(compress(csv))
    objects = [json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows]
    (place / "log.jsonl").write_text("\n".join(objects) + "\n")
    (place / "log.jsonl.zst").write_bytes(pa.compress("\n".join(objects).encode(), "zstd", asbytes=True))
    table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(COLUMNS)})
    pq.write_table(table, place / "log.parquet", row_group_size=64)
    for compression, page in (("none", "1.0"), ("zstd", "2.0"), ("gzip", "1.0"), ("lz4", "2.0")):
        place_of = place / f"log.parquet.{compression}"
        pq.write_table(_typed(table), place_of, row_group_size=64, compression=compression, data_page_version=page)


def _typed(table: pa.Table) -> pa.Table:
    """The rows with columns of further types."""
    numbers = range(len(table))
    more = {
        "kind": table["user"].combine_chunks().dictionary_encode(),
        "list": pa.array([["a", "b", "ü"][: n % 4] or None for n in numbers]),
        "when": pa.array([n * 86_400_000_000 for n in numbers], pa.timestamp("us", "UTC")),
        "day": pa.array(numbers, pa.int32()).cast(pa.date32()),
        "price": pa.array([None if n % 9 == 0 else n / 7 for n in numbers]),
        "exact": pa.array([decimal.Decimal(n) / 100 for n in numbers], pa.decimal128(12, 2)),
        "bytes": pa.array([b"\xff%d" % n for n in numbers]),
    }
    return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **more})
