"""spark-submit with the Java that pip brings, and with the archive of `pipelines.operate.pack`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from fieldwise.features.java.home import java_environment
from fieldwise.features.spark.session import ARCHIVE, LOGGING, PACKED_PYTHON, shipped


def submit(arguments: list[str], jobs: Path) -> NoReturn:
    """Become spark-submit: of SPARK_HOME, else of pip's pyspark. What ``arguments`` say goes over what is added:

    - JAVA_HOME of pip where none is set, SPARK_MASTER as ``--master``;
    - ``FIELDWISE_ARCHIVE`` as ``--archives``, and its Python for executors (for the driver, too, on the cluster);
    - files of ``jobs`` by their names (``build_features.py``), where there is no such file here.
    """
    environment = dict(os.environ)
    if "JAVA_HOME" not in environment:
        environment |= java_environment()
    environment.setdefault("SPARK_SUBMIT_OPTS", f"-Dlog4j2.configurationFile={LOGGING.as_uri()}")
    options = []
    if master := environment.get("SPARK_MASTER"):
        options += ["--master", master]
    if archive := shipped():
        options += ["--archives", archive, "--conf", f"spark.pyspark.python={PACKED_PYTHON}"]
    else:
        environment.setdefault("PYSPARK_PYTHON", sys.executable)
    if "cluster" not in arguments:  # --deploy-mode
        options += ["--conf", f"spark.pyspark.driver.python={sys.executable}"]
        environment.pop(ARCHIVE, None)  # it is on its way
    named = [str(jobs / each) if (jobs / each).is_file() and not os.path.exists(each) else each for each in arguments]
    spec = find_spec("pyspark")
    assert spec is not None
    home = environment.get("SPARK_HOME") or os.path.dirname(str(spec.origin))
    program = os.path.join(home, "bin", "spark-submit")
    sys.stderr.flush()
    os.execve(program, [program, *options, *named], environment)  # noqa: S606
