"""fieldwise installed into environments of their own, and directories whose names would hide folders of a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from fieldwise.features.java.home import java_environment
from tests.commands import ROOT

ROOMS = ("features", "training", "pipelines", "jobs")
HIDDEN = ("PYTHONPATH", "MLFLOW_TRACKING_URI", "SPARK_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")

_EDITABLE = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"


def plant_decoys(folder: Path) -> None:
    """Packages called as the rooms are, which end whoever imports them."""
    for name in ROOMS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('decoy')\n")


def copy_source(folder: Path) -> Path:
    """What an installation is made from; building leaves files there."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("fieldwise", "configs", *ROOMS):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def build_wheel(source: Path, into: Path) -> Path:
    """An ordinary wheel, by pip; no index is asked."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(into)]
    _run("-m", "pip", "wheel", *options, str(source))
    (wheel,) = into.glob("*.whl")
    return wheel


def build_editable(source: Path, into: Path) -> Path:
    """What ``pip install --editable`` installs."""
    into.mkdir()
    _run("-c", _EDITABLE, str(into), cwd=source)
    (wheel,) = into.glob("*.whl")
    return wheel


class Environment(NamedTuple):
    """A virtual environment whose only package is fieldwise; libraries are those of the tests' environment."""

    python: Path
    code: Path
    """The folder that holds ``jobs`` there."""

    def run(self, *command: str, cwd: Path, code: int = 0, **more: str) -> str:
        """Stdout of a command line; ``python`` and ``fieldwise`` are this environment's."""
        own = self.variables(cwd) | more
        program = shutil.which(command[0], path=own["PATH"])
        assert program is not None, command[0]
        done = subprocess.run(
            [program, *command[1:]], cwd=cwd, env=own, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def variables(self, folder: Path) -> dict[str, str]:
        """As where the environment is activated; temporary files lie in ``folder``."""
        (folder / "tmp").mkdir(exist_ok=True)
        programs = [str(self.python.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        own = {"PATH": os.pathsep.join(programs), "TMPDIR": str(folder / "tmp"), "SPARK_MASTER": "local[2]"}
        # what tests in this process told MLflow is none of theirs
        outer = {n: value for n, value in os.environ.items() if n not in HIDDEN and not n.startswith("MLFLOW_")}
        return java_environment() | outer | own  # spark-submit asks for Java before we can


def install(wheel: Path, folder: Path) -> Environment:
    """A new environment with a wheel in it."""
    _run("-m", "venv", "--without-pip", str(folder))
    python = folder / "bin" / "python"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    _run("-m", "pip", "--python", str(python), "install", *options, str(wheel))
    own = _run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", python=str(python))
    # plain lines: Python does not follow the .pth files it finds there, so an editable fieldwise there stays out
    theirs = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    Path(own, "libraries.pth").write_text("".join(f"{place}\n" for place in theirs))
    jobs = _run("-c", "import fieldwise.jobs; print(fieldwise.jobs.__path__[0])", python=str(python))
    return Environment(python, Path(jobs).parent)


def _run(*command: str, python: str = sys.executable, cwd: Path | None = None) -> str:
    """Python's stdout, where nothing names a checkout: pip would find fieldwise there, and install nothing."""
    own = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    done = subprocess.run([python, *command], cwd=cwd or "/", env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
