"""Which rows train, validate and test, and which negatives of the training split stay."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.hashing import xxh64_array, xxh64_rows
from fieldwise.features.config import SplitConfig
from fieldwise.features.errors import InputError
from fieldwise.features.snapshot.manifest import ROLES

Roles = npt.NDArray[np.uint8]  # positions in ROLES
TRAIN, VALID, TEST, ALL = range(len(ROLES))

SPLIT_SEED = 0x5911
SAMPLING_SEED = 0x5A3B
"""Splits and sampling must be independent of the feature hash (42) and of row placement."""


@dataclass(frozen=True)
class Splitter:
    """The role of every row.

    time: rows before ``valid_from`` train, before ``test_from`` validate, later ones test (epoch microseconds).
    hash: with u = XXH64(key) / 2^64, u < test tests, u < test + valid validates, else trains.
    files: by glob patterns of paths or of file names.
    """

    config: SplitConfig
    valid_from: int | None = None
    test_from: int | None = None

    @property
    def roles(self) -> list[int]:
        """Roles that must not stay empty."""
        if self.config.by == "none":
            return [ALL]
        return [TRAIN] + [role for role, part in ((VALID, self.config.valid), (TEST, self.config.test)) if part]

    def of_path(self, path: str) -> int:
        """Role of a whole file when split by files (or none)."""
        if self.config.by == "none":
            return ALL
        for role, part in ((VALID, self.config.valid), (TEST, self.config.test)):
            patterns = [part] if isinstance(part, str) else part if isinstance(part, list) else []
            if any(_matches(path, pattern) for pattern in patterns):
                return role
        return TRAIN

    def of_rows(self, columns: Columns, time: npt.NDArray[np.int64] | None, path: str) -> Roles:
        n = columns.rows
        if self.config.by in ("none", "files"):
            return np.full(n, self.of_path(path), np.uint8)
        if self.config.by == "time":
            assert time is not None
            assert self.valid_from is not None
            assert self.test_from is not None
            return ((time >= self.valid_from).astype(np.uint8) + (time >= self.test_from)).astype(np.uint8)
        assert self.config.key is not None
        share = xxh64_array(self._key(columns), SPLIT_SEED).astype(np.float64) / 2.0**64
        test, valid = float(self.config.test), float(self.config.valid)  # type: ignore[arg-type]
        return np.where(share < test, TEST, np.where(share < test + valid, VALID, TRAIN)).astype(np.uint8)

    def _key(self, columns: Columns) -> pa.Array:
        if self.config.key not in columns.names:
            raise InputError(
                "split.key",
                expected=f"one of the columns {', '.join(columns.names)}",
                found=str(self.config.key),
                fix="Name a column of the log or of a joined table.",
            )
        return columns.array(self.config.key)


def _matches(path: str, pattern: str) -> bool:
    """Whether a path or its last part matches; brackets may also stand for themselves."""
    if path == pattern or path.endswith(f"/{pattern}"):
        return True
    literal = pattern.replace("[", "[[]")
    return any(fnmatch.fnmatch(name, p) for name in (path, path.rsplit("/", 1)[-1]) for p in (pattern, literal))


def kept_negatives(rate: float, file: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """True for the share ``rate`` of rows, decided by XXH64 of (file's place in the list, position in the file)."""
    place = np.stack([np.full(len(positions), file, np.int64), positions.astype(np.int64)], axis=1)
    return xxh64_rows(place.view(np.uint8), SAMPLING_SEED).astype(np.float64) < rate * 2.0**64
