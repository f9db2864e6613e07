"""Directories whose files are run as code: nobody but their user may have put some there."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def is_private(directory: Path, owners: set[int], others: int) -> bool:
    """Whether code can be kept in a directory, which is made if new, and ``is_trusted`` holds of it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not is_trusted(directory, owners, others):
            return False
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def is_trusted(directory: Path, owners: set[int], others: int) -> bool:
    """Whether nobody but ``owners`` could have put code into a directory: it is theirs, ``others`` (bits of its mode)
    may not write, and nowhere on the way to it can everybody put another directory in its place."""
    try:
        found = directory.lstat()  # a link may lead anywhere
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or found.st_mode & others:
            return False
        way = {*directory.absolute().parents, *directory.resolve().parents}
        modes = [place.stat().st_mode for place in way]
    except OSError:
        return False
    return not any(mode & stat.S_IWOTH and not mode & stat.S_ISVTX for mode in modes)


def cache_home() -> Path:
    """The user's own directory of what can be made again. RuntimeError where there is no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldwise"
