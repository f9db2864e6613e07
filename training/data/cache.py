"""How files are read, and those decoded that stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Literal

from fieldwise.features.errors import ConfigError
from fieldwise.training.data import arrow_reader
from fieldwise.training.data.files import Columns, DataFile, verify_checksum, verify_rows

Reader = Literal["petastorm", "arrow"]


class Seen:
    """What has been read of some files so far.

    Args:
        verify: compare every file's SHA-256, and its rows', with the manifest's when it is first read.
        room: bytes of decoded files to keep, of each that still fits; they are not read again.
        reader: what decodes files, see ``training.reader``. Both give the same rows.

    Raises ConfigError where petastorm is wanted and does not import.
    """

    def __init__(self, *, verify: bool = False, room: int = 0, reader: Reader = "petastorm") -> None:
        self.room = room
        self.row_groups = row_groups_by(reader)
        self._verify = verify
        self._verified: set[str] = set()
        self._kept: dict[str, Columns] = {}

    def columns(self, file: DataFile) -> Columns | None:
        """Of a file that was kept; None of another."""
        return self._kept.get(file.path)

    def add(self, file: DataFile, columns: Columns, slot_names: Sequence[str]) -> None:
        """Take note of a file that was read. IntegrityError when its bytes or rows are not the manifest's."""
        if self._verify and file.path not in self._verified:
            verify_checksum(file)
            verify_rows(file, columns, slot_names)
            self._verified.add(file.path)
        size = sum(column.nbytes for column in columns.values())
        if file.path not in self._kept and size <= self.room:
            self.room -= size
            self._kept[file.path] = columns


def row_groups_by(reader: Reader) -> Callable[[Sequence[DataFile]], Generator[Columns, None, None]]:
    """Decodes files, row group after row group, in their order. Closing the generator ends its threads."""
    if reader == "arrow":
        return arrow_reader.row_groups
    try:
        from fieldwise.training.data import petastorm_reader  # who reads by pyarrow alone needs no petastorm
    except ImportError as error:
        raise ConfigError(
            "training.reader", expected="petastorm 0.12.1, or arrow", found=f"petastorm does not import ({error})",
            fix="Install it with pip, or set training.reader: arrow, which reads the same rows.",
        ) from error  # fmt: skip
    return petastorm_reader.row_groups
