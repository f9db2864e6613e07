"""SIGKILL during the search of a real training: started again, it ends in the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.snapshots import PLANTED, hash_spec, write_snapshot

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
CONFIG = PLANTED + "training: {batch_size: 256, threads: 1}\n"


def strong(slots: np.ndarray) -> np.ndarray:
    """Pairs that decide nearly alone, so that there is something to find."""
    left, right = np.random.default_rng(3).normal(0, 2.5, (2, 13, 2))
    return np.asarray((left[slots[:, 0]] * right[slots[:, 1]]).sum(1))


def start(folder: Path, kind: str) -> subprocess.Popen[str]:
    if not folder.exists():
        folder.mkdir()
        (folder / "planted.yaml").write_text(CONFIG)
        files = {"train": [3000], "valid": [1500], "test": [300]}
        write_snapshot(folder / "work/planted/snapshots/all", hash_spec((10, 10)), files, logit=strong)
    own = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "fieldwise.jobs.cli", "train", "--config", str(folder / "planted.yaml")]
    return subprocess.Popen(
        [*command, "--set", f"model.kind={kind}"], cwd=ROOT, env=own, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def killed(folder: Path, kind: str, line: str, times: int = 1) -> None:
    """Start a training and kill it once a line that begins so was seen so often."""
    process = start(folder, kind)
    assert process.stderr is not None
    said = []
    for each in process.stderr:
        said.append(each)
        times -= each.startswith(line)
        if times == 0:
            break
    else:
        pytest.fail("".join(said))
    process.kill()
    process.communicate()
    assert process.returncode == -9


def bundle_of(folder: Path, kind: str) -> tuple[dict[str, bytes], str]:
    """The bytes of every file in the bundle of a training that comes to its end, and what was said."""
    process = start(folder, kind)
    out, said = process.communicate()
    assert process.returncode == 0, said
    place = Path(json.loads(out.splitlines()[-1])["bundle"])
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}, said


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("fm", [("settings 3:", 1), ("settings 6:", 1)]), ("auto", [("settings 3:", 1), ("settings 2:", 2)])],
)
def test_a_training_killed_in_its_search(tmp_path: Path, kind: str, kills: list[tuple[str, int]]) -> None:
    """Twice; the family's second kill is in the search of its second model."""
    for line, times in kills:
        killed(tmp_path / "killed", kind, line, times)
        assert not list(tmp_path.glob("killed/work/planted/training/ffm-*")), "killed in time"
    kept = list(tmp_path.glob("killed/work/planted/training/*/checkpoints/settings.json"))
    assert kept, "trials are there to go on from"
    trials = json.loads(kept[0].read_text())["trials"]
    assert len(trials) >= 2
    found, _ = bundle_of(tmp_path / "killed", kind)
    whole, _ = bundle_of(tmp_path / "whole", kind)
    assert set(whole) >= {"model.json", "weights.safetensors", "chosen.json"}
    assert found == whole
