"""A journal from elsewhere sends what lies in its own folder, and nothing else of this machine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from fieldwise.features.errors import ArtifactError
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.train.train import example_rows
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.tracking import runs
from fieldwise.training.tracking.journal import ANSWERS, JOURNAL, Kept, Send, send_kept
from fieldwise.training.tracking.registry import Registry
from fieldwise.training.tracking.sender import Sender
from tests.pipelines.shop import shop_config, write_bundle, write_shop

KEY = "-----BEGIN PRIVATE KEY----- planted"
METRICS = {"valid": {"logloss": 0.5, "normalized_entropy": 0.8}}


def a_senders(place: Path) -> Send:
    return Sender(place, resumed=True)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a finished training that nobody was told of, and a private folder beside it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "id_rsa").write_text(KEY)
    (tmp_path / "private" / "model.json").write_text(KEY)
    write_shop(tmp_path)
    config = shop_config(tmp_path, "lr")
    reports = tmp_path / "work/training/lr-1/reports"
    (reports / "files").mkdir(parents=True)
    (reports / "files" / "notes.txt").write_text("mine")
    shutil.move(write_bundle(tmp_path, config), reports.parent / "bundle")
    spec = load_bundle(str(reports.parent / "bundle")).spec
    example = example_rows(load_config(tmp_path / "shop.yaml"), spec).to_dict("list")
    private = str(tmp_path / "private")
    lines = [
        {"do": "open", "id": "a1", "name": "lr", "experiment": "shop", "time": 1, "workspace": private},
        {"do": "finish", "result": {"metrics": METRICS, "bundle": private}, "example": example, "tags": {},
         "files": private, "bundle": f"{private}/../private", "directory": private},
    ]  # fmt: skip
    (reports / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs.connect(None, str(tmp_path / "work"))
    return tmp_path / "work"


def all_of(store: Path) -> bytes:
    return b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())


def test_places_that_a_journal_names_are_not_looked_at_and_a_moved_one_is_sent(workspace: Path) -> None:
    moved = workspace.with_name("moved")
    os.rename(workspace, moved)
    runs.connect(None, str(moved))
    assert send_kept(moved, a_senders) == Kept(2, 0, {})
    (run,) = MlflowClient().search_runs([MlflowClient().get_experiment_by_name("shop").experiment_id])
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes.txt") == "mine"
    assert KEY.encode() not in all_of(moved)
    assert not workspace.exists()


@pytest.mark.parametrize("inside", ["reports/files/key", "bundle/key", "reports/files", "bundle"])
def test_links_send_nothing(workspace: Path, inside: str, capsys: pytest.CaptureFixture[str]) -> None:
    link = workspace / "training/lr-1" / inside
    if link.exists():
        shutil.rmtree(link)
    link.symlink_to(workspace.parent / "private", target_is_directory=True)
    kept = send_kept(workspace, a_senders)
    assert (kept.sent, kept.left) == (1, 1)
    (why,) = kept.troubles.values()
    assert (why.found, why.exit_code) == ("a link", 2)
    copies = [path for path in workspace.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in copies if KEY.encode() in path.read_bytes()]


def test_a_training_that_is_a_link_sends_nothing(workspace: Path) -> None:
    training, elsewhere = workspace / "training/lr-1", workspace.parent / "elsewhere"
    training.rename(elsewhere)
    training.symlink_to(elsewhere, target_is_directory=True)
    kept = send_kept(workspace, a_senders)
    (why,) = kept.troubles.values()
    assert (why.where, why.found, kept.left) == (str(training), "a link", 1)


@pytest.mark.parametrize("name", ["lock", ANSWERS, JOURNAL])
def test_nothing_is_written_through_links(workspace: Path, name: str) -> None:
    reports, outside = workspace / "training/lr-1/reports", workspace.parent / "outside"
    outside.write_bytes(b"")
    (reports / name).unlink(missing_ok=True)
    (reports / name).symlink_to(outside)
    (why,) = send_kept(workspace, a_senders).troubles.values()
    assert why.found == "a link"
    assert outside.read_bytes() == b""


def test_an_answer_that_names_a_folder_registers_nothing(workspace: Path) -> None:
    reports = workspace / "training/lr-1/reports"
    with open(reports / JOURNAL, "a") as journal:
        journal.write(json.dumps({"do": "register", "name": "shop", "may_lead": True}) + "\n")
    answers = [{"run": "0"}, {"model_uri": f"file://{workspace.parent}/private"}]
    (reports / ANSWERS).write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    (why,) = send_kept(workspace, a_senders).troubles.values()
    assert why.found == "file://" + str(workspace.parent / "private")
    assert Registry("shop", str(workspace)).version_of("champion") is None


def test_pipes_are_refused(workspace: Path) -> None:
    os.mkfifo(workspace / "training/lr-1/reports/files/pipe")
    with pytest.raises(ArtifactError, match=r"pipe: expected files and folders of the training, found neither"):
        Sender(workspace / "training/lr-1/reports", resumed=False)._finish({"example": {}}, {"run": "0"}, True)
