"""This package's own files: what travels with a registered model, and in the archive for Spark's executors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import fieldwise

ROOMS = ("features", "training", "pipelines", "jobs", "api")


def code_files(*rooms: str) -> Iterator[tuple[Path, Path]]:
    """Files of rooms and the modules of the name itself, and where they lie under the one name, checkout or not."""
    places = [Path(place) for place in fieldwise.__path__]
    for module in places[0].glob("*.py"):
        yield module, Path("fieldwise", module.name)
    for room in rooms:
        home = next(place / room for place in places if (place / room).is_dir())
        for path in home.rglob("*"):
            if path.is_file() and path.parent.name != "__pycache__":
                yield path, Path("fieldwise", room, path.relative_to(home))


@cache
def code_digest() -> str:
    """SHA-256 over the names and bytes of all code."""
    digest = hashlib.sha256()
    for name, path in sorted((name.as_posix(), path) for path, name in code_files(*ROOMS)):
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
