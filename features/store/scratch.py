"""A directory of this machine for copies of what lies on a store: nobody else's, and none of them is the only one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fieldwise.features.errors import ConfigError
from fieldwise.features.private import is_private


def scratch_dir(given: str | None = None) -> Path:
    """``given``, else a directory of this user below that of temporary files (TMPDIR). Raises ConfigError where it
    cannot be used, or others may write into it: what lies there is taken for what the store has."""
    place = Path(given) if given else Path(tempfile.gettempdir(), f"fieldwise-scratch-{os.getuid()}")
    if not is_private(place, {os.getuid()}, 0o022):
        fix = "Set training.scratch to a directory that you alone may write into."
        raise ConfigError("training.scratch", expected="a directory of one's own", found=str(place), fix=fix)
    return place
