"""Every shipped config on its real data, from raw files to a registered model. Skipped where the data are absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldwise.features.snapshot.manifest import load_snapshot
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.train.train import train_model
from fieldwise.training.network.bundle import load_bundle

CONFIGS = Path(__file__).parents[3] / "configs"
EXPECTED = {  # rows, highest test normalized entropy after the epochs below (1 is what the base rate alone gives)
    "criteo": (10_000, 1.0),
    "avazu": (9_999, 1.0),
    "movielens": (100_000, 0.97),
    "talkingdata": (100_000, 0.9),
}


def load(name: str, data: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("FIELDWISE_DATA", str(data))
    monkeypatch.setenv("FIELDWISE_WORK", str(work))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return load_config(CONFIGS / f"{name}.yaml", ["training.epochs=2", "training.threads=1", "training.auto=false"])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("criteo", "avazu"))) for name in EXPECTED]
)
def test_raw_files_to_model(name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(name, real_data, tmp_path, monkeypatch)
    built = build_features(config)
    rows, highest = EXPECTED[name]
    assert sum(built["rows"].values()) == rows
    assert built["quarantined"] == {}
    assert set(built["rows"]) == {"train", "valid", "test"}
    trained = train_model(config)
    assert trained is not None
    assert trained["metrics"]["test"]["normalized_entropy"] < highest
    assert trained["registered"]["champion"] == "1"
    spec = load_bundle(trained["bundle"]).spec
    assert spec.digest == load_snapshot(built["dir"]).spec.digest
    assert "attributed_time" not in spec.raw_columns
    if name == "movielens":
        genres = next(field for field in spec.fields if field.name == "genres")
        assert (genres.slots, genres.config.flags[0], genres.config.flags[-1]) == (8, "unknown", "western")
