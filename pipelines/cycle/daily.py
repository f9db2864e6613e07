"""One date of the cycle: the day's features, a challenger, a decision on evidence, lists by morning.

    today        the day's snapshot under the champion's spec, compared with the days before it
    challenger   the line's model learns from the sound days before that it does not know, never from the day itself
    comparison   champion and challenger on the day's rows, pooled with those of the dates since the line left it
    decision     by ``cycle.gate``; carried out against the champion that was measured, and recorded
    catalog      scored with whichever model is champion then
    lists        those of the day before, measured on the day's log; nothing depends on the figures

A line begins at the champion and goes on from date to date, so a challenger that is kept back loses no day's rows, and
small gains add up until they are beyond chance. It ends where its challenger becomes champion, where it is worse than
the champion beyond chance, and where someone else moves the champion.

A suspicious day is evaluated and learned from only after a person's word; lists are scored all the same. What a date
has done is kept in its `Record`; a rerun goes on where that stopped, and of a finished date it says what was decided.
Where the champion moved meanwhile (another date at the same time, a rollback), what was measured against the former one
decides nothing: the date ends with exit code 1, and a rerun begins anew against the champion of then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from fieldwise.features.columns.day import day_of
from fieldwise.features.errors import BusyError, ConfigError, InputError, RefusedError
from fieldwise.features.snapshot.manifest import snapshot_dir, standing
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.agreement import require_model
from fieldwise.pipelines.build.refit import refit_features, window
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle import gate
from fieldwise.pipelines.cycle.days import Built, build_day, days_to_learn, sound_of
from fieldwise.pipelines.cycle.decisions import carry_out
from fieldwise.pipelines.cycle.evidence import against_older, compare, compared, day_under
from fieldwise.pipelines.cycle.record import Record, alone, records_before
from fieldwise.pipelines.cycle.start import (
    champion_now,
    line_of,
    require_begun_against,
    require_same,
    say_changed_sources,
    sources_of,
)
from fieldwise.pipelines.cycle.suspicion import model_findings
from fieldwise.pipelines.decision import Decision, Verb, decide, record_decision
from fieldwise.pipelines.lists.yesterday import measure_yesterdays, note_yesterdays
from fieldwise.pipelines.ranks.launch import Days, train_ranks
from fieldwise.pipelines.registry import OpenedModel, open_model, registry, tracking_of
from fieldwise.pipelines.train.evaluate import evaluate_model
from fieldwise.pipelines.train.train import drop_bundle, train_model
from fieldwise.pipelines.train.verdict import judge

Result = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What a person asks for beside the date; each is recorded with the ``reason``."""

    trust: bool = False
    """The day is healthy, whatever was found against it."""
    hold: bool = False
    """The champion stays, whatever the gate says."""
    force: bool = False
    """The challenger is promoted, whatever the gate says."""
    reason: str | None = None

    def require(self) -> None:
        """ConfigError for a wish without reason, and for two that contradict each other."""
        if (self.trust or self.force) and not self.reason:
            fix = "Say why: it is recorded."
            raise ConfigError("--trust, --force", expected="--reason TEXT beside it", found="none", fix=fix)
        if self.hold and self.force:
            raise ConfigError("--hold", expected="no --force beside it", found="both", fix="Leave one of them out.")


NO_WISH = Wish()


def run_day(config: Config, *, date: str, ranks: int = 1, refit: bool = False, wish: Wish = NO_WISH) -> Result:
    """Run the cycle for one day.

    Args:
        refit: the challenger learns under a spec fitted anew on the days it learns from, from the line's rows by value.

    Raises:
        RefusedError: something speaks against the day; lists are scored, nothing is learned or decided.
        InputError: the same, where the day's rows cannot be read.
        TrackingError: the registry does not answer.
        BusyError: the champion moved before this date's decision on it, or another process is at the date.
        ConfigError: not a date.
        ArtifactError: no champion yet: train on a first snapshot.
    """
    wish.require()
    date = str(day_of(date))
    with alone(config.workspace_dir, date):
        return _run(config, Record(config.workspace_dir, date), ranks, refit, wish)


def _run(config: Config, record: Record, ranks: int, refit: bool, wish: Wish) -> Result:
    repeated = record.whole
    tracking = tracking_of(config)
    tracking.connect()
    tracking.experiment_id(config.experiment)  # what it refuses, it refuses before any work
    require_same(record, config)
    require_begun_against(record, config)
    begun = record.steps.get("champion") if repeated or record.looked_at else None  # a day that was refused begins anew
    champion = open_model(begun or champion_now(config), config)
    reference = f"models:/{champion.name}/{champion.version}"
    if "sources" in record.steps:
        say_changed_sources(config, record, record.date)
    if repeated:
        return _result(config, record, champion, repeated=True)
    require_model(champion.bundle, config, reference)  # before it is recorded: a mended config may have another
    record.step("config", lambda: config.record)
    record.put("champion", reference)
    if not record.looked_at:
        _look_at(config, record, champion, wish)
    start, since = line_of(config, record, reference)
    challenger = _challenger(config, record, start, ranks, refit)
    _decide(config, record, champion, challenger, since, wish)
    _score(config, record)
    _measure_lists(config, record)
    record.step("done", lambda: True)
    return _result(config, record, champion, repeated=False)


