"""What ``daily`` does for yesterday's lists: the newest ones of a day before, measured on the day's log.

Lists of a day are made once its log is in, and shown on the day after. So on day D those of D - 1 are measured, or the
newest before them. Figures decide nothing, and no date ends for want of them: where they cannot be had, a line says
why.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import known_error
from fieldwise.features.interrupt import Interruptible
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.lists.evaluate_lists import measure_lists, note_lists
from fieldwise.pipelines.lists.results import told_shortly
from fieldwise.pipelines.score.output import MANIFEST

_KEPT = ("date", "lists", "days", "by", "counts", "metrics", "exposure")
_DATED = re.compile(r"date=(\d{4}-\d{2}-\d{2})")


def newest_before(config: Config, date: str) -> str | None:
    """The last day before ``date`` whose lists stand in the workspace."""
    place = store.join(config.workspace_dir, "scores", "catalog")
    days = sorted((match[1] for name in store.list_sizes(place) if (match := _DATED.fullmatch(name))), reverse=True)
    there = (day for day in days if day < date and store.exists(store.join(place, f"date={day}", MANIFEST)))
    return next(there, None)


def measure_yesterdays(config: Config, date: str) -> dict[str, Any]:
    """Of `measure_lists` what a day's record keeps, ``date`` being the lists' own; else ``date`` (None: there are no
    lists) and ``why`` they were not measured. Says one line."""
    own: str | None = None
    try:
        own = newest_before(config, date)
        if own is None:
            say(f"no lists of a day before {date} to measure on it")
            return {"date": None, "why": "none of a day before"}
        found, _ = measure_lists(config, date=own, first=date, last=date)
    except Exception as error:  # whatever it is: the date goes on
        why = _told(error)
        warn(f"lists of {own} were not measured on {date}: {why} Later: {_by_hand(config, own, date)}")
        return {"date": own, "why": why}
    say(f"lists of {own} on {date}: {told_shortly(found)}")
    return {key: found[key] for key in _KEPT}


def note_yesterdays(config: Config, found: dict[str, Any]) -> None:
    """Tell MLflow of what `measure_yesterdays` gave, or say why it could not be told."""
    if "metrics" in found:
        try:
            note_lists(config, found)
        except Exception as error:
            by_hand = _by_hand(config, found["date"], found["days"][-1])
            warn(f"MLflow was not told of the lists of {found['date']}: {_told(error)} Later: {by_hand}")


def _told(error: Exception) -> str:
    """In our words. Raises what a signal that ends the command has broken."""
    if Interruptible.active is not None and Interruptible.active.came is not None:
        raise error
    return str(known_error(error) or f"a defect, {error!r}.")


def _by_hand(config: Config, lists: str | None, date: str) -> str:
    named = ["--date", lists] if lists else []
    return f"`{shlex.join(['fieldwise', 'evaluate-lists', *config.arguments, *named, '--from', date])}`"
