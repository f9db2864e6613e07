"""Source files of a date that was done, or begun, and whether they are still the same."""

from __future__ import annotations

from fieldwise.features.errors import FieldwiseError
from fieldwise.features.redact import redacted_tree
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.agreement import rebuild, source_files, source_stamps
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.record import Record
from fieldwise.pipelines.unchanged import Stamps, changes

_MOST = 8
"""Changed files that are told."""


def sources_of(config: Config, days: list[str]) -> dict[str, Stamps]:
    """Marks of every day's files, under names that stay when config and data are moved together."""
    base = config.base.rstrip("/") + "/"
    found = {day: source_stamps(config, source_files(config, [day]), day) for day in days}
    plain = {day: [[path.removeprefix(base), mark] for path, mark in stamps] for day, stamps in found.items()}
    named: dict[str, Stamps] = redacted_tree(plain)  # as the record keeps them
    return named


def say_changed_sources(config: Config, record: Record, date: str) -> None:
    """Warn where a date was done, or begun, with other source files than there are now; say how to do it anew."""
    was = f"{date} was {'done' if record.whole else 'begun'}"
    before: dict[str, Stamps] | None = record.steps.get("sources")
    if before is None:
        warn(f"{was} by an earlier version: whether its source has changed since is not known")
        return
    try:
        now = sources_of(config, list(before))
    except (FieldwiseError, OSError) as error:  # logs need not be kept: what was done stays done
        warn(f"whether the source has changed since {was} is not known: {error}")
        return
    told = {day: changes(stamps, now[day]) for day, stamps in before.items()}
    changed = [day for day, words in told.items() if words]
    if not changed:
        return
    words = list(dict.fromkeys(word for day in changed for word in told[day]))
    more = f" and {len(words) - _MOST} more" if len(words) > _MOST else ""
    steps = record.steps  # earlier versions kept every day that a date had built
    built = {day: steps.get(f"features {day}", steps.get("today", {})).get("dir") for day in changed}
    builds = [f"`{rebuild(config, place, day, fields=False)}`, " for day, place in built.items() if place]
    say(
        f"warning: {was}, and what was built stays, but its source has changed since: "
        f"{'; '.join(words[:_MOST])}{more}. To do it anew: {''.join(builds)}remove {record.path}, and run the same "
        "`fieldwise daily` again."
    )
