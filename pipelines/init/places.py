"""What init reads and writes: refused before anything is imported that takes seconds."""

from __future__ import annotations

import os

from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.files.listing import means_files


def require_places(target: str, *logs: str) -> None:
    """ConfigError for a config that is there already, InputError for a log or table that means no file.

    Args:
        logs: absolute paths, or URLs.
    """
    require_free(target)
    for path in logs:
        if not means_files(path):
            fix = "Check the name: it is a file, a directory, a pattern in quotes, or a URL."
            raise InputError(path, expected="at least one file", found="none", fix=fix)


def require_free(*paths: str) -> None:
    """Nothing that is there is written over."""
    for path in paths:
        if os.path.lexists(path):
            fix = "Name another by --out, or move it away."
            raise ConfigError(path, expected="no file yet", found="one, which is not written over", fix=fix)
