"""Training on two nodes: killed ones come back, lost ones are named, nobody waits for ever."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.ranks.nodes import Nodes, checkpoints, epochs, planted, two_nodes, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
TRAINING = "batch_size: 64, epochs: 12, patience: null, threads: 1, auto: false, checkpoint: {every_steps: 50}"


def test_killed_nodes_come_back_to_the_same_losses(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    draw = random.Random(seed)
    quiet, killed = (planted(tmp_path / name, TRAINING) for name in ("quiet", "killed"))
    with two_nodes(tmp_path) as nodes:
        for number in (1, 0):
            nodes.start(number, quiet, "--ranks", "2")
        undisturbed = nodes.result(0)
        assert nodes.result(1) == undisturbed
    lost = [0, 1, draw.randrange(2)]
    draw.shuffle(lost)
    with two_nodes(tmp_path / "killed") as nodes:
        for number in (0, 1):
            nodes.start(number, killed, "--ranks", "2")
        for number in lost:
            _wait_for_a_moment(nodes, killed, draw)
            print(f"kill node {number} at {checkpoints(killed)[-1:]}")
            nodes.kill(number)
            time.sleep(draw.uniform(0, 5))
            nodes.start(number, killed, "--ranks", "2")
        result = nodes.result(0, 1200)
        assert nodes.result(1) == result
        print(nodes.said(0))
    assert result["bundle_digest"] == undisturbed["bundle_digest"]
    once, again = epochs(quiet), epochs(killed)
    assert sorted(again) == sorted(once) == list(range(12))
    for epoch, values in again.items():
        assert values["rows_planned"] == values["rows_read"] == values["rows_trained"] == 16000
        for name in ("train_logloss", "valid_logloss"):
            np.testing.assert_allclose(values[name], once[epoch][name], rtol=0, atol=1e-6)


def _wait_for_a_moment(nodes: Nodes, config: Path, draw: random.Random) -> None:
    """While ranks start, or while they train."""
    starts, before = nodes.said(0).count(": start "), checkpoints(config)[-1:]
    if draw.random() < 0.4:
        wait_for("a start", lambda: nodes.said(0).count(": start ") > starts)
        time.sleep(draw.uniform(0, 8))
    else:
        wait_for("a checkpoint", lambda: checkpoints(config)[-1:] > before)
        time.sleep(draw.uniform(0, 2.5))
