"""A workspace over its life: nobody else reads it, nobody listens while it is made, and it can be moved."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from fieldwise.pipelines.cycle.record import Record
from tests.commands import ROOT, Commands
from tests.pipelines.shop import shop_config, write_shop


def write_learnable_shop(folder: Path) -> None:
    """A shop whose clicks a model can learn, with a time, so that it has days."""
    write_shop(folder, rows=3000)
    head, *rows = (line.split(",") for line in (folder / "log.csv").read_text().splitlines())
    for row in rows:
        row[-1] = str(int(int(row[2][1:]) % 3 == 0))
    (folder / "log.csv").write_text("\n".join(",".join(row) for row in [head, *rows]) + "\n")
    shop_config(folder, "fm")
    document = yaml.safe_load((folder / "shop.yaml").read_text())
    training = {"batch_size": 64, "epochs": 1, "threads": 1, "learning_rate": 0.1, "restarts": 2, "patience": None}
    (folder / "shop.yaml").write_text(yaml.safe_dump(document | {"time": "when", "training": training}))


def open_to_others(folder: Path) -> list[str]:
    return [f"{path.lstat().st_mode:o} {path}" for path in [folder, *folder.rglob("*")] if path.lstat().st_mode & 0o007]


def kill_a_rank(pid: int) -> None:
    """Once there are two."""
    while psutil.pid_exists(pid):
        ranks = [p for p in psutil.Process(pid).children(recursive=True) if "jobs/train.py" in " ".join(p.cmdline())]
        below = [p for p in ranks if "torch.distributed.run" not in " ".join(p.cmdline())]
        if len(below) == 2:
            time.sleep(3)
            below[1].send_signal(signal.SIGKILL)
            return
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_closed_to_others_silent_and_movable(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    write_learnable_shop(folder)
    run = Commands(folder, umask=0o002)
    run("features", "--date", "2026-01-01")
    spec = ["--spec", "work/snapshots/2026-01-01"]
    submit = [str(Path(sys.executable).with_name("spark-submit")), str(ROOT / "jobs" / "build_features.py")]
    run.run(submit, "--date", "2026-01-02", *spec)  # the JVM is older than the command: its workers have its umask
    days = ["--train", "work/snapshots/2026-01-01", "--test", "work/snapshots/2026-01-02"]
    run("train", *days)
    run("train", *days, "--ranks", "2", "--set", "training.epochs=30", meanwhile=kill_a_rank)
    run("daily", "--date", "2026-01-03", "--ranks", "2")
    run("score-rows", "--date", "2026-01-03")
    assert "local-" in str(list((folder / "events").iterdir()))
    assert open_to_others(folder / "work") == []
    assert run.listeners == set()
    assert not [path for path in (folder / "tmp").rglob("*") if "torchelastic" in path.name]

    former, now = str(folder / "work"), str(tmp_path / "second")
    shutil.move(former, now)
    assert former not in Path(now, "daily/2026-01-03.json").read_text()
    moved = ["--set", f"workspace={now}"]
    again = json.loads(run("daily", "--date", "2026-01-03", "--ranks", "2", *moved))
    assert again["repeated"] is True
    assert former not in json.dumps(again)
    measured = json.loads(run("evaluate", "--snapshot", f"{now}/snapshots/2026-01-03", *moved))
    assert 0 < measured["metrics"]["logloss"] < 1
    days = ["--train", f"{now}/snapshots/2026-01-01", "--test", f"{now}/snapshots/2026-01-02"]
    trained = json.loads(run("train", *days, *moved))
    assert trained["bundle"].startswith(now)
    run("daily", "--date", "2026-01-04", *moved)
    assert not Path(former).exists()
    assert open_to_others(Path(now)) == []


def test_a_days_record_moves_with_its_workspace(tmp_path: Path) -> None:
    record = Record(str(tmp_path / "a"), "2026-01-01")
    place = record.step("features", lambda: {"dir": f"{tmp_path}/a/snapshots/x", "rows": 3, "same": [f"{tmp_path}/ab"]})
    assert place["dir"] == f"{tmp_path}/a/snapshots/x"
    kept = json.loads((tmp_path / "a/daily/2026-01-01.json").read_text())
    assert len(kept.pop("seal")) == 64
    assert kept == {"features": {"dir": "{workspace}/snapshots/x", "rows": 3, "same": [f"{tmp_path}/ab"]}}
    os.rename(tmp_path / "a", tmp_path / "b")
    steps = Record(str(tmp_path / "b"), "2026-01-01").steps
    assert steps["features"]["dir"] == f"{tmp_path}/b/snapshots/x"
