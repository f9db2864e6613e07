"""Reports are kept before they are sent, sent in order, and each once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fieldwise.features.errors import ArtifactError, BusyError, CredentialsError, TrackingError
from fieldwise.training.tracking.journal import Journal, Kept, Report, open_journal, send_kept


class Store:
    """A receiver that can be away."""

    def __init__(self) -> None:
        self.away, self.got = False, list[Report]()

    def __call__(self, report: Report, answers: Mapping[str, Any]) -> Report:
        if self.away:
            raise ConnectionError("refused")
        self.got.append(report)
        return {"run": "r1"} if report["do"] == "open" else {}


def test_what_a_store_misses_is_sent_later_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store()
    journal = Journal(tmp_path, store)
    journal.open(name="fm")
    journal.metrics({"loss": 0.5}, 0)
    store.away = True
    journal.metrics({"loss": 0.4}, 1)
    journal.metrics({"loss": 0.3}, 2)
    with pytest.raises(TrackingError, match=r"found ConnectionError: refused.*3 reports wait in .*`fieldwise send`"):
        journal.finish({"done": 1})
    assert capfd.readouterr().err.count("MLflow does not answer, reports are kept in") == 1
    assert len(store.got) == 2
    store.away = False
    again = Journal(tmp_path, store)
    assert (again.waiting, again.result) == (3, {"done": 1})
    assert again.deliver() == {"done": 1, "run": "r1"}
    assert [report.get("step") for report in store.got] == [None, 0, 1, 2, None]
    assert Journal(tmp_path, store).waiting == 0


def test_a_failed_try_is_not_repeated_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store()
    store.away = True
    journal = Journal(tmp_path, store)
    journal.open(name="fm")
    store.away = False
    journal.metrics({"loss": 0.5}, 0)
    assert store.got == []
    journal.send(now=True)
    assert len(store.got) == 2
    assert "MLflow answers again" in capfd.readouterr().err


def test_a_resumed_training_repeats_nothing(tmp_path: Path) -> None:
    store = Store()
    for _ in range(2):
        journal = Journal(tmp_path, store)
        journal.open(name="fm")
        journal.params({"model": {"dim": 4}, "ranks": 2})
        journal.metrics({"loss": 0.5, "rows": 3}, 0)
    journal.params({"ranks": 3})
    journal.metrics({"loss": 0.5, "auc": 0.7}, 0)
    assert [report.get("values") for report in store.got] == [
        None,
        {"model.dim": "4", "ranks": "2"},
        {"loss": 0.5, "rows": 3},
        {"auc": 0.7},
    ]


def test_a_line_cut_off_by_a_kill_is_dropped_and_another_damage_named(tmp_path: Path) -> None:
    store = Store()
    journal = Journal(tmp_path, store)
    journal.open(name="fm")
    journal.metrics({"loss": 0.5}, 0)
    path = tmp_path / "journal.jsonl"
    os.truncate(path, path.stat().st_size - 5)
    (tmp_path / "answers.jsonl").write_bytes((tmp_path / "answers.jsonl").read_bytes()[:16])
    Journal(tmp_path, store).metrics({"loss": 0.5}, 0)
    assert [report["do"] for report in store.got] == ["open", "metrics", "metrics"]
    path.write_bytes(b"{nothing\n" + path.read_bytes())
    with pytest.raises(ArtifactError, match=r"journal\.jsonl: expected a report of known form on every line"):
        Journal(tmp_path, store)
    path.write_bytes(b'{"do": "metrics", "step": 1}\n')
    with pytest.raises(ArtifactError, match=r"""found {"do": "metrics", "step": 1}. Delete its directory"""):
        Journal(tmp_path, store)


def test_one_process_at_a_time_and_the_dead_do_not_count(tmp_path: Path) -> None:
    place = tmp_path / "training" / "fm-0" / "reports"
    code = (
        "import sys; from pathlib import Path; from fieldwise.training.tracking.journal import open_journal\n"
        "with open_journal(sys.argv[1], None): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with (
            pytest.raises(BusyError, match=f"found process {other.pid} at it"),
            open_journal(place, Store(), patience=0),
        ):
            pass
        assert send_kept(tmp_path, lambda _: Store()) == Kept(0, 0, {})
        other.kill()
    with open_journal(place, Store(), patience=0) as journal:
        journal.open(name="fm")
    assert send_kept(tmp_path, lambda _: Store()) == Kept(0, 0, {})


def test_refused_credentials_are_no_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def send(report: Report, answers: Mapping[str, Any]) -> Report:
        raise CredentialsError("MLflow", expected="credentials that it accepts", found="a refusal", fix="Set them.")

    with open_journal(tmp_path / "reports", send) as journal:
        journal.open(experiment="shop", name="fm", time=1)
        with pytest.raises(CredentialsError, match=r"Set them\. Nothing is lost: 1 reports wait in .*"):
            journal.deliver()
    assert "MLflow refuses the credentials, reports are kept in" in capfd.readouterr().err


@pytest.mark.parametrize(
    "report",
    [
        {"do": "metrics", "values": {"loss": "0.5"}, "step": 1, "time": 1},
        {"do": "metrics", "values": {"loss": True}, "step": 1, "time": 1},
        {"do": "metrics", "values": {"loss": 0.5}, "step": "1", "time": 1},
        {"do": "params", "values": {"dim": 4}},
        {"do": "register", "name": None},
        {"do": ["open"], "id": "1", "name": "fm"},
    ],
)
def test_reports_that_were_edited_are_damage_and_no_silence(tmp_path: Path, report: Report) -> None:
    (tmp_path / "a/training/x/reports").mkdir(parents=True)
    (tmp_path / "a/training/x/reports/journal.jsonl").write_text(json.dumps(report) + "\n")
    (trouble,) = send_kept(tmp_path / "a", lambda _: Store()).troubles.values()
    assert (trouble.expected, trouble.exit_code) == ("a report of known form on every line", 2)


@pytest.mark.parametrize("result", ["text", {"metrics": {"test": "text"}}, {"metrics": []}])
def test_a_result_that_was_edited_is_damage(tmp_path: Path, result: Any) -> None:
    journal = Journal(tmp_path, Store())
    journal.open(name="fm")
    with pytest.raises(ArtifactError, match="expected a report of known form on every line, found a result without me"):
        journal.finish(result)


@pytest.mark.parametrize("wrong", ["reports", "reports/lock", "reports/journal.jsonl", "reports/files"])
def test_what_is_no_journal_is_named_and_the_others_are_sent(tmp_path: Path, wrong: str) -> None:
    """A file where a directory belongs, a directory where a file does."""
    place = tmp_path / "training" / "a" / wrong
    place.parent.mkdir(parents=True)
    place.touch() if wrong in ("reports", "reports/files") else place.mkdir()
    Journal(tmp_path / "training" / "b" / "reports", silent).open(name="fm")
    kept = send_kept(tmp_path, lambda directory: Store())
    assert kept.sent == 1
    assert list(kept.troubles) == [str(tmp_path / "training" / "a" / "reports")]
    assert kept.troubles[str(tmp_path / "training" / "a" / "reports")].exit_code == 2


def silent(report: Report, answers: Mapping[str, Any]) -> Report:
    raise ConnectionError("refused")
