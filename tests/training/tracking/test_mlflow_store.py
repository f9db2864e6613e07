"""A store that refuses, one that is silent, stores that MLflow cannot open, and names that are no paths."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE

from fieldwise.features.errors import ConfigError, StorageError, TrackingError
from fieldwise.training.tracking import runs
from fieldwise.training.tracking.fetch import bundle_of
from fieldwise.training.tracking.mlflow_store import TRIES, artifact_folder, store_uri, tell
from fieldwise.training.tracking.registry import Registry, find
from tests.commands import together

ANSWERS = {
    "a proxy's page": (200, "text/html", b"<html>Log in</html>"),
    "JSON of another service": (200, "application/json", b"{}"),
    "a page of a missing route": (404, "text/html", b"<html>no such page</html>"),
    "a missing route": (404, "application/json", b'{"detail": "Not Found"}'),
    "no login": (401, "text/html", b"who are you?"),
    "no permission": (403, "application/json", b'{"error_code": "PERMISSION_DENIED", "message": "not you"}'),
    "broken": (500, "text/html", b"<html>oops</html>"),
    "overloaded": (503, "application/json", b'{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}'),
}


class Stranger(ThreadingHTTPServer):
    """Answers every request alike."""

    answer: tuple[int, str, bytes]


class _Handler(BaseHTTPRequestHandler):
    server: Stranger

    def _answer(self) -> None:
        status, kind, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    with Stranger(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_no_answer_is_silence(
    stranger: Stranger, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, so that a scheduler tries again, and never "nothing of that name"."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    stranger.answer = ANSWERS[answer]
    uri = runs.connect(f"http://127.0.0.1:{stranger.server_port}/", str(tmp_path))
    registry = Registry("shop", str(tmp_path))
    calls: list[Callable[[], object]] = [
        lambda: registry.promote(),
        lambda: registry.promote("3"),
        lambda: registry.rollback(),
        lambda: find("models:/shop@champion"),
        lambda: runs.experiment_id("shop", str(tmp_path)),
    ]
    if answer != "JSON of another service":
        calls += [
            lambda: registry.register("models:/m-1"),
            lambda: bundle_of("models:/shop@champion"),
            lambda: registry.snapshots_in_use("shop"),
            lambda: registry.history(),
        ]
    for call in calls:
        expected = "credentials that it accepts" if answer in ("no login", "no permission") else "an answer"
        with pytest.raises(TrackingError, match=rf"MLflow {uri}: expected {expected}, found ") as raised:
            call()
        assert raised.value.exit_code == 1


def test_a_write_that_collides_is_tried_again() -> None:
    tried = []

    def write(failures: int, code: int = BAD_REQUEST) -> str:
        tried.append(code)
        if len(tried) <= failures:
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed", error_code=code)
        return "written"

    assert tell(lambda: write(2)) == "written"
    assert len(tried) == 3
    tried.clear()
    with pytest.raises(TrackingError, match="UNIQUE constraint failed"):
        tell(lambda: write(99))
    assert len(tried) == TRIES
    tried.clear()
    with pytest.raises(ConfigError, match="expected names that it takes, found"):
        tell(lambda: write(99, INVALID_PARAMETER_VALUE))
    assert len(tried) == 1


@pytest.mark.slow
def test_processes_that_make_the_store_at_once(tmp_path: Path) -> None:
    """They wait for one another: migrations of two would mix."""
    code = (
        "import sys; from fieldwise.training.tracking import runs; runs.connect(None, sys.argv[1]); "
        "print('ready', flush=True); sys.stdin.readline(); print(runs.experiment_id('shop', sys.argv[1]))"
    )
    assert together(code, [[str(tmp_path / "work")]] * 3) == ["1"] * 3


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("file:///tmp/mlruns", "found a directory, which MLflow no longer writes to"),
        ("mlruns", "found a directory, which MLflow no longer writes to"),
        ("ftp://host/x", "found ftp"),
        ("http:/host", "expected http://HOST:PORT"),
        ("http://host:99999", "found Port out of range"),
        ("http://host:port", "expected http://HOST:PORT"),
        ("http://ho st:5000", "expected http://HOST:PORT"),
        ("http://[::1", "expected http://HOST:PORT"),
        ("https://:5000", "expected http://HOST:PORT"),
        ("sqlite:x.db", "expected sqlite:///FILE"),
        ("sqlite:///{folder}", "found a directory"),
        ("sqlite:///{folder}/notes.txt", "found a file of another kind"),
        ("sqlite:///{folder}/notes.txt/x.db", "notes.txt, where nothing can be made"),
        ("sqlite:////proc/nope/x.db", "/proc, where nothing can be made"),
    ],
)
def test_stores_that_cannot_be_opened_are_one_line(uri: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("This is no database.")
    with pytest.raises(ConfigError) as raised:
        store_uri(uri.format(folder=tmp_path))
    assert found in str(raised.value)
    assert "\n" not in str(raised.value)


def test_stores_that_can_be_opened() -> None:
    assert store_uri(" http://host:5000/ ") == "http://host:5000"
    assert store_uri("https://host/mlflow//") == "https://host/mlflow"
    for uri in ("databricks", "databricks://profile", "sqlite:///new.db"):
        assert store_uri(uri) == uri
    with pytest.raises(ConfigError, match="expected an installed database driver, found No module named 'pymysql'"):
        store_uri("mysql+pymysql://u:p@h/d")


def test_a_proxy_that_is_no_address_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@pro xy:3128")
    with pytest.raises(
        ConfigError, match=r"HTTPS_PROXY: expected http://HOST:PORT, found http://\S+@pro xy:3128"
    ) as raised:
        store_uri("https://host")
    assert "secret" not in str(raised.value)
    assert store_uri("http://host") == "http://host"
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    assert store_uri("https://host") == "https://host"


def test_artifacts_of_any_experiment_stay_in_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = ["/Shared/team/ctr", "Shared/team/ctr", "Shared-team-ctr", "shared-team-ctr", "..", ".", "a/../../b",
             "a%2Fb", "a#b", "a?b", "a b", "a'b", "ß", "ss", "été", "x" * 500, "x" * 499, "\\", "~", "a~b"]  # fmt: skip
    folders = [artifact_folder(name) for name in names]
    assert len({folder.lower() for folder in folders}) == len(names)
    for folder in folders:
        assert folder.isascii()
        assert (tmp_path / folder).resolve().parent == tmp_path.resolve()
        assert len(folder) <= 100
    assert artifact_folder("shop-2") == "shop-2"
    assert artifact_folder("/Shared/team/ctr") == "Shared-team-ctr~d8e2ea9a79abfa30"
    work = tmp_path / "work"
    runs.connect(None, str(work))
    with runs.run("/Shared/team/ctr", "fm", str(work)) as run:
        run.text("hello", "note.txt")
    (note,) = tmp_path.rglob("note.txt")
    assert note.is_relative_to(work / "artifacts" / "Shared-team-ctr~d8e2ea9a79abfa30")


def test_a_full_disk_is_no_silence() -> None:
    def full() -> None:
        raise MlflowException("(sqlite3.OperationalError) database or disk is full [SQL: INSERT INTO tags ...]")

    with pytest.raises(StorageError, match="expected room to write, found database or disk is full") as failed:
        tell(full)
    assert failed.value.exit_code == 1
