"""Snapshots to a bundle in the registry. Runs in every rank; rank 0 alone writes and talks to MLflow."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from features import store
from features.errors import ConfigError, FieldwiseError
from features.manifest import Manifest, load_snapshot, snapshot_dir
from features.page import PAGE
from features.publish import reading
from features.spec import FeatureSpec
from features.text import canonical
from pipelines.config import Config
from pipelines.launch import Days
from pipelines.models import registry, resolve_model
from pipelines.say import say
from training.bundle import load_bundle
from training.checkpoint import Checkpoints
from training.data import TrainData
from training.journal import JOURNAL, Journal, Send, open_journal, send_kept
from training.memory import needed
from training.run import TrainResult, TrainRun
from training.trainer import train
from training.world import join_world

EXAMPLE_ROWS = 5


def train_model(
    config: Config,
    days: Days | None = None,
    *,
    init: str | None = None,
    register: bool = True,
    name: str | None = None,
) -> dict[str, Any] | None:
    """Train, log the run, register the model as challenger (and champion when there is none).

    Args:
        days: what to train, validate and test on.
        init: model reference whose weights to start from.
        register: False logs the run and leaves the registry alone.
        name: of the run, default the model's kind. A training with a name is done once: again, its result is returned.

    Raises TrackingError when MLflow was away: bundle and reports are kept, and the same call again only sends them.

    Returns the result on rank 0, None on other ranks.
    """
    days = days or Days()
    task = _task(config, open_days(config, days), init)
    task.data.require_both_classes(valid=config.training.patience is not None)  # before anything is written
    with join_world(config.training.timeout_seconds) as world, ExitStack() as stack:
        journal = None
        if world.first:
            stack.enter_context(reading(_directories(config, days)))
            journal = stack.enter_context(_reporting(config, task, name))
        done = journal is not None and journal.result is not None
        if world.share(done):  # ranks start together, however long rank 0 took
            return journal.deliver() if journal else None
        threads = world.use_threads(config.training.threads)
        if world.first:
            say(str(needed(task.data, config.model, config.training, world.size, threads, world.ranks_on_host)))
        result = train(replace(task, tracker=journal), world)
        if journal is None:
            return None
        _stage(journal.files, config, task.data, result)
        _stage_reports(journal.files, _directories(config, days))
        summary = journal.finish(
            _summary(config, result),
            files=str(journal.files),
            bundle=result.bundle_dir,
            example=example_rows(config, task.data.spec).to_dict("list"),
            register=config.model_name if register else None,
        )
        Checkpoints(str(task.checkpoint_dir), task.request).clear()
        return summary


def send_reports(config: Config) -> dict[str, int]:
    """Send what trainings of this workspace reported while MLflow was away. Returns reports sent and left."""
    registry(config)
    return send_kept(config.workspace_dir, _sender)


def open_days(config: Config, days: Days) -> TrainData:
    """The splits to train, validate and test on."""
    train = list(days.train) or [snapshot_dir(config.workspace_dir, "all")]
    opened = [[load_snapshot(path) for path in paths] for paths in (train, days.valid, days.test)]
    if len(train) == 1 and not days.valid and not days.test:
        return TrainData.of_one(opened[0][0])
    return TrainData.of(*opened)


def _directories(config: Config, days: Days) -> list[str]:
    """Of all snapshots that are read."""
    train = days.train or [snapshot_dir(config.workspace_dir, "all")]
    return list(dict.fromkeys([*train, *days.valid, *days.test]))


def _task(config: Config, data: TrainData, init: str | None) -> TrainRun:
    """The training and its directory: the same for the same settings and data, so that a killed run finds its way."""
    workspace = config.workspace_dir
    if "://" in workspace:
        raise ConfigError("workspace", expected="a local directory to train in", found=workspace, fix="Set workspace.")
    warm = load_bundle(resolve_model(init, config)) if init else None
    task = TrainRun(data, config.model, config.training, bundle_dir="", warm_start=warm)
    place = os.path.join(workspace, "training", f"{config.model.kind}-{task.request[:12]}")
    return replace(task, bundle_dir=f"{place}/bundle", checkpoint_dir=f"{place}/checkpoints")


@contextmanager
def _reporting(config: Config, task: TrainRun, name: str | None) -> Iterator[Journal]:
    """The journal of this training: that of the killed one when this one resumes it. What others left is sent."""
    from training import sender

    registry(config)
    place = Path(str(task.checkpoint_dir)).parent / "reports"
    with open_journal(place, _sender(place)) as journal:
        for draft in place.parent.glob(".bundle.*.tmp"):  # of a killed training: nobody else is at work here
            shutil.rmtree(draft)
        if journal.result is not None and not journal.waiting and not (name and journal.opening["name"] == name):
            journal.clear()
        send_kept(config.workspace_dir, _sender)
        run = journal.answers.get("run")
        with suppress(Exception):  # whatever MLflow is in trouble with: the journal finds out and says so
            if run is not None and journal.result is None and not sender.reopen(run):
                journal.send_again()
        journal.open(
            experiment=config.tracking.experiment or config.name,
            name=name or config.model.kind,
            workspace=config.workspace_dir,
            time=int(1000 * time.time()),
        )
        journal.params(_params(task.data))
        try:
            yield journal
        except Exception:
            if run := journal.answers.get("run"):
                sender.end(run, "FAILED")
            raise


def _sender(place: Path) -> Send:
    from training.sender import Sender

    return Sender(resumed=(place / JOURNAL).exists())


def _params(data: TrainData) -> dict[str, Any]:
    sizes = {role: split.rows for role, split in (("train", data.train), ("valid", data.valid), ("test", data.test))}
    return {
        "spec_digest": data.spec.digest,
        "snapshots": data.snapshots,
        "rows": sizes,
    }


def _stage(folder: Path, config: Config, data: TrainData, result: TrainResult) -> None:
    """What the run keeps beside parameters, curves and the model, as files."""
    from training import plots
    from training.tracking import packages

    for split, evaluation in result.evaluations.items():
        _save(plots.calibration(evaluation.curve), folder / "plots" / f"calibration_{split}.png")
        _save(plots.roc(evaluation.roc), folder / "plots" / f"roc_{split}.png")
    _save(plots.loss_curves(result.history), folder / "plots" / "loss.png")
    for source, place in ((os.path.join(result.bundle_dir, "spec.json"), "spec"), (config.file, "config")):
        (folder / place).mkdir(exist_ok=True)
        shutil.copy(source, folder / place)
    texts = {
        "config/resolved.json": json.dumps(config.model_dump(mode="json"), indent=1),
        "snapshots.json": json.dumps(data.snapshots, indent=1),
        "environment.txt": packages(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _stage_reports(folder: Path, snapshots: list[str]) -> None:
    """The snapshots' data reports, for people who look at the run."""
    for directory in snapshots:
        manifest = Manifest.load(directory)
        report = store.join(directory, manifest.data, PAGE)
        if store.exists(report):
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data" / f"{manifest.id}.html").write_bytes(store.read_bytes(report))


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


