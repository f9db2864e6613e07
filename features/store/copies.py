"""Copies of a store's files on this machine, by the SHA-256 of their bytes: each is fetched and checked once, for all
ranks, epochs and trainings of the machine, as far as there is room.

    <directory>/files/<sha256>      whole and checked when it was put there; its time is that of its last use
    <directory>/files/.<sha256>     being fetched, under a lock that the kernel drops with its holder

Room is made of copies that nobody has used for an hour, the oldest first. What finds none is fetched for one use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fieldwise.features import store
from fieldwise.features.store.scratch import scratch_dir

IDLE_SECONDS = 3600.0
_BLOCK = 1 << 23


class OtherBytesError(ValueError):
    """A file is not the one that was promised; its text is the SHA-256 that was found."""


class Copy(NamedTuple):
    """A file of this machine; one that does not stay is the caller's to remove."""

    path: Path
    stays: bool


class Copies:
    """Args:
    directory: local; default, see `scratch_dir`.
    room: bytes that may stay.
    """

    def __init__(self, directory: str | None = None, room: int = 0) -> None:
        self._given, self.room = directory, room
        self._checked: set[str] = set()

    @property
    def _folder(self) -> Path:
        folder = scratch_dir(self._given) / "files"
        folder.mkdir(exist_ok=True)
        return folder

    def find(self, sha256: str) -> Path | None:
        """The copy, if there is one whose bytes are still those."""
        path = self._folder / sha256
        try:
            os.utime(path)
            if sha256 not in self._checked and _sha256(path) != sha256:
                path.unlink()  # the disk's fault, or somebody's
                return None
        except FileNotFoundError:
            return None
        self._checked.add(sha256)
        return path

    def get(self, url: str, sha256: str) -> Copy:
        """The copy, fetched if need be. Raises FileNotFoundError, OtherBytesError."""
        draft = self._folder / f".{sha256}"
        while True:
            if (found := self.find(sha256)) is not None:
                return Copy(found, True)
            with open(draft, "ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if (there := _inode(draft)) is None or there != os.fstat(file.fileno()).st_ino:
                    continue  # whoever held it is done: the name is another file's now, or nobody's
                try:
                    return self._fetched(url, sha256, draft)
                finally:
                    draft.unlink(missing_ok=True)

    def _fetched(self, url: str, sha256: str, draft: Path) -> Copy:
        digest = hashlib.sha256()
        with store.opened(url) as source, open(draft, "wb") as target:
            while block := source.read(_BLOCK):
                digest.update(block)
                target.write(block)
        if (found := digest.hexdigest()) != sha256:
            raise OtherBytesError(found)
        self._checked.add(sha256)
        size = draft.stat().st_size
        stays = self._has_room(size)
        path = draft.with_name(sha256 if stays else f".{sha256}.{os.getpid()}.once")
        draft.rename(path)
        return Copy(path, stays)

    def _has_room(self, size: int) -> bool:
        """Whether a copy may stay, once what lies idle is removed as far as need be; drafts of killed jobs always."""
        kept = []
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                found = entry.stat()
                kept.append((found.st_mtime, 0 if entry.name.startswith(".") else found.st_size, entry.path))
        total = sum(own for _, own, _ in kept)
        room = min(self.room, total + shutil.disk_usage(self._folder).free // 2)
        for used, own, path in sorted(kept):
            if time.time() - used > IDLE_SECONDS and (own == 0 or total + size > room):
                Path(path).unlink(missing_ok=True)
                total -= own
        return total + size <= room


def _inode(path: Path) -> int | None:
    with suppress(FileNotFoundError):
        return path.stat().st_ino
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
