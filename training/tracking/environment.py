"""What a run records of where it ran, and what a logged model holds of this package."""

from __future__ import annotations

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from fieldwise import PLACE
from fieldwise.features.code import code_files

SERVING = ["mlflow", "numba", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch", "tqdm", "xxhash"]
"""What a loaded model imports: neither Spark nor Java."""


def requirements() -> list[str]:
    """What a logged model asks pip for: versions without their local part (``2.13.0+cpu``), which no index has."""
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in SERVING]


def copy_code(folder: Path) -> None:
    """What a logged model holds of this package, under the modes of files made here: MLflow would copy those of an
    installation, which everybody may read."""
    for path, name in code_files("features", "training"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)


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
