"""What a model has learned from adds up over its line, and days are found again."""

from __future__ import annotations

from pathlib import Path

from fieldwise.training.data.learned import Learned
from tests.snapshots import hash_spec, write_snapshot

SPEC = hash_spec((5, 5))


def test_days_add_up(tmp_path: Path) -> None:
    days = ["2026-01-07", "2026-01-06"]
    snapshots = [write_snapshot(tmp_path / day, SPEC, {"all": [100 + n]}, name=day) for n, day in enumerate(days)]
    first, second = (Learned.of([snapshot]) for snapshot in snapshots)
    both = Learned(rows={"f" * 64: 7}, through="2026-01-03") | first | second | first
    assert (both.total, both.days, both.through) == (7 + 100 + 101, sorted(days), "2026-01-03")
    asked = ["2026-01-02", "2026-01-03", "2026-01-04", "2026-01-07"]
    assert [both.knows(day) for day in asked] == [True, True, False, True]
