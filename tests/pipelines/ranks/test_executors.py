"""Ranks on Spark's executors: the same bundle as ranks of one machine, also where one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fieldwise.features.errors import ConfigError
from fieldwise.pipelines.ranks.executors import _train
from fieldwise.pipelines.train.train import train_model
from tests.features.spark.test_cluster import cluster, executors  # noqa: F401  a fixture
from tests.pipelines.ranks.nodes import ROOT, checkpoints, epochs, planted, wait_for
from tests.pipelines.ranks.test_launch import descendants

TRAINING = "batch_size: 64, epochs: 6, patience: null, threads: 1, auto: false, checkpoint: {every_steps: 50}"


def started(config: Path, *more: str, master: str = "local[2]") -> subprocess.Popen[bytes]:
    own = os.environ | {"PYTHONPATH": str(ROOT), "SPARK_MASTER": master, "SPARK_LOCAL_IP": "127.0.0.1"}
    own["PYSPARK_SUBMIT_ARGS"] = "--conf spark.executor.memory=512m pyspark-shell"
    command = [sys.executable, "-m", "fieldwise.jobs.cli", "train", "--config", str(config), "--no-register", *more]
    with (config.parent / "said").open("wb") as said:
        return subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=said)


def result(process: subprocess.Popen[bytes], config: Path, seconds: float = 900) -> dict[str, Any]:
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, (config.parent / "said").read_text()[-3000:]
    return dict(json.loads(output.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_executors_train_the_same_bundle(cluster: tuple[str, list[int]], tmp_path: Path) -> None:  # noqa: F811
    master, workers = cluster
    here, there, killed = (planted(tmp_path / name, TRAINING) for name in ("here", "there", "killed"))
    wanted = result(started(here, "--ranks", "2"), here)
    found = result(started(there, "--on", "spark", "--ranks", "2", master=master), there)
    assert found["bundle_digest"] == wanted["bundle_digest"]
    assert Path(found["bundle"]).is_dir()
    said = (there.parent / "said").read_text()
    assert "epoch 1: logloss train" in said
    assert not list(there.parent.glob("work/planted/training/.ranks-*"))
    process = started(killed, "--on", "spark", "--ranks", "2", master=master)
    wait_for("a checkpoint", lambda: checkpoints(killed))
    ranks = [pid for worker in workers for pid in descendants(worker) if _is_rank(pid)]
    os.kill(ranks[-1], signal.SIGKILL)
    assert result(process, killed)["bundle_digest"] == wanted["bundle_digest"]
    assert all(values["rows_trained"] == 16000 for values in epochs(killed).values())


def _is_rank(pid: int) -> bool:
    try:
        return "LOCAL_RANK=" in Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_mistake_is_told_once_and_not_tried_again(tmp_path: Path) -> None:
    config = planted(tmp_path, TRAINING)
    process = started(config, "--on", "spark", "--ranks", "2", "--train", str(tmp_path / "nowhere"))
    assert process.wait(600) == 2
    said = (tmp_path / "said").read_text()
    assert said.splitlines()[-1].startswith("fieldwise train: ")
    assert "nowhere" in said.splitlines()[-1]
    process = started(config, "--on", "spark", "--ranks", "3")
    assert process.wait(300) == 2
    last = (tmp_path / "said").read_text().splitlines()[-1]
    assert "--ranks: expected a free core of Spark's executors for each of 3 ranks, found 2 of local[2]" in last


def test_an_executor_that_does_not_see_the_workspace_says_so_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"workspace on .*: expected a directory that driver and executors share"):
        _train(train_model, {"folder": str(tmp_path / "elsewhere")})
