"""Training in one process: every model learns, repeats itself, resumes, and refuses what cannot train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldwise.features.errors import ArtifactError, ConfigError, DivergedError, InputError, IntegrityError
from fieldwise.features.snapshot.manifest import Snapshot
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.learned import Learned
from fieldwise.training.data.splits import TrainData
from fieldwise.training.evaluation.evaluate import evaluate
from fieldwise.training.loop.run import TrainResult, TrainRun
from fieldwise.training.loop.trainer import Trainer, train
from fieldwise.training.models import MODELS
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World
from tests.snapshots import hash_spec, planted_logit, write_snapshot

SPEC = hash_spec((12, 10, 5, 6), (1, 1, 1, 2))
FILES = {"train": [3000, 2000, 1], "valid": [800], "test": [900]}
CONFIG = TrainingConfig(epochs=3, batch_size=256, threads=1)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_snapshot(tmp_path_factory.mktemp("data") / "snapshot", SPEC, FILES)


class Notes:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.noted: dict[str, Any] = {}
        self.series: list[tuple[int | None, dict[str, float]]] = []

    def params(self, values: Mapping[str, Any]) -> None:
        self.noted |= values

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.series.append((step, dict(values)))


def fit(data: TrainData, where: Path, kind: str = "fm", **changes: Any) -> TrainResult:
    small = ModelConfig(kind=kind, pair_buckets=1024 if kind == "poly2" else None)
    config = CONFIG.model_copy(update=changes.pop("training", {}))
    return train(TrainRun(data, changes.pop("model", small), config, str(where), **changes), World())


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_every_model_learns_reports_and_repeats_itself(snapshot: Snapshot, tmp_path: Path, kind: str) -> None:
    data, notes = TrainData.of_one(snapshot), Notes()
    result = fit(data, tmp_path / "one", kind, tracker=notes)
    test = result.evaluations["test"]
    assert test.values["normalized_entropy"] < 0.98
    assert test.values["calibration"] == pytest.approx(1, abs=0.1)
    assert {(r.rows_planned, r.rows_read, r.rows_trained) for r in result.history} == {(5001, 5001, 5001)}
    assert len({r.order_digests[0] for r in result.history}) == len(result.history)
    assert notes.noted["ranks"] == 1
    assert [step for step, _ in notes.series] == list(range(len(result.history) + 1))
    assert notes.series[0][1]["valid_logloss"] == result.history[0].valid["logloss"]
    assert notes.series[-1][1]["test_auc"] == test.values["auc"]

    bundle = load_bundle(tmp_path / "one")
    assert bundle.digest == result.bundle_digest == fit(data, tmp_path / "two", kind).bundle_digest
    again = evaluate(Network.from_bundle(bundle), data.test, World())
    assert again.values["logloss"] == pytest.approx(test.values["logloss"], rel=1e-9)
    best = min(record.valid["logloss"] for record in result.history)
    assert result.evaluations["valid"].values["logloss"] == pytest.approx(best, rel=1e-9)
    reference = fit(data, tmp_path / "reference", kind, training={"fused": False})
    for ours, theirs in zip(result.history, reference.history, strict=False):
        assert ours.train_logloss == pytest.approx(theirs.train_logloss, rel=1e-4)


@pytest.mark.parametrize("kind", ["lr", "poly2", "fm", "ffm"])
def test_the_first_epochs_loss_curve_is_the_references(snapshot: Snapshot, tmp_path: Path, kind: str) -> None:
    """Every step's loss, to 1e-4."""
    curves: list[list[float]] = []
    for fused in (True, False):
        model = ModelConfig(kind=kind, pair_buckets=1024 if kind == "poly2" else None)
        config = CONFIG.model_copy(update={"fused": fused})
        trainer = Trainer(TrainRun(TrainData.of_one(snapshot), model, config, str(tmp_path / "unused")), World())
        plan, now = trainer._plan(0), trainer.progress
        curves.append([])
        with trainer.network.passes(trainer._readers(0, 0)) as works:
            for work in works:
                loss, weight = now.loss, now.weight
                trainer._step(plan, work)
                curves[-1].append((now.loss - loss) / (now.weight - weight))
    assert len(curves[0]) == 20
    assert len(set(curves[0])) == 20
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)