def _look_at(config: Config, record: Record, champion: OpenedModel, wish: Wish) -> None:
    """Build the day, measure the champion on it, and record both if it is sound or trusted. Else score lists and raise
    what was found; a rerun looks again, since the day's files may have been mended."""
    date = record.date
    before = window(date, config.daily.suspicion.min_days)[:-1]
    missing = [day for day in before if standing(snapshot_dir(config.workspace_dir, day)) is None]
    sound_of(config, missing, record, champion.directory)  # so that a first date has days to be compared with
    say(f"features {date} ...")
    stamps = partial(sources_of, config, [date])
    built = build_day(config, date, champion.directory, late="rebuild")
    measured: dict[str, float] = {}
    if built["dir"] and not built["findings"]:
        measured = _measure(config, built["dir"], record.steps["champion"])
        sound = (each.steps["measured"] for each in records_before(config.workspace_dir, date) if _measured(each))
        recent = list(islice(sound, config.daily.suspicion.days))[::-1]
        built["findings"] = [str(each) for each in model_findings(measured, recent, config.daily.suspicion)]
    if built["findings"] and not (wish.trust and built["dir"]):
        _refuse(config, record, built)
    if built["findings"]:
        for each in built["findings"]:
            warn(f"trusted by a person ({wish.reason}): {each}")
        built["trusted"] = wish.reason
        measured = measured or _measure(config, built["dir"], record.steps["champion"])
    record.step("sources", stamps)
    record.put("measured", measured)
    record.put("today", built)


def _measured(record: Record) -> bool:
    return bool(record.steps.get("measured")) and not record.steps["today"]["findings"]


def _measure(config: Config, snapshot: str, model: str) -> dict[str, float]:
    """The model's metrics on a day, with rows and positives."""
    found = evaluate_model(config, snapshots=[snapshot], model=model)
    return {"rows": found["rows"], "positives": found["positives"], **found["metrics"]}


def _refuse(config: Config, record: Record, built: Built) -> None:
    """Record what speaks against the day, score its lists with the champion, and raise it."""
    before = record.steps.get("suspicious", {})
    if "decision" not in before or before["findings"] != built["findings"]:
        version = record.steps["champion"].rpartition("/")[2]
        decision = decide(config, "refused", champion=version, date=record.date, findings=built["findings"])
        record.put("suspicious", {**built, "decision": decision.model_dump()})
    record_decision(config, Decision(**record.steps["suspicious"]["decision"]))  # twice is once
    _score(config, record)
    kind = InputError if built["exit_code"] == 2 else RefusedError
    stays = "Nothing was learned or decided from the day; later dates leave it out."
    again, vouch = f"run {record.date} again", "the same command with --trust --reason TEXT"
    if refusal := built.get("refusal"):
        where, fix = f"day {record.date}, {refusal['where']}", f"{refusal['fix']} {stays} Mend its rows and {again}."
        raise kind(where, expected=refusal["expected"], found=refusal["found"], fix=fix)
    raise kind(f"day {record.date}", expected="a day like those before it", found="; ".join(built["findings"]),
               fix=f"{stays} Mend its rows and {again}, or vouch for it: {vouch}.")  # fmt: skip


def _challenger(config: Config, record: Record, start: str, ranks: int, refit: bool) -> OpenedModel | None:
    """The line's model after it has learned from the days that it does not know; None where that is the champion."""
    if "challenger" not in record.steps:
        origin = open_model(start, config)
        days = sound_of(config, days_to_learn(config, record.date, origin.bundle.learned), record, origin.directory)
        trained = _train(config, record, days, start, origin, ranks, refit) if days else None
        known = "model" if trained is None else "trained"
        record.step("challenger", lambda: {"days": list(days), "start": start, known: trained or start})
    found = record.steps["challenger"]
    if "trained" in found:
        verdict = judge(found["trained"]["metrics"])
        if verdict.useless:
            record.step("registered", lambda: {"useless": verdict.words})
            return None
        made = record.step(
            "registered", lambda: registry(config).register(found["trained"]["model_uri"], may_lead=False)
        )
        drop_bundle(config, found["trained"]["bundle"], _name(record))  # the registry holds it now: one copy is enough
        return open_model(f"models:/{config.model_name}/{made['version']}", config)
    return None if found["model"] == record.steps["champion"] else open_model(found["model"], config)


def _name(record: Record) -> str:
    """Of the training."""
    return f"daily {record.date}"


