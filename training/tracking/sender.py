"""Sends the reports of a ``training.tracking.journal`` to MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from sqlalchemy.exc import SQLAlchemyError

from fieldwise.features.errors import ArtifactError
from fieldwise.features.redact import redacted_tree
from fieldwise.training.network.files import FAMILY
from fieldwise.training.tracking.environment import source_tags
from fieldwise.training.tracking.journal import ANSWERS, Report
from fieldwise.training.tracking.mlflow_store import ask, tell, trouble
from fieldwise.training.tracking.registry import Registry
from fieldwise.training.tracking.runs import Run, experiment_id

JOURNAL = "fieldwise.journal"
"""Run tag: the id of the journal that reports to it."""


class Sender:
    """Sends the reports of a ``Journal``, nothing twice: what may have arrived already is looked for first.

    Args:
        place: the journal's directory, ``<workspace>/training/<run>/reports``. What is sent lies there and in the
            ``bundle`` beside it, wherever the workspace is now: a journal from elsewhere leads to no other file.
        resumed: whether the store may have more than was answered.
        workspace: that of the training, where ``place`` is in a copy of it.
    """

    def __init__(self, place: str | Path, *, resumed: bool, workspace: str | None = None) -> None:
        self._place, self._sure = Path(place).absolute(), not resumed
        self._workspace = workspace or str(self._place.parents[2])

    def __call__(self, report: Report, answers: Mapping[str, Any]) -> Report:
        """What the store answers. Raises ConfigError when it refuses, TrackingError when it is silent."""
        sure, self._sure = self._sure, False
        try:
            answer: Report = getattr(self, f"_{report['do']}")(report, answers, sure)
        except (MlflowException, SQLAlchemyError) as error:
            raise trouble(error) from error
        self._sure = sure
        return answer

    def _open(self, report: Report, answers: Mapping[str, Any], sure: bool) -> Report:
        client, experiment = MlflowClient(), experiment_id(report["experiment"], self._workspace)
        there = [] if sure else client.search_runs([experiment], f"tags.{JOURNAL} = '{report['id']}'")
        tags = redacted_tree(resolve_tags({JOURNAL: report["id"], **source_tags()}))  # a checkout's remote, too
        opened = there[0] if there else client.create_run(experiment, report["time"], tags, report["name"])
        return {"run": opened.info.run_id}

    def _params(self, report: Report, answers: Mapping[str, Any], sure: bool) -> Report:
        MlflowClient().log_batch(
            answers["run"], params=[Param(name, value) for name, value in report["values"].items()]
        )
        return {}

    def _metrics(self, report: Report, answers: Mapping[str, Any], sure: bool) -> Report:
        client, run, step = MlflowClient(), answers["run"], report["step"]
        there = set() if sure else {
            name for name in report["values"] for m in client.get_metric_history(run, name) if m.step == step
        }  # fmt: skip
        new = [Metric(k, v, report["time"], step) for k, v in report["values"].items() if k not in there]
        client.log_batch(run, metrics=new)
        return {}

    def _finish(self, report: Report, answers: Mapping[str, Any], sure: bool) -> Report:
        client, run = MlflowClient(), answers["run"]
        files, bundle = self._place / "files", self._place.parent / "bundle"
        _require_own(self._place.parent, files, bundle)
        client.log_artifacts(run, str(files))
        uri = None if sure else _logged_model(run)
        if uri is None:
            # MLflow goes on with no run of another experiment than the process last worked in, such as a sweep's
            mlflow.set_experiment(experiment_id=client.get_run(run).info.experiment_id)
            with mlflow.start_run(run_id=run):
                uri = Run.bundle(bundle, pd.DataFrame(report["example"], dtype=object))
        name = report.get("register")  # of journals before there were reports of their own for it
        registered = {"registered": self._registry(name).register(uri)} if name else {}
        for tag, value in report.get("tags", {}).items():
            client.set_tag(run, tag, value)
        client.set_terminated(run)
        return {"model_uri": uri, **registered}

    def _family(self, report: Report, answers: Mapping[str, Any], sure: bool) -> Report:
        client, bundle = MlflowClient(), self._place.parent / "bundle"
        _require_own(self._place.parent, bundle)
        model = _logged(answers["model_uri"]).rpartition("/")[2]
        client.log_model_artifact(model, str(bundle / FAMILY), f"artifacts/{bundle.name}")  # where _finish has put it
        client.set_tag(answers["run"], "fieldwise.family", f"chosen of {report['kinds']}")
        return {}

    def _register(self, report: Report, answers: Mapping[str, Any], sure: bool) -> Report:
        uri, registry = _logged(answers["model_uri"]), self._registry(report["name"])
        told = {"tags": report.get("tags", {}), "description": report.get("description", "")}  # not in those of old
        return {"registered": registry.register(uri, may_lead=report["may_lead"], **told)}

    def _registry(self, name: str) -> Registry:
        return Registry(name, self._workspace)


def _require_own(training: Path, *folders: Path) -> None:
    """Raises ArtifactError where a link would lead to files that are none of the training's, or a pipe nowhere."""
    for path in (training, *(path for folder in folders for path in (folder, *folder.rglob("*")))):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            found = "a link" if path.is_symlink() else "neither" if path.exists() else "nothing"
            fix = "Remove what does not belong there: a link would send what it leads to."
            raise ArtifactError(str(path), expected="files and folders of the training", found=found, fix=fix)


def _logged(uri: str) -> str:
    """A model's URI that the store answered; an answer from elsewhere could name any folder of this machine."""
    if not uri.startswith(("models:/", "runs:/")):
        raise ArtifactError(ANSWERS, expected="a logged model (models:/...)", found=uri, fix="Delete the directory.")
    return uri


def _logged_model(run_id: str) -> str | None:
    """URI of the whole model that a run has logged."""
    client = MlflowClient()
    found = client.search_logged_models([client.get_run(run_id).info.experiment_id], f"source_run_id = '{run_id}'")
    return next((model.model_uri for model in found if str(model.status) == "READY"), None)


def reopen(run_id: str, *, running: bool) -> bool:
    """Mark a run as running again, if it is; False when the store does not know it, or it was deleted."""

    def found_and_marked() -> bool:
        if ask(lambda: MlflowClient().get_run(run_id).info.lifecycle_stage) != "active":
            return False
        if running:
            MlflowClient().update_run(run_id, status="RUNNING")
        return True

    return tell(found_and_marked)


def end(run_id: str, status: str) -> None:
    """Note how a run ended, if the store can be told."""
    with suppress(Exception):  # of whatever layer below; the run's own end matters more
        MlflowClient().set_terminated(run_id, status)
