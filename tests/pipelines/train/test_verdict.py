"""Which models are worth registering, and what a command says of the model it uses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from fieldwise.jobs.cli import main
from fieldwise.pipelines.train.verdict import judge
from fieldwise.training.tracking import runs
from tests.snapshots import PLANTED, hash_spec, write_snapshot

CONFIG = PLANTED + "training: {batch_size: 256, epochs: 1, threads: 1}\n"
USELESS = ["--set", "training.learning_rate=1e6"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One workspace; the tests of this file follow one another."""
    folder = tmp_path_factory.mktemp("verdict")
    (folder / "planted.yaml").write_text(CONFIG)
    files = {"train": [900], "valid": [300], "test": [300]}
    write_snapshot(folder / "work/planted/snapshots/all", hash_spec((10, 10)), files)
    return str(folder / "planted.yaml")


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict, str]:
    code = main(list(argv))
    said = capsys.readouterr()
    return code, json.loads(said.out.splitlines()[-1]) if said.out else {}, said.err


def metrics(**entropy: float) -> dict[str, dict[str, float]]:
    return {split: {"logloss": 0.6 * ne, "normalized_entropy": ne} for split, ne in entropy.items()}


def test_one_that_leaves_nothing_to_chance_is_told() -> None:
    assert judge(metrics(valid=0.06)).told_beforehand
    assert not judge(metrics(valid=0.2)).told_beforehand


def test_a_model_must_beat_the_rate_of_positives() -> None:
    assert not judge(metrics(train=0.5, valid=0.999)).useless
    assert judge(metrics(train=0.5, valid=1.0, test=0.5)).useless
    assert judge(metrics(train=0.5, test=1.1)).split == "test"
    assert judge(metrics(train=1.1)).useless
    assert judge(metrics(train=0.5, valid=math.nan)).split == "train", "a split of one class tells nothing"
    assert judge({"valid": {"logloss": math.inf, "normalized_entropy": math.inf}}).useless
    said = "normalized entropy 1.09000 +- 0.00000 (logloss 0.65400, of the rate alone 0.60000)"
    assert judge(metrics(valid=1.09)).words == said
    assert judge(metrics(valid=5e5)).words.startswith(
        "a diverged training: normalized entropy 500,000 (logloss 300,000,"
    )


@pytest.mark.parametrize(
    ("entropy", "error", "useless"),
    [(1.03, 0.02, False), (1.03, 0.01, True), (1.0, 0.001, False), (1.06, 0.5, True), (9.0, 5.0, True), (0.9, 0, False),
     (1.2, math.nan, True), (math.nan, 0.1, True)],
)  # fmt: skip
def test_chance_is_no_verdict(entropy: float, error: float, useless: bool) -> None:
    found = judge({"valid": {"logloss": 0.6 * entropy, "normalized_entropy": entropy, "normalized_entropy_se": error}})
    assert found.useless is useless
    assert found.doubtful is not (entropy < 1)


def test_a_useless_model_is_logged_and_refused_and_never_champion(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "--config", config, *USELESS]
    code, result, said = run(capsys, *train)
    assert (code, result) == (3, {})
    last = said.splitlines()[-1]
    assert "split valid: expected a model that is better than predicting the rate of positives for every row" in last
    assert "found a diverged training: normalized entropy" in last
    assert "the same command with --force" in last
    (bundle,) = Path(config).parent.glob("work/planted/training/*/bundle/model.json")
    assert str(bundle.parent) in last
    (found,) = mlflow.search_runs(experiment_names=["planted"], output_format="list")
    assert found.info.run_id in last
    assert found.info.status == "FINISHED"
    assert found.data.metrics["valid_normalized_entropy"] > 1e3
    assert "a diverged training" in found.data.tags["fieldwise.useless"]
    written = bundle.stat().st_mtime_ns
    assert run(capsys, *train)[0] == 3
    code, result, said = run(capsys, *train, "--force")
    assert code == 0
    assert result["registered"] == {"model": "planted", "version": "1", "champion": None, "challenger": "1"}
    assert "warning: no better than the rate of positives on split valid: a diverged training" in said
    promote = f"fieldwise promote --config {config} --version 1"
    assert f"registered as version 1 of planted, challenger; promote it with: {promote}" in said
    assert bundle.stat().st_mtime_ns == written, "neither is trained again"
    assert len(mlflow.search_runs(experiment_names=["planted"], output_format="list")) == 1
    code, result, said = run(capsys, *train, "--force", "--no-register")
    assert code == 2


def test_every_command_says_which_model_it_uses(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, trained, said = run(capsys, "train", "--config", config)
    assert code == 0
    assert "registered as version 2 of planted, champion (there was none)" in said
    digest = trained["bundle_digest"]
    facts = {"kind": "lr", "digest": digest, "name": "planted", "version": "2", "alias": "champion"}
    code, result, said = run(capsys, "evaluate", "--config", config)
    assert result["used_model"] == facts
    assert f"model: lr, version 2 of planted, champion, bundle {digest[:12]}\n" in said
    code, result, said = run(capsys, "evaluate", "--config", config, "--model", trained["bundle"])
    assert result["used_model"] == {**facts, "name": None, "version": None, "alias": None}
    assert f"model: lr, bundle {digest[:12]} in {trained['bundle']}, not a registered version" in said
    rate = ["--set", "training.learning_rate=0.01"]
    code, result, said = run(capsys, "train", "--config", config, "--init", "models:/planted@champion", *rate)
    assert result["init"] == facts
    assert f"promote it with: fieldwise promote --config {config} --version 3" in said


def test_a_deleted_experiment_is_refused_before_training(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs.connect(None, str(Path(config).parent / "work/planted"))
    client = MlflowClient()
    client.delete_experiment(client.create_experiment("gone"))
    mlflow.set_experiment("of an earlier sweep in this process")
    fresh = ["--set", "training.l2=0.001", "--no-register"]
    code, _, said = run(capsys, "train", "--config", config, *fresh, "--set", "tracking.experiment=gone")
    assert code == 2
    assert "tracking.experiment: expected an experiment that takes runs, found 'gone', which was deleted" in said
    assert "memory:" not in said, "nothing was trained"
    code, result, said = run(capsys, "train", "--config", config, *fresh, "--set", "tracking.experiment=/Shared/new")
    assert code == 0, said
    assert client.get_experiment(client.get_run(result["run"]).info.experiment_id).name == "/Shared/new"


def test_a_finished_training_takes_a_mended_name(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its report was refused: by earlier versions, which asked the store only then, or by a store of narrower names."""
    train = ["train", "--config", config, "--set", "training.l2=0.002", "--name", "stuck"]
    assert run(capsys, *train, "--no-register")[0] == 0
    (answers,) = (
        path
        for path in Path(config).parent.glob("work/planted/training/*/reports/answers.jsonl")
        if '"stuck"' in path.with_name("journal.jsonl").read_text()
    )
    answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[:-1]))
    journal = answers.with_name("journal.jsonl")
    *lines, last = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines, json.dumps({**json.loads(last), "register": "team/ctr"})]) + "\n")
    code, _, said = run(capsys, "send", "--config", config)
    assert code == 1
    assert f"found {journal.parent}: Invalid model name 'team/ctr'. Names cannot contain '/' or ':'" in said
    code, result, said = run(capsys, *train, "--set", "tracking.model_name=team's ctr")
    assert code == 0
    assert result["registered"] == {"model": "team's ctr", "version": "1", "champion": "1", "challenger": "1"}
    assert run(capsys, "send", "--config", config)[:2] == (0, {"sent": 0, "left": 0})
