"""A real MLflow server that is away at the start, silent in between, gone at the end: nothing is lost or told twice."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from fieldwise.features.errors import ArtifactError, TrackingError
from fieldwise.jobs.cli import main
from fieldwise.training.tracking import runs
from fieldwise.training.tracking.fetch import bundle_of
from fieldwise.training.tracking.journal import Journal
from fieldwise.training.tracking.registry import Registry
from fieldwise.training.tracking.sender import Sender
from tests.mlflow_server import Server, hurry
from tests.snapshots import PLANTED, hash_spec, write_snapshot

pytestmark = pytest.mark.slow  # its tests are one story, told in order
CONFIG = PLANTED + "training: {batch_size: 256, epochs: 2, threads: 1}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Not started yet; the tests of this file follow one another."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.end()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, seconds=3)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    (folder / "planted.yaml").write_text(CONFIG)
    files = {"train": [900], "valid": [300], "test": [300]}
    write_snapshot(folder / "work/planted/snapshots/all", hash_spec((10, 10)), files)
    return folder / "planted.yaml"


def test_away_at_the_start_and_back_later(server: Server, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--config", str(config), "--set", f"tracking.uri={server.uri}"]
    assert main(command) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "MLflow does not answer, reports are kept in" in told.err
    last = told.err.strip().splitlines()[-1]
    assert f"fieldwise train: MLflow {server.uri}: expected an answer, found API request to" in last
    assert "Nothing is lost" in last
    (bundle,) = config.parent.glob("work/planted/training/*/bundle/model.json")
    written = bundle.stat().st_mtime_ns
    assert main(["promote", *command[1:]]) == 1
    assert f"MLflow {server.uri}: expected an answer" in capsys.readouterr().err

    server.start()
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert bundle.stat().st_mtime_ns == written  # sent, not trained again
    assert result["registered"] == {"model": "planted", "version": "1", "champion": "1", "challenger": "1"}
    client = MlflowClient(server.uri)
    run = client.get_run(result["run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.kind"] == "lr"
    history = [(m.step, m.value) for m in client.get_metric_history(result["run"], "train_logloss")]
    assert [step for step, _ in history] == [0, 1, 2]
    assert {file.path for file in client.list_artifacts(result["run"], "plots")} >= {"plots/learning_curves.svg"}
    mlflow.set_tracking_uri(server.uri)
    assert Path(bundle_of("models:/planted@champion"), "model.json").read_bytes() == bundle.read_bytes()


def test_a_named_training_is_done_once_however_it_was_cut_off(
    server: Server, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config", str(config), "--set", f"tracking.uri={server.uri}", "--name", "daily 2026-01-07"]

    def result() -> dict:
        assert main(command) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    first = result()
    assert first["registered"]["version"] == "2"
    assert result() == first
    (answers,) = config.parent.glob("work/planted/training/*/reports/answers.jsonl")
    for killed_after in (0, 2):  # answers that never came back: of all reports, of the last ones
        answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[:killed_after]))
        assert result() == first
    client = MlflowClient(server.uri)
    assert len(client.search_model_versions("name = 'planted'")) == 2
    assert [m.step for m in client.get_metric_history(first["run"], "valid_logloss")] == [0, 1, 2]


def test_two_runs_register_at_once(server: Server, tmp_path: Path) -> None:
    if server.process is None:
        server.start()
    mlflow.set_tracking_uri(server.uri)
    mlflow.set_registry_uri(server.uri)
    client, experiment = MlflowClient(), runs.experiment_id("both", str(tmp_path))
    models = [client.create_logged_model(experiment).model_id for _ in range(2)]
    sources = [f"models:/{client.finalize_logged_model(model, 'READY').model_id}" for model in models]
    for name in (f"both {number}" for number in range(10)):
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda source, name=name: Registry(name, str(tmp_path)).register(source), sources))
        assert sorted(each["version"] for each in found) == ["1", "2"]
        for alias in ("champion", "challenger"):
            assert {each[alias] for each in found} <= {"1", "2"}
            assert Registry(name, str(tmp_path)).version_of(alias) in [each[alias] for each in found]
    with pytest.raises(ArtifactError, match="nothing of that name"):
        bundle_of("models:/nobody@champion")


def test_silent_in_between_and_gone_at_the_end(server: Server, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(server.uri)
    journal = Journal(tmp_path / "reports", Sender(tmp_path / "reports", resumed=False))
    journal.open(experiment="planted", name="fm", workspace=str(tmp_path), time=1)
    journal.metrics({"logloss": 0.5}, 0)
    assert journal.waiting == 0
    server.signal(signal.SIGSTOP)
    journal.metrics({"logloss": 0.4}, 1)  # may arrive once the server wakes, though nobody heard its answer
    assert journal.trouble is not None
    assert journal.waiting == 1
    server.signal(signal.SIGCONT)
    journal.metrics({"logloss": 0.3}, 2)
    journal.send(now=True)
    assert (journal.waiting, journal.trouble) == (0, None)
    history = MlflowClient().get_metric_history(journal.answers["run"], "logloss")
    assert [(m.step, m.value) for m in history] == [(0, 0.5), (1, 0.4), (2, 0.3)]
    (tmp_path / "bundle").mkdir()  # beside the journal, as a training leaves it
    server.signal(signal.SIGKILL)
    with pytest.raises(TrackingError, match="Nothing is lost: 1 reports wait in"):
        journal.finish({}, example={}, register=None)
    assert Journal(tmp_path / "reports", Sender(tmp_path / "reports", resumed=True)).waiting == 1
