"""Days as the daily cycle sees them: built under a spec, sound or not, known to a model or new to it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from fieldwise.features.errors import BusyError, InputError, RefusedError
from fieldwise.features.snapshot.manifest import load_snapshot, snapshot_dir, standing
from fieldwise.features.terminal import say
from fieldwise.pipelines.build.drift import kept_expected
from fieldwise.pipelines.build.features import Late, build_features, load_spec
from fieldwise.pipelines.build.refit import window
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.record import Record, alone
from fieldwise.pipelines.cycle.suspicion import Day, Finding, findings, refused_day
from fieldwise.training.data.learned import Learned

Built = dict[str, Any]
"""A day: ``dir`` of its snapshot (None: its rows were refused), ``findings`` against it, in words, ``drift``, the
``exit_code`` of what they are, and of refused rows the ``refusal``: the parts of the error."""


def build_day(config: Config, date: str, spec: str, *, late: Late) -> Built:
    """Publish a day under a spec, and compare it with the days before it.

    Raises what is no fault of the day's rows.
    """
    try:
        built = build_features(config, date=date, spec=spec, late=late)
    except (InputError, RefusedError) as error:
        told = refused_day(error)
        parts = {"where": error.where, "expected": error.expected, "found": error.found, "fix": error.fix}
        return {
            "dir": None, "findings": [str(told)], "exit_code": error.exit_code, "drift": None, "refusal": parts
        }  # fmt: skip
    found = _judged(config, date, built["dir"])
    return {"dir": built["dir"], "findings": [str(each) for each in found], "exit_code": 3, "drift": built["drift"]}


def _judged(config: Config, date: str, directory: str) -> list[Finding]:
    expected = kept_expected(config, load_snapshot(directory).spec.digest)
    day = Day.open(config, date, directory)
    return findings(day, sound_days(config, date), config.daily.suspicion, expected=expected)


def sound_days(config: Config, date: str) -> list[Day]:
    """The days before one that stand and that nothing speaks against, in order."""
    found = []
    for day in window(date, 2 * config.daily.suspicion.days)[:-1]:
        directory = snapshot_dir(config.workspace_dir, day)
        if standing(directory) is not None and not Record(config.workspace_dir, day).unsound:
            found.append(Day.open(config, day, directory))
    return found


def days_to_learn(config: Config, date: str, learned: Learned | None) -> list[str]:
    """Those of the ``daily.window`` days before a date that a model has not learned from; of a model that does not
    tell, the day before."""
    days = window(date, config.daily.window)[:-1]
    return days[-1:] if learned is None else [day for day in days if not learned.knows(day)]


def sound_of(config: Config, days: Sequence[str], record: Record, spec: str) -> dict[str, str]:
    """Directories of those days that can be learned from, built where they were not. The others are named, and why."""
    found = {}
    digest = load_spec(spec, config).digest
    for day in days:
        own = Record(config.workspace_dir, day)
        unsound = own.unsound
        if not unsound:
            name = f"features {day} by {digest[:8]}"
            built = record.step(name, partial(build_day, config, day, spec, late=config.daily.late))
            if built["dir"] is None or not own.looked_at:  # by its own date, or by a person who vouched for it
                unsound = built["findings"]
            if not unsound:
                found[day] = built["dir"]
            elif built["dir"] is not None:  # it stands, and is nothing to compare others with
                _tell_suspicious(config, day, built)
        if unsound:
            say(f"{day} is left out: {'; '.join(unsound)}")
    return found


def _tell_suspicious(config: Config, day: str, built: Built) -> None:
    """Record what was found against a day that no date has looked at; a process that is at the date finds it itself."""
    with suppress(BusyError), alone(config.workspace_dir, day, patience=0):
        own = Record(config.workspace_dir, day)
        if not own.looked_at:
            own.put("suspicious", built)
