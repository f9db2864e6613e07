"""Decoded files that stay in memory."""

from __future__ import annotations

from typing import Any

from fieldwise.training.data.files import DataFile, verify_checksum


class Seen:
    """What has been read of some files so far.

    Args:
        verify: compare every file's SHA-256 with the manifest's when it is first read.
        room: bytes of decoded files to keep, of each that still fits; they are not read again.
    """

    def __init__(self, *, verify: bool = False, room: int = 0) -> None:
        self.room = room
        self._verify = verify
        self._verified: set[str] = set()
        self._kept: dict[str, Any] = {}

    def columns(self, file: DataFile) -> Any:
        """Of a file that was kept; None of another."""
        return self._kept.get(file.path)

    def add(self, file: DataFile, columns: Any) -> None:
        """Take note of a file that was read. IntegrityError when its bytes are not the manifest's."""
        if self._verify and file.path not in self._verified:
            verify_checksum(file)
            self._verified.add(file.path)
        size = sum(column.nbytes for column in columns)
        if file.path not in self._kept and size <= self.room:
            self.room -= size
            self._kept[file.path] = columns
