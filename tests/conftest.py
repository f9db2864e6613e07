"""Shared fixtures: one Spark session for the whole run, jobs that run on it, and the folder of real data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from pyspark.sql import SparkSession

from fieldwise.features.spark.session import spark_session

if TYPE_CHECKING:
    from tests.s3_server import S3

ROOT = Path(__file__).resolve().parents[1]

# a busy machine is no failing property, and every run draws the same examples
settings.register_profile("fieldwise", deadline=None, derandomize=True)
settings.load_profile("fieldwise")

LONGEST = ["readme", "distributed", "demo", "checkpoint", "build", "score_catalog", "cli"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two processes of tests end together."""
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


MASTER = os.environ.pop("SPARK_MASTER", "local[2]")
"""Tests whose jobs are small run them in this process, unless they ask for ``on_spark``."""


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tells every process of the run where S3 is, Spark's workers too: a file that is written later."""
    path = tmp_path_factory.mktemp("aws") / "config"
    os.environ.update(AWS_CONFIG_FILE=str(path), AWS_EC2_METADATA_DISABLED="true")
    return path


@pytest.fixture(scope="session")
def s3(aws: Path) -> Iterator[S3]:
    """An S3 server with a bucket ``shop``."""
    from tests.s3_server import S3  # its library takes a second to import

    server = S3(aws)
    yield server
    server.end()


@pytest.fixture(scope="session")
def spark(aws: Path) -> Iterator[SparkSession]:
    """A local session with two cores; every job of the run that is Spark's shares it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_MASTER", MASTER)
        session = spark_session("tests")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def on_spark(spark: SparkSession) -> Iterator[SparkSession]:
    """Jobs of the module's tests run on Spark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_MASTER", MASTER)
        yield spark


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public data sets (FIELDWISE_DATA, else ../shared/data beside the checkout)."""
    folder = Path(os.environ.get("FIELDWISE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FIELDWISE_DATA")
    return folder
