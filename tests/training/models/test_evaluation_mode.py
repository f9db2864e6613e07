"""Models that behave otherwise in training: they are scored, validated and explained by their rows alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fieldwise.features.errors import ArtifactError, ConfigError
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.splits import TrainData
from fieldwise.training.evaluation.evaluate import evaluate
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import Trainer
from fieldwise.training.models import MODELS, Kind, ModelSettings, settings_of
from fieldwise.training.models.base import build_model
from fieldwise.training.models.fm import FM
from fieldwise.training.models.layout import Layout
from fieldwise.training.ranks.world import World
from tests.snapshots import hash_spec, write_snapshot
from tests.training import random_models

SHAPE = Layout.single([7, 9, 5, 11])


class Dropped(FM):
    """An FM that loses half of its latent weights at random while it trains."""

    def __init__(self, layout: Layout, settings: ModelSettings, *, fused: bool = True) -> None:
        super().__init__(layout, settings, fused=fused)
        self.dropout = nn.Dropout(0.5)

    def interaction(self, v: Tensor) -> Tensor:
        return super().interaction(self.dropout(v))


class Deep(FM):
    """The product of all pooled fields' first latent weights: no sum over fields and pairs."""

    def interaction(self, v: Tensor) -> Tensor:
        return v[..., 0].prod(1)


class Normed(FM):
    def __init__(self, layout: Layout, settings: ModelSettings, *, fused: bool = True) -> None:
        super().__init__(layout, settings, fused=fused)
        self.norm = nn.BatchNorm1d(settings.dim)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    fm = MODELS["fm"]
    for name, kind in {
        "dropped": replace(fm, model=Dropped, score=None),
        "deep": replace(fm, model=Deep, score=None, pairwise=False),
        "claiming": replace(fm, model=Deep, score=None),
        "normed": replace(fm, model=Normed),
    }.items():
        monkeypatch.setitem(MODELS, name, kind)


def test_three_scores_of_one_row_are_alike() -> None:
    scorer, slots = random_models.scorer("dropped", SHAPE, 1), random_models.rows(SHAPE, 50, 2)
    first = scorer.logits(slots)
    for _ in range(2):
        np.testing.assert_array_equal(scorer.logits(slots), first)
    parts = [part.value for part in scorer.explain(slots[0]).parts]
    assert sum(parts) == pytest.approx(float(first[0]), abs=1e-5)


def test_validation_is_steady_and_training_goes_on_with_dropout(tmp_path: Path) -> None:
    sizes = {"train": [600], "valid": [200], "test": [200]}
    data = TrainData.of_one(write_snapshot(tmp_path / "snapshot", hash_spec((10, 10)), sizes))
    settings = TrainingConfig(batch_size=256, epochs=2, threads=1, learning_rate=0.1)
    run = TrainRun(data, ModelConfig(kind="dropped", dim=4, init_scale=1.0), settings, str(tmp_path / "bundle"))
    trainer = Trainer(run, World())
    result = trainer.train()
    network, model = trainer.network, trainer.network.model
    assert model.training
    assert result.history[result.best_epoch].valid["logloss"] == result.evaluations["valid"].values["logloss"]
    again = evaluate(network, data.valid, World(), logit_shift=trainer.logit_shift).values
    assert again == result.evaluations["valid"].values
    found = network.lookup(np.asfortranarray(np.full((1, 2), 4, np.int32)))
    rows = network.table.gather(found.ids)
    with torch.no_grad():
        assert len({float(model(rows, *network.inputs(found))) for _ in range(20)}) > 1  # dropout in training mode
    assert len({float(network.score(found)[0]) for _ in range(3)}) == 1
    assert model.training
    model.eval()
    network.score(found)
    assert not model.training  # whoever chose the mode finds it as it was


def test_deepfm_is_scored_without_its_dropout_and_cannot_be_explained() -> None:
    scorer, slots = random_models.scorer("deepfm", SHAPE, 1, dropout=0.5), random_models.rows(SHAPE, 50, 2)
    first = scorer.logits(slots)
    for _ in range(2):
        np.testing.assert_array_equal(scorer.logits(slots), first)
    with pytest.raises(ArtifactError, match=r"^model kind 'deepfm': expected a logit that is a sum"):
        scorer.explain(slots[0])


def test_explaining_no_sum_of_pairs_is_refused_by_kind() -> None:
    row = np.full(4, 3, np.int32)
    with pytest.raises(ArtifactError) as refused:
        random_models.scorer("deep", SHAPE, 1).explain(row)
    assert str(refused.value) == (
        "model kind 'deep': expected a logit that is a sum over fields and pairs of fields, found one that does not "
        "claim to be. Explain a model of another kind (lr, poly2, fm, ffm, fwfm, dropped, claiming, normed); this one "
        "has no shares of fields and pairs."
    )
    with pytest.raises(ArtifactError, match=r"model kind 'claiming': .* found a row whose parts miss .* of its logit"):
        random_models.scorer("claiming", SHAPE, 1).explain(row)


def test_state_that_no_bundle_holds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"found normed, which also keeps norm\.num_batches_tracked, norm\.run"):
        build_model(settings_of("normed", dim=3), SHAPE)


def test_a_new_kind_is_not_pairwise_unless_it_says_so() -> None:
    assert [kind for kind, model in MODELS.items() if not model.pairwise] == ["deepfm", "deep"]
    assert not Kind(FM).pairwise
