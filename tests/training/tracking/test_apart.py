"""MLflow in a process of its own: the same answers and errors as here, and nobody is left when either process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldwise.features.errors import ArtifactError, ConfigError, TrackingError
from fieldwise.features.process import runs
from fieldwise.training.tracking import apart
from fieldwise.training.tracking.apart import Store
from fieldwise.training.tracking.journal import open_journal
from tests.snapshots import PLANTED, hash_spec, write_snapshot


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where both processes are, and shall leave nothing: MLflow's own store would be there."""
    place = tmp_path_factory.mktemp("empty")
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other process, started though this one has imported MLflow; its id."""
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "mlflow", raising=False)
        entered = apart.beside()
        entered.__enter__()
    yield apart._started[-1]._process.pid
    entered.__exit__(None, None, None)
    assert not apart._started


def told(store: Store) -> list[str]:
    """What is answered, and with which words it is refused."""
    store.connect()
    found = store.registry("shop")
    answers = [repr(found.version_of("champion")), repr(found.history()), repr(store.reopen("0" * 32, running=True))]
    with pytest.raises(ArtifactError) as former:
        found.former()
    with pytest.raises(ConfigError) as unknown:
        connected(Store("ftp://nowhere", store.workspace))
    return [*answers, str(former.value), str(unknown.value)]


def connected(store: Store) -> None:
    """Waits for it, as nobody else does."""
    store.connect()
    while not store.ready():
        time.sleep(0.01)


def test_the_same_as_here(beside: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = told(Store(None, str(tmp_path / "there")))
    monkeypatch.setattr(apart, "_started", [])
    here = told(Store(None, str(tmp_path / "here")))
    assert there == here
    assert there[:3] == ["None", "[]", "False"]
    assert Path(tmp_path, "there", "mlflow.db").exists()
    monkeypatch.undo()


def test_it_is_not_started_where_mlflow_is_here() -> None:
    import mlflow  # noqa: F401  most tests have

    with apart.beside():
        assert not apart._started


def gone(pid: int, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not runs(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_started_it(number: int) -> None:
    code = (
        "import time; from fieldwise.training.tracking import apart\n"
        "with apart.beside():\n    print(apart._started[-1]._process.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert runs(pid)
    process.send_signal(number)
    process.wait()
    process.stdout.close()
    assert gone(pid)


def test_a_signal_ends_it_between_two_calls_and_that_is_told(beside: int, tmp_path: Path) -> None:
    connected(Store(None, str(tmp_path)))  # it is at rest afterwards
    os.kill(beside, signal.SIGTERM)
    assert gone(beside)
    for _ in range(2):
        with pytest.raises(TrackingError) as error:
            connected(Store(None, str(tmp_path)))
        assert str(error.value) == (
            "MLflow's client: expected a process that runs, found one that has ended. Run the same command again."
        )


def test_what_is_wrong_with_a_store_is_told_by_the_next_call_and_nothing_is_sent_elsewhere(
    empty: Path, beside: int, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mlflow.db").write_text("no database, or one of another kind\n" * 100)
    store = Store(None, str(tmp_path / "work"))
    store.connect()
    with open_journal(tmp_path / "reports", store.sender(tmp_path / "reports", store.workspace)) as journal:
        with pytest.raises(ConfigError, match="expected an SQLite database"):
            journal.open(experiment="shop", name="fm", time=1)
        with pytest.raises(ConfigError, match="expected an SQLite database"):
            journal.metrics({"loss": 0.5}, 1)
        with pytest.raises(ConfigError, match=r"Nothing is lost: 2 reports wait"):
            journal.deliver()
    assert list(empty.iterdir()) == []


def test_a_damaged_database_is_no_silence(beside: int, tmp_path: Path) -> None:
    store = Store(None, str(tmp_path))
    connected(store)
    store.experiment_id("shop")
    with (tmp_path / "mlflow.db").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"x" * (size - 8192))
    with pytest.raises(ConfigError, match=r"expected a whole database, found a damaged one\. Take a copy"):
        store.experiment_id("another")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_ends_first_leaves_no_traceback(number: int, tmp_path: Path) -> None:
    code = (
        "import sys, time; from fieldwise.training.tracking import apart\n"
        f"with apart.beside():\n    apart.Store(None, {str(tmp_path)!r}).connect()\n"
        "    print(apart._started[-1]._process.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    while not (tmp_path / "mlflow.db").exists():  # it is at a call, and finishes it
        time.sleep(0.05)
    process.send_signal(number)
    assert process.communicate()[1] == ""
    assert gone(pid)


def test_reports_wait_while_the_other_process_begins(beside: int, tmp_path: Path) -> None:
    store, reports = Store(None, str(tmp_path / "work")), tmp_path / "reports"
    store.connect()
    assert not store.ready()
    with open_journal(reports, store.sender(reports, store.workspace), ready=store.ready) as journal:
        started = time.monotonic()
        journal.open(experiment="shop", name="fm", time=1)
        assert time.monotonic() - started < 1
        assert journal.waiting == 1
        while not store.ready():
            time.sleep(0.01)
        journal.metrics({"loss": 0.5}, 1)
        assert journal.waiting == 0


def test_a_training_reports_without_mlflow_in_its_own_process(tmp_path: Path) -> None:
    (tmp_path / "planted.yaml").write_text(PLANTED + "training: {batch_size: 256, epochs: 1, threads: 1}\n")
    files = {"train": [900], "valid": [300], "test": [300]}
    write_snapshot(tmp_path / "work/planted/snapshots/all", hash_spec((10, 10)), files)
    code = (
        "import sys; from fieldwise.jobs.cli import main\n"
        f"code = main(['train', '--config', {str(tmp_path / 'planted.yaml')!r}])\n"
        "assert not {'mlflow', 'sqlalchemy', 'matplotlib'} & set(sys.modules); sys.exit(code)"
    )
    unset = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    done = subprocess.run([sys.executable, "-c", code], env=unset, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    registered = json.loads(done.stdout.splitlines()[-1])["registered"]
    assert registered == {"model": "planted", "version": "1", "champion": "1", "challenger": "1"}
    store = Store(None, str(tmp_path / "work/planted"))
    store.connect()
    assert store.registry("planted").version_of("champion") == "1"
