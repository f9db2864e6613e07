"""Every decision leaves a record that leads back from a version: in the workspace, in the registry, on the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from fieldwise.features.errors import ArtifactError, BusyError, ConfigError, RefusedError
from fieldwise.features.store.kept import sealed
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.decisions import carry_out, history, promote_model, rollback_model, table
from fieldwise.pipelines.decision import Decision, decide, record_decision, record_first_champion
from fieldwise.pipelines.registry import registry
from fieldwise.training.tracking import runs
from tests.snapshots import PLANTED

METRICS = {
    "champion": {"logloss": 0.46475, "logloss_se": 0.0025, "auc": float("nan"), "auc_se": float("nan")},
    "challenger": {"logloss": 0.46121, "logloss_se": 0.0024},
    "difference": {"logloss": -0.00354, "low": -0.005, "high": -0.002},
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Three versions, each with the run that trained it; the first is champion, the last challenger."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("LOGNAME", "ann")
    (tmp_path / "planted.yaml").write_text(PLANTED)
    config = load_config(tmp_path / "planted.yaml")
    registry(config)  # connects
    client, experiment = MlflowClient(), runs.experiment_id(config.experiment, config.workspace_dir)
    client.create_registered_model(config.model_name)
    for _ in range(3):
        run = client.create_run(experiment).info.run_id
        client.create_model_version(config.model_name, f"runs:/{run}/model", run)
    client.set_registered_model_alias(config.model_name, "champion", "1")
    client.set_registered_model_alias(config.model_name, "challenger", "3")
    return config


def promoted(config: Config, challenger: str = "2", date: str = "2026-01-05") -> Decision:
    return decide(
        config, "promoted", champion="1", challenger=challenger, date=date, metrics=METRICS,
        findings=["better by 3 se"], parent="models:/planted/1",
    )  # fmt: skip


def files(config: Config) -> list[str]:
    return sorted(path.name for path in Path(config.workspace_dir, "decisions").glob("*.json"))


def test_a_promotion_is_done_and_told_once_everywhere(config: Config) -> None:
    decision = promoted(config)
    assert decision.who.startswith("ann@")
    for _ in range(2):  # as a rerun of what was killed before it noted that it was done
        assert carry_out(config, decision) == decision
    assert files(config) == [f"{decision.stamp}-2.json"]
    assert registry(config).version_of("champion") == "2"
    version = MlflowClient().get_model_version("planted", "2")
    assert Decision(**json.loads(version.tags[f"fieldwise.decision.{decision.stamp}"])) == decision
    run = MlflowClient().get_run(version.run_id).data
    told = {key: value for key, value in run.tags.items() if key.startswith("fieldwise.")}
    assert told == {
        "fieldwise.decision": "promoted", "fieldwise.decision.champion": "1", "fieldwise.decision.date": "2026-01-05",
        "fieldwise.parent": "models:/planted/1",
    }  # fmt: skip
    assert run.metrics["champion.logloss"] == 0.46475
    assert run.metrics["difference.low"] == -0.005
    assert "champion.auc" not in run.metrics
    assert len(MlflowClient().get_metric_history(version.run_id, "champion.logloss")) == 1
    rollback_model(config)
    assert carry_out(config, decision) == decision, "what was done before a kill is not told as refused after"
    assert registry(config).version_of("champion") == "1", "nor done again"


def test_against_a_champion_that_has_gone_nothing_is_done_or_told(config: Config) -> None:
    late = promoted(config)
    kept = decide(config, "kept", champion="1", challenger="2", date="2026-01-05")
    carry_out(config, promoted(config, "3"))
    for each in (late, kept):
        with pytest.raises(BusyError, match="expected version 1, against which was decided, found version 3") as told:
            carry_out(config, each)
        assert told.value.exit_code == 1
    assert [each["decision"] for each in history(config)["decisions"]] == ["promoted"]


def test_an_older_day_is_refused_with_its_words(config: Config) -> None:
    carry_out(config, promoted(config, date="2026-01-06"))
    late = decide(config, "promoted", champion="2", challenger="3", date="2026-01-05")
    refused = carry_out(config, late)
    assert (refused.decision, refused.now, refused.time) == ("refused", "2", late.time)
    assert refused.findings[-1].startswith("models:/planted/3: expected a day from 2026-01-06 on")
    assert [each["decision"] for each in history(config)["decisions"]] == ["promoted", "refused"]


def test_the_first_champion_is_a_decision(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    MlflowClient().delete_registered_model_alias("planted", "champion")
    MlflowClient().set_registered_model_alias("planted", "champion", "1")
    for _ in range(2):  # as by a training that is asked for again
        record_first_champion(config, "1", METRICS["champion"])
    (first,) = history(config)["decisions"]
    told = [first[key] for key in ("decision", "champion", "challenger", "now", "reason")]
    assert told == ["promoted", None, "1", "1", "there was no champion"]
    assert "0.46475 +- 0.00250" in capsys.readouterr().err
    run = MlflowClient().get_run(MlflowClient().get_model_version("planted", "1").run_id).data
    assert (run.tags["fieldwise.decision"], "fieldwise.parent" in run.tags) == ("promoted", False)
    promote_model(config, "2")
    promote_model(config, "1")
    record_first_champion(config, "1", METRICS["champion"])
    assert [each["now"] for each in history(config)["decisions"]] == ["1", "2", "1"]


def test_another_decision_of_the_same_moment_is_no_less_kept(config: Config) -> None:
    decision = promoted(config)
    record_decision(config, decision)
    with pytest.raises(ArtifactError, match=r"-2\.json: expected this decision or none, found another one"):
        record_decision(config, decision.model_copy(update={"reason": "another"}))


def test_a_persons_moves(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert promote_model(config) == {"model": "planted", "champion": "3", "former": "1"}
    assert promote_model(config)["former"] == "1"
    assert len(files(config)) == 1, "nothing was decided again"
    with pytest.raises(ConfigError, match="catalog: expected a block naming contexts and items"):
        rollback_model(config, rescore=True)
    with pytest.raises(ConfigError, match="--date: expected --rescore beside it, found none"):
        rollback_model(config, date="2026-01-05")
    assert registry(config).version_of("champion") == "3", "what cannot be scored again is not rolled back"
    assert rollback_model(config, reason="sold nothing") == {"model": "planted", "champion": "1", "former": "3"}
    with pytest.raises(RefusedError, match="found one that was: sold nothing"):
        promote_model(config)
    with pytest.raises(ConfigError, match="--force: expected --reason TEXT beside it, found none"):
        promote_model(config, force=True)
    promote_model(config, force=True, reason="it was the shop")
    promote_model(config, "2")
    found = history(config)
    told = [(each["decision"], each["champion"], each["now"], each["reason"]) for each in found["decisions"]]
    assert told == [
        ("promoted", "1", "3", None), ("rolled back", "3", "1", "sold nothing"),
        ("forced", "1", "3", "it was the shop"), ("promoted", "3", "2", None),
    ]  # fmt: skip
    assert [each["version"] for each in found["champions"]] == ["1", "3", "1", "3", "2"]
    shutil.rmtree(Path(config.workspace_dir, "decisions"))
    capsys.readouterr()
    assert history(config) == found, "the registry knows them, too"
    assert len(history(config, 2)["decisions"]) == 2
    assert capsys.readouterr().err.splitlines()[-2] == "and 2 earlier"


def test_the_table() -> None:
    one = Decision(
        decision="promoted", time="2026-01-06T03:10:02.123456Z", champion="1", challenger="2", now="2",
        date="2026-01-05", metrics=METRICS, findings=["better by 3 se"], config="0" * 64, who="ann@host",
    )  # fmt: skip
    two = Decision(
        decision="rolled back", time="2026-01-06T09:00:00.000001Z", champion="2", now="1", reason="sold nothing",
        config="0" * 64, who="bob@laptop",
    )  # fmt: skip
    assert "\n".join(table([one, two])) == (
        "time (UTC)           date        decision     champion  challenger  now  logloss             challenger's"
        "        who         why\n"
        "2026-01-06T03:10:02  2026-01-05  promoted     1         2           2    0.46475 +- 0.00250  0.46121 +-"
        " 0.00240  ann@host    better by 3 se\n"
        "2026-01-06T09:00:00  -           rolled back  2         -           1    -                   -           "
        "        bob@laptop  sold nothing"
    )
    assert table([]) == ["no decision yet"]


def test_a_record_that_was_changed_is_named(config: Config) -> None:
    path = Path(record_decision(config, promoted(config)))
    path.write_text(path.read_text().replace("better by", "worse by"))
    with pytest.raises(ArtifactError, match=rf"{path.name}: expected a decision, as it was recorded, found it changed"):
        history(config)
    path.write_bytes(sealed({"decision": "guessed"}))
    with pytest.raises(ArtifactError, match=rf"{path.name}: expected a decision, as it was recorded, found 'guessed'"):
        history(config)


def test_a_decision_that_no_tag_holds_goes_without_its_figures(config: Config) -> None:
    decision = promoted(config).model_copy(update={"findings": ["slice of a long name"] * 400})
    (text,) = decision.tags.values()
    assert len(text) < 3_000
    assert Decision(**json.loads(text)).findings == decision.findings[:3]


def test_forged_records_are_told_or_named(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """With a seal of their own: what is told of them must hold even so."""
    path = Path(record_decision(config, promoted(config)))
    record = json.loads(path.read_text())
    record.pop("seal")
    for metrics in (
        {"challenger": {"logloss": "x", "logloss_se": 1.0}},
        {"champion": "x", "challenger": {"logloss": []}},
    ):
        path.write_bytes(sealed(record | {"metrics": metrics}))
        history(config)
    path.write_bytes(sealed(record | {"time": "\u202e2026-01-06T03:10:02.123456Z"}))
    with pytest.raises(ArtifactError, match=rf"{path.name}: .* at time where"):
        history(config)
