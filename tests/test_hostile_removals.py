"""What a command needs is removed while it runs: one line, exit code 1, nothing half-made, no hang."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from fieldwise.jobs.cli import main
from tests.commands import Commands
from tests.test_workspace import write_learnable_shop

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


def remove_at(folder: Path, sign: str, target: str, living: Callable[[], bool]) -> bool:
    """Remove ``target`` once there is a ``sign``; whether that came to pass."""
    while living():
        if any(folder.glob(sign)):
            place = folder / target
            shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
            if not place.exists():
                return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_learnable_shop(folder)
    return folder


@pytest.mark.usefixtures("on_spark")  # where a build takes long enough to be met at work
@pytest.mark.parametrize("target", ["work", "log.csv"])
def test_features_in_this_process(shop: Path, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    over = threading.Event()
    sign = "work/snapshots/*/data-*"
    remover = threading.Thread(target=remove_at, args=(folder, sign, target, lambda: not over.is_set()))
    remover.start()
    code = main(["features", "--config", str(folder / "shop.yaml"), "--date", DAYS[0]])
    over.set()
    remover.join()
    said = capsys.readouterr()
    require_refusal("features", code, said.out, said.err)
    assert not list(folder.rglob("manifest.json"))


def require_refusal(name: str, code: int, out: str, err: str) -> None:
    assert (code, out) == (1, ""), err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"fieldwise {name}: ")


BEGUN = {"features": "work/snapshots/2026-01-04/data-*", "score-rows": "work/scores/rows/_*/", "sweep": "work/sweeps/*",
         "score-catalog": "work/scores/catalog/_*/", "daily": "work/daily/*.json",
         "train": "work/training/*/checkpoints/state-*"}  # fmt: skip
"""What is there once a command is at work."""
TRAIN = ["--train", "work/snapshots/2026-01-01", "--test", "work/snapshots/2026-01-02"]
CASES = [
    ("features", ["--date", "2026-01-04", "--spec", "work/snapshots/2026-01-01"], ["work", "log.csv"]),
    ("score-rows", ["--date", DAYS[2]], ["work", "work/scores", "log.csv"]),
    ("score-catalog", ["--date", DAYS[2]], ["work", "users.csv"]),
    ("daily", ["--date", DAYS[2]], ["work", "log.csv"]),
    ("train", TRAIN, ["work"]),
    ("train", ["--ranks", "2", *TRAIN], ["work", "work/training"]),
    ("sweep", ["--trials", "3"], ["work"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with snapshots and a champion, whose trainings take long."""
    folder = tmp_path_factory.mktemp("made") / "shop"
    shutil.copytree(shop, folder)
    run = Commands(folder)
    run("features", "--date", DAYS[0])
    run("features", "--date", DAYS[1], "--spec", f"work/snapshots/{DAYS[0]}")
    run("train", "--train", f"work/snapshots/{DAYS[0]}", "--test", f"work/snapshots/{DAYS[1]}")
    split = {"by": "hash", "key": "user", "valid": 0.2, "test": 0.2}
    document = yaml.safe_load((folder / "shop.yaml").read_text()) | {"split": split}
    document["training"] |= {"epochs": 300, "checkpoint": {"every_steps": 5}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(document))
    run("features")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "arguments", "target"), [(n, a, t) for n, a, targets in CASES for t in targets])
def test_every_command(made: Path, tmp_path: Path, name: str, arguments: list[str], target: str) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("conf", "events", "tmp", "training"))
    if name == "daily":  # the copy's log is another file than that of the snapshot: the day before is built here
        shutil.rmtree(folder / "work" / "snapshots" / DAYS[1])
    before = {path.relative_to(folder) for path in folder.rglob("*manifest.json")}
    happened: list[bool] = []

    def remove(pid: int) -> None:
        happened.append(remove_at(folder, BEGUN[name], target, lambda: psutil.pid_exists(pid)))

    run = Commands(folder)
    # a step of `daily` that begins afterwards finds nothing to begin with, as a command of its own would, and a table
    # of contexts that goes before it is listed was never there
    later = name == "daily" or target == "users.csv"
    run(name, *arguments, code=(1, 2) if later else 1, meanwhile=remove)
    assert happened == [True]
    assert "Traceback" not in run.said
    assert run.said.splitlines()[-1].startswith(f"fieldwise {name}: ")
    days = {Path(f"work/snapshots/{day}/manifest.json") for day in DAYS}  # of a day's finished steps
    if name == "daily":  # of a day whose rows are gone there are lists all the same
        days.add(Path(f"work/scores/catalog/date={DAYS[2]}/_manifest.json"))
    assert {path.relative_to(folder) for path in folder.rglob("*manifest.json")} <= before | days
