"""Are this machine, and a config, ready? Every check runs the real part in small, says what it found, and what to do
where it is not as it should be."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from typing import Any

from fieldwise import PLACE
from fieldwise.features.errors import InputError
from fieldwise.features.process import cores
from fieldwise.features.redact import redacted
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.operate.config_checks import ConfigChecks, remedied
from fieldwise.pipelines.ranks import launch
from fieldwise.training.data.cache import Reader, row_groups_by

REMEDIES = {
    "packages": "Install them again: pip install -e . -c constraints.txt, in an environment of their own.",
    "disk": "Set TMPDIR to a directory that can be written.",
    "kernels": "Remove ~/.cache/fieldwise/kernels-* (or those of NUMBA_CACHE_DIR) and run it again.",
    "spark": "Unset JAVA_HOME, SPARK_HOME and SPARK_MASTER, or correct them: pip brings its own Java and Spark.",
    "ranks": "Allow connections of this machine to itself, and give /dev/shm room.",
    "store": "Start the MLflow server, or correct MLFLOW_TRACKING_URI or `tracking.uri`.",
}
"""What to do about errors that do not say so themselves."""
NEED_ROWS = ("rows", "fields", "cost", "catalog")
"""Checks that read rows of the source."""
PACKAGES = ("pyspark", "pyarrow", "torch", "mlflow", "numba", "numpy", "pandas")


def examine(config: Config | None = None, quick: bool = False) -> dict[str, Any]:
    """Run all checks; ``quick`` leaves out those that start processes. With a config also those of what it would meet.

    Raises:
        InputError: at least one check failed; all findings are on stderr.
    """
    reader: Reader = "petastorm" if config is None else config.training.reader
    checks: dict[str, Callable[[], str]] = {"packages": lambda: _packages(reader), "disk": _disk}
    of_config = None if config is None else ConfigChecks(config)
    if of_config is not None:  # first, for it is what most people mend
        checks |= of_config.all
    checks["kernels"] = _kernels
    if not quick:
        checks |= {"spark": lambda: _spark(of_config), "ranks": _ranks}
    found: dict[str, str] = {}
    failed: list[str] = []
    for name, check in checks.items():
        if name in NEED_ROWS and set(failed) & {"source", "rows"}:
            continue  # they would say the same again
        try:
            found[name] = redacted(check())
        except Exception as error:  # a doctor reports whatever it meets
            found[name] = redacted(remedied(error, REMEDIES.get(name, "Run it again with -v, and report it.")))
            failed.append(name)
        say(f"{'FAILED' if name in failed else 'ok':6} {name}: {found[name]}")
        for line in of_config.lines if of_config is not None and name == "fields" else ():
            say(f"         {redacted(line)}")
    notes = [] if of_config is None else [redacted(note) for note in of_config.notes]
    for note in notes:
        warn(note)
    if failed:
        raise InputError(
            "doctor", expected="every check to pass", found=f"{', '.join(failed)} failed", fix="See above."
        )
    return {"checks": found} | ({} if of_config is None else {"notes": notes})


def _packages(reader: Reader) -> str:
    for name in PACKAGES:
        importlib.import_module(name)
    row_groups_by(reader)  # imports petastorm if snapshots are read through it
    named = [*PACKAGES, "petastorm"] if reader == "petastorm" else PACKAGES
    return ", ".join(f"{name} {metadata.version(name)}" for name in named)


def _disk() -> str:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    return f"{free / 2**30:.0f} GiB free in {tempfile.gettempdir()}, {cores()} cores"


def _kernels() -> str:
    from fieldwise.pipelines.operate import kernel_checks
    from fieldwise.training.models import MODELS

    kernel_checks.every_entry()
    kernel_checks.hash_agrees()
    checked = [kind for kind, model in MODELS.items() if model.score and model.latent]
    for kind in checked:
        kernel_checks.step_agrees(kind)
        kernel_checks.scores_agree(kind)
        kernel_checks.lists_agree(kind)
    return f"hash, training steps, scores and lists of {' and '.join(checked)} agree with xxhash and plain torch"


def _spark(config: ConfigChecks | None) -> str:
    if config is not None and (why := config.without_spark()):
        return f"not tried: {why}, so no command of this config starts it (`fieldwise doctor` alone tries it)"
    from fieldwise.features.spark.run import SparkEngine
    from fieldwise.features.spark.session import spark_session

    spark = spark_session("fieldwise-doctor")
    rows = len(SparkEngine(spark).numbered(4).mapped(lambda batches: batches, "id long").rows("doctor"))
    return f"Spark {spark.version} passed {rows} rows through Python, Java at {os.environ['JAVA_HOME']}"


def _ranks() -> str:
    script = "from fieldwise.training.ranks.world import join_world\nwith join_world(60.0) as world: world.meet()"
    with tempfile.TemporaryDirectory(prefix="fieldwise-ranks-") as private:
        command = [*launch.rank_command(2, private, 0), "--no-python", sys.executable, "-c", script]
        own = launch.environment(2, private)
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLACE), own.get("PYTHONPATH")]))
        finished = subprocess.run(command, capture_output=True, text=True, env=own, check=False)
    if finished.returncode != 0:
        raise ValueError(finished.stderr.strip().splitlines()[-1])
    return "two ranks met over gloo"
