"""The daily cycle over a range of dates, as if each had come by itself."""

from __future__ import annotations

from typing import Any

from fieldwise.features.errors import InputError, RefusedError
from fieldwise.features.terminal import say
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.bootstrap import days_between
from fieldwise.pipelines.cycle.daily import run_day


def backfill(config: Config, *, first: str, last: str, ranks: int = 1) -> dict[str, Any]:
    """Run every date in order; those that are done are not done again. A date that is refused is named and left behind.

    Returns: ``dates`` (by date what was decided, or why it was refused), ``refused`` (how many).
    Raises what stops a date for other reasons than its rows; the same call goes on there.
    """
    found: dict[str, Any] = {}
    for date in days_between(first, last):
        try:
            done = run_day(config, date=date, ranks=ranks)
            found[date] = {key: done[key] for key in ("decision", "champion", "challenger", "now", "findings")}
        except (InputError, RefusedError) as error:
            say(f"{date}: {error}")
            found[date] = {"refused": str(error)}
    refused = sum("refused" in each for each in found.values())
    say(f"{len(found)} dates, {refused} refused", *_lines(found))
    return {"dates": found, "refused": refused}


def _lines(found: dict[str, Any]) -> list[str]:
    rows = [(date, each.get("decision") or "refused", each.get("findings") or [each.get("refused", "")])
            for date, each in found.items()]  # fmt: skip
    return [f"  {date}  {decision:<10} {'; '.join(words)}".rstrip() for date, decision, words in rows]
