"""One name works: however installed, nothing that fieldwise starts meets folders of the working directory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.environments import Environment, build_editable, build_wheel, copy_source, install, plant_decoys
from tests.snapshots import PLANTED
from tests.test_workspace import write_learnable_shop

CONFIG = ("--config", "shop.yaml")
FIRST, SECOND = "work/snapshots/2026-01-01", "work/snapshots/2026-01-02"
DAYS = ("--train", FIRST, "--test", SECOND)
LOAD = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
import fieldwise
print(json.dumps([fieldwise.__file__, list(model.predict(pd.DataFrame({"user": ["u001"], "item": ["i003"]})))]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def editable(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("editable")
    return install(build_editable(source, folder / "wheel"), folder / "environment")


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """A directory to start commands from."""
    plant_decoys(tmp_path)
    return tmp_path


def test_a_wheel_holds_the_one_name(source: Path, wheel: Path) -> None:
    """All modules and the files that they read, and nothing beside them that would hide a user's own packages."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"fieldwise", "fieldwise-0.1.0.dist-info"}
    for folder in ("fieldwise", "configs", "features", "training", "pipelines", "jobs"):
        for path in (source / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(source).as_posix()
                assert (name if folder == "fieldwise" else f"fieldwise/{name}") in names


def test_a_checkout_is_imported_by_its_name(editable: Environment, source: Path, decoys: Path) -> None:
    assert editable.code == source
    assert "COMMAND" in editable.run("python", "-m", "fieldwise.jobs.cli", "--help", cwd=decoys)
    assert "COMMAND" in editable.run("fieldwise", "--help", cwd=decoys)


def test_the_name_alone_costs_nothing(editable: Environment, decoys: Path) -> None:
    script = "import sys, fieldwise; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(editable.run("python", "-W", "error", "-c", script, cwd=decoys).split())
    assert "fieldwise" in loaded
    assert not loaded & {"torch", "pyspark", "mlflow", "numba", "numpy", "pandas", "pyarrow", "pydantic"}


def test_python_beside_decoys(editable: Environment, decoys: Path) -> None:
    (decoys / "planted.yaml").write_text(PLANTED)
    script = "import fieldwise as fw; print(sorted(fw.__all__), fw.Pipeline('planted.yaml').name, fw.fit.__module__)"
    said = editable.run("python", "-c", script, cwd=decoys)
    assert said == "['Model', 'Pipeline', 'fit', 'load'] planted fieldwise.api.fitting\n"
    script = "import sys, fieldwise; fieldwise.Pipeline('planted.yaml'); print(*sys.modules)"
    loaded = {name.split(".")[0] for name in editable.run("python", "-c", script, cwd=decoys).split()}
    assert not loaded & {"pyspark", "mlflow", "petastorm", "matplotlib"}, "only what a config is made of"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_everything_runs_beside_decoys(
    kind: str, request: pytest.FixtureRequest, wheel: Path, decoys: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if kind == "wheel":
        environment = install(wheel, tmp_path_factory.mktemp("installed") / "environment")
        assert environment.code.is_relative_to(environment.python.parents[1])
    else:
        environment = request.getfixturevalue("editable")
    write_learnable_shop(decoys)
    run = environment.run
    assert "COMMAND" in run("fieldwise", "--help", cwd=decoys)
    assert "kernels" in result(run("fieldwise", "doctor", "--quick", cwd=decoys))["checks"]
    assert result(run("fieldwise", "features", *CONFIG, "--date", "2026-01-01", cwd=decoys))["rows"] == {"all": 429}
    submit = ("spark-submit", str(environment.code / "jobs" / "build_features.py"), *CONFIG)
    built = result(run(*submit, "--date", "2026-01-02", "--spec", FIRST, cwd=decoys))
    assert built["rows"] == {"all": 429}
    trained = result(run("fieldwise", "train", *CONFIG, *DAYS, "--ranks", "2", cwd=decoys))
    assert trained["registered"]["champion"] == "1"
    ranks = ("-m", "torch.distributed.run", "--nproc-per-node", "2", str(environment.code / "jobs" / "train.py"))
    again = result(run("python", *ranks, *CONFIG, *DAYS, "--set", "training.seed=3", cwd=decoys))
    assert again["registered"]["version"] == "2"
    scored = result(
        run("python", "-m", "fieldwise.jobs.cli", "score-rows", *CONFIG, "--date", "2026-01-02", cwd=decoys)
    )
    assert pq.read_table(scored["dir"]).num_rows == 429

    store = f"sqlite:///{decoys}/work/mlflow.db"
    home, expected = json.loads(run("python", "-c", LOAD, store, "models:/shop/1", cwd=decoys).splitlines()[-1])
    assert Path(home).is_relative_to(decoys / "work"), "a model brings its own code"
    assert served(environment, decoys, store) == expected


def result(stdout: str) -> dict:
    return json.loads(stdout.splitlines()[-1])


def served(environment: Environment, folder: Path, store: str) -> list[float]:
    """What MLflow's scoring server answers for the row of ``LOAD``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "mlflow", "models", "serve", "--env-manager", "local", "--model-uri", "models:/shop/1"]
    with (folder / "served.log").open("wb") as log:
        server = subprocess.Popen(
            [str(environment.python), *command, "--host", "127.0.0.1", "--port", str(port)], cwd=folder,
            env=environment.variables(folder) | {"MLFLOW_TRACKING_URI": store}, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert server.poll() is None, (folder / "served.log").read_text()
            time.sleep(0.5)
        row = {"dataframe_split": {"columns": ["user", "item"], "data": [["u001", "i003"]]}}
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", json.dumps(row).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return [row["probability"] for row in json.load(answer)["predictions"]]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False