def example_rows(config: Config, spec: FeatureSpec) -> pd.DataFrame:
    """A few raw rows of the source as text (or lists of it), columns in the spec's order; without a source, a row of
    missing values."""
    from features.listing import list_files
    from features.log import LogReader
    from features.source import split_ranges

    names = list(spec.raw_columns)
    try:
        files = list_files(config.source, config.base, None)
        first = next(
            iter(LogReader(config.features, config.base, False).read(split_ranges(config.source, files, 1 << 16)[0]))
        )
    except (FieldwiseError, OSError, StopIteration):
        return pd.DataFrame({name: pd.Series([None], dtype=object) for name in names})
    raw = {name: first.columns.array(name).slice(0, EXAMPLE_ROWS) for name in names}
    return pd.DataFrame({name: _example(array) for name, array in raw.items()}, dtype=object)


def _example(array: pa.Array) -> list[Any]:
    """Canonical texts, or lists of them."""
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return [None if row.values is None else canonical(row.values).to_pylist() for row in array]
    return list(canonical(array).to_pylist())


def _summary(config: Config, result: TrainResult) -> dict[str, Any]:
    return {
        "kind": config.model.kind,
        "bundle": result.bundle_dir,
        "bundle_digest": result.bundle_digest,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "metrics": {
            split: {"rows": found.rows, **{name: float(value) for name, value in found.values.items()}}
            for split, found in result.evaluations.items()
        },
        "rows_per_second": round(result.rows_per_second),
    }
