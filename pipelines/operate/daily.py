"""One day of the cycle: features with the frozen spec, a challenger from the champion, comparison, promotion, scores.

The day itself is held out: the challenger learns from the days before it, and both models are measured on it. What a
date has done is kept step by step in ``<workspace>/daily/<date>.json``; a rerun goes on where that stopped, so running
a finished date again changes nothing, but says which source files have changed since.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, FieldwiseError
from fieldwise.features.redact import redacted_tree
from fieldwise.features.snapshot.record import EXPRESSIONS, differences
from fieldwise.features.store.kept import read_record, write_record
from fieldwise.features.terminal import say
from fieldwise.pipelines.agreement import rebuild, require_model, source_files, source_stamps
from fieldwise.pipelines.build.features import build_features, load_spec, publish_snapshot
from fieldwise.pipelines.build.refit import refit_features, window
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.operate.decisions import Decision, carry_out, decide
from fieldwise.pipelines.registry import champion_of, open_model, registry
from fieldwise.pipelines.train.evaluate import evaluate_model
from fieldwise.pipelines.train.launch import Days, train_ranks
from fieldwise.pipelines.train.verdict import Verdict, judge
from fieldwise.pipelines.unchanged import Stamps, changes
from fieldwise.training.tracking import runs
from fieldwise.training.tracking.registry import find

HERE = "{workspace}"
"""Stands for the workspace in records, which may be moved with it."""
_MOST = 8
"""Changed files that are told."""


class Record:
    """Results of the steps a date has finished, by name. Its file names places in the workspace relative to that."""

    def __init__(self, workspace: str, date: str) -> None:
        self._workspace = workspace.rstrip("/")
        self.path = store.join(workspace, "daily", f"{date}.json")
        fix = f"Remove the file to do {date} anew; its snapshots and trainings are found again."
        kept = read_record(self.path, "the steps of a day, as they were recorded", fix)
        self.steps: dict[str, Any] = _moved(kept or {}, HERE, self._workspace)
        self.whole = "done" in self.steps

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """The step's result: from the record if it is there, else by working, and then recorded."""
        if name not in self.steps:
            say(f"{name} ...")
            self.steps[name] = work()
            write_record(self.path, redacted_tree(_moved(self.steps, self._workspace, HERE)))
        return self.steps[name]


def _moved(value: Any, before: str, now: str) -> Any:
    """``value``, its texts that name a place below ``before`` naming the one below ``now``."""
    if isinstance(value, dict):
        return {key: _moved(item, before, now) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(item, before, now) for item in value]
    inside = isinstance(value, str) and (value == before or value.startswith(f"{before}/"))
    return f"{now}{value[len(before) :]}" if inside else value


def run_day(config: Config, *, date: str, ranks: int = 1, refit: bool = False) -> dict[str, Any]:
    """Run the cycle for one day.

    Args:
        refit: the challenger learns under a spec fitted anew on the days before, from the champion's rows by value.

    Raises:
        RefusedError: a day has drifted past the config's thresholds; it is published, nothing is trained.
        TrackingError: the registry does not answer.
        ConfigError: not a date.
        ArtifactError: no champion yet: train on a first snapshot.
        InputError: no rows for the day or one before it.
    """
    days = window(date, config.daily.window)
    record = Record(config.workspace_dir, date)
    repeated = record.whole
    runs.connect(config.tracking.uri, config.workspace_dir)
    runs.experiment_id(config.experiment, config.workspace_dir)  # what it refuses, it refuses before any work
    _require_same(record, config, date)
    champion = record.steps.get("champion") or _champion(config)
    opened = open_model(champion, config)
    bundle = opened.directory
    if "config" in record.steps:
        say_changed_sources(config, record, date)
    if not repeated:
        require_model(opened.bundle, config, champion)  # before it is recorded: a mended config may have another
        record.step("sources", lambda: sources_of(config, days))
    record.step("config", lambda: config.record)
    record.step("champion", lambda: champion)
    if refit:
        # the champion's own spec may have drifted: that is why there is a new one
        own = record.step(
            f"features {date}", lambda: publish_snapshot(config, date, load_spec(bundle, config), None)[0]
        )
        refitted = record.step("refit", partial(refit_features, config, date=date, spec=bundle))
        before = [built["dir"] for built in refitted["snapshots"]]
        build = partial(build_features, config, date=date, spec=refitted["spec"])
        held_out, today = record.step(f"features {date} refitted", build)["dir"], own["dir"]
    else:
        build = partial(build_features, config, spec=bundle)
        *before, today = [record.step(f"features {day}", partial(build, date=day))["dir"] for day in days]
        held_out = today
    challenger = record.step("challenger", lambda: _train(config, date, before, held_out, champion, ranks))
    measured = record.step(
        "champion on the day", lambda: evaluate_model(config, snapshots=[today], model=champion)["metrics"]
    )
    test = challenger["metrics"]["test"]
    logloss = {"champion": measured["logloss"], "challenger": test["logloss"]}
    verdict = judge(challenger["metrics"])
    registered = record.step("registered", lambda: _register(config, challenger, verdict))
    version = registered and registered["version"]
    better = version is not None and logloss["challenger"] <= logloss["champion"] * (1 + config.daily.tolerance)
    if not repeated:  # what was decided before is told as it was, by earlier versions too
        decide_on = partial(
            decide, config, "promoted" if better else "kept" if version else "refused",
            champion=champion.rpartition("/")[2], challenger=version, date=date, parent=champion,
            metrics={"champion": measured, "challenger": test}, findings=[] if version else [verdict.words],
        )  # fmt: skip
        intended = record.step("intended", lambda: decide_on().model_dump())  # with its time: told once, if killed here
        record.step("promotion", lambda: carry_out(config, Decision(**intended)).model_dump())
    promotion = record.steps["promotion"]
    promoted = promotion["decision"] in ("promoted", "forced") if "decision" in promotion else "champion" in promotion
    catalog = record.step("catalog", lambda: score_catalog(config, date=date) if config.catalog else None)
    record.step("done", lambda: True)
    return {
        "date": date,
        "repeated": repeated,
        "champion": champion,
        "challenger": f"models:/{config.model_name}/{version}" if version else None,
        "refused": f"{verdict.split}: {verdict.words}" if version is None else None,
        "used_model": opened.facts,
        "logloss": logloss,
        "logloss_se": {"champion": measured.get("logloss_se"), "challenger": test.get("logloss_se")},
        "promoted": promoted,
        "promotion": promotion,
        "catalog": catalog,
    }


