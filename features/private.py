"""Directories whose files are run as code: nobody but their user may have put some there."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path


def is_private(directory: Path, owners: set[int], others: int) -> bool:
    """Whether code can be kept in a directory, and nobody but ``owners`` could have put some there: it is theirs, and
    ``others`` (bits of its mode) may not write."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = directory.lstat()  # a link may lead anywhere
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or found.st_mode & others:
            return False
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
