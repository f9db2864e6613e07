"""The first model from a range of days, in one command: what ``daily`` goes on from."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from fieldwise.features.columns.day import day_of
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.terminal import say
from fieldwise.pipelines.agreement import source_files
from fieldwise.pipelines.build.drift import keep_expected, spec_dir
from fieldwise.pipelines.build.features import publish_snapshot
from fieldwise.pipelines.build.refit import fit_days
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.launch import Days
from fieldwise.pipelines.train.family import train_best


def days_between(first: str, last: str) -> list[str]:
    """All days from ``first`` to ``last``. ConfigError where they are not in this order."""
    start, end = day_of(first), day_of(last)
    if end < start:
        raise ConfigError("--from, --to", expected="the earlier day first", found=f"{first}, {last}", fix="Swap them.")
    return [str(start + datetime.timedelta(days=n)) for n in range((end - start).days + 1)]


def bootstrap(config: Config, *, first: str, last: str, ranks: int = 1) -> dict[str, Any]:
    """Fit a spec on all days but the last tenth, publish every day under it, train and register a model.

    The last tenth of the days (at least one) validates; ``daily`` learns from these days later. Days without files are
    left out by name. The model becomes champion where there is none.

    Raises ConfigError for fewer than two days with rows, and what the steps raise.
    """
    return first_model(config, days_between(first, last), ranks=ranks)


def first_model(config: Config, days: Sequence[str], *, ranks: int = 1, register: bool = True) -> dict[str, Any]:
    """``bootstrap`` of given days."""
    days = _there(config, days)
    held_out = max(1, len(days) // 10)
    if len(days) < 2:
        raise ConfigError("--from, --to", expected="at least two days with files", found=", ".join(days) or "none",
                          fix="Name an earlier first or a later last day.")  # fmt: skip
    training = days[:-held_out]
    spec = fit_days(config, training)
    spec.save(spec_dir(config, spec.digest))
    built = [publish_snapshot(config, day, spec, None) for day in days]
    keep_expected(config, reduce(add, [report.distribution for _, report in built[: len(training)]]))
    places = [result["dir"] for result, _ in built]
    roles = Days(places[: len(training)], places[len(training) :])
    trained = train_best(config, ranks, roles, register=register)
    assert trained is not None  # no rank of others
    return {"days": days, "valid": days[-held_out:], "spec_digest": spec.digest, **trained}


def _there(config: Config, days: Sequence[str]) -> list[str]:
    """Those of the days that have source files."""
    found = []
    for day in days:
        try:
            source_files(config, [day])
            found.append(day)
        except InputError as error:
            say(f"{day} is left out: {error}")
    return found
