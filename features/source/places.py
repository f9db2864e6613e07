"""Where people find a row: the line of a text file, the row of a Parquet file, both counted from 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from fieldwise.features.files.compression import opened

MOST_READ = 1 << 30
"""Bytes read to count the lines before all rows together; places beyond are told as bytes."""


def places(found: Iterable[tuple[str, int]], format_of: Callable[[str], str]) -> Iterator[tuple[tuple[str, int], str]]:
    """(path, position) and how people find it. Files are read once, up to their last position."""
    by_path: dict[str, list[int]] = {}
    for path, position in sorted(found):
        by_path.setdefault(path, []).append(position)
    left = MOST_READ
    for path, positions in by_path.items():
        if format_of(path) == "parquet":
            yield from (((path, position), f"{path} row {position + 1}") for position in positions)
            continue
        near = [position for position in positions if position <= left]
        lines = _lines(path, near) if near else {}
        left -= max(near, default=0)
        for position in positions:
            line = lines.get(position)
            yield (path, position), f"{path} line {line}" if line else f"{path} byte {position}"


def _lines(path: str, positions: Sequence[int]) -> dict[int, int]:
    """Line of each position (ascending) of a text file, from 1; none of a file that is no longer as it was read."""
    lines: dict[int, int] = {}
    at = newlines = returns = 0
    try:
        with opened(path) as stream:
            for position in positions:
                while at < position:
                    block = stream.read(min(position - at, 1 << 20))
                    if not block:
                        return lines
                    at, newlines, returns = at + len(block), newlines + block.count(b"\n"), returns + block.count(b"\r")
                lines[position] = 1 + (newlines or returns)
    except (OSError, ValueError):
        return lines
    return lines