def _require_same(record: Record, config: Config, date: str) -> None:
    """Raises ArtifactError where a date was begun, or done, with rows made otherwise than the config says now."""
    kept = record.steps.get("config")
    if kept is None:  # not begun, or by an earlier version
        return
    keys = ("source", "join", *EXPRESSIONS, "time")
    found = differences(kept, config.record, keys, names=("then", "config"), same_paths=True)
    if found:
        raise ArtifactError(
            record.path,
            expected=f"a day that was {'done' if record.whole else 'begun'} with this config",
            found="; ".join(found),
            fix=f"Use the config it was done with, or remove the file to do {date} anew.",
        )


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
        say(f"warning: {was} by an earlier version: whether its source has changed since is not known")
        return
    try:
        now = sources_of(config, list(before))
    except (FieldwiseError, OSError) as error:  # logs need not be kept: what was done stays done
        say(f"warning: whether the source has changed since {was} is not known: {error}")
        return
    told = {day: changes(stamps, now[day]) for day, stamps in before.items()}
    changed = [day for day, words in told.items() if words]
    if not changed:
        return
    words = list(dict.fromkeys(word for day in changed for word in told[day]))
    more = f" and {len(words) - _MOST} more" if len(words) > _MOST else ""
    built = {day: record.steps.get(f"features {day}", {}).get("dir") for day in changed}
    builds = [f"`{rebuild(config, place, day, fields=False)}`, " for day, place in built.items() if place]
    say(
        f"warning: {was}, and what was built stays, but its source has changed since: "
        f"{'; '.join(words[:_MOST])}{more}. To do it anew: {''.join(builds)}remove {record.path}, and run the same "
        "`fieldwise daily` again."
    )


def _champion(config: Config) -> str:
    """The champion by its version: later promotions must not change what a rerun starts from."""
    found = find(champion_of(config))
    assert found is not None
    return found.reference


def _register(config: Config, challenger: dict[str, Any], verdict: Verdict) -> dict[str, Any] | None:
    """What the registry says to the challenger; None for one that is no better than the rate of positives.

    Then the champion stays and the day goes on: by morning there are lists, and the result says why.
    """
    if already := challenger.get("registered"):
        return dict(already)
    if verdict.useless:
        say(f"challenger not registered, the champion stays: on split {verdict.split}, {verdict.words}")
        return None
    return registry(config).register(challenger["model_uri"], may_lead=False)


def _train(config: Config, date: str, before: list[str], today: str, champion: str, ranks: int) -> dict[str, Any]:
    """Under a name, so that a kill before the record knows of it repeats no training."""
    overrides = [f"training.epochs={config.daily.epochs}", "training.patience=null"]
    return train_ranks(
        config, ranks, Days(before, (), [today]), overrides=overrides, init=champion, register=False,
        name=f"daily {date}",
    )  # fmt: skip