@pytest.mark.parametrize("kind", ["fm", "ffm", "fwfm"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_table_in_bfloat16_learns_as_well(snapshot: Snapshot, tmp_path: Path, kind: str, fused: bool) -> None:
    data, half = TrainData.of_one(snapshot), {"table": "bfloat16", "fused": fused}
    full, result = fit(data, tmp_path / "full", kind), fit(data, tmp_path / "half", kind, training=half)
    for ours, theirs in zip(result.history, full.history, strict=True):
        assert ours.valid["logloss"] == pytest.approx(theirs.valid["logloss"], rel=2e-3)
        assert ours.valid["logloss"] != theirs.valid["logloss"]
    bundle = load_bundle(tmp_path / "half")
    assert bundle.weight.dtype == np.float32
    assert not (bundle.weight.view(np.uint32) & 0xFFFF).any()
    assert bundle.digest == fit(data, tmp_path / "again", kind, training=half).bundle_digest
    again = evaluate(Network.from_bundle(bundle), data.test, World())
    assert again.values["logloss"] == pytest.approx(result.evaluations["test"].values["logloss"], rel=1e-9)


def test_only_models_of_pairs_learn_a_crossing(tmp_path: Path) -> None:
    cross = np.random.default_rng(1).choice([-2.0, 2.0], (15, 13))
    spec = hash_spec((12, 10))
    snapshot = write_snapshot(
        tmp_path / "s", spec, {"train": [8000], "valid": [1000]}, logit=lambda slots: cross[slots[:, 0], slots[:, 1]]
    )
    data = TrainData.of_one(snapshot)
    entropy = {
        kind: fit(data, tmp_path / kind, kind, training={"epochs": 10})
        .evaluations["valid"]
        .values["normalized_entropy"]
        for kind in ("lr", "poly2", "fm", "ffm")
    }
    assert entropy["lr"] > 0.9
    assert max(entropy["poly2"], entropy["fm"], entropy["ffm"]) < 0.75


def test_early_stopping_keeps_the_best(snapshot: Snapshot, tmp_path: Path) -> None:
    result = fit(
        TrainData.of_one(snapshot), tmp_path / "b", training={"epochs": 50, "learning_rate": 0.5, "patience": 2}
    )
    losses = [record.valid["logloss"] for record in result.history]
    assert len(losses) == result.best_epoch + 3 < 50
    assert result.best_epoch == int(np.argmin(losses))
    assert result.evaluations["valid"].values["logloss"] == pytest.approx(min(losses), rel=1e-9)


def test_without_validation_all_epochs_are_trained_and_the_last_kept(tmp_path: Path) -> None:
    data = TrainData.of([write_snapshot(tmp_path / "s", SPEC, {"all": [500]})])
    with pytest.raises(InputError, match="split valid: expected rows of both classes, found no rows"):
        fit(data, tmp_path / "b")
    result = fit(data, tmp_path / "b", training={"patience": None})
    assert len(result.history) == 3
    assert result.best_epoch == 2
    assert set(result.evaluations) == {"train"}


def test_bias_starts_at_the_base_rate_and_is_not_penalised(snapshot: Snapshot) -> None:
    data = TrainData.of_one(snapshot)
    config = CONFIG.model_copy(update={"l2": 1e9, "learning_rate": 1e-12, "optimizer": "sgd"})
    trainer = Trainer(TrainRun(data, ModelConfig(kind="lr"), config, "unused"), World())
    rate = data.train.positives / data.train.rows
    assert float(trainer.network.model.bias.detach()) == pytest.approx(math.log(rate / (1 - rate)), rel=1e-6)


def test_downsampled_negatives_are_corrected_once(tmp_path: Path) -> None:
    logit = planted_logit(SPEC)
    files = {"train": [30000], "valid": [6000], "test": [6000]}
    snapshot = write_snapshot(tmp_path / "s", SPEC, files, logit=lambda s: logit(s) - 1.5, negative_rate=0.25)
    result = fit(TrainData.of_one(snapshot), tmp_path / "b")
    assert load_bundle(tmp_path / "b").logit_shift == pytest.approx(math.log(0.25))
    assert result.evaluations["test"].values["calibration"] == pytest.approx(1, abs=0.08)
    assert result.evaluations["train"].values["calibration"] == pytest.approx(1, abs=0.05)  # at its own rate: no shift


def test_warm_start_goes_on_and_refuses_strangers(snapshot: Snapshot, tmp_path: Path) -> None:
    data = TrainData.of_one(snapshot)
    first = fit(data, tmp_path / "one")
    bundle = load_bundle(tmp_path / "one")
    warm = fit(data, tmp_path / "two", warm_start=bundle, training={"epochs": 1, "learning_rate": 1e-9})
    assert warm.history[0].valid["logloss"] == pytest.approx(first.evaluations["valid"].values["logloss"], rel=1e-4)
    learned = Learned(rows={snapshot.manifest.digest: sum(FILES["train"])})
    assert load_bundle(tmp_path / "two").learned == bundle.learned == learned
    day = TrainData.of_one(write_snapshot(tmp_path / "day", SPEC, {**FILES, "train": [500]}))
    fit(day, tmp_path / "three", warm_start=bundle, training={"epochs": 1})
    assert (load_bundle(tmp_path / "three").learned or Learned()).total == sum(FILES["train"]) + 500
    with pytest.raises(ConfigError, match=r"expected \('fm', 16, 0\) .* found \('fm', 8, 0\)"):
        fit(data, tmp_path / "b", model=ModelConfig(kind="fm", dim=8), warm_start=bundle)
    other = TrainData.of_one(write_snapshot(tmp_path / "other", hash_spec((9, 9)), FILES))
    with pytest.raises(ArtifactError, match=r"fields of the data's spec .* differs in f2"):
        fit(other, tmp_path / "b", warm_start=bundle)


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({"kind": "gbdt"}, {}, "model.kind: expected one of"),
        ({"kind": "lr", "dim": 4}, {}, "model.dim: expected no dim for lr, found 4. Remove the key."),
        ({"kind": "fm", "pair_buckets": 4}, {}, "model.pair_buckets: expected no pair_buckets for fm"),
        ({"kind": "fm"}, {"l1": 0.5}, "training.l1"),
        ({"kind": "fm"}, {"optimizer": "ftrl"}, "for ftrl"),
        ({"kind": "lr"}, {"table": "bfloat16"}, "training.table: expected float32 for a model without latent weights"),
        ({"kind": "fm"}, {"streams": 3, "batch_size": 100}, "a multiple of 3 streams, found 100. The nearest is 99"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(
    snapshot: Snapshot, tmp_path: Path, model: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        fit(TrainData.of_one(snapshot), tmp_path / "b", model=ModelConfig(**model), training=training)
    assert message in str(error.value)
    assert not (tmp_path / "b").exists()


def test_divergence_names_rows_and_keeps_the_last_good_weights(snapshot: Snapshot, tmp_path: Path) -> None:
    trainer = Trainer(
        TrainRun(TrainData.of_one(snapshot), ModelConfig(kind="fm"), CONFIG, str(tmp_path / "b")), World()
    )
    end_epoch = trainer._end_epoch

    def end_and_spoil(*args: Any) -> None:
        end_epoch(*args)
        trainer.network.table.weight[3:8, 2] = torch.inf

    trainer._end_epoch = end_and_spoil  # type: ignore[method-assign]
    with pytest.raises(
        DivergedError, match=r"epoch 2, step 1: expected a finite loss, found inf or nan in .*rows? \d+"
    ) as e:
        trainer.train()
    assert "The weights after epoch 1 are kept in" in str(e.value)
    assert not (tmp_path / "b").exists()
    assert np.isfinite(load_bundle(tmp_path / "b.last-good").weight).all()


def test_divergence_before_an_epoch_has_ended_says_what_is_kept(snapshot: Snapshot, tmp_path: Path) -> None:
    """The fused step has updated the finite rows of the step by then: those weights are saved nowhere."""
    run = TrainRun(TrainData.of_one(snapshot), ModelConfig(kind="fm"), CONFIG, str(tmp_path / "b"), f"{tmp_path}/saved")
    trainer = Trainer(run, World())
    trainer.network.table.weight[3:8, 2] = torch.inf
    with pytest.raises(DivergedError, match=r"epoch 1, step 1: .* inf or nan in .*\.parquet rows? \d+") as e:
        trainer.train()
    assert str(e.value).endswith(f"so no weights are kept. Checkpoints in {tmp_path}/saved stay as they were.")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_overflow_in_validation_keeps_the_last_good_weights(snapshot: Snapshot, tmp_path: Path) -> None:
    data = TrainData.of_one(snapshot)
    trainer = Trainer(TrainRun(data, ModelConfig(kind="fm"), CONFIG, str(tmp_path / "b")), World())
    train_epoch = trainer._train_epoch

    def train_and_spoil(*args: Any) -> Any:
        found = train_epoch(*args)
        if trainer.progress.epoch == 1:
            trainer.network.table.weight[3:8, 2] = torch.inf
        return found

    trainer._train_epoch = train_and_spoil  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"split valid: .* The weights after epoch 1 are kept"):
        trainer.train()
    assert np.isfinite(load_bundle(tmp_path / "b.last-good").weight).all()


def test_a_lost_row_stops_the_run(snapshot: Snapshot, tmp_path: Path) -> None:
    data = TrainData.of_one(snapshot)
    trainer = Trainer(TrainRun(data, ModelConfig(kind="lr"), CONFIG, str(tmp_path / "b")), World())
    trainer.progress.rows_read = -1
    with pytest.raises(IntegrityError, match="expected 5001 rows as planned, found 5000 rows read, 5001 trained"):
        trainer.train()


def test_a_spoilt_file_stops_the_run_by_name(snapshot: Snapshot, tmp_path: Path) -> None:
    data = TrainData.of_one(snapshot)
    wrong = replace(data.train.files[1], sha256="0" * 64)
    spoilt = replace(data, train=replace(data.train, files=(data.train.files[0], wrong, data.train.files[2])))
    with pytest.raises(IntegrityError, match=r"train-00001\.parquet: expected SHA-256 0000"):
        fit(spoilt, tmp_path / "b")
    unverified = fit(spoilt, tmp_path / "b", training={"verify_checksums": False})
    assert unverified.history[0].rows_trained == 5001