def _train(
    config: Config, record: Record, days: dict[str, str], start: str, origin: OpenedModel, ranks: int, refit: bool
) -> Result:
    """Under a name, so that a kill before the record knows of it repeats no training."""
    before, spec = list(days.values()), origin.directory
    if refit:
        refitted = record.step("refit", lambda: refit_features(config, date=record.date, spec=spec, days=list(days)))
        before, spec = [built["dir"] for built in refitted["snapshots"]], refitted["spec"]
    held_out = day_under(config, record, spec)
    say(f"challenger: {start} learns from {', '.join(days)} ...")
    roles, name = Days(before, (), [held_out]), _name(record)
    if ranks == 1:  # in this process: starting another one takes longer than a day's rows
        settings = config.training.model_copy(update={"epochs": config.daily.epochs, "patience": None})
        one = config.model_copy(update={"training": settings})
        trained = train_model(one, roles, init=start, register=False, name=name)
        assert trained is not None  # rank 0 is alone
        return trained
    overrides = [f"training.epochs={config.daily.epochs}", "training.patience=null"]
    return train_ranks(config, ranks, roles, overrides=overrides, init=start, register=False, name=name)


def _decide(
    config: Config, record: Record, champion: OpenedModel, challenger: OpenedModel | None, since: Sequence[str],
    wish: Wish,
) -> None:  # fmt: skip
    """Compare, decide, carry out, and say where the line goes from here."""
    if "line" in record.steps:
        return
    settings, reference = config.daily.gate, record.steps["champion"]
    if challenger is None:
        useless = record.steps.get("registered", {}).get("useless")
        words = f"the challenger is no better than the rate of positives: {useless}" if useless else "nothing to learn"
        found = gate.Ruling("keep", [words])
        lost = useless is not None
    else:
        today = compare(config, record, champion, challenger)
        pooled = sum((compared(config, day) for day in since), today)
        aged = against_older(config, record, challenger)
        found = gate.decide(pooled, today, settings, aged=aged)
        lost = pooled.difference("logloss", settings.confidence).low > 0
    intended = record.step("intended", lambda: _intend(config, record, challenger, found, wish).model_dump())
    try:
        decision = Decision(**record.step("decision", lambda: carry_out(config, Decision(**intended)).model_dump()))
    except BusyError:
        record.begin_anew()
        raise
    say(f"{decision.decision}: {'; '.join(decision.findings) or decision.reason or ''}")
    stands = f"models:/{config.model_name}/{decision.now}"
    if challenger is None or lost or stands != reference:
        line = {"model": stands, "dates": [], "champion": stands}
    else:
        line = {"model": f"models:/{challenger.name}/{challenger.version}", "dates": [*since, record.date],
                "champion": stands}  # fmt: skip
    record.step("line", lambda: line)


def _intend(config: Config, record: Record, challenger: OpenedModel | None, found: gate.Ruling, wish: Wish) -> Decision:
    """What shall be done, as it will be recorded: with its time, so that it is told once wherever this is killed."""
    version = None if challenger is None else challenger.version
    findings = [*found.findings, *(["held by a person"] if wish.hold else [])]
    forced = wish.force and version is not None
    useless = "useless" in record.steps.get("registered", {})
    verb: Verb = "forced" if forced else "refused" if useless else "kept" if findings else "promoted"
    metrics = {**found.numbers, "champion": record.steps["measured"]}
    if trained := record.steps["challenger"].get("trained"):
        metrics["challenger"] = trained["metrics"]["test"]
    before = record.steps["champion"].rpartition("/")[2]
    return decide(
        config, verb, champion=before, challenger=version, date=record.date,
        parent=record.steps["challenger"]["start"], metrics=metrics, findings=findings,
        reason=wish.reason or (found.reason if verb == "promoted" else None),
    )  # fmt: skip


def _score(config: Config, record: Record) -> None:
    """Lists of the date by whichever model is champion now, once for each."""
    if config.catalog is not None:
        now = champion_now(config)
        record.step(f"catalog by {now}", lambda: score_catalog(config, date=record.date, model=now))
        record.put("catalog", record.steps[f"catalog by {now}"])


def _measure_lists(config: Config, record: Record) -> None:
    """Yesterday's, last of all: lists for today do not wait for it."""
    if config.catalog is not None and config.daily.lists:
        note_yesterdays(config, record.step("lists", lambda: measure_yesterdays(config, record.date)))


def _result(config: Config, record: Record, champion: OpenedModel, *, repeated: bool) -> Result:
    """Of a finished date, by its record: those of earlier versions tell less."""
    steps = record.steps
    decision = steps.get("decision") or steps.get("promotion") or {}
    challenger = decision.get("challenger")
    numbers = decision.get("metrics", {})
    return {
        "date": record.date,
        "repeated": repeated,
        "champion": steps["champion"],
        "challenger": f"models:/{config.model_name}/{challenger}" if challenger else None,
        "learned": steps.get("challenger", {}).get("days", []),
        "used_model": champion.facts,
        "metrics": {name: numbers.get(name) for name in ("champion", "challenger", "pooled", "today")},
        "promoted": decision.get("decision") in ("promoted", "forced"),
        "decision": decision.get("decision"),
        "findings": decision.get("findings", []),
        "now": decision.get("now"),
        "drift": steps.get("today", {}).get("drift"),
        "catalog": steps.get("catalog"),
        "lists": steps.get("lists"),
    }
