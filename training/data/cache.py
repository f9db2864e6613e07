"""How files are read, and those decoded that stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fieldwise.features import store
from fieldwise.features.errors import ConfigError
from fieldwise.features.store.copies import Copies, OtherBytesError
from fieldwise.training.config import TrainingConfig
from fieldwise.training.data import arrow_reader
from fieldwise.training.data.files import Columns, DataFile, damaged, verify_checksum, verify_rows
from fieldwise.training.data.prefetch import Prefetch

Reader = Literal["petastorm", "arrow"]
_AT_ONCE = 4
"""Files that are fetched from a store together, while those before are decoded."""


def copies_of(config: TrainingConfig) -> Copies:
    """Copies of a store's files as a config wants them."""
    return Copies(config.scratch, config.scratch_mb * 10**6)


class Seen:
    """What has been read of some files so far.

    Args:
        verify: compare every file's SHA-256, and its rows', with the manifest's when it is first read.
        room: bytes of decoded files to keep, of each that still fits; they are not read again.
        reader: what decodes files, see ``training.reader``. Both give the same rows.
        copies: where files of stores are read: each is fetched once, as far as there is room, and checked as it comes.

    Raises ConfigError where petastorm is wanted and does not import.
    """

    def __init__(
        self, *, verify: bool = False, room: int = 0, reader: Reader = "petastorm", copies: Copies | None = None
    ) -> None:
        self.room = room
        self._decode, self._copies = row_groups_by(reader), copies or Copies()
        self._verify = verify
        self._verified: set[str] = set()
        self._kept: dict[str, Columns] = {}

    def columns(self, file: DataFile) -> Columns | None:
        """Of a file that was kept; None of another."""
        return self._kept.get(file.path)

    def check(self, file: DataFile, columns: Columns, slot_names: Sequence[str]) -> None:
        """IntegrityError when bytes or rows of a file that was read are not the manifest's. Columns: all it has."""
        if self._verify and file.path not in self._verified:
            self.verify(file)
            verify_rows(file, columns, slot_names)
            self._verified.add(file.path)

    def keep(self, file: DataFile, columns: Columns) -> None:
        """Take note of the columns of a file that will be wanted again."""
        size = sum(column.nbytes for column in columns.values())
        if file.path not in self._kept and size <= self.room:
            self.room -= size
            self._kept[file.path] = columns

    def verify(self, file: DataFile) -> None:
        """IntegrityError when a file's bytes are not the manifest's; a copy was checked when it was made."""
        if store.is_local(file.path):
            verify_checksum(file)

    def row_groups(self, files: Sequence[DataFile]) -> Generator[Columns, None, None]:
        """Decoded row groups of the files, in order; local files and copies that are there are opened together."""
        here = [self._here(file) for file in files]
        if None not in here:
            yield from self._decode([file for file in here if file is not None])
            return
        with Prefetch(self._fetched(files), depth=1) as windows:
            for window in windows:
                yield from self._decode([file for file, _ in window])
                for file, stays in window:
                    if not stays:
                        Path(file.path).unlink(missing_ok=True)

    def _here(self, file: DataFile) -> DataFile | None:
        """A file that can be read on this machine, its copy where it lies on a store; None where there is none."""
        if store.is_local(file.path):
            return file
        copy = self._copies.find(file.sha256)
        return None if copy is None else replace(file, path=str(copy))

    def _fetched(self, files: Sequence[DataFile]) -> Generator[list[tuple[DataFile, bool]], None, None]:
        """A few files after another on this machine, and which of them stay."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for first in range(0, len(files), _AT_ONCE):
                yield list(pool.map(self._fetch, files[first : first + _AT_ONCE]))

    def _fetch(self, file: DataFile) -> tuple[DataFile, bool]:
        if store.is_local(file.path):
            return file, True
        try:
            copy = self._copies.get(file.path, file.sha256)
        except OtherBytesError as error:
            raise damaged(file, f"SHA-256 {error}", expected=f"SHA-256 {file.sha256}") from error
        except FileNotFoundError as error:
            raise damaged(file, "no such file", expected=f"SHA-256 {file.sha256}") from error
        return replace(file, path=str(copy.path)), copy.stays


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
