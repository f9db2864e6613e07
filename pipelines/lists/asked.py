"""What is to be read for an evaluation: which days happened after the lists, which before, and from which files."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from fieldwise.features import store
from fieldwise.features.columns.day import day_of
from fieldwise.features.columns.expression import Expression
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.files.listing import SourceFile, list_files
from fieldwise.features.report.report import REPORT, Report
from fieldwise.features.snapshot.manifest import snapshot_dir, standing
from fieldwise.features.source.log import LogReader, Period, period_of
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.agreement import is_dated
from fieldwise.pipelines.build.refit import window
from fieldwise.pipelines.config.catalog import PairsConfig
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.lists.sources import Log, Table

_EVER = -(1 << 62)


@dataclass(frozen=True)
class Asked:
    """A source of pairs and its files."""

    rows: Log | Table
    files: list[SourceFile]


def days_after(date: str | None, first: str | None, last: str | None) -> list[str]:
    """The days that lists are measured on: by default the one after theirs. ConfigError for an impossible range."""
    if first is None and date is None:
        return []
    begin = day_of(first) if first is not None else day_of(str(date)) + datetime.timedelta(days=1)
    end = begin if last is None else day_of(last)
    if end < begin:
        raise ConfigError("--to", expected=f"a day from {begin} on", found=str(end), fix="Name a later day.")
    return [str(begin + datetime.timedelta(days=n)) for n in range((end - begin).days + 1)]


def events_of(config: Config, days: Sequence[str]) -> Asked:
    """What happened on the days. ConfigError where the config does not say how to tell them."""
    gain = None if config.lists.gain is None else Expression(config.lists.gain, "lists.gain")
    table = config.lists.events
    if table is not None:
        return Asked(_table(config, table, gain), _files(table, config, days))
    if not days:
        _, unseen = by_training(config)
        first, last = (unseen[0], unseen[-1]) if unseen else ("YYYY-MM-DD", "YYYY-MM-DD")
        known = ", which training has not seen" if unseen else ""
        fix = f"Name them: --from {first} --to {last}{known}, or name a table in lists.events."
        raise ConfigError("evaluate-lists", expected="the days that the lists are measured on", found="none", fix=fix)
    _require_time(config, "lists.events")
    files = _files(config.source, config, days)
    return Asked(_log(config, _period(config, days), gain), files)


def warn_of_trained(config: Config, days: Sequence[str]) -> None:
    """Say so where lists are measured by what their model may have learned from."""
    trained, unseen = by_training(config)
    known = [day for day in days if day in trained]
    if known and config.lists.events is None:
        told = f"take --from {unseen[0]} --to {unseen[-1]}" if unseen else "split by time, or take later days"
        warn(
            f"a model of the snapshot `all` was trained on rows of {known[0]}{' and later' if len(known) > 1 else ''}: "
            f"measured by what it has learned, its lists look better than they are; {told}"
        )


def by_training(config: Config) -> tuple[set[str], list[str]]:
    """Days of the snapshot of the whole source that training learns from, or is stopped and chosen by, and those after
    them; none without one."""
    directory = snapshot_dir(config.workspace_dir, "all")
    found = None if is_dated(config) else standing(directory)
    days = [] if found is None else Report.load(store.join(directory, found.data, REPORT)).days
    trained = {day.day for day in days if day.trained or day.valid}
    return trained, [day.day for day in days if trained and day.day > max(trained)]


def history_of(config: Config, days: Sequence[str], date: str | None) -> Asked:
    """What happened before the days."""
    table, lists = config.lists.history, config.lists
    if table is not None:
        return Asked(_table(config, table, None), list_files(table, config.base, date))
    first = days[0] if days else date
    if first is None:
        fix = "Name a table in lists.history, or the first day by --from."
        raise ConfigError("lists.history", expected="what happened before the lists", found="no day", fix=fix)
    _require_time(config, "lists.history")
    count = lists.history_days or (config.daily.window if is_dated(config) else None)
    before = window(first, count)[:-1] if count else []
    if is_dated(config):
        return Asked(_log(config, _period(config, before), None), _there(config, before))
    own = period_of(_settled(config), [first], dated=False)
    assert own is not None
    begin = _EVER if not before else (_period(config, before) or own)[0]
    return Asked(_log(config, (begin, own[0]), None), list_files(config.source, config.base))


def _there(config: Config, days: Sequence[str]) -> list[SourceFile]:
    """Files of those days that have any."""
    found, missing = list[SourceFile](), list[str]()
    for day in days:
        try:
            found += list_files(config.source, config.base, day)
        except InputError:
            missing.append(day)
    if not found:
        fix = "Raise lists.history_days, or name a table in lists.history."
        raise InputError("lists.history", expected=f"logs of {days[0]} to {days[-1]}", found="none", fix=fix)
    if missing:
        say(f"  lists.history: no logs of {', '.join(missing)}")
    return list(dict.fromkeys(found))


def _files(source: SourceConfig, config: Config, days: Sequence[str]) -> list[SourceFile]:
    if not any("{date}" in path for path in source.path):
        return list_files(source, config.base)
    every = [file for day in days for file in list_files(source, config.base, day)]
    return list(dict.fromkeys(every)) if days else list_files(source, config.base)


def _table(config: Config, table: PairsConfig, gain: Expression | None) -> Table:
    catalog = config.require_catalog()
    return Table(table, table.context or catalog.context_id, table.item or catalog.item_id, gain)


def pairs_of(config: Config, table: PairsConfig, date: str | None) -> Asked:
    """Exclusions or candidates of the catalog."""
    return Asked(_table(config, table, None), list_files(table, config.base, date))


def _log(config: Config, period: Period | None, gain: Expression | None) -> Log:
    catalog = config.require_catalog()
    context, item = config.lists.context or catalog.context_id, config.lists.item or catalog.item_id
    keep = [context, item, *(gain.columns if gain else ())]
    reader = LogReader(config.features.model_copy(update={"fields": []}), config.base, period=period, keep=keep)
    return Log(reader, context, item, gain)


def _period(config: Config, days: Sequence[str]) -> Period | None:
    """Their first moment and the one past their last; None where files alone decide."""
    late = config.label_delay is not None  # then files of a day hold rows of others, too
    return period_of(_settled(config), days, dated=is_dated(config) and not late)


def _settled(config: Config) -> Config:
    """A day is a day: lists are measured by moments, whenever labels settle."""
    return config.model_copy(update={"label_delay": None})


def _require_time(config: Config, key: str) -> None:
    if config.time is None and not is_dated(config):
        raise ConfigError(
            key, expected="a `time` or a source path with {date}, to tell the days", found="neither",
            fix=f"Name the column: `time: COLUMN`, or name a table in {key}.",
        )  # fmt: skip
