"""What init makes of the logs that configs are shipped for predicts as well as what people wrote for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.demo.shop import Shop, generate
from fieldwise.pipelines.engine import open_engine
from fieldwise.pipelines.init.init import init
from fieldwise.pipelines.train.train import train_model
from tests.commands import ROOT

LOGS: dict[str, tuple[str, dict[str, str], str]] = {
    "movielens": ("ml-100k/u.data", {"users": "ml-100k/u.user", "items": "ml-100k/u.item"}, ""),
    "criteo": ("criteo_raw_10k/first10k.tsv", {}, "split={by: hash, key: c30, valid: 0.1, test: 0.1}"),
    "avazu": ("avazu_raw_10k/train_first10k.csv", {}, ""),
    "talkingdata": ("talkingdata_100k/train_sample.csv", {}, "split.test=0.15"),
    "demo": (
        "demo/data/log", {"users": "demo/data/users.csv", "items": "demo/data/items.csv"},
        'split={by: files, valid: "*2026-01-06*", test: "*2026-01-07*"}',
    ),
}  # fmt: skip
"""Of each shipped config: the log, side tables, and what splits init's config as the shipped one."""
AS_GOOD = 1.02
"""Test logloss of init's config over that of the shipped one."""
ROWS = 100_000
"""Of the demo's log."""


def measured(file: Path | str, *overrides: str) -> tuple[float, float]:
    """Test logloss, and the share of the rows that test."""
    config = load_config(file, ["model.kind=ffm", "training.threads=2", *overrides])
    rows = build_features(config)["rows"]
    trained: dict[str, Any] | None = train_model(config, register=False)
    assert trained is not None
    return float(trained["metrics"]["test"]["logloss"]), rows["test"] / sum(rows.values())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", LOGS)
def test_as_good_as_what_people_wrote(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("FIELDWISE_WORK", str(tmp_path))
    shipped, (log, sides, split) = ROOT / "configs" / f"{name}.yaml", LOGS[name]
    if name == "demo":
        data = tmp_path
        generate(open_engine(load_config(shipped), "demo", []), Shop(ROWS, 42), str(data / "demo" / "data"))
    else:
        data = request.getfixturevalue("real_data")
        monkeypatch.setenv("FIELDWISE_DATA", str(data))
    own = tmp_path / "own" / "config.yaml"
    init(str(data / log), out=str(own), **{side: str(data / path) for side, path in sides.items()})
    (ours, share), (theirs, _) = measured(own, *[split] * bool(split)), measured(shipped)
    print(f"{name}: init {ours:.5f}, shipped {theirs:.5f}, {ours / theirs:.4f}")
    assert ours <= AS_GOOD * theirs
    assert share > 0.05, "so few rows might be easier ones"
