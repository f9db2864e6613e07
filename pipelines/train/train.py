"""Snapshots to a bundle in the registry. Runs in every rank; rank 0 alone writes and talks to MLflow."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from fieldwise.features import store
from fieldwise.features.columns.text import canonical
from fieldwise.features.errors import BusyError, ConfigError, FieldwiseError, RefusedError, TrackingError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.kernels.ahead import compile_ahead
from fieldwise.features.redact import redacted
from fieldwise.features.report.page import PAGE as DATA_PAGE
from fieldwise.features.snapshot.manifest import Manifest, load_snapshot, snapshot_dir
from fieldwise.features.snapshot.publish import reading
from fieldwise.features.store.mirror import Mirror
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.agreement import require_roles, require_snapshots, say_changes
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.decision import record_first_champion
from fieldwise.pipelines.ranks.alike import Traits, together, traits_of
from fieldwise.pipelines.ranks.launch import INIT, Days
from fieldwise.pipelines.registry import open_model, say_registered, tracking_of
from fieldwise.pipelines.train.card import Told
from fieldwise.pipelines.train.measured import say_metrics
from fieldwise.pipelines.train.report import PAGE, Facts, facts_of, stage_report
from fieldwise.pipelines.train.verdict import judge
from fieldwise.training.config import ModelConfig
from fieldwise.training.data.splits import TrainData
from fieldwise.training.kernels.exact import score
from fieldwise.training.loop.automatic import automatic
from fieldwise.training.loop.checkpoint import Checkpoints
from fieldwise.training.loop.memory import needed
from fieldwise.training.loop.run import TrainResult, TrainRun
from fieldwise.training.loop.trainer import train
from fieldwise.training.models import AUTO, member
from fieldwise.training.network.bundle import Bundle, load_bundle, save_family
from fieldwise.training.ranks.world import join_world
from fieldwise.training.tracking.journal import Journal, Send, at_once, open_training, send_kept

EXAMPLE_ROWS = 5
_SHORT_ROWS = 1_000_000
"""Up to which a training may be over before MLflow has begun."""


def train_model(
    config: Config,
    days: Days | None = None,
    *,
    init: str | None = None,
    register: bool = True,
    force: bool = False,
    name: str | None = None,
    family: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Train, log the run, register the model as challenger (and champion when there is none).

    A model that is no better than the rate of positives (see ``pipelines.train.verdict``) is logged but not registered.

    Args:
        days: what to train, validate and test on.
        init: model reference whose weights to start from.
        register: False logs the run and leaves the registry alone.
        force: register a useless model, too, as challenger only. One that was refused is not trained again for it.
        name: of the run, default the model's kind. A training with a name is done once: again, its result is returned.
        family: what the model was chosen against, for its bundle to tell; see ``pipelines.train.family``.

    Raises TrackingError when MLflow was away: bundle and reports are kept, and the same call again only sends them.
    Raises RefusedError for a useless model, and again, without training, for the same call.

    Returns the result on rank 0, None on other ranks.
    """
    days = days or Days()
    if force and not register:
        fix = "Leave one of them out."
        raise ConfigError("--force", expected="a model to register", found="--no-register", fix=fix)

    def prepare() -> tuple[tuple[TrainRun, dict[str, str | None] | None, str], Traits]:
        task, origin = _task(config, open_days(config, days), init)
        task.data.require_both_classes(valid=task.validates)  # before anything is written
        place = store.join(config.workspace_dir, "training", f"{task.model.kind}-{task.request[:12]}")
        mirror = Mirror(place, config.training.scratch)
        bundle, checkpoints = (str(mirror.local / name) for name in ("bundle", "checkpoints"))
        traits = traits_of(config, task.data, task.warm_start)
        return (replace(task, bundle_dir=bundle, checkpoint_dir=checkpoints, told=mirror.told), origin, place), traits

    with join_world(config.training.timeout_seconds) as world, ExitStack() as stack:
        task, origin, place = together(world, platform.node(), prepare)
        journal = None
        if world.first:
            stack.enter_context(reading(_directories(config, days)))
            journal = stack.enter_context(_reporting(config, task, place, name))
            task = replace(task, saved=journal.training.push)
        done = journal is not None and journal.result is not None
        if world.share(done):  # ranks start together, however long rank 0 took
            return _settle(journal, config, register, force, family) if journal else None
        threads = world.use_threads(config.training.threads)
        if world.first:
            say_changes(config, _directories(config, days))
            say(str(needed(task.data, task.model, config.training, world.size, threads, world.ranks_on_host)))
            compile_ahead((score, "fieldwise.pipelines.operate.kernel_checks:scores_agree"))  # called after all epochs
        task = automatic(replace(task, tracker=journal), world)
        result = train(task, world)
        if journal is None:
            return None
        say_metrics(result.evaluations)
        _stage(journal.files, config, task.data, result)
        _stage_snapshots(journal.files, _directories(config, days))
        summary = _summary(task, result) | ({"init": origin} if origin else {})
        facts = facts_of(config, days, _directories(config, days), task, result, ranks=world.size, threads=threads)
        stage_report(journal.files, facts)
        _stage_card(journal.files, config, facts, summary)
        verdict = judge(summary["metrics"])
        try:
            journal.finish(
                summary,
                example=example_rows(config, task.data.spec).to_dict("list"),
                tags={"fieldwise.useless": f"{verdict.split}: {verdict.words}"} if verdict.useless else {},
            )
        finally:  # what was not sent is kept: no checkpoint is needed
            Checkpoints(str(task.checkpoint_dir), task.request).clear()
        return _settle(journal, config, register, force, family)


