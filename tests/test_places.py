"""One suite over the local disk and an S3 server: every command gives the same in both places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from fieldwise.features import store
from fieldwise.features.snapshot.manifest import load_snapshot, snapshot_dir
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.bootstrap import bootstrap
from fieldwise.pipelines.cycle.daily import run_day
from fieldwise.pipelines.operate.prune import prune
from fieldwise.pipelines.score.score_rows import score_rows
from fieldwise.pipelines.train.evaluate import evaluate_model
from fieldwise.pipelines.train.launch import Days
from fieldwise.pipelines.train.train import train_model
from tests.pipelines.cycle.days import DAY, write_cycle
from tests.s3_server import S3, upload

PREFIX = "s3://shop/a place/100%/é"


def write_places(folder: Path, days: int) -> tuple[str, str]:
    """The same config and logs on the disk and on the server; MLflow's databases lie on the disk."""
    write_cycle(folder, "cycle.yaml", days=days)
    document = yaml.safe_load((folder / "cycle.yaml").read_text())
    document["training"] |= {"scratch": str(folder / "scratch"), "auto": False}
    document["daily"] = {"window": 1}
    remote = document | {"tracking": {"uri": f"sqlite:///{folder}/remote.db"}}
    upload(folder, PREFIX)
    store.write_atomic(f"{PREFIX}/cycle.yaml", yaml.safe_dump(remote).encode())
    (folder / "cycle.yaml").write_text(yaml.safe_dump(document))
    return str(folder / "cycle.yaml"), f"{PREFIX}/cycle.yaml"


def snapshot_digest(config: Config, day: str) -> str:
    return load_snapshot(snapshot_dir(config.workspace_dir, day)).manifest.digest


def scored(result: dict[str, Any]) -> Any:
    return result["digest"]


def test_features_train_and_score_give_the_same_on_s3(spark: SparkSession, s3: S3, tmp_path: Path) -> None:
    def run(path: str) -> list[Any]:
        config = load_config(path)
        days = [build_features(config, date=DAY(1))]
        days.append(build_features(config, date=DAY(2), spec=days[0]["dir"]))
        trained = train_model(config, Days([days[0]["dir"]], [days[1]["dir"]]))
        assert trained is not None
        rows = score_rows(config, date=DAY(2), model=trained["bundle"])
        return [[day["digest"] for day in days], trained["bundle_digest"], scored(rows)]

    local, remote = map(run, write_places(tmp_path, 2))
    assert remote == local
    assert not list((tmp_path / "scratch" / "work").iterdir())


@pytest.mark.slow
def test_the_whole_cycle_gives_the_same_on_s3(spark: SparkSession, s3: S3, tmp_path: Path) -> None:
    def run(path: str) -> list[Any]:
        config = load_config(path, ["retention=2d"])
        bootstrap(config, first=DAY(1), last=DAY(3))
        found: list[Any] = [snapshot_digest(config, DAY(3))]
        found.append(evaluate_model(config, snapshots=[snapshot_dir(config.workspace_dir, DAY(3))])["metrics"])
        found.append(scored(score_rows(config, date=DAY(3))))
        found.append(scored(score_catalog(config, date=DAY(3))))
        for day in (DAY(4), DAY(5)):
            done = run_day(config, date=day)
            found.append([done["decision"], done["learned"], done["metrics"], done["used_model"]["digest"]])
            found.append(scored(done["catalog"]))
        found.append(prune(config))
        return found

    local, remote = map(run, write_places(tmp_path, 5))
    assert remote == local
