"""Snapshots to a bundle in the registry. Runs in every rank; rank 0 alone writes and talks to MLflow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from features.errors import ConfigError, FieldwiseError
from features.manifest import load_snapshot, snapshot_dir
from features.spec import FeatureSpec
from pipelines.config import Config
from pipelines.launch import Days
from pipelines.models import registry, resolve_model
from training.bundle import load_bundle
from training.checkpoint import Checkpoints
from training.data import TrainData
from training.run import TrainResult, TrainRun
from training.trainer import train
from training.world import join_world

if TYPE_CHECKING:
    from training.tracking import Run

EXAMPLE_ROWS = 5


def train_model(
    config: Config, days: Days | None = None, *, init: str | None = None, register: bool = True
) -> dict[str, Any] | None:
    """Train, log the run, register the model as challenger (and champion when there is none).

    Args:
        days: what to train, validate and test on.
        init: model reference whose weights to start from.
        register: False logs the run and leaves the registry alone.

    Returns the result on rank 0, None on other ranks.
    """
    task = _task(config, open_days(config, days or Days()), init)
    with join_world(config.training.timeout_seconds) as world, ExitStack() as stack:
        run = stack.enter_context(_tracked(config, task)) if world.first else None
        run_id = world.gather(run.id if run else None)[0]  # ranks start together, however long rank 0 took
        result = train(replace(task, tracker=run, tracker_id=run_id), world)
        if run is None:
            return None
        uri = _log(run, config, task.data, result)
        registered = registry(config).register(uri, config.model_name) if register else None
        Checkpoints(str(task.checkpoint_dir), task.request).clear()
        return _summary(config, result) | {"run": run.id, "model_uri": uri, "registered": registered}


def open_days(config: Config, days: Days) -> TrainData:
    """The splits to train, validate and test on."""
    train = list(days.train) or [snapshot_dir(config.workspace_dir, "all")]
    opened = [[load_snapshot(path) for path in paths] for paths in (train, days.valid, days.test)]
    if len(train) == 1 and not days.valid and not days.test:
        return TrainData.of_one(opened[0][0])
    return TrainData.of(*opened)


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
def _tracked(config: Config, task: TrainRun) -> Iterator[Run]:
    """An open MLflow run: that of the killed training when this one resumes it."""
    saved = Checkpoints(str(task.checkpoint_dir), task.request).latest()
    experiment = config.tracking.experiment or config.name
    resume = saved.tracker_id if saved else None
    with registry(config).run(experiment, config.model.kind, config.workspace_dir, resume=resume) as run:
        run.params(_params(task.data))
        yield run


def _params(data: TrainData) -> dict[str, Any]:
    sizes = {role: split.rows for role, split in (("train", data.train), ("valid", data.valid), ("test", data.test))}
    return {
        "spec_digest": data.spec.digest,
        "snapshots": data.snapshots,
        "rows": sizes,
    }


def _log(run: Run, config: Config, data: TrainData, result: TrainResult) -> str:
    """What the run keeps beside parameters and curves; returns the logged model's URI."""
    from training import plots

    for split, evaluation in result.evaluations.items():
        run.figure(plots.calibration(evaluation.curve), f"plots/calibration_{split}.png")
        run.figure(plots.roc(evaluation.roc), f"plots/roc_{split}.png")
    run.figure(plots.loss_curves(result.history), "plots/loss.png")
    run.file(os.path.join(result.bundle_dir, "spec.json"), "spec")
    run.file(config.file, "config")
    run.text(json.dumps(config.model_dump(mode="json"), indent=1), "config/resolved.json")
    run.text(json.dumps(data.snapshots, indent=1), "snapshots.json")
    return str(run.bundle(result.bundle_dir, example_rows(config, data.spec)))


def example_rows(config: Config, spec: FeatureSpec) -> pd.DataFrame:
    """A few raw rows of the source as text, columns in the spec's order; one row of missing values without a source."""
    from features.log import LogReader
    from features.source import list_files, split_ranges

    names = list(spec.raw_columns)
    try:
        files = list_files(config.source, config.base, None)
        first = next(
            iter(LogReader(config.features, config.base, False).read(split_ranges(config.source, files, 1 << 16)[0]))
        )
    except (FieldwiseError, OSError, StopIteration):
        return pd.DataFrame({name: pd.Series([None], dtype=object) for name in names})
    columns = {name: first.columns.column(name).slice(0, EXAMPLE_ROWS).cast("string").to_pylist() for name in names}
    return pd.DataFrame(columns, dtype=object)


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