def _settle(
    journal: Journal, config: Config, register: bool, force: bool, family: dict[str, Any] | None
) -> dict[str, Any]:
    """Register the model of a finished training, or refuse to; its result with what became of it."""
    if family is not None:
        save_family(journal.training.local / "bundle", family)
        journal.family(", ".join(each["kind"] for each in family["models"]))
    waiting = journal.to_register and journal.waiting
    done = {"registered": None, **journal.deliver()}
    verdict = judge(done["metrics"])
    if register and done["registered"] is None:
        if verdict.useless and not force:
            raise verdict.refusal(done)
        told = Told(done)
        waiting, done = (
            1,
            journal.register(
                config.model_name, may_lead=not verdict.useless, tags=told.tags, description=told.description
            ),
        )
    if verdict.doubtful:
        warn(f"no better than the rate of positives on split {verdict.split}: {verdict.words}")
    if verdict.told_beforehand:
        warn(
            f"too good to be true on split {verdict.split}: {verdict.words}. Does a column say what happened, or is it "
            "known only afterwards? `fieldwise explain --importance` names the fields that it follows from; leave such "
            "a one out"
        )
    if waiting and done["registered"]:
        say_registered(done["registered"], config)
    found = done["registered"]
    if found and found["champion"] == found["version"]:
        record_first_champion(config, found["version"], done["metrics"].get("test") or done["metrics"][verdict.split])
    page = journal.files / PAGE
    if page.exists():  # trainings of earlier versions left none
        done["report"] = journal.training.told(str(page))
        say(f"report: {done['report']}")
    # where it is now: workspaces may be moved
    return {**done, "bundle": journal.training.told(str(journal.training.local / "bundle"))}


def drop_bundle(config: Config, bundle: str, name: str) -> None:
    """Remove the workspace's copy of a model that a training of that name has made and the registry holds; it stays
    where another training has taken its place since."""
    with (
        suppress(BusyError),
        open_training(
            store.parent(bundle), _senders(config), scratch=config.training.scratch, reports_alone=True, patience=0
        ) as journal,
    ):
        if journal.opening.get("name") == name:
            store.remove_tree(bundle)  # gone already: a rerun


