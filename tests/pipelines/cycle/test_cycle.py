"""The daily cycle on a small shop, date by date: what is learned, decided, left out, told again."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from fieldwise.features.errors import ArtifactError, BusyError, ConfigError, InputError, RefusedError
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle import record
from fieldwise.pipelines.cycle.backfill import backfill
from fieldwise.pipelines.cycle.bootstrap import bootstrap
from fieldwise.pipelines.cycle.daily import Wish, run_day
from fieldwise.pipelines.cycle.days import sound_days
from fieldwise.pipelines.cycle.decisions import history, promote_model, rollback_model
from fieldwise.pipelines.cycle.freshness import freshness, line_through
from fieldwise.pipelines.cycle.plan import plan_day
from fieldwise.pipelines.cycle.record import Record, alone
from fieldwise.pipelines.decision import decide, record_decision
from fieldwise.pipelines.lists.evaluate_lists import evaluate_lists
from fieldwise.pipelines.operate.prune import prune
from fieldwise.pipelines.registry import open_model, registry
from tests.pipelines.cycle.days import DAY, ROWS, write_cycle, write_day


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a first model of five days, the last of which has validated."""
    folder = tmp_path_factory.mktemp("cycle")
    write_cycle(folder, "cycle.yaml", days=12)
    made = bootstrap(load(folder), first=DAY(1), last=DAY(5))
    assert (made["days"], made["valid"]) == ([DAY(n) for n in range(1, 6)], [DAY(5)])
    return folder


def load(folder: Path, *overrides: str) -> Config:
    return load_config(folder / "cycle.yaml", list(overrides))


