"""Where compiled kernels are kept: never stale, never in someone else's directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from features.jit import cache_dir


def test_the_cache_follows_every_kernel_source(tmp_path: Path) -> None:
    (tmp_path / "jit.py").write_text("a")
    (tmp_path / "kernels.py").write_text("from features.jit import kernel")
    first = cache_dir(tmp_path)
    assert first.parent == tmp_path / "__pycache__"
    assert cache_dir(tmp_path) == first
    (tmp_path / "plain.py").write_text("c")
    assert cache_dir(tmp_path) == first
    (tmp_path / "lookup.py").write_text("from features.jit import kernel")
    second = cache_dir(tmp_path)
    assert second != first
    (tmp_path / "lookup.py").write_text("from features.jit import kernel  # edited")
    assert cache_dir(tmp_path) != second


def test_an_unusable_place_falls_back_to_a_private_one(tmp_path: Path) -> None:
    (tmp_path / "jit.py").write_text("a")
    (tmp_path / "__pycache__").write_text("not a directory")
    script = f"from pathlib import Path; from features.jit import cache_dir; print(cache_dir(Path({str(tmp_path)!r})))"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    out = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    chosen = Path(out.stdout.strip())
    assert chosen.parent == tmp_path / f"fieldwise-{os.getuid()}"
    assert chosen.parent.stat().st_mode & 0o777 == 0o700
    chosen.parent.chmod(0o777)
    out = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert Path(out.stdout.strip()).parent != chosen.parent
