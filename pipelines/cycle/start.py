"""What a date finds before it does anything: the champion, the line's model, what it was begun with and whether that is
still so."""

from __future__ import annotations

from fieldwise.features.errors import ArtifactError, FieldwiseError
from fieldwise.features.redact import redacted_tree
from fieldwise.features.snapshot.record import EXPRESSIONS, differences
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.agreement import rebuild, source_files, source_stamps
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.record import Record, records_before
from fieldwise.pipelines.decision import any_decision
from fieldwise.pipelines.registry import champion_of, tracking_of
from fieldwise.pipelines.unchanged import Stamps, changes

_MOST = 8
"""Changed files that are told."""


def line_of(config: Config, record: Record, champion: str) -> tuple[str, list[str]]:
    """The model that the challenger starts from, and the dates whose comparisons speak for its line."""
    for earlier in records_before(config.workspace_dir, record.date):
        line = earlier.steps.get("line")
        if line is not None:
            return (line["model"], line["dates"]) if line["champion"] == champion else (champion, [])
    return champion, []


def require_same(record: Record, config: Config) -> None:
    """Raises ArtifactError where a date was begun, or done, with rows made otherwise than the config says now, and
    where it was begun, and not done, by a version that decided otherwise."""
    kept = record.steps.get("config")
    if not record.whole and "challenger" in record.steps and not record.looked_at:
        raise ArtifactError(record.path, expected="a day that was begun by this version", found="an earlier one's",
                            fix=f"Remove the file to do {record.date} anew.")  # fmt: skip
    if kept is None:  # not begun, or by an earlier version
        return
    keys = ("source", "join", *EXPRESSIONS, "time")
    found = differences(kept, config.record, keys, names=("then", "config"), same_paths=True)
    if found:
        raise ArtifactError(
            record.path,
            expected=f"a day that was {'done' if record.whole else 'begun'} with this config",
            found="; ".join(found),
            fix=f"Use the config it was done with, or remove the file to do {record.date} anew.",
        )


def require_begun_against(record: Record, config: Config) -> None:
    """Let a date begin anew that was measured against a champion which has gone since, before anything was decided."""
    begun = record.steps.get("champion")
    if begun is None or not record.looked_at or record.whole or "intended" in record.steps:
        return
    now = champion_now(config)
    if now != begun:
        say(f"{record.date} was begun against {begun}, and the champion is {now} now: it begins anew")
        record.begin_anew()


def champion_now(config: Config) -> str:
    """The champion by its version: later promotions must not change what a rerun starts from."""
    try:
        found = tracking_of(config).find(champion_of(config))
    except ArtifactError as error:
        if not any_decision(config):
            raise
        fix = "Decisions were made here: put the registry back, or `fieldwise promote --version` one that it holds."
        raise ArtifactError(error.where, expected="a champion", found=error.found, fix=fix) from error
    assert found is not None
    return found.reference


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
    warn(
        f"{was}, and what was built stays, but its source has changed since: "
        f"{'; '.join(words[:_MOST])}{more}. To do it anew: {''.join(builds)}remove {record.path}, and run the same "
        "`fieldwise daily` again."
    )
