"""Files that are read must stay as they are until what follows from them is published."""

from __future__ import annotations

from collections.abc import Iterable

from features import store
from features.errors import IntegrityError
from features.listing import SourceFile
from pipelines.say import say

Stamps = list[list[str]]
"""Path and mark of every file."""


def stamps_of(files: Iterable[SourceFile]) -> Stamps:
    return [[file.path, store.stamp(file.path)] for file in files]


def require_unchanged(stamps: Stamps) -> None:
    """Raises IntegrityError for a file that was cut, replaced or removed meanwhile: rows of it may be lost or halved.

    One that has only grown was read up to where it ended before; that is said.
    """
    for path, before in stamps:
        try:
            now = store.stamp(path)
        except FileNotFoundError:
            now = "0:gone"
        if now == before:
            continue
        old, new = (int(mark.partition(":")[0]) for mark in (before, now))
        if new <= old:
            found = "it gone" if now == "0:gone" else f"another one of {new:,} bytes, not {old:,}"
            fix = "Nothing is published. Run it again once nobody writes the file."
            raise IntegrityError(path, expected="a file that stays while it is read", found=found, fix=fix)
        say(f"{path} has grown from {old:,} to {new:,} bytes since it was listed: what is behind is not in")
