"""The daily cycle beside a real MLflow server: silent or refusing at any step, two dates at once, nothing left over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from fieldwise.features.errors import ConfigError, TrackingError
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.bootstrap import bootstrap
from fieldwise.pipelines.cycle.daily import Wish, run_day
from fieldwise.pipelines.cycle.decisions import history
from fieldwise.pipelines.cycle.record import Record
from fieldwise.pipelines.registry import registry
from tests.clusters import wait_for
from tests.commands import Commands
from tests.mlflow_server import Answer, Server, hurry, linked
from tests.pipelines.cycle.days import DAY, write_cycle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
FORCE = Wish(force=True, reason="to see")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.end()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, seconds=60)


def begun(folder: Path, uri: str, name: str) -> Config:
    """A first model of three days; ``name``: of experiment and model, for one server serves all tests."""
    write_cycle(folder, "shop.yaml", days=6)
    named = [f"tracking.uri={uri}", f"tracking.experiment={name}", f"tracking.model_name={name}"]
    config = load_config(folder / "shop.yaml", named)
    bootstrap(config, first=DAY(1), last=DAY(3))
    return config


def test_silent_at_every_request_of_a_date(server: Server, tmp_path: Path) -> None:
    """Attempt after attempt hears a few answers more, then one is lost or not given, and none after it."""
    with linked(server) as (link, uri):
        config = begun(tmp_path, uri, "silent")
        silences: list[TrackingError] = []
        attempts, allowed, done = 0, 0, None
        while done is None:
            link.through(silent_after(allowed, ("lost", "silent")[attempts % 2]))
            allowed += max(3, allowed // 5)  # a model's files go one by one, all again after a silence
            attempts += 1
            try:
                done = run_day(config, date=DAY(4), wish=FORCE)
            except TrackingError as error:
                silences.append(error)
        assert {error.exit_code for error in silences} == {1}
        assert all("expected an answer" in str(error) for error in silences)
        assert attempts > 10
        assert (done["decision"], done["champion"], done["now"]) == ("forced", "models:/silent/1", "2")
        assert [(each["decision"], each["date"]) for each in history(config)["decisions"]] == [
            ("promoted", None), ("forced", DAY(4)),
        ]  # fmt: skip
        client = MlflowClient()
        versions = client.search_model_versions("name = 'silent'")
        assert sorted(str(each.version) for each in versions) == ["1", "2"]
        experiment = client.get_experiment_by_name("silent")
        runs = client.search_runs([experiment.experiment_id])
        (run,) = [each for each in runs if each.info.run_name.startswith("daily")]
        assert run.data.tags["fieldwise.decision"] == "forced"
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "train_logloss")]
        assert steps == list(range(len(steps)))
        assert done["catalog"]["used_model"]["version"] == "2"


@contextmanager
def postgresql() -> Iterator[str]:
    """A database on a socket of its own directory; skips where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    programs = Path(os.path.realpath(shutil.which("initdb") or "")).parent
    if not (programs / "postgres").exists():
        pytest.skip("PostgreSQL is not installed")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    if user:
        shutil.chown(folder, "postgres", "postgres")
    try:
        data = str(folder / "data")
        subprocess.run([*user, programs / "initdb", "-D", data, "-U", "own", "-A", "trust"], check=True, cwd=folder)
        command = [*user, str(programs / "postgres"), "-D", data, "-k", str(folder), "-c", "listen_addresses="]
        server = subprocess.Popen(command, cwd=folder)
        try:
            ready = [str(programs / "pg_isready"), "-q", "-h", str(folder)]
            wait_for("PostgreSQL", lambda: subprocess.run(ready, check=False).returncode == 0)
            yield f"postgresql+psycopg2://own@/postgres?host={folder}"
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder)


def test_a_date_beside_a_server_on_postgresql(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with postgresql() as store:
        server = Server(tmp_path / "server", store)
        try:
            server.start()
            config = begun(tmp_path, server.uri, "postgresql")
            done = run_day(config, date=DAY(4), wish=FORCE)
            assert (done["decision"], done["now"]) == ("forced", "2")
            assert [each["decision"] for each in history(config)["decisions"]] == ["promoted", "forced"]
            assert registry(config).version_of("champion") == "2"
        finally:
            server.end()


def silent_after(allowed: int, last: Answer) -> Callable[[int, str, str], Answer]:
    return lambda number, method, path: "passed on" if number < allowed else last if number == allowed else "silent"


@pytest.mark.parametrize("step", ["runs/create", "model-versions/create", "registered-models/alias"])
def test_a_refusal_is_for_a_person(server: Server, tmp_path: Path, step: str) -> None:
    name = step.replace("/", "-")
    with linked(server) as (link, uri):
        config = begun(tmp_path, uri, name)
        link.through(lambda number, method, path: "refused" if method != "GET" and step in path else "passed on")
        with pytest.raises(ConfigError, match="found INVALID_PARAMETER_VALUE: no") as told:
            run_day(config, date=DAY(4), wish=FORCE)
        assert told.value.exit_code == 2
        link.through(lambda number, method, path: "passed on")
        assert run_day(config, date=DAY(4), wish=FORCE)["decision"] == "forced"
        assert [each["decision"] for each in history(config)["decisions"]] == ["promoted", "forced"]


def test_two_dates_at_once_as_processes_and_nothing_left_behind(server: Server, tmp_path: Path) -> None:
    config = begun(tmp_path, server.uri, "both")
    commands = Commands(tmp_path, SPARK_MASTER="")
    named = [argument for each in config.overrides for argument in ("--set", each)]

    def daily(number: int) -> str:
        return commands("daily", "--date", DAY(number), "--force", "--reason", "to see", *named, code=(0, 1))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(daily, (4, 5)))
    for number in (4, 5):  # as a scheduler tries again what ended with 1
        done = json.loads(daily(number).splitlines()[-1])
        assert done["decision"] in ("forced", "kept", "refused")
        assert Record(config.workspace_dir, DAY(number)).whole
    decisions = history(config)["decisions"]
    assert sorted(each["date"] or "" for each in decisions) == ["", DAY(4), DAY(5)], "one decision of each date"
    moves = {each["champion"]: each["now"] for each in decisions if each["decision"] in ("promoted", "forced")}
    version = None
    for _ in range(len(moves)):  # each was decided against the champion that stood
        version = moves.pop(version)
    assert not moves
    assert registry(config).version_of("champion") == version
    left = [path for path in (tmp_path / "tmp").iterdir() if path.name != "hsperfdata_root"]
    assert left == []
    bundles = list(Path(config.workspace_dir, "training").glob("*/bundle"))
    assert len(bundles) == 1, "the first model's: a date's is in the registry alone"
