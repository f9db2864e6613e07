"""``daily --dry-run``: what a date would do, as far as that can be told without doing it. Nothing is written."""

from __future__ import annotations

from typing import Any

from fieldwise.features.columns.day import day_of
from fieldwise.features.errors import ArtifactError, InputError
from fieldwise.features.snapshot.manifest import snapshot_dir, standing
from fieldwise.features.terminal import say
from fieldwise.pipelines.agreement import require_model, source_files
from fieldwise.pipelines.build.refit import window
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.daily import NO_WISH, Wish
from fieldwise.pipelines.cycle.days import days_to_learn
from fieldwise.pipelines.cycle.record import Record
from fieldwise.pipelines.cycle.start import champion_now, line_of, require_same
from fieldwise.pipelines.lists.yesterday import newest_before
from fieldwise.pipelines.registry import open_model, tracking_of

STANDS, BUILT = "stands", "would be built"


def plan_day(config: Config, *, date: str, refit: bool = False, wish: Wish = NO_WISH) -> dict[str, Any]:
    """Look at what stands, and say what ``run_day`` would build, train, compare and score.

    What the day's own rows decide is not told: whether they are suspicious, and whether the challenger is better.

    Returns: date, ``done`` (what was decided, of a finished date; else None), champion, ``features`` (by day: stands,
    would be built, or why not), ``start`` and ``learns`` of the challenger, ``pooled`` (the dates whose rows are
    compared), ``decision``, ``catalog`` and ``lists`` (which would be measured on the day) in words.

    Raises as ``run_day`` does before any work: ArtifactError without a champion, TrackingError, ConfigError.
    """
    wish.require()
    date = str(day_of(date))
    record = Record(config.workspace_dir, date)
    tracking = tracking_of(config)
    if not tracking.is_made():
        raise ArtifactError(config.workspace_dir, expected="a registered model", found="no store", fix="Train first.")
    tracking.connect()
    require_same(record, config)
    say(f"dry run of {date}: nothing is written")
    if record.whole:
        done = record.steps.get("decision", {}).get("decision")
        say(f"{date} is done: {done}; nothing would be done again")
        return {"date": date, "dry_run": True, "done": done, "champion": record.steps["champion"]}
    begun, now = record.steps.get("champion"), champion_now(config)
    goes_on = record.looked_at and (begun == now or "intended" in record.steps)
    reference = str(begun) if goes_on else now
    champion = open_model(reference, config)
    require_model(champion.bundle, config, reference)
    start, since = line_of(config, record, reference)
    origin = open_model(start, config)
    digest = champion.bundle.spec.digest
    before = window(date, config.daily.suspicion.min_days)[:-1]
    learns = days_to_learn(config, date, origin.bundle.learned)
    features = {day: _state(config, day, digest, own=day == date) for day in sorted({*before, *learns, date})}
    learned = [day for day in learns if features[day] in (STANDS, BUILT)]
    readable = features[date] in (STANDS, BUILT)
    decision = _decision(config, learned, since, date, start, reference, wish) if readable else "none"
    lists = "none: the config has no `catalog`"
    if config.catalog is not None:
        lists = f"lists of {date} by {'the champion of then' if readable else reference}"
    say(f"champion: {reference}", *(f"features {day}: {state}" for day, state in features.items()))
    if not readable:
        say(f"{date} would be refused (exit code 2): nothing is learned or decided from it")
    elif learned:
        say(f"challenger: {start} would learn from {', '.join(learned)}{', under a spec fitted on them' * refit}")
    measured = _measured(config, date) if readable else "none"
    say(f"decision: {decision}", f"catalog: {lists}", f"lists: {measured}")
    return {
        "date": date, "dry_run": True, "done": None, "champion": reference, "features": features, "start": start,
        "learns": learned if readable else [], "pooled": [*since, date] if readable else [], "decision": decision,
        "catalog": lists, "lists": measured,
    }  # fmt: skip


def _state(config: Config, day: str, digest: str, *, own: bool) -> str:
    """Of a day's features under a spec; a date looks again at its ``own`` day, whatever was found against it."""
    unsound = Record(config.workspace_dir, day).unsound
    if unsound and not own:
        return f"left out: {'; '.join(unsound)}"
    for name in (day, f"{day}.{digest[:8]}"):
        found = standing(snapshot_dir(config.workspace_dir, name))
        if found is not None and found.spec_digest == digest:
            return STANDS
    try:
        source_files(config, [day])
    except InputError as error:
        return f"left out: {error}"
    return BUILT


def _measured(config: Config, date: str) -> str:
    """Which lists would be measured on the day."""
    if config.catalog is None:
        return "none: the config has no `catalog`"
    if not config.daily.lists:
        return "none: `daily.lists` is false"
    own = newest_before(config, date)
    return "none: there are none of a day before" if own is None else f"those of {own} would be measured on {date}"


def _decision(
    config: Config, learned: list[str], since: list[str], date: str, start: str, champion: str, wish: Wish
) -> str:
    if not learned and start == champion:
        return "kept: nothing to learn"
    if wish.force:
        return f"forced: {wish.reason}"
    if wish.hold:
        return "kept: held by a person"
    wanted = "a gain" if config.daily.gate.margin is None else f"no loss of more than {config.daily.gate.margin:.2%}"
    days = ", ".join([*since, date])
    return f"promoted if its rows of {days} show {wanted} beyond chance and nothing speaks against it; else kept"
