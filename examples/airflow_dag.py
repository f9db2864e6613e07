"""fieldwise daily as an Airflow DAG: one date a day, in order, each tried again only where that can help.

Airflow lives in an environment of its own and calls the `fieldwise` of another one. Environment variables: FIELDWISE
(the command, default `fieldwise`), FIELDWISE_CONFIG (the config's path).
"""

from __future__ import annotations

import datetime
import os
import subprocess

from airflow.exceptions import AirflowFailException
from airflow.sdk import dag, task

COMMAND = os.environ.get("FIELDWISE", "fieldwise")
CONFIG = os.environ.get("FIELDWISE_CONFIG", "shop.yaml")


@dag(
    schedule="0 4 * * *",
    start_date=datetime.datetime(2026, 1, 15, tzinfo=datetime.UTC),
    catchup=True,
    max_active_runs=1,  # a date goes on from the one before
    default_args={"retries": 3, "retry_delay": datetime.timedelta(minutes=5)},
)
def fieldwise_daily() -> None:
    @task
    def daily(ds: str | None = None) -> None:
        """Exit codes 2 and 3 need a person: no retry. Anything else may pass: the date goes on where it stopped."""
        code = subprocess.run([COMMAND, "daily", "--config", CONFIG, "--date", str(ds)], check=False).returncode
        if code in (2, 3):
            raise AirflowFailException(f"fieldwise daily ended with exit code {code}: see its last line")
        if code:
            raise RuntimeError(f"fieldwise daily ended with exit code {code}")

    daily()


fieldwise_daily()
