"""Files that are read must stay as they are until what follows from them is published."""

from __future__ import annotations

from collections.abc import Iterable

from fieldwise.features import store
from fieldwise.features.errors import IntegrityError
from fieldwise.features.files.listing import SourceFile
from fieldwise.features.terminal import say

Stamps = list[list[str]]
"""Path and mark of every file."""


def stamps_of(files: Iterable[SourceFile]) -> Stamps:
    return [[file.path, store.stamp(file.path)] for file in files]


def changes(before: Stamps, now: Stamps) -> list[str]:
    """What became of files since, a line each."""
    old, new = (dict(stamps) for stamps in (before, now))
    told = [f"{path} is gone" for path in old if path not in new]
    told += [f"{path} is new" for path in new if path not in old]
    for path in (path for path in old if path in new and old[path] != new[path]):
        sizes = [int(mark.partition(":")[0]) for mark in (old[path], new[path])]
        how = "of the same size" if sizes[0] == sizes[1] else f"{sizes[0]:,} bytes then, {sizes[1]:,} now"
        told.append(f"{path} was written again ({how})")
    return told


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
