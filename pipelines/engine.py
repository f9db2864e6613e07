"""Where a command's tasks run: in this process where its sources are small, else on Spark.

    engine: auto     local below ``LOCAL_BYTES`` of sources, unless SPARK_MASTER or spark-submit names a cluster
    engine: local    threads of this process, whatever the size; what does not fit in memory goes to a temporary file
    engine: spark    spark-submit's master, else SPARK_MASTER, else all cores of this machine

Outputs are the same to the byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from fieldwise.features.engine.base import Engine
from fieldwise.features.engine.local import LocalEngine
from fieldwise.features.files.listing import SourceFile
from fieldwise.features.kernels.ahead import compile_ahead
from fieldwise.features.kernels.counts import count_slots, sum_groups
from fieldwise.features.kernels.delimited import copy_decoded
from fieldwise.features.kernels.numerals import read_decimals
from fieldwise.features.kernels.rows import to_columns, to_rows
from fieldwise.features.kernels.strings import hash_rows, sum_texts
from fieldwise.features.terminal import say
from fieldwise.pipelines.config.schema import Config

LOCAL_BYTES = 256 << 20
"""Of sources, as they are stored."""


def open_engine(config: Config, command: str, files: Iterable[SourceFile]) -> Engine:
    """The engine for a command that reads ``files``; one line says which and why. Spark is imported where it is taken.

    Raises ConfigError where Spark is asked for and cannot be had.
    """
    size = sum(file.size for file in files)
    name, why = chosen(config, size)
    say(f"engine {name}: {why}")
    if name == "local":
        if command == "features" and config.source.format == "csv":
            compile_ahead(
                sum_groups, count_slots, to_columns, hash_rows, to_rows, sum_texts, read_decimals, copy_decoded
            )
        return LocalEngine()
    from fieldwise.features.spark.run import SparkEngine
    from fieldwise.features.spark.session import spark_session

    return SparkEngine(spark_session(f"fieldwise {command}", source_bytes=size))


def chosen(config: Config, size: int) -> tuple[str, str]:
    """(name, why) of the engine for so many bytes of sources."""
    if config.engine != "auto":
        return config.engine, "as the config says"
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return "spark", "spark-submit started this"
    if master := os.environ.get("SPARK_MASTER"):
        return "spark", f"SPARK_MASTER is {master}"
    mebibytes, limit = f"{size / 2**20:,.1f} MiB of sources", f"{LOCAL_BYTES >> 20} MiB"
    if size < LOCAL_BYTES:
        return "local", f"{mebibytes}, less than {limit}"
    return "spark", f"{mebibytes}, not less than {limit}"
