"""Compiling on two cores: a process of its own begins with what a command calls last, while that calls the first.

Each finds on disk what the other has compiled, and waits for what it is at (`cache.CodeFiles.claim`).
"""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from operator import attrgetter
from typing import Any

from fieldwise.features.kernels.compile import Entry, is_kept
from fieldwise.features.process import cores, die_with_parent

_started: list[subprocess.Popen[bytes]] = []
"""Nobody waits for them; one that is forgotten while it runs is warned of."""


def compile_ahead(*wanted: Entry | tuple[Any, str]) -> None:
    """Have kernels compiled that are not on disk yet, in this order, and go on. Nothing where there is one core.

    Args:
        wanted: an entry; or a kernel, and what compiles it: ``module:function``, called without arguments. Its errors
            are left to the process that needs the kernel, which compiles it itself then.
    """
    steps = [(each.dispatcher, each.load_name) if isinstance(each, Entry) else each for each in wanted]
    missing = [call for kernel, call in steps if not is_kept(kernel)]
    if missing and cores() > 1:
        _started.append(
            subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, *missing], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, preexec_fn=die_with_parent, start_new_session=True,
            )
        )  # fmt: skip


if __name__ == "__main__":
    for each in sys.argv[1:]:
        module, _, name = each.partition(":")
        attrgetter(name)(import_module(module))()