def send_reports(config: Config) -> dict[str, int]:
    """Send what trainings of this workspace reported while MLflow was away. Returns how many reports.

    Raises TrackingError while some are left, naming them.
    """
    tracking_of(config).connect()
    kept = send_kept(config.workspace_dir, _senders(config), config.training.scratch)
    if kept.troubles:
        raise TrackingError(
            "reports of trainings", expected="none left",
            found="; ".join(f"{directory}: {trouble.found}" for directory, trouble in kept.troubles.items()),
            fix="See that MLflow runs; where it refuses a name, the same `fieldwise train` with another sends them. Or "
            "delete these directories: MLflow lacks the runs then, the bundles beside them stay.",
        )  # fmt: skip
    return {"sent": kept.sent, "left": kept.left}


def open_days(config: Config, days: Days) -> TrainData:
    """The splits to train, validate and test on. ArtifactError where a snapshot is not of the config."""
    train = list(days.train) or [snapshot_dir(config.workspace_dir, "all")]
    opened = [[load_snapshot(path) for path in paths] for paths in (train, days.valid, days.test)]
    require_snapshots(config, (snapshot for snapshots in opened for snapshot in snapshots), named=bool(days.train))
    if len(train) == 1 and not days.valid and not days.test:
        require_roles(opened[0][0])
        return TrainData.of_one(opened[0][0])
    return TrainData.of(*opened)


def _directories(config: Config, days: Days) -> list[str]:
    """Of all snapshots that are read."""
    train = days.train or [snapshot_dir(config.workspace_dir, "all")]
    return list(dict.fromkeys([*train, *days.valid, *days.test]))


def _task(config: Config, data: TrainData, init: str | None) -> tuple[TrainRun, dict[str, str | None] | None]:
    """The training, without its directories, and what the model was that it starts from."""
    told = os.environ.get(INIT)  # the launcher has looked it up and said so
    warm = None if init is None else load_bundle(init) if told else (opened := open_model(init, config)).bundle
    origin = None if init is None else json.loads(told) if told else opened.facts
    model = config.model if warm is None or config.model.kind != AUTO else _like(warm, config.model)
    task = TrainRun(data, model, config.training, bundle_dir="", warm_start=warm)
    return task, origin


def _like(bundle: Bundle, config: ModelConfig) -> ModelConfig:
    """The model of a line: its kind was chosen when it began."""
    return member(config, bundle.kind).model_copy(update=bundle.settings.own.model_dump(mode="json"))


@contextmanager
def _reporting(config: Config, task: TrainRun, training: str, name: str | None) -> Iterator[Journal]:
    """The journal of this training: that of the killed one when this one resumes it. What others left is sent."""
    tracking = tracking_of(config)
    tracking.connect()
    # a short training does not wait for MLflow to begin; a long one hears first what it refuses
    ready = tracking.ready if task.data.train.rows < _SHORT_ROWS else at_once
    with open_training(training, _senders(config), scratch=config.training.scratch, ready=ready) as journal:
        for draft in journal.training.local.glob(".bundle.*.tmp"):  # of a killed training: nobody else is at work here
            shutil.rmtree(draft)
        undone = journal.result is None or journal.waiting > 0 or _refused(journal)
        if not undone and not (name and journal.opening["name"] == name):
            journal.clear()
        journal.amend(experiment=config.experiment, model=config.model_name)
        for directory, trouble in send_kept(
            config.workspace_dir, _senders(config), config.training.scratch
        ).troubles.items():
            say(f"left alone: {directory}: {trouble.found}")
        run = journal.answers.get("run")
        with suppress(Exception):  # whatever MLflow is in trouble with: the journal finds out and says so
            if run is not None and undone and not tracking.reopen(run, running=journal.result is None):
                journal.send_again()
        journal.open(
            experiment=config.experiment,
            name=name or task.model.kind,
            time=int(1000 * time.time()),
        )
        journal.params(_params(task.data))
        try:
            yield journal
        except RefusedError:
            raise  # training itself went well
        except Exception:
            if run := journal.answers.get("run"):
                tracking.end(run, "FAILED")
            raise


