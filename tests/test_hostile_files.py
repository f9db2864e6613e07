"""A sample of benchmarks/fuzz_loaders.py: our own errors refuse damaged and hostile artifacts, inside limits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_loaders_refuse_what_is_damaged() -> None:
    code = "import json; from benchmarks.fuzz_loaders import fuzz; print(json.dumps(fuzz(300, seed=7)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["findings"] == []
    assert sum(count for name, count in found["outcomes"].items() if name.endswith("refused")) > 200
    assert sum(found["outcomes"].values()) == 300
