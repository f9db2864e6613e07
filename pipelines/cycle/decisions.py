"""How the champion moves: as the daily cycle decided, by a person's word, or back; and the history of all that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fieldwise.features import store
from fieldwise.features.columns.day import day_of
from fieldwise.features.errors import ConfigError, RefusedError
from fieldwise.features.terminal import say
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.decision import Decision, Verb, decide, decisions_of, record_decision
from fieldwise.pipelines.registry import registry


def carry_out(config: Config, decision: Decision) -> Decision:
    """Do what was decided, and record it; again, for the same decision, nothing is done or told twice.

    Returns the decision as it came out: ``refused`` where a later day had decided, or the version was rejected
    meanwhile. Raises BusyError where the champion is another one than it was decided against: nothing is done or
    recorded then. Raises TrackingError when the registry is silent.
    """
    found = registry(config)
    if decision.decision in ("promoted", "forced"):
        forced = decision.decision == "forced"
        try:
            found.promote(
                decision.challenger, expected=decision.champion, date=decision.date, anew=forced, tags=decision.tags
            )
        except RefusedError as error:
            words, stands = [*decision.findings, str(error)], found.version_of("champion")
            assert decision.challenger is not None
            found.reject(decision.challenger, str(error))  # so that no plain `promote` takes it
            decision = decision.model_copy(update={"decision": "refused", "findings": words, "now": stands})
    else:
        found.require_champion(decision.champion)
    record_decision(config, decision)
    return decision


def promote_model(
    config: Config, version: str | None = None, *, reason: str | None = None, force: bool = False
) -> dict[str, Any]:
    """Make a version (default: the challenger) the champion, by a person's word, and record it.

    Args:
        version: also one that was rolled back: who names it means it.
        force: the challenger also where it was rolled back; asks for a ``reason``.

    Raises: see ``Registry.promote``; ConfigError for force without a reason.
    """
    if force and not reason:
        raise ConfigError("--force", expected="--reason TEXT beside it", found="none", fix="Say why: it is recorded.")
    found = registry(config)
    champion, wanted = found.version_of("champion"), version or found.version_of("challenger")
    verb: Verb = "forced" if force else "promoted"
    decision = decide(config, verb, champion=champion, challenger=wanted, reason=reason)
    anew = force or version is not None
    result = found.promote(wanted, expected=champion, anew=anew, tags=decision.tags)
    if champion != wanted:
        record_decision(config, decision)
    after = "as before" if champion == wanted else "the first one" if champion is None else f"after version {champion}"
    say(f"version {result['champion']} of {result['model']} is the champion, {after}")
    return result


def rollback_model(
    config: Config, *, reason: str | None = None, rescore: bool = False, date: str | None = None
) -> dict[str, Any]:
    """Give the champion alias back to the former champion, reject the present one, and record it.

    Args:
        rescore: score the catalog again with the restored champion.
        date: the day to score; default: the last one that lists stand for.

    Raises: see ``Registry.rollback``; ConfigError where nothing can be scored again: nothing is moved then.
    """
    day = _day_to_score(config, date) if rescore else None
    if date is not None and not rescore:
        raise ConfigError("--date", expected="--rescore beside it", found="none", fix="Add it, or leave the date out.")
    found = registry(config)
    champion = found.version_of("champion")
    decision = decide(config, "rolled back", champion=champion, now=found.former(), reason=reason)
    result = found.rollback(
        expected=champion, reason=reason or f"rolled back on {decision.time[:10]}", tags=decision.tags
    )
    record_decision(config, decision)
    say(f"version {result['champion']} of {result['model']} is the champion again, in place of version {champion}")
    if not rescore:
        return result
    say(f"scoring {day or 'the catalog'} with it ...")
    return {**result, "catalog": score_catalog(config, date=day)}


def _day_to_score(config: Config, date: str | None) -> str | None:
    """None for lists of no day."""
    config.require_catalog()
    if date is not None:
        return str(day_of(date))
    place = store.join(config.workspace_dir, "scores", "catalog")
    there = sorted(name.removeprefix("date=") for name in store.list_sizes(place) if name.startswith("date="))
    if not there:
        raise ConfigError("--rescore", expected="lists that were scored", found="none", fix="Name the day by --date.")
    return max((name for name in there if name != "all"), default=None)


def history(config: Config, last: int | None = None) -> dict[str, Any]:
    """Decisions of the workspace's files and the registry's tags, oldest first, and who was champion since when.

    Says them as a table on stderr, and which are left out with ``last``. Raises ArtifactError for a damaged file.
    """
    decisions = decisions_of(config)
    champions: list[dict[str, str | None]] = []
    for version, since in [(each.champion, None) for each in decisions[:1]] + [
        (each.now, each.time) for each in decisions
    ]:
        if version and (not champions or champions[-1]["version"] != version):
            champions.append({"version": version, "since": since})
    shown = decisions[-last:] if last else decisions
    say(*table(shown))
    if len(shown) < len(decisions):
        say(f"and {len(decisions) - len(shown):,} earlier")
    if champions:
        told = [
            f"{c['version']} since {str(c['since'])[:16]}" if c["since"] else f"first {c['version']}" for c in champions
        ]
        say(f"champions: {', '.join(told)}")
    return {"model": config.model_name, "decisions": [each.model_dump() for each in shown], "champions": champions}


def table(decisions: Sequence[Decision]) -> list[str]:
    """Lines for people, columns as wide as they must be."""
    if not decisions:
        return ["no decision yet"]
    head = ["time (UTC)", "date", "decision", "champion", "challenger", "now", "logloss", "challenger's", "who", "why"]
    rows = [
        [each.time[:19], each.date, each.decision, each.champion, each.challenger, each.now,
         _loss(each, "champion"), _loss(each, "challenger"), each.who, each.reason or "; ".join(each.findings)]
        for each in decisions
    ]  # fmt: skip
    texts = [head, *([cell or "-" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]


def _loss(decision: Decision, model: str) -> str | None:
    found = decision.metrics.get(model)
    value, error = (found.get(name) for name in ("logloss", "logloss_se")) if isinstance(found, dict) else (None, None)
    if not isinstance(value, float):
        return None
    return f"{value:.5f}" + (f" +- {error:.5f}" if isinstance(error, float) else "")
