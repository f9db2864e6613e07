"""How many lists differ, and how many items they show, counted in memory that does not grow with the lists.

Of n distinct values with hashes spread evenly over [0, 2^64), the ``MOST`` smallest hashes tell n: exactly where there
are fewer, else about (MOST - 1) 2^64 / the largest of them, with a relative error near 1 / sqrt(MOST), 2 % (Bar-Yossef
et al. 2002). The smallest hashes of parts are those of the whole, however it is parted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fieldwise.features.arrays import Int64, UInt64
from fieldwise.features.columns.hashing import xxh64_rows

MOST = 4096
_SEED = 11


def hashes_of_lists(start: Int64, item: Int64) -> UInt64:
    """One hash of each list that is not empty: its items in their order. start [lists + 1], item [places]."""
    lengths = np.diff(start)
    row, place = np.repeat(np.arange(len(lengths)), lengths), np.arange(len(item)) - np.repeat(start[:-1], lengths)
    padded = np.full((len(lengths), max(1, lengths.max(initial=0))), -1, np.int64)
    padded[row, place] = item
    return xxh64_rows(padded[lengths > 0].view(np.uint8), _SEED)


def hashes_of_items(item: Int64) -> UInt64:
    """One hash of each different item."""
    return xxh64_rows(np.unique(item).astype(np.int64)[:, None].view(np.uint8), _SEED)


def smallest(hashes: UInt64) -> list[int]:
    """What a part tells of its values."""
    return [int(each) for each in np.unique(hashes)[:MOST]]


def count(parts: Iterable[Sequence[int]]) -> tuple[int, bool]:
    """(how many distinct values the parts have together, whether that is exact)."""
    least: list[int] = []
    for part in parts:
        least = sorted({*least, *part})[:MOST] if part else least
    if len(least) < MOST:
        return len(least), True
    return round((MOST - 1) * 2.0**64 / max(least[-1], 1)), False


def different(reports: Iterable[dict[str, Any]], contexts: int, items: int) -> dict[str, Any]:
    """From the tasks' reports, whose word on it is taken away: how many distinct ``lists`` and ``items`` there are, and
    whether both are ``exact``. An estimate is no more than there can be: one list for each context, all items."""
    told = [(report.pop("lists"), report.pop("listed")) for report in reports]
    (lists, exact), (listed, all_of_them) = (count(part) for part in zip(*told, strict=True))
    return {"lists": min(lists, contexts), "items": min(listed, items), "exact": exact and all_of_them}
