"""A sweep goes on where it stopped, chooses on valid alone, and keeps one parent run with a child per trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from fieldwise.features.errors import ArtifactError, ConfigError, InputError
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.launch import Days
from fieldwise.pipelines.train.sweep import Trial, _ranked, _run, sweep
from fieldwise.pipelines.train.train import open_days
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.loop import search
from fieldwise.training.ranks.world import World
from tests.snapshots import PLANTED, hash_spec, write_snapshot

SPEC = hash_spec((10, 10))
CONFIG = PLANTED.replace("lr", "fm") + "training: {batch_size: 256, patience: 1, threads: 1, learning_rate: 0.02}\n"


@pytest.fixture(autouse=True)
def _own_store_and_short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(search, "EPOCHS", 2)


def config_of(folder: Path, rows: tuple[int, int, int] = (1500, 400, 400), seed: int = 0) -> Config:
    """A pipeline whose snapshot is published already."""
    folder.mkdir(exist_ok=True)
    (folder / "planted.yaml").write_text(CONFIG)
    config = load_config(folder / "planted.yaml")
    files = {role: [n] for role, n in zip(("train", "valid", "test"), rows, strict=True) if n}
    write_snapshot(Path(config.workspace_dir, "snapshots", "all"), SPEC, files, seed=seed)
    return config


def results(folder: str) -> dict[tuple[str, int], dict]:
    found = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    return {(result["kind"], result["number"]): result for result in found}


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = config_of(tmp_path / "a")
    first = sweep(config, trials=2, seed=3, kinds=["lr", "fm"])
    before = results(first["dir"])
    assert sorted(before) == [("fm", 0), ("fm", 1), ("lr", 0), ("lr", 1)]
    lost = next(Path(first["dir"]).glob("fm-0001-*.json"))
    lost.unlink()  # as if killed in this trial

    again = sweep(config, trials=3, seed=3, kinds=["lr", "fm"])
    after = results(again["dir"])
    assert sorted(after) == [(kind, number) for kind in ("fm", "lr") for number in range(3)]
    trained_again = {key for key in before if after[key]["run"] != before[key]["run"]}
    assert trained_again == {("fm", 1)}
    assert after["fm", 1]["valid"] == before["fm", 1]["valid"], "a trial is a function of kind, seed and number"
    assert again["run"] == first["run"]

    client = MlflowClient(f"sqlite:///{config.workspace_dir}/mlflow.db")
    parent = client.get_run(again["run"])
    runs = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{again['run']}'")
    assert {result["run"] for result in after.values()} <= {run.info.run_id for run in runs}
    assert len(runs) == 3 * 2 + 1
    child = client.get_run(after["fm", 0]["run"])
    assert float(child.data.params["training.learning_rate"]) == after["fm", 0]["training.learning_rate"]
    assert next(m.step for m in client.get_metric_history(child.info.run_id, "valid_logloss")) == 0

    for kind in ("lr", "fm"):
        best = min((r for r in after.values() if r["kind"] == kind), key=lambda r: r["valid"])
        chosen = again["chosen"][kind]
        assert (chosen["trial"], chosen["valid"], chosen["test"]) == (best["number"], best["valid"], best["test"])
        assert parent.data.metrics[f"{kind}_test_logloss"] == best["test"]
        artifacts = {item.path for item in client.list_artifacts(again["run"])}
        assert {f"{kind}.svg", f"{kind}.txt"} <= artifacts
        assert "polyline" in Path(again["dir"], f"{kind}.svg").read_text()
        assert len(Path(again["dir"], f"{kind}.txt").read_text().splitlines()) == 1 + 3
    assert "model.dim" in again["chosen"]["fm"]["set"]
    assert "model.dim" not in again["chosen"]["lr"]["set"]

    damaged = next(Path(first["dir"]).glob("lr-0000-*.json"))
    kept = {key: value for key, value in json.loads(damaged.read_text()).items() if key not in ("seal", "valid")}
    damaged.write_text(json.dumps(kept))
    with pytest.raises(ArtifactError, match=r"lr-0000-.*\.json: expected the result of a trial, found one that lacks"):
        sweep(config, trials=3, seed=3, kinds=["lr", "fm"])


def test_other_data_or_settings_are_other_trials(tmp_path: Path) -> None:
    config, other = config_of(tmp_path / "a"), config_of(tmp_path / "b", seed=1)
    model, training = ModelConfig(kind="lr"), TrainingConfig()
    files = {
        Trial("lr", 0, model, settings, open_days(of, Days()).snapshots).file
        for of in (config, other)
        for settings in (training, training.model_copy(update={"batch_size": 8}))
    }
    assert len(files) == 4


def test_a_trial_that_diverges_is_passed_over(tmp_path: Path) -> None:
    config = config_of(tmp_path / "a")
    data = open_days(config, Days())
    from fieldwise.training.tracking import runs

    runs.connect(None, config.workspace_dir)
    wild = TrainingConfig(optimizer="sgd", learning_rate=1e30, batch_size=256, threads=1)
    tame = TrainingConfig(epochs=1, batch_size=256, threads=1)
    trials = [Trial("fm", n, ModelConfig(kind="fm"), t, data.snapshots) for n, t in enumerate((wild, tame))]
    found = {trial.file: _run(trial, config, data, World()) for trial in trials}
    assert found[trials[0].file]["valid"] is None
    assert [result["number"] for result in _ranked(trials, found)] == [1]
    assert "finite" in MlflowClient().get_run(found[trials[0].file]["run"]).data.tags["diverged"]


def test_what_cannot_be_searched_is_refused_before_training(tmp_path: Path) -> None:
    config = config_of(tmp_path / "a", rows=(300, 0, 100))
    with pytest.raises(InputError, match=r"split valid: expected rows of both classes, found no rows"):
        sweep(config, trials=2)
    with pytest.raises(ConfigError, match=r"model\.kind: expected one of .*found 'ffn'"):
        sweep(config, kinds=["fm", "ffn"])
    with pytest.raises(ConfigError, match=r"--trials: expected at least 1, found 0"):
        sweep(config, trials=0)
    assert not Path(config.workspace_dir, "sweeps").exists()
