"""Retention: old days go as a whole, and nothing goes that something needs."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

from fieldwise.features import store
from fieldwise.features.errors import ConfigError
from fieldwise.features.snapshot import publish
from fieldwise.features.snapshot.manifest import load_snapshot, standing
from fieldwise.features.store.lease import Lease
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.decision import Verb, decide, record_decision
from fieldwise.pipelines.operate.prune import prune
from fieldwise.pipelines.registry import registry
from fieldwise.training.tracking import runs
from tests.snapshots import hash_spec, write_snapshot


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Snapshots of 1 to 9 January, of two specs on the 2nd, and of everything."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = [f"2026-01-0{day}" for day in range(1, 10)] + ["2026-01-02.0a1b2c3d", "all"]
    for seed, name in enumerate(names):
        write_snapshot(tmp_path / "work/shop/snapshots" / name, hash_spec((4, 4)), {"all": [20]}, seed=seed, name=name)
    document = {
        "name": "shop", "source": {"path": "log.csv"}, "label": "y", "model": {"kind": "lr"},
        "fields": [{"name": "f0", "kind": "hash"}], "retention": "5d", "daily": {"window": 3},
    }  # fmt: skip
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(document))
    return load_config(tmp_path / "shop.yaml")


def snapshots(config: Config) -> list[str]:
    return sorted(os.listdir(f"{config.workspace_dir}/snapshots"))


def used_by(config: Config, day: str, alias: str | None) -> None:
    """A run that trained on a day: finished and registered under an alias, or still running."""
    import mlflow

    registry(config)  # connects
    digest = standing(f"{config.workspace_dir}/snapshots/{day}").digest  # type: ignore[union-attr]
    experiment = runs.experiment_id(config.name, config.workspace_dir)
    client = mlflow.MlflowClient()
    run = client.create_run(experiment)
    client.log_param(run.info.run_id, f"snapshots.{day}", digest)
    if alias is not None:
        client.set_terminated(run.info.run_id)
        client.create_registered_model(config.model_name)
        version = client.create_model_version(config.model_name, f"runs:/{run.info.run_id}/model", run.info.run_id)
        client.set_registered_model_alias(config.model_name, alias, version.version)


def test_a_directory_of_no_published_day_makes_no_day_old(config: Config) -> None:
    """A build of a mistyped day fails, and leaves its directory: all others were past their retention by that."""
    registry(config)  # connects
    for name in ("2062-01-01", "2062-01-02.0a1b2c3d", "9999-99-99", "0000-00-00", "2026-01-09\n"):
        os.mkdir(f"{config.workspace_dir}/snapshots/{name}")
    assert prune(config, dry_run=True)["removed"] == [f"2026-01-0{day}" for day in (1, 2)] + ["2026-01-02.0a1b2c3d"] + [
        f"2026-01-0{day}" for day in (3, 4)
    ]
    assert prune(config.model_copy(update={"retention": "100000d"}))["removed"] == []


def test_days_past_the_retention_go_and_what_is_used_stays(config: Config) -> None:
    used_by(config, "2026-01-03", "challenger")
    used_by(config, "2026-01-04", None)
    place = f"{config.workspace_dir}/snapshots"
    before = snapshots(config)
    with publish.reading([f"{place}/2026-01-01"]):
        told = prune(config, dry_run=True)
        assert told["removed"] == ["2026-01-02", "2026-01-02.0a1b2c3d"]
        assert snapshots(config) == before
        assert prune(config) == told | {"dry_run": False}
    assert set(told["kept"]) == {"2026-01-01", "2026-01-03", "2026-01-04"}
    assert told["kept"]["2026-01-01"] == "a job is working on it"
    assert told["kept"]["2026-01-03"] == "models:/shop@challenger comes from it"
    assert "is training on it" in told["kept"]["2026-01-04"]
    assert snapshots(config) == [name for name in before if not name.startswith("2026-01-02")]
    assert prune(config)["removed"] == ["2026-01-01"]  # its reader has gone


def test_what_a_killed_prune_had_moved_aside_is_whole_and_buried_next_time(config: Config) -> None:
    place = f"{config.workspace_dir}/snapshots"
    aside = store.move_aside(f"{place}/2026-01-01", "retired-by-a-job-that-was-killed")
    load_snapshot(aside)
    assert prune(config, dry_run=True)["removed"][0] == "2026-01-02"
    assert os.path.exists(aside)
    prune(config)
    assert snapshots(config) == [*(f"2026-01-0{day}" for day in range(5, 10)), "all"]


def test_a_dead_lease_holds_nothing(config: Config) -> None:
    path = f"{config.workspace_dir}/snapshots/2026-01-01/lease-dead.json"
    store.write_atomic(path, b'{"host": "elsewhere", "pid": 1}')
    os.utime(path, (0, 0))
    assert "2026-01-01" in prune(config, dry_run=True)["removed"]
    with Lease(path):
        assert "2026-01-01" in prune(config, dry_run=True)["kept"]


def test_versions_past_the_retention_go_with_their_bundles(config: Config) -> None:
    shop = registry(config)  # connects
    client, experiment = MlflowClient(), runs.experiment_id(config.name, config.workspace_dir)
    client.create_registered_model("shop")
    client.create_registered_model("elsewhere")
    places = {}

    def version(number: int, *names: str) -> None:
        run = client.create_run(experiment).info.run_id
        model = client.create_logged_model(experiment, source_run_id=run)
        places[str(number)] = Path(local_file_uri_to_path(model.artifact_location))
        (places[str(number)] / "artifacts/bundle").mkdir(parents=True)
        (places[str(number)] / "artifacts/bundle/model.json").write_text("{}")
        client.finalize_logged_model(model.model_id, "READY")
        for name in names:
            client.create_model_version(name, f"models:/{model.model_id}", run)

    def decided(verb: Verb, champion: str, challenger: str, date: str, parent: str) -> None:
        more = {"date": date, "parent": f"models:/shop/{parent}"}
        record_decision(config, decide(config, verb, champion=champion, challenger=challenger, **more))

    for number in range(1, 10):
        version(number, *(["shop", "elsewhere"] if number == 6 else ["shop"]))
    client.set_registered_model_alias("shop", "champion", "2")
    client.set_registered_model_alias("shop", "challenger", "5")
    shop.promote("4", expected="2")
    client.set_registered_model_alias("shop", "canary", "7")
    (mine := Path(config.workspace_dir).parent / "mine").mkdir()
    (mine / "letter").write_text("mine")
    forged = client.get_model_version("shop", "9").source.removeprefix("models:/")
    with closing(sqlite3.connect(Path(config.workspace_dir, "mlflow.db"))) as store, store:
        store.execute("UPDATE logged_models SET artifact_location = ? WHERE model_id = ?", (mine.as_uri(), forged))
    for challenger in ("1", "3", "6", "7", "9"):
        decided("kept", "2", challenger, "2026-01-02", "2")
    decided("kept", "4", "5", "2026-01-06", "3")
    told = prune(config, dry_run=True)
    assert [name for name in told["removed"] if name.startswith("models:")] == ["models:/shop/1"]
    assert all(place.exists() for place in places.values())
    told = prune(config)
    assert [name for name in told["removed"] if name.startswith("models:")] == ["models:/shop/1"]
    assert {name: why for name, why in told["kept"].items() if name.startswith("models:")} == {
        "models:/shop/3": "a decision of 2026-01-06 names it",
        "models:/shop/6": "models:/elsewhere/1 is the same model",
        "models:/shop/9": f"its files lie in {mine.as_uri()}, where MLflow keeps no model's",
    }
    assert (mine / "letter").exists()
    stay = {"2", "3", "4", "5", "6", "7", "8", "9"}  # 8 was made today, after all days of the log
    assert {str(each.version) for each in client.search_model_versions("name = 'shop'")} == stay
    assert {number for number, place in places.items() if place.exists()} == stay
    assert shop.rollback()["champion"] == "2"


@pytest.mark.parametrize(("retention", "said"), [(None, "found none"), ("3d", "expected at least 4d, found 3d")])
def test_a_retention_that_cannot_be_meant(config: Config, retention: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        prune(config.model_copy(update={"retention": retention}))
