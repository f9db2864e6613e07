"""A driver killed at a random moment (a sample; ``benchmarks/kill_features.py`` kills hundreds)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CODE = (
    "import json, sys; from pathlib import Path; from benchmarks.kill_features import kill_points\n"
    "print(json.dumps(kill_points(Path(sys.argv[1]), 1, int(sys.argv[2]), engine=sys.argv[3])))"
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["local", "spark"])
def test_a_killed_driver_leaves_nothing_partial_and_a_rerun_cleans_up(tmp_path: Path, engine: str) -> None:
    environment = os.environ | {"SPARK_MASTER": "local[2]", "PYTHONPATH": str(ROOT)}
    environment["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), "1", engine],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed"] == []
    assert found["counts"]["reruns"] == 1