def _refused(journal: Journal) -> bool:
    """Whether the training is done, and its model was too bad to be registered."""
    return journal.result is not None and not journal.to_register and judge(journal.result["metrics"]).useless


def _senders(config: Config) -> Callable[[Path], Send]:
    return lambda place: tracking_of(config).sender(place, config.workspace_dir)


def _params(data: TrainData) -> dict[str, Any]:
    sizes = {role: split.rows for role, split in (("train", data.train), ("valid", data.valid), ("test", data.test))}
    return {
        "spec_digest": data.spec.digest,
        "snapshots": data.snapshots,
        "rows": sizes,
    }


def _stage(folder: Path, config: Config, data: TrainData, result: TrainResult) -> None:
    """What the run keeps beside parameters, curves and the model, as files."""
    from fieldwise.training.tracking.environment import packages

    for place in ("spec", "config"):
        (folder / place).mkdir(exist_ok=True)
    shutil.copy(os.path.join(result.bundle_dir, "spec.json"), folder / "spec")
    written = redacted(store.read_bytes(config.file).decode())
    texts = {
        f"config/{os.path.basename(config.file)}": written,
        "config/resolved.json": json.dumps(config.unexpanded(), indent=1),
        "snapshots.json": json.dumps(data.snapshots, indent=1),
        "environment.txt": packages(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _stage_snapshots(folder: Path, snapshots: list[str]) -> None:
    """What each snapshot was built from, by its own record, and its data report, for people who look at the run."""
    for directory in snapshots:
        manifest = Manifest.load(directory)
        kept = manifest.model_dump(mode="json", include={"id", "digest", "spec_digest", "source_fingerprint", "config"})
        (folder / "config" / f"snapshot-{manifest.id}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
        report = store.join(directory, manifest.data, DATA_PAGE)
        if store.exists(report):
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data" / f"{manifest.id}.html").write_bytes(store.read_bytes(report))


def _stage_card(folder: Path, config: Config, facts: Facts, summary: dict[str, Any]) -> None:
    """The model card, for people who meet the model in the registry."""
    evaluations = facts.result.evaluations
    card = Told(summary).card(
        name=config.name,
        label=config.label,
        fields={field.name: field.kind for field in facts.spec.fields},
        command=facts.command,
        few={role: found.few for role, found in evaluations.items() if found.few},
    )
    (folder / "model_card.md").write_text(card, encoding="utf-8")


def example_rows(config: Config, spec: FeatureSpec) -> pd.DataFrame:
    """A few raw rows of the source as text (or lists of it), columns in the spec's order; without a source, a row of
    missing values."""
    from fieldwise.features.files.listing import list_files
    from fieldwise.features.source.log import LogReader
    from fieldwise.features.source.raw import split_ranges

    names = list(spec.raw_columns)
    try:
        files = list_files(config.source, config.base, None)
        whole = split_ranges(config.source, files[:1], 1 << 62)[0]
        first = next(iter(LogReader(config.features, config.base, False).read(whole)))
    except (FieldwiseError, OSError, StopIteration):
        return pd.DataFrame({name: pd.Series([None], dtype=object) for name in names})
    raw = {name: first.columns.array(name).slice(0, EXAMPLE_ROWS) for name in names}
    return pd.DataFrame({name: _example(array) for name, array in raw.items()}, dtype=object)


def _example(array: pa.Array) -> list[Any]:
    """Canonical texts, or lists of them."""
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return [None if row.values is None else canonical(row.values).to_pylist() for row in array]
    return list(canonical(array).to_pylist())


def _summary(task: TrainRun, result: TrainResult) -> dict[str, Any]:
    return {
        "kind": task.model.kind,
        "settings": None if task.chosen is None else task.chosen.model_dump(),
        "bundle": result.bundle_dir,
        "bundle_digest": result.bundle_digest,
        "snapshots": task.data.snapshots,
        "best_epoch": result.best_epoch + 1,
        "epochs": len(result.history),
        "metrics": {split: found.told() for split, found in result.evaluations.items()},
        "rows_per_second": round(result.rows_per_second),
    }