def test_dates_in_a_row(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cycle"
    shutil.copytree(begun, folder)
    config = load(folder)
    first = run_day(config, date=DAY(6))
    assert first["learned"] == [DAY(5)]  # which the first model was validated on
    assert (first["decision"], first["champion"]) == ("kept", "models:/cycle/1")
    assert first["findings"][0].startswith("no gain: logloss 0.")
    lists = first["catalog"]["dir"]

    # a line goes on: the next challenger starts from the last one and learns from the day that one was judged on,
    # touched or not
    os.utime(folder / f"log-{DAY(6)}.csv")
    capsys.readouterr()
    second = run_day(config, date=DAY(7), wish=Wish(hold=True))
    assert "(by path, size or time of change): it stands" in capsys.readouterr().err
    assert second["learned"] == [DAY(6)]
    assert Record(config.workspace_dir, DAY(7)).steps["challenger"]["start"] == first["challenger"]
    assert (second["decision"], second["findings"][-1]) == ("kept", "held by a person")
    told = Record(config.workspace_dir, DAY(7)).steps["decision"]["metrics"]
    assert (told["pooled"]["rows"], told["today"]["rows"]) == (2 * ROWS, ROWS)

    # labels turned round: only the champion sees it
    write_day(folder, 8, turned=True)
    with pytest.raises(RefusedError, match=r"day 2026-03-08: .* found the champion's AUC 0\.") as refusal:
        run_day(config, date=DAY(8))
    assert "--trust --reason TEXT" in str(refusal.value)
    assert Path(lists.replace(DAY(6), DAY(8))).is_dir()  # lists are there all the same
    with pytest.raises(RefusedError):  # again, and nothing is done twice
        run_day(config, date=DAY(8))
    assert [each["decision"] for each in history(config)["decisions"]] == ["promoted", "kept", "kept", "refused"]

    # the day after goes through without a person, and leaves it out by name
    capsys.readouterr()
    third = run_day(config, date=DAY(9), wish=Wish(force=True, reason="to see"))
    assert f"{DAY(8)} is left out: the champion's AUC" in capsys.readouterr().err
    assert third["learned"] == [DAY(7)]
    assert (third["decision"], third["promoted"]) == ("forced", True)
    assert third["now"] == third["challenger"].rpartition("/")[2]
    assert Record(config.workspace_dir, DAY(9)).steps["line"] == {
        "model": third["challenger"], "dates": [], "champion": third["challenger"]
    }  # fmt: skip

    # a finished date tells what was decided, and a person's word makes a day sound
    again = run_day(config, date=DAY(9))
    assert again == {**third, "repeated": True, "used_model": again["used_model"]}
    write_day(folder, 8)
    mended = run_day(config, date=DAY(8))  # late: its rows were mended
    assert (mended["decision"], mended["findings"]) == ("kept", ["nothing to learn"])  # that the champion does not know
    assert open_model(None, config).version == third["now"]  # an older date never promotes

    write_day(folder, 10, copies=3)
    vouched = run_day(config, date=DAY(10), wish=Wish(trust=True, reason="a sale"))
    assert (vouched["learned"], Record(config.workspace_dir, DAY(10)).steps["today"]["trusted"]) == (
        [DAY(8), DAY(9)], "a sale"
    )  # fmt: skip
    later = backfill(config, first=DAY(11), last=DAY(12))
    assert (list(later["dates"]), later["refused"]) == ([DAY(11), DAY(12)], 0)
    assert run_day(config, date=DAY(11))["learned"] == [DAY(10)]

    champion = open_model(None, config).version
    back = rollback_model(config, rescore=True)
    assert back["former"] == champion
    lists = back["catalog"]
    assert (lists["used_model"]["version"], Path(lists["dir"]).name) == (back["champion"], f"date={DAY(12)}")
    champions = [each["version"] for each in history(config)["champions"]]
    assert champions[-2:] == [champion, back["champion"]]
    assert all(one != other for one, other in pairwise(champions))

    # what MLflow has all of goes with its retention, and so do versions that nothing names any longer
    pruned = prune(load(folder, "retention=3d", "daily.window=1"))["removed"]
    assert [name for name in pruned if "training" in name] == [f"training of daily {DAY(n)}" for n in (6, 7, 9)]
    assert first["challenger"] in pruned
    with pytest.raises(ArtifactError, match="models:/cycle/2: expected a registered model, found nothing of that name"):
        open_model(first["challenger"], config)
    assert open_model(None, config).version == back["champion"]


def test_yesterdays_lists_are_measured(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cycle"
    shutil.copytree(begun, folder)
    config = load(folder)
    assert run_day(config, date=DAY(6))["lists"] == {"date": None, "why": "none of a day before"}
    assert f"no lists of a day before {DAY(6)} to measure on it\n" in capsys.readouterr().err

    # killed before it is recorded, the date measures again
    with monkeypatch.context() as killed:
        killed.setattr(sys, "stderr", Meanwhile("lists", stop))
        with pytest.raises(KeyboardInterrupt):
            run_day(config, date=DAY(7))
    done = run_day(config, date=DAY(7))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lists of")]
    by_hand = evaluate_lists(config, date=DAY(6))
    assert done["lists"] == {key: by_hand[key] for key in done["lists"]}
    assert (done["lists"]["date"], done["lists"]["days"]) == (DAY(6), [DAY(7)])
    by = by_hand["by"]  # lists are shorter than ten
    value = by_hand["metrics"][by]["lists"]["value"]
    assert [line.partition(" (")[0] for line in said] == [f"lists of {DAY(6)} on {DAY(7)}: {by} {value:.5f}"]
    version = MlflowClient().get_model_version("cycle", by_hand["lists"]["model_version"])
    assert MlflowClient().get_run(version.run_id).data.metrics[f"lists/{by.replace('@', '_at_')}"] == value
    assert Record(config.workspace_dir, DAY(7)).steps["lists"] == done["lists"]

    # the newest before are measured; what cannot be measured stops nothing; and nobody has to want figures
    shutil.rmtree(folder / "work" / "scores" / "catalog" / f"date={DAY(7)}")
    wrong = run_day(load(folder, "lists.context=nobody"), date=DAY(8))
    assert (wrong["decision"], wrong["lists"]["date"]) == ("kept", DAY(6))
    assert "'nobody'" in wrong["lists"]["why"]
    command = f"evaluate-lists --config {folder}/cycle.yaml --set=lists.context=nobody --date {DAY(6)} --from {DAY(8)}`"
    assert command in capsys.readouterr().err
    assert run_day(load(folder, "daily.lists=false"), date=DAY(9))["lists"] is None


@pytest.mark.slow
def test_a_line_keeps_the_kind_that_was_chosen(tmp_path: Path) -> None:
    """By bootstrap; dates go on from it."""
    write_cycle(tmp_path, "cycle.yaml", days=4)
    config = load(tmp_path, "model.kind=auto", "model.pair_buckets=4096", "training.epochs=3")
    made = bootstrap(config, first=DAY(1), last=DAY(3))
    kind = made["family"]["chosen"]
    assert open_model(None, config).bundle.kind == kind
    done = run_day(config, date=DAY(4))
    assert done["learned"] == [DAY(3)]
    assert open_model(done["challenger"], config).bundle.kind == kind


def test_a_suspicious_day_of_the_window_is_nothing_to_compare_with(begun: Path, tmp_path: Path) -> None:
    """Though no date of its own has looked at it."""
    shutil.copytree(begun, tmp_path / "cycle")
    config = load(tmp_path / "cycle")
    write_day(tmp_path / "cycle", 6, copies=3)
    assert run_day(config, date=DAY(7))["learned"] == [DAY(5)]
    assert Record(config.workspace_dir, DAY(6)).unsound[0].startswith("1,800 rows, recent days 600")
    assert DAY(6) not in [day.date for day in sound_days(config, DAY(8))]


def test_a_registry_that_was_moved_away_is_told(begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "cycle")
    config = load(tmp_path / "cycle", f"tracking.uri=sqlite:///{tmp_path}/other.db")
    record_decision(config, decide(config, "kept", champion="1", date=DAY(6)))
    with pytest.raises(
        ArtifactError, match=r"expected a champion, found nothing of that name .* put the registry back"
    ):
        run_day(config, date=DAY(7))


def test_freshness(begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "cycle")
    config = load(tmp_path / "cycle")
    found = freshness(config, first=DAY(1), last=DAY(8), days=4)
    assert [(row["age"], row["date"], row["rows"]) for row in found["ages"]] == [
        (n, DAY(4 + n), ROWS) for n in (1, 2, 3, 4)
    ]
    assert Path(found["plot"]).stat().st_size > 1000
    assert open_model(None, config).version == "1"  # it registers nothing
    with pytest.raises(ConfigError, match="expected at least two days to train on, and three later ones, found 6 of 8"):
        freshness(config, first=DAY(1), last=DAY(8), days=6)


def test_the_line_of_ageing() -> None:
    age, error = np.arange(1.0, 11), np.full(10, 0.001)
    start, slope, uncertain = line_through(age, 0.8 + 0.002 * age, error)
    assert (start, slope) == (pytest.approx(0.8), pytest.approx(0.002))
    assert uncertain == pytest.approx(0.001 / np.sqrt(82.5))  # of the errors themselves: the points lie on the line
    scattered = line_through(age, 0.8 + 0.01 * (-1) ** age, error)
    assert abs(scattered[1]) < 2 * scattered[2]


def test_days_that_are_missing(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cycle"
    shutil.copytree(begun, folder)
    config = load(folder)
    (folder / f"log-{DAY(6)}.csv").unlink()
    with pytest.raises(InputError) as told:
        run_day(config, date=DAY(6))
    words = f"source path 'log-{{date}}.csv': expected at least one file, found none at {folder}/log-{DAY(6)}.csv"
    assert str(told.value).startswith(
        f"day {DAY(6)}, {words}. Check the path; it is relative to the config file. Nothing was learned or "
    )
    assert history(config)["decisions"][-1]["findings"] == [words]
    (folder / f"log-{DAY(5)}.csv").unlink()
    shutil.rmtree(folder / "work" / "snapshots" / DAY(5))
    capsys.readouterr()
    done = run_day(config, date=DAY(7))
    said = capsys.readouterr().err
    assert all(f"{DAY(n)} is left out: " in said for n in (5, 6))
    assert (done["decision"], done["findings"], done["learned"]) == ("kept", ["nothing to learn"], [])
    assert done["catalog"]["used_model"]["version"] == "1"


def test_wishes_need_a_reason(begun: Path) -> None:
    with pytest.raises(ConfigError, match="expected --reason TEXT beside it, found none"):
        run_day(load(begun), date=DAY(6), wish=Wish(trust=True))
    with pytest.raises(ConfigError, match="expected no --force beside it"):
        run_day(load(begun), date=DAY(6), wish=Wish(hold=True, force=True, reason="both"))


def test_one_process_at_a_date(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(begun)
    monkeypatch.setattr(record, "PATIENCE", 0.1)
    with alone(config.workspace_dir, DAY(6)), pytest.raises(BusyError, match=f"found process {os.getpid()} at it"):
        run_day(config, date=DAY(6))


class Meanwhile(io.StringIO):
    """A stderr on which, once a step is told, something else happens before the step does."""

    def __init__(self, step: str, act: Callable[[], object]) -> None:
        super().__init__()
        self._step, self._acts = step, [act]

    def write(self, text: str) -> int:
        written = super().write(text)
        if text == f"{self._step} ...\n" and self._acts:
            self._acts.pop()()
        return written


def test_a_champion_that_moves_during_a_date(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(begun, tmp_path / "cycle")
    config = load(tmp_path / "cycle")
    force = Wish(force=True, reason="to see")
    # two dates at once: the later one is promoted while the earlier one decides
    monkeypatch.setattr(sys, "stderr", Meanwhile("decision", lambda: run_day(config, date=DAY(7), wish=force)))
    with pytest.raises(BusyError, match="expected version 1, against which was decided, found version 3") as told:
        run_day(config, date=DAY(6), wish=force)
    assert told.value.exit_code == 1
    again = run_day(config, date=DAY(6), wish=force)
    assert (again["decision"], again["champion"], again["findings"]) == (
        "kept",
        "models:/cycle/3",
        ["nothing to learn"],
    )
    # a rollback at the same moment, of a date that keeps the champion
    monkeypatch.setattr(sys, "stderr", Meanwhile("decision", lambda: rollback_model(config)))
    with pytest.raises(BusyError, match="expected version 3, against which was decided, found version 1"):
        run_day(config, date=DAY(8), wish=Wish(hold=True))
    after = run_day(config, date=DAY(8), wish=Wish(hold=True))
    assert (after["decision"], after["champion"], after["now"]) == ("kept", "models:/cycle/1", "1")
    assert after["learned"] == [DAY(n) for n in (5, 6, 7)], "the line of the champion that was rolled back has ended"
    # between a kill and the rerun
    monkeypatch.setattr(sys, "stderr", Meanwhile("comparison", stop))
    with pytest.raises(KeyboardInterrupt):
        run_day(config, date=DAY(9))
    promote_model(config, "3")
    monkeypatch.setattr(sys, "stderr", heard := Meanwhile("", stop))
    assert run_day(config, date=DAY(9), wish=Wish(hold=True))["champion"] == "models:/cycle/3"
    assert (
        f"{DAY(9)} was begun against models:/cycle/1, and the champion is models:/cycle/3 now: it begins anew"
        in heard.getvalue()
    )
    told_in_all = [(each["date"], each["decision"]) for each in history(config)["decisions"]]
    assert told_in_all == [
        (None, "promoted"), (DAY(7), "forced"), (DAY(6), "kept"), (None, "rolled back"), (DAY(8), "kept"),
        (None, "promoted"), (DAY(9), "kept"),
    ]  # fmt: skip


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """By path: time of change and bytes."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cycle"
    shutil.copytree(begun, folder)
    config = load(folder)
    registry(config)  # connects: the store's places follow the folder to where it was copied
    before = files_of(folder)
    told = plan_day(config, date=DAY(6))
    features = told.pop("features")
    assert features.pop("2026-02-28").startswith("left out: source path 'log-{date}.csv': expected at least one file")
    assert features.pop("2026-02-27").startswith("left out: ")
    assert features == {DAY(n): "stands" for n in (3, 4, 5)} | {DAY(6): "would be built"}
    assert told == {
        "date": DAY(6), "dry_run": True, "done": None, "champion": "models:/cycle/1", "start": "models:/cycle/1",
        "learns": [DAY(5)], "pooled": [DAY(6)], "catalog": f"lists of {DAY(6)} by the champion of then",
        "lists": "none: there are none of a day before",
        "decision": f"promoted if its rows of {DAY(6)} show a gain beyond chance and nothing speaks against it; "
        "else kept",
    }  # fmt: skip
    assert f"challenger: models:/cycle/1 would learn from {DAY(5)}\n" in capsys.readouterr().err
    assert plan_day(config, date=DAY(6), wish=Wish(hold=True))["decision"] == "kept: held by a person"
    assert plan_day(config, date=DAY(6), wish=Wish(force=True, reason="x"))["decision"] == "forced: x"
    missing = plan_day(config, date=DAY(20))
    assert missing["features"][DAY(20)].startswith("left out: source path 'log-{date}.csv': expected at least one file")
    assert (missing["decision"], missing["catalog"]) == ("none", f"lists of {DAY(20)} by models:/cycle/1")
    assert files_of(folder) == before, "it writes nothing"

    done = run_day(config, date=DAY(6))
    assert (done["learned"], done["champion"]) == (told["learns"], told["champion"]), "what it said was true"
    after = files_of(folder)
    assert plan_day(config, date=DAY(6))["done"] == "kept"
    next_one = plan_day(config, date=DAY(7))
    assert (next_one["start"], next_one["learns"], next_one["pooled"]) == (
        done["challenger"], [DAY(6)], [DAY(6), DAY(7)]
    )  # fmt: skip
    assert next_one["lists"] == f"those of {DAY(6)} would be measured on {DAY(7)}"
    assert files_of(folder) == after
    empty = load(folder, f"workspace={tmp_path}/nothing")
    with pytest.raises(ArtifactError, match=r"nothing: expected a registered model, found no store\. Train first\."):
        plan_day(empty, date=DAY(6))
    assert not (tmp_path / "nothing").exists()


def stop() -> None:
    raise KeyboardInterrupt


def test_a_date_that_an_earlier_version_began_is_refused(begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "cycle")
    config = load(tmp_path / "cycle")
    Record(config.workspace_dir, DAY(6)).put("challenger", {"metrics": {}})
    with pytest.raises(ArtifactError, match=r"found an earlier one's\. Remove the file to do 2026-03-06 anew"):
        run_day(config, date=DAY(6))
