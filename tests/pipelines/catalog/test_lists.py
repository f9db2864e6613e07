"""A field of lists, from jsonl to scores: what the log holds as lists, the registered model takes as lists."""

from __future__ import annotations

import json
import random
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.score.score_rows import score_rows
from fieldwise.pipelines.train.train import train_model

CONFIG = """
name: lists
source: {path: log.jsonl, format: jsonl}
label: click
split: {by: hash, key: user, valid: 0.2, test: 0.2}
fields:
  - {name: user, kind: hash, buckets: 50}
  - {name: tags, kind: vocabulary, min_count: 1, max_values: 2}
model: {kind: fm, dim: 2}
training: {epochs: 1, batch_size: 256, threads: 1}
"""


def test_lists_from_log_to_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    draw = random.Random(3)
    rows = []
    for _ in range(600):
        tags = draw.choice([["a", "b"], ["c"], [], None])
        click = int(draw.random() < (0.8 if tags == ["c"] else 0.3))
        rows.append({"click": click, "user": f"u{draw.randint(1, 90)}", "tags": tags})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "lists.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "lists.yaml")
    assert build_features(config)["quarantined"] == {}
    trained = train_model(config)
    assert trained is not None
    scored = pq.read_table(score_rows(config)["dir"]).column("probability").to_numpy()
    model = mlflow.pyfunc.load_model("models:/lists@champion")
    found = model.predict(pd.DataFrame(rows)[["user", "tags"]])
    np.testing.assert_allclose(np.sort(found), np.sort(scored), atol=1e-6)
    assert len(set(np.round(found, 9))) > 90
