"""The Airflow DAG of examples/, by a real Airflow in an environment of its own: one date killed and tried again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import psutil
import pytest

from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.cycle.record import Record
from tests.commands import Commands
from tests.pipelines.cycle.days import DAY, write_cycle

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_dates_one_killed_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_cycle(folder, "shop.yaml", days=7)
    Commands(folder)("bootstrap", "--from", DAY(1), "--to", DAY(5))
    airflow = _installed(tmp_path / "airflow")
    home = tmp_path / "home"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AIRFLOW"))} | {
        "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "examples"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "FIELDWISE": str(Path(sys.executable).parent / "fieldwise"),
        "FIELDWISE_CONFIG": str(folder / "shop.yaml"),
    }  # fmt: skip
    subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
    config = load_config(folder / "shop.yaml", [])

    def run(day: str, kill: bool = False) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen([airflow, "dags", "test", "fieldwise_daily", day], env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        if kill:
            _kill_fieldwise(process.pid, Path(Record(config.workspace_dir, day).path))
        out, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out)

    first = run(DAY(6))
    assert "decision" in Record(config.workspace_dir, DAY(6)).steps, first.stdout
    again = run(DAY(7), kill=True)  # Airflow tries it again by itself
    assert "exit code -9" in again.stdout
    assert "done" in Record(config.workspace_dir, DAY(7)).steps, again.stdout


def _installed(place: Path) -> str:
    venv.create(place, with_pip=True)
    subprocess.run([place / "bin" / "pip", "install", "--quiet", "apache-airflow"], check=True, capture_output=True)
    return str(place / "bin" / "airflow")


def _kill_fieldwise(parent: int, begun: Path) -> None:
    """Once the date has begun."""
    while psutil.pid_exists(parent):
        if begun.exists():
            for process in psutil.Process(parent).children(recursive=True):
                if "fieldwise" in " ".join(process.cmdline()) and "daily" in process.cmdline():
                    process.send_signal(signal.SIGKILL)
                    return
        time.sleep(0.05)
