"""The same bytes on one core, and on a standalone cluster of two workers of which one loses its executor mid-job:
snapshots and catalog scores. Negatives are drawn alike on one core, on two, and on the cluster.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from fieldwise.pipelines.catalog.score_catalog import score_catalog
from tests.clusters import standalone_cluster, wait_for
from tests.features.build.test_build import config_of, write_day
from tests.pipelines.build.test_negatives import watched
from tests.pipelines.shop import shop_config, write_bundle, write_shop

ROOT = Path(__file__).resolve().parents[3]
DAY = "2026-01-08"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BUILD = (
    "import json, sys; from fieldwise.pipelines.config.load import load_config\n"
    "from fieldwise.pipelines.build.features import build_features\n"
    "print(json.dumps(build_features(load_config(sys.argv[1], ['workspace=' + sys.argv[2]]))))"
)
SCORE = (
    "import json, sys; from fieldwise.pipelines.catalog import score_catalog as job\n"
    "from fieldwise.pipelines.config.load import load_config\n"
    "job.CONTEXTS_PER_FILE = 20\n"  # many files, so that writing takes a while
    "config, bundle, date, out = sys.argv[1:]\n"
    "print(json.dumps(job.score_catalog(load_config(config), model=bundle, date=date, out=out)))"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[int]]]:
    with standalone_cluster(tmp_path_factory.mktemp("cluster"), PYTHONPATH=str(ROOT)) as cluster:
        yield cluster


@contextmanager
def running(job: str, master: str, *arguments: Path | str) -> Iterator[subprocess.Popen[str]]:
    """A job in a process of its own, ended with the block."""
    environment = os.environ | {"SPARK_MASTER": master, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1"}
    environment["PYSPARK_SUBMIT_ARGS"] = "--conf spark.executor.memory=512m pyspark-shell"
    command = [sys.executable, "-c", job, *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def digest_of(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])["digest"]


def executors(worker: int) -> list[int]:
    """The executors a worker runs; what it starts for a moment besides (a shell that sets a file's mode) is not one."""
    children = [
        int(child)
        for task in Path(f"/proc/{worker}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid for pid in children if b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_snapshots_have_the_same_digest_on_one_core_and_on_a_cluster_that_loses_an_executor(
    cluster: tuple[str, list[int]], tmp_path: Path
) -> None:
    for day in range(2):
        write_day(tmp_path / f"day-{day}.csv", day, rows=4000)
    config_of(tmp_path, snapshot={"rows_per_file": 60})  # about 140 files, so that writing takes a while
    config = tmp_path / "config.yaml"
    url, workers = cluster
    with running(BUILD, url, config, tmp_path / "broken") as broken:
        wait_for("the first file", lambda: list(tmp_path.glob("broken/**/train-*.parquet")))
        (executor,) = wait_for("an executor", lambda: executors(workers[0]))
        os.kill(executor, signal.SIGKILL)
        assert broken.poll() is None  # still at work when its executor died
        digest = digest_of(broken)
    with running(BUILD, "local[1]", config, tmp_path / "alone") as alone:
        assert digest_of(alone) == digest
    (data,) = tmp_path.glob("broken/snapshots/all/data-*")
    manifest = json.loads((data.parent / "manifest.json").read_text())
    assert {path.name for path in data.glob("t*-*.parquet")} == {
        f["path"] for f in manifest["files"] if f["path"].startswith("t")
    }


def test_negatives_are_the_same_on_one_core_on_two_and_on_a_cluster(
    cluster: tuple[str, list[int]], tmp_path: Path
) -> None:
    watched(tmp_path, source={"path": "part-*.csv"})
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    for part in range(6):  # ranges that two workers share
        (tmp_path / f"part-{part}.csv").write_text("\n".join([header, *lines[part::6]]) + "\n")
    digests = {}
    for name, master in (("cluster", cluster[0]), ("one", "local[1]"), ("two", "local[2]")):
        with running(BUILD, master, tmp_path / "watched.yaml", tmp_path / name) as build:
            digests[name] = digest_of(build)
    assert len(set(digests.values())) == 1, digests


def test_catalog_scores_are_the_same_on_a_cluster_that_loses_an_executor(
    cluster: tuple[str, list[int]], tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path, users=1200, items=90)
    config = shop_config(tmp_path)
    bundle, (url, workers) = write_bundle(tmp_path, config), cluster
    with running(SCORE, url, tmp_path / "shop.yaml", bundle, DAY, tmp_path / "broken") as broken:
        wait_for("the first file", lambda: list(tmp_path.glob("broken/_date*/part-*.parquet")))
        (executor,) = wait_for("an executor", lambda: executors(workers[0]))
        os.kill(executor, signal.SIGKILL)
        assert broken.poll() is None  # still at work when its executor died
        digest = digest_of(broken)
    monkeypatch.setattr("fieldwise.pipelines.catalog.score_catalog.CONTEXTS_PER_FILE", 20)
    assert score_catalog(config, model=bundle, date=DAY)["digest"] == digest
    (target,) = tmp_path.glob("broken/*")
    manifest = json.loads((target / "_manifest.json").read_text())
    assert len(manifest["files"]) == 60
    assert {path.name for path in target.glob("part-*")} == {file["path"] for file in manifest["files"]}
