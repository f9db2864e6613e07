"""How training's kernels are compiled: `kernel` is called from Python, `inner` is compiled with its caller."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba as nb
from numba.core import config

from fieldwise.features.kernels.compile import cache_dir

_CACHE = str(cache_dir(Path(__file__).parent))


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator: compiled on the first call, kept on disk under a digest of this package's kernel sources.

    A kernel may close over numbers and strings (they are part of its key on disk), never over compiled functions.
    """
    before, config.CACHE_DIR = config.CACHE_DIR, _CACHE
    try:
        return nb.njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before


inner: Callable[..., Any] = nb.njit(nogil=True, error_model="numpy")
"""Decorator of a kernel's part: compiled and cached with its caller."""
