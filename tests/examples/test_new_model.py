"""A model that is registered from outside learns, is kept, and is refused where it has nothing to say."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import train
from fieldwise.training.models import MODELS
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World
from tests.snapshots import hash_spec, random_slots, write_snapshot

ROOT = Path(__file__).resolve().parents[2]


def test_it_trains_and_its_bundle_scores_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runpy.run_path(str(ROOT / "examples" / "new_model.py"))
    monkeypatch.setitem(MODELS, "nfm", MODELS.pop("nfm"))  # what the example adds goes with the test
    spec = hash_spec((12, 10, 5))
    data = TrainData.of_one(write_snapshot(tmp_path / "s", spec, {"train": [4000], "valid": [500], "test": [500]}))
    settings = TrainingConfig(epochs=3, batch_size=256, threads=1)
    found = train(TrainRun(data, ModelConfig(kind="nfm"), settings, str(tmp_path / "b")), World())
    assert found.evaluations["test"].values["normalized_entropy"] < 0.98
    network = Network.from_bundle(load_bundle(tmp_path / "b"))
    slots = random_slots(spec, 50, np.random.default_rng(0))
    one_by_one = np.concatenate([network.logits(slots[row : row + 1]) for row in range(50)])
    assert network.logits(slots) == pytest.approx(one_by_one, abs=1e-6)
