"""What a date of the daily cycle has done, step by step: ``<workspace>/daily/<date>.json``.

Steps are recorded once they are finished, so a date that was killed goes on where it stopped, and later dates read what
earlier ones found: which days are sound, where the challenger's line stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.redact import redacted_tree
from fieldwise.features.snapshot.record import check_record
from fieldwise.features.store.kept import read_record, write_record
from fieldwise.features.store.lock import locked
from fieldwise.features.terminal import say

HERE = "{workspace}"
"""Stands for the workspace in records, which may be moved with it."""
PATIENCE = 60.0
"""Seconds to wait for another process at the same date."""
_NEWER = ("sources", "measured", "today", "suspicious", "comparison", "intended", "decision", "line")
"""Steps of versions that seal what they record."""
_OLDER: dict[str, type] = {"champion": str, "challenger": dict, "promotion": dict}
"""What is read of records of versions before."""
_DATED = re.compile(r"(\d{4}-\d{2}-\d{2})\.json")


class Record:
    """Results of the steps a date has finished, by name. Its file names places in the workspace relative to that."""

    def __init__(self, workspace: str, date: str) -> None:
        self.date, self._workspace = date, workspace.rstrip("/")
        self.path = store.join(workspace, "daily", f"{date}.json")
        fix = f"Remove the file to do {date} anew; its snapshots and trainings are found again."
        what = "the steps of a day, as they were recorded"
        kept = read_record(self.path, what, fix, newer=_NEWER) or {}
        if (lacking := _lacking(kept)) is not None:
            raise ArtifactError(self.path, expected=what, found=f"one without {lacking}", fix=fix)
        self.steps: dict[str, Any] = _moved(kept, HERE, self._workspace)
        self.whole = "done" in self.steps

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """The step's result: from the record if it is there, else by working, and then recorded."""
        if name not in self.steps:
            say(f"{name} ...")
            self.put(name, work())
        return self.steps[name]

    def put(self, name: str, result: Any) -> None:
        """Record a result, in place of an earlier one."""
        self.steps[name] = result
        write_record(self.path, redacted_tree(_moved(self.steps, self._workspace, HERE)))

    def begin_anew(self) -> None:
        """Forget all steps but what was found against the day; what they have made stands, and is found again."""
        kept = {name: self.steps[name] for name in ("suspicious",) if name in self.steps}
        self.steps = kept
        write_record(self.path, redacted_tree(_moved(kept, self._workspace, HERE)))

    @property
    def looked_at(self) -> bool:
        """Whether the date has found its day sound, or a person has."""
        return "today" in self.steps

    @property
    def unsound(self) -> list[str]:
        """Why nobody shall learn from the day: what was found, and no person has taken it back."""
        return [] if self.looked_at else list(self.steps.get("suspicious", {}).get("findings", []))


def alone(workspace: str, date: str, *, patience: float | None = None) -> AbstractContextManager[None]:
    """One process at a date of a workspace. Raises BusyError where another one stays at it for longer than
    ``patience`` seconds (default: `PATIENCE`)."""
    store.make_dir(folder := store.join(workspace, "daily"))
    fix = "Wait for it; this date then tells what it decided."
    return locked(store.join(folder, f".{date}.lock"), f"day {date}", expected="one process at it", fix=fix,
                  patience=PATIENCE if patience is None else patience)  # fmt: skip


def records_before(workspace: str, date: str) -> Iterator[Record]:
    """Of earlier dates, the latest first; read one by one, as far as someone asks."""
    names = store.list_sizes(store.join(workspace, "daily"))
    days = sorted((match[1] for name in names if (match := _DATED.fullmatch(name))), reverse=True)
    return (Record(workspace, day) for day in days if day < date)


def _lacking(kept: dict[str, Any]) -> str | None:
    """What is read of a record that has no seal, and is not there or no such thing."""
    if "done" in kept and "champion" not in kept:
        return "champion"
    with suppress(ValueError):
        if "config" in kept:
            check_record(kept["config"])
        return next((name for name, kind in _OLDER.items() if not isinstance(kept.get(name, kind()), kind)), None)
    return "config"


def _moved(value: Any, before: str, now: str) -> Any:
    """``value``, its texts that name a place below ``before`` naming the one below ``now``."""
    if isinstance(value, dict):
        return {key: _moved(item, before, now) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(item, before, now) for item in value]
    inside = isinstance(value, str) and (value == before or value.startswith(f"{before}/"))
    return f"{now}{value[len(before) :]}" if inside else value
