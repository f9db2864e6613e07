"""How a day is written on a command line: known before anything is imported that takes time."""

from __future__ import annotations

from contextlib import suppress
from datetime import date as Date

from fieldwise.features.errors import ConfigError

_YEARS = range(1000, 9000)
"""Days of others leave no room for the days before and after them, which commands count."""


def day_of(text: str) -> Date:
    """A day of the command line, in no other form of ISO 8601 than this. Raises ConfigError."""
    expected = "YYYY-MM-DD"
    with suppress(ValueError):
        day = Date.fromisoformat(text)
        if day.isoformat() == text:
            if day.year in _YEARS:
                return day
            expected = f"a year from {_YEARS[0]} to {_YEARS[-1]}"
    raise ConfigError("--date", expected=expected, found=repr(text), fix="Write the day in full.")
