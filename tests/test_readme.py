"""The README's commands, run as written and in its order, on a small shop."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from fieldwise.features.java.home import java_environment
from fieldwise.jobs.cli import main
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.demo.shop import Shop

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
DATE = "2026-01-07"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("readme"))


def workspace(folder: Path) -> Path:
    """A workspace with the raw files of a small shop."""
    shop, data = Shop(7 * 600), folder / "demo" / "data"
    for name in ("log", "visitors"):
        (data / name).mkdir(parents=True)
    for day in range(shop.days):
        table, users = shop.log_table(np.asarray(shop.rows_of(day)))
        pyarrow.csv.write_csv(table, data / "log" / f"{shop.day(day)}-0000.csv")
        pyarrow.csv.write_csv(shop.visitors(users), data / "visitors" / f"{shop.day(day)}.csv")
    for name, table in shop.side_tables().items():
        pyarrow.csv.write_csv(table, data / f"{name}.csv")
    return folder


def as_users_run_it(command: str, work: Path) -> dict:
    """A line of the README in a shell's place; the JSON it ends with."""
    programs = str(Path(sys.executable).parent)
    hidden = ("PYTHONPATH", "MLFLOW_TRACKING_URI", "SPARK_MASTER")
    outer = {key: value for key, value in os.environ.items() if key not in hidden}
    own = {"FIELDWISE_WORK": str(work), "PATH": os.pathsep.join([programs, os.environ["PATH"]])}
    environment = java_environment() | outer | own
    done = subprocess.run(
        shlex.split(command), capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_two_commands_are_made() -> None:
    makefile = (ROOT / "Makefile").read_text()
    made = [line for line in COMMANDS if line.startswith("make")]
    assert made == ["make demo", "make test"]
    assert all(re.search(rf"^{line.split()[1]}:", makefile, re.M) for line in made)


def test_the_config_shown_is_one(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    assert Config.model_validate(yaml.safe_load(shown.replace(", on: user", ', "on": user'))).name == "ratings"


@pytest.mark.slow
def test_jobs_by_spark_submit_and_torchrun(tmp_path: Path) -> None:
    work = workspace(tmp_path)
    features, train, catalog = [line for line in COMMANDS if "jobs/" in line]
    built = as_users_run_it(features, work)
    assert built["rows"] == {"train": 3000, "valid": 600, "test": 600}
    short = "--set training.auto=false --set training.epochs=2 --set training.batch_size=512"
    trained = as_users_run_it(f"{train} {short}", work)
    assert trained["registered"] == {"model": "demo", "version": "1", "champion": "1", "challenger": "1"}
    scored = as_users_run_it(catalog, work)
    lists = pq.read_table(scored["dir"], columns=["context_id", "rank"]).to_pandas()
    visitors = pyarrow.csv.read_csv(work / "demo" / "data" / "visitors" / f"{DATE}.csv").num_rows
    assert len(lists) == 10 * visitors == scored["rows"]
    assert lists.groupby("context_id")["rank"].apply(sorted).map(lambda r: r == list(range(1, 11))).all()
    assert {p.name for p in work.iterdir()} == {"demo"}


def test_the_tour(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Follows a demo: its snapshot stands, the tour's model is the second version."""
    monkeypatch.setenv("FIELDWISE_WORK", str(work))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(ROOT)
    demo = ["--config", "configs/demo.yaml"]
    short = ["training.auto=false", "training.epochs=2", "training.batch_size=512"]
    for before in (["features", *demo], ["train", *demo, *(f"--set={key}" for key in short)]):
        assert main(before) == 0, capsys.readouterr().err
    results = {}
    tour = [line for line in COMMANDS if line.startswith("fieldwise") and "jobs/" not in line]
    small = {"train": ["--set", "training.epochs=1"]}
    for line in [*tour, tour[-1]]:
        name, *rest = shlex.split(line)[1:]
        assert main([name, *rest, *small.get(name, [])]) == 0, capsys.readouterr().err
        results[name] = json.loads(capsys.readouterr().out.splitlines()[-1])
        if name == "features":
            assert results[name]["status"] == "already published"
    assert results["train"]["registered"]["version"] == "2"
    assert [each["version"] for each in results["compare"]["models"]] == ["1", "2"]
    assert results["compare"]["rows"] == 600
    assert results["promote"] == {"model": "demo", "champion": "2", "former": "1"}
    assert results["rollback"] == {"model": "demo", "champion": "1", "former": "2"}
    assert [each["decision"] for each in results["history"]["decisions"]] == ["promoted", "promoted", "rolled back"]
    assert results["score-rows"]["rows"] == 600
    assert len(results["explain"]["rows"]) == 2
    row = results["explain"]["rows"][0]
    assert sum(term["logit"] for term in row["terms"]) + row["bias"] == pytest.approx(row["logit"], abs=1e-6)
    odds = row["logit"] + row["logit_shift"]
    assert row["probability"] == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-6)
    daily = results["daily"]
    assert daily["repeated"], "the second run of a date finds the first"
    assert daily["champion"] == "models:/demo/1"
    assert daily["challenger"] == "models:/demo/3"
    assert daily["decision"] == ("promoted" if daily["promoted"] else "kept")
    assert daily["metrics"]["today"]["rows"] == daily["metrics"]["champion"]["rows"]


def test_the_console_script(work: Path) -> None:
    script = Path(sys.executable).parent / "fieldwise"
    if not script.exists():
        pytest.skip("fieldwise is not installed in this environment")
    assert "kernels" in as_users_run_it("fieldwise doctor --quick", work)["checks"]
