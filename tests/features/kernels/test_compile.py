"""Where compiled kernels are kept: never stale, never in someone else's directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from fieldwise.features.kernels.compile import CacheFile, cache_dir


def test_the_cache_follows_every_kernel_source(tmp_path: Path) -> None:
    (tmp_path / "scores.py").write_text("a")
    first = cache_dir(tmp_path)
    assert first.parent == tmp_path / "__pycache__"
    assert cache_dir(tmp_path) == first
    (tmp_path / "lookup.py").write_text("b")
    second = cache_dir(tmp_path)
    assert second != first
    (tmp_path / "lookup.py").write_text("edited")
    assert cache_dir(tmp_path) != second


def test_an_unusable_place_falls_back_to_a_private_one(tmp_path: Path) -> None:
    (tmp_path / "jit.py").write_text("a")
    (tmp_path / "__pycache__").write_text("not a directory")
    imports = "from pathlib import Path; from fieldwise.features.kernels.compile import cache_dir"
    script = f"{imports}; print(cache_dir(Path({str(tmp_path)!r})))"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    out = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    chosen = Path(out.stdout.strip())
    assert chosen.parent == tmp_path / f"fieldwise-{os.getuid()}"
    assert chosen.parent.stat().st_mode & 0o777 == 0o700
    chosen.parent.chmod(0o777)
    out = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert Path(out.stdout.strip()).parent != chosen.parent
    chosen.parent.rmdir()
    for target in ("nowhere", "elsewhere"):  # a link that leads nowhere was an error at import
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        chosen.parent.symlink_to(tmp_path / target)
        out = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert Path(out.stdout.strip()).parent != chosen.parent
        chosen.parent.unlink()


def test_processes_that_save_at_once_keep_their_code_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba alone gives both the same file, and one of them the other's code."""
    assert type(numba.njit(cache=True)(_number_of)._cache._cache_file) is CacheFile
    first, second = (CacheFile(str(tmp_path), "kernel", "stamp") for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(first, "_load_index", dict)  # both have read the index before either saves
        patch.setattr(second, "_load_index", dict)
        first.save(("int64", "a"), "code of a")
        second.save(("int64", "b"), "code of b")
    third = CacheFile(str(tmp_path), "kernel", "stamp")
    assert third.load(("int64", "a")) in (None, "code of a")
    assert third.load(("int64", "b")) == "code of b"
    first._save_index({("int64", "c"): first._data_name(1)})  # as numba's own would have left it
    first._save_data(first._data_name(1), "whose code?")
    assert third.load(("int64", "c")) is None
    for name in "ab":
        first.save(("int64", name), f"code of {name}")
    assert [third.load(("int64", name)) for name in "ab"] == ["code of a", "code of b"]


def _number_of() -> int:
    return 1


CONSTANTS = """
import sys
import numba, numpy as np
from numba.extending import overload
import fieldwise.features.kernels.compile

def part(n, x):
    raise NotImplementedError

def part_of(n):
    @numba.njit
    def code(x):
        total = 0.0
        for i in range(len(x)):
            total += np.sin(x[i]) * n if x[i] > 0 else np.cos(x[i] * n) + n
        for i in range(len(x)):
            total += np.exp(x[i] * n) + np.log(n + x[i] * x[i])
        return total
    return code

@overload(part, prefer_literal=True)
def _part(n, x):
    code = part_of(n.literal_value)
    return lambda n, x: code(x)

def kernel(n):
    @numba.njit(cache=True)
    def run(x):
        return part(n, x) + part(n, x[1:]) + part(n, x[2:])
    return run

for n in sys.argv[1:]:
    print(n, round(kernel(int(n))(np.linspace(-1, 1, 7)), 3))
"""


def test_a_process_calls_the_code_that_it_loaded(tmp_path: Path) -> None:
    """Of code compiled by two processes for two constants; numba alone calls the first for both, by its symbol."""
    (tmp_path / "constants.py").write_text(CONSTANTS)
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    told = [
        subprocess.run(
            [sys.executable, "constants.py", *numbers], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=True,
        ).stdout
        for numbers in ("1", "2", "12", "21")
    ]  # fmt: skip
    one, two = told[:2]
    assert one[2:] != two[2:]
    assert told[2:] == [one + two, two + one]
