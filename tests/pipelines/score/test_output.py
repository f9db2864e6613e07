"""Published outputs: whole or absent, the old one until the new one stands, nothing left of killed jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldwise.features.errors import ConfigError
from fieldwise.pipelines.score.output import MANIFEST, Output, write_part

KILLED = """
import os, signal, sys
import pyarrow as pa
from fieldwise.pipelines.score.output import Output, write_part

renames, rename = int(sys.argv[2]), os.rename

def until(source, target):
    global renames
    if renames == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    renames -= 1
    rename(source, target)

os.rename = until
with Output(sys.argv[1], "new") as output:
    output.publish([write_part(output.staging, 0, pa.table({"x": [2]}), dictionary=[])], {})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def publish(target: Path, value: int, request: str) -> dict[str, Any]:
    with Output(str(target), request) as output:
        return output.publish([write_part(output.staging, 0, pa.table({"x": [value]}), dictionary=[])], {})


def values(target: Path) -> list[int]:
    return pq.read_table(sorted(target.glob("part-*.parquet")))["x"].to_pylist()


def test_a_new_output_takes_the_old_ones_place(tmp_path: Path) -> None:
    target = tmp_path / "date=all"
    first = publish(target, 1, "old")
    assert Output(str(target), "old").standing() == first
    assert Output(str(target), "new").standing() is None
    publish(target, 2, "new")
    assert values(target) == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["date=all"]


def test_a_failed_job_leaves_the_old_output(tmp_path: Path) -> None:
    target = tmp_path / "date=all"
    publish(target, 1, "old")

    def fail() -> None:
        with Output(str(target), "new") as output:
            write_part(output.staging, 0, pa.table({"x": [2]}), dictionary=[])
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert values(target) == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["date=all"]


@pytest.mark.parametrize(
    ("renames", "found"), [(0, [1]), (1, [1]), (2, [2])], ids=["before", "between its renames", "after"]
)
def test_killed_while_publishing(tmp_path: Path, renames: int, found: list[int]) -> None:
    """The next job finds one whole output and clears away the rest."""
    target = tmp_path / "date=all"
    publish(target, 1, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target), str(renames)], check=False)
    assert killed.returncode == -9
    assert len(list(tmp_path.iterdir())) > 1
    assert (Output(str(target), "old").standing() is not None) == (found == [1])
    assert values(target) == found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["date=all"]
    assert (target / MANIFEST).exists()


def test_a_living_job_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "date=all"
    with Output(str(target), "one") as output:
        write_part(output.staging, 0, pa.table({"x": [1]}), dictionary=[])
        assert Output(str(target), "two").standing() is None
        assert len(list(Path(output.staging).iterdir())) == 1


def test_an_output_that_nothing_can_keep(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (f"{tmp_path}/file/date=all", "memory://x/date=all"):
        with pytest.raises(ConfigError, match=r"expected a place to write, found .* Name another output"):
            Output(place, [])
