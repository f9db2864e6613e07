"""``evaluate`` with groups and slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fieldwise.features.errors import ConfigError
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.train.evaluate import evaluate_model
from fieldwise.training.models import settings_of
from fieldwise.training.network.bundle import Bundle, save_bundle
from fieldwise.training.network.network import Network
from tests.snapshots import PLANTED, hash_spec, write_snapshot

EVALUATION = "evaluation: {group: f1, slices: [f0]}\n"


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """A linear model of random weights beside a snapshot of its spec."""
    spec = hash_spec((10, 10))
    write_snapshot(tmp_path / "work" / "planted" / "snapshots" / "all", spec, {"train": [50], "test": [700, 300]})
    network = Network(spec, settings_of("lr", dim=1, pair_buckets=0, own={}))
    weight = np.random.default_rng(2).standard_normal(tuple(network.table.weight.shape)).astype(np.float32)
    save_bundle(tmp_path / "bundle", Bundle(network.settings, spec, weight, network.dense(), 0.0))
    return str(tmp_path / "bundle")


def test_groups_and_slices(tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "planted.yaml").write_text(PLANTED + EVALUATION)
    found = evaluate_model(load_config(tmp_path / "planted.yaml"), model=bundle)
    slices = found["slices"]
    assert sum(each["rows"] for each in slices) == found["rows"] == 1000
    assert sum(each["positives"] for each in slices) == found["positives"]
    logloss = sum(each["rows"] * each["logloss"] for each in slices) / 1000
    assert logloss == pytest.approx(found["metrics"]["logloss"], rel=1e-6)
    assert found["group"]["field"] == "f1"
    assert 0 < found["group"]["group_auc"] < 1
    said = capsys.readouterr().err
    assert f"groups of f1 ({found['group']['grouped']:.1%} of the rows): AUC" in said
    entropies = [each["normalized_entropy"] for each in slices if each["normalized_entropy"] is not None]
    assert entropies == sorted(entropies, reverse=True)


def test_fields_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "planted.yaml").write_text(PLANTED + "evaluation: {slices: [device]}\n")
    with pytest.raises(ConfigError, match=r"evaluation\.slices: expected fields of the model: f0, f1, found device"):
        load_config(tmp_path / "planted.yaml")
