"""What a run records of where it ran, and what a logged model holds of this package."""

from __future__ import annotations

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import fieldwise
from fieldwise import PLACE, features, training

SERVING = ["mlflow", "numba", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch", "xxhash"]
"""What a loaded model imports."""


def copy_code(folder: Path) -> None:
    """What a logged model holds of this package, under the modes of files made here: MLflow would copy those of an
    installation, which everybody may read."""
    for package in (fieldwise, features, training):
        home, into = Path(str(package.__file__)).parent, folder.joinpath(*package.__name__.split("."))
        for path in home.glob("*.py") if package is fieldwise else home.rglob("*"):
            if path.is_file() and path.parent.name != "__pycache__":
                copy = into / path.relative_to(home)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


def packages() -> str:
    """What is installed, one ``name==version`` per line."""
    about = (each.metadata for each in metadata.distributions())  # read once: each look at it parses a file
    found = sorted({f"{each['Name']}=={each['Version']}" for each in about}, key=str.lower)
    return "\n".join(found) + "\n"


def source_tags() -> dict[str, str]:
    commit = git_commit()
    return {} if commit is None else {"mlflow.source.git.commit": commit}


def git_commit() -> str | None:
    """Commit of this checkout; None for an installed package or without git."""
    if not (PLACE / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(PLACE), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
