"""Which rows a model has learned from, over all trainings of its line: itself, what it started from, and so on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, Field

from fieldwise.features import store
from fieldwise.features.report.report import REPORT, Report
from fieldwise.features.schema import Strict
from fieldwise.features.snapshot.manifest import Sha256, Snapshot


def _of_the_calendar(day: str) -> str:
    if date.fromisoformat(day).isoformat() != day:
        raise ValueError("a day must be written as 2026-01-31")
    return day


CalendarDay = Annotated[str, AfterValidator(_of_the_calendar)]
ROLES = ("train", "all")
"""Of files that train."""


class Learned(Strict):
    """What is told of training rows: enough to go on from the model, and to find out which days it knows."""

    rows: dict[Sha256, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """By the digest of a snapshot: rows are counted once, however often they trained."""
    days: list[CalendarDay] = Field(default_factory=list)
    """Those of daily snapshots, in order."""
    through: CalendarDay | None = None
    """The last day most of whose rows trained as part of a snapshot of several days; None where there is none."""

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    def knows(self, day: str) -> bool:
        """Whether it has learned from a day's rows: from its snapshot, or from one that went beyond it."""
        return day in self.days or (self.through is not None and day <= self.through)

    def __or__(self, other: Learned) -> Learned:
        through = max((each for each in (self.through, other.through) if each is not None), default=None)
        return Learned(rows=self.rows | other.rows, days=sorted({*self.days, *other.days}), through=through)

    @staticmethod
    def of(snapshots: Iterable[Snapshot]) -> Learned:
        """What a training on them learns from."""
        found = Learned()
        for snapshot in snapshots:
            day, rows = snapshot.manifest.day, snapshot.manifest.rows_of(ROLES)
            through = _through(snapshot) if day is None else None
            found |= Learned(rows={snapshot.manifest.digest: rows}, days=[day] if day else [], through=through)
        return found


def _through(snapshot: Snapshot) -> str | None:
    """A split by time cuts through a day: that is known if most of it trained."""
    report = store.join(snapshot.data_dir, REPORT)
    if not store.exists(report):
        return None
    return max((day.day for day in Report.load(report).days if 2 * (day.trained or 0) >= day.rows), default=None)
