"""Sources of bytes: written, and read back whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.compression import require_text
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.keys import require_keys
from fieldwise.features.source.raw import read_range, split_ranges
from fieldwise.features.source.rows import Reject


def read(
    config: SourceConfig,
    base: Path,
    target: int = 1 << 30,
    columns: list[str] | None = None,
    lists: tuple[str, ...] = (),
) -> Any:
    """(rows as lists, positions, rejects, raw bytes of rows) of a whole source."""
    rows: list[list[Any]] = []
    positions: list[int] = []
    rejects: list[Reject] = []
    raws: list[bytes] = []
    files = list_files(config, str(base))
    require_keys(config, files, columns or [])
    for rng in split_ranges(config, files, target):
        for batch in read_range(config, rng, columns, lists):
            rows += [list(row.values()) for row in batch.columns.batch().to_pylist()]
            positions += batch.positions.tolist()
            rejects += batch.rejects
            raws += [batch.raw(i) for i in range(batch.columns.rows)]
    return rows, positions, rejects, raws


def is_text(data: bytes) -> bool:
    try:
        require_text("log.txt", data, "utf-8")
    except InputError:
        return False
    return True


def write(base: Path, data: bytes, name: str = "log.txt") -> Path:
    (base / name).write_bytes(data)
    return base


def tsv(**extra: Any) -> SourceConfig:
    return SourceConfig(path=["log.txt"], format="tsv", columns=["a", "b"], **extra)
