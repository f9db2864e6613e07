"""A little shop with a model of random weights: users, items with tags, a config, a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import yaml

from fieldwise.features.fields import fitting
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.training.data.batch import layout_of
from fieldwise.training.models import settings_of
from fieldwise.training.models.base import build_model
from fieldwise.training.network.bundle import Bundle, save_bundle
from tests.tallies import tally

FIELDS = [
    {"name": "user", "kind": "hash", "buckets": 97},
    {"name": "age", "kind": "number", "edges": [20, 40, 60]},
    {"name": "item", "kind": "vocabulary"},
    {"name": "category", "kind": "vocabulary"},
    {"name": "tags", "kind": "vocabulary", "separator": "|", "max_values": 3},
    {"name": "hour", "kind": "time", "part": "hour", "of": "when"},
    {"name": "position", "kind": "vocabulary"},
]


def write_shop(folder: Path, *, users: int = 40, items: int = 60, rows: int = 400, seed: int = 0) -> None:
    """users.csv, items.csv and log.csv; a fifth of the values is missing or new."""
    draw = np.random.default_rng(seed)
    lines = [f"u{u:03d},{draw.choice(['', '15', '33', '47', '81'])}" for u in range(users)]
    (folder / "users.csv").write_text("user,age\n" + "\n".join(draw.permutation(lines)) + "\n")
    lines = [f"i{i:03d},{draw.choice(['', 'a', 'b', 'c'])},{_tags(draw, 'pqrst')},{i % 5}" for i in range(items)]
    (folder / "items.csv").write_text("item,category,tags,stock\n" + "\n".join(draw.permutation(lines)) + "\n")
    lines = [
        f"u{draw.integers(users):03d},{draw.integers(10, 90)},i{draw.integers(items * 4 // 5):03d},"
        f"{draw.choice(['a', 'b'])},{_tags(draw, 'pqr')},2026-01-0{1 + n % 7}T{n % 24:02d}:00:00,{n % 3},{n % 2}"
        for n in range(rows)
    ]
    (folder / "log.csv").write_text("user,age,item,category,tags,when,position,click\n" + "\n".join(lines) + "\n")


def _tags(draw: np.random.Generator, among: str) -> str:
    return "|".join(draw.choice(list(among), draw.integers(0, 4)))


def shop_config(folder: Path, kind: str = "ffm", fields: list[dict[str, Any]] | None = None, **catalog: Any) -> Config:
    block = {
        "contexts": {"path": "users.csv"},
        "items": {"path": "items.csv"},
        "context_id": "user",
        "item_id": "item",
        "k": 7,
        "time": "{date}T18:30:00",
        "fixed": {"position": 1},
    }
    document = {
        "name": "shop",
        "workspace": "work",
        "source": {"path": "log.csv"},
        "label": "click",
        "fields": fields or FIELDS,
        "model": {"kind": kind},
        "catalog": {key: value for key, value in (block | catalog).items() if value is not None},
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(document))))
    return load_config(folder / "shop.yaml")


def write_bundle(folder: Path, config: Config, seed: int = 1) -> str:
    """A bundle of random weights over the spec that the log fits; returns its directory."""
    log = pa.csv.read_csv(
        folder / "log.csv",
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(log_columns(folder), pa.string())),
    )
    spec = fitting.fit_spec(config.fields, tally(config.fields, log.combine_chunks().to_batches()[0]))
    draw = np.random.default_rng(seed)
    dim, pair_buckets = 3, 512
    model = build_model(settings_of(config.model.kind, dim=dim, pair_buckets=pair_buckets), layout_of(spec))
    dense = {n: draw.standard_normal(tuple(p.shape)).astype(np.float32) for n, p in model.named_parameters()}
    weight = draw.standard_normal((model.rows, model.width)).astype(np.float32) / 2
    bundle = Bundle(model.settings, spec, weight, dense, logit_shift=-0.5)
    save_bundle(folder / "bundle", bundle)
    return str(folder / "bundle")


def log_columns(folder: Path) -> list[str]:
    return (folder / "log.csv").read_text().splitlines()[0].split(",")
