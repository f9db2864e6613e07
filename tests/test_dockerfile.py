"""The Dockerfile's steps in a plain environment, where no engine runs, and the demo of what they install."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.environments import HIDDEN, copy_source, plant_decoys


def steps(stage: int) -> list[str]:
    """The commands of a stage's ``RUN`` lines."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(r"^RUN (.+)$", text.split("\nFROM ")[stage], re.M)


def test_what_is_copied_is_what_the_steps_need() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "fieldwise", "configs"} <= allowed
    assert all((ROOT / name).exists() for name in allowed)
    assert "USER 10001" in (ROOT / "Dockerfile").read_text()


def python() -> Path:
    """A Python that other users can run: home directories, where version managers put theirs, are closed to them."""
    own = Path(os.path.realpath(sys.executable))
    if os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in own.parents):
        system = shutil.which("python3", path=os.defpath)
        if system is None:
            pytest.skip("no Python that users without rights can run")
        return Path(os.path.realpath(system))
    return own


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users can enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="fieldwise-image-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_steps_and_the_demo_in_an_empty_directory(place: Path) -> None:
    """As another user where this one is root, beside packages that are called as ours are."""
    (place / "bin").mkdir()
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec {python()} "$@"\n')  # a link would hide its library
    (place / "bin" / "python").chmod(0o755)
    copy_source(place / "src")
    (place / "src" / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes())
    own = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    own |= {"TORCH_INDEX": os.environ.get("PIP_EXTRA_INDEX_URL", "file:///none"), "HOME": str(place)}
    own["PATH"] = os.pathsep.join([str(place / "bin"), os.environ["PATH"]])

    def run(command: str, folder: Path, **more: object) -> str:
        here = command.replace("/src", f"{place}/src").replace("/opt/fieldwise", f"{place}/fieldwise")
        done = subprocess.run(
            ["sh", "-ec", here], cwd=folder, env=own, capture_output=True, text=True, check=False, **more
        )
        assert done.returncode == 0, f"{here}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    (place / "work").mkdir()
    plant_decoys(place / "work")
    for step in steps(1):
        run(step, place)
    nobody = {}
    if os.geteuid() == 0:
        os.chown(place / "work", 65534, 65534)
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    own["HOME"] = str(place / "work")
    script = "from fieldwise.features.kernels import cache, strings; print(cache.compile_seconds())"
    assert run(f'/opt/fieldwise/bin/python -P -c "{script}"', place / "work", **nobody) == "0.0\n"
    told = run("/opt/fieldwise/bin/fieldwise demo --rows 35000", place / "work", **nobody)
    assert [row["model"] for row in json.loads(told.splitlines()[-1])["models"]] == ["lr", "poly2", "fm", "ffm"]
    assert (place / "work" / "configs" / "demo.yaml").read_bytes() == (ROOT / "configs" / "demo.yaml").read_bytes()
    again = "/opt/fieldwise/bin/fieldwise score-catalog --config configs/demo.yaml --date 2026-01-07"
    assert "already published" in run(again, place / "work", **nobody)
