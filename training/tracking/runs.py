"""MLflow lives here, in ``sender`` and ``mlflow_store``: runs, logged bundles, the registry. Only rank 0 calls it.

The default store is SQLite in the workspace with artifacts beside it. A bundle is logged as a pyfunc model by "models
from code": files and this package's sources, no pickle, so it loads where there is no checkout. ``champion`` and
``challenger`` are registry aliases; the registered model's tag ``champion_history`` is the stack of former champions
that rollback pops.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models import utils as model_utils
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType
from mlflow.utils import requirements_utils
from sqlalchemy.engine import URL, make_url

from fieldwise.features.errors import ConfigError
from fieldwise.features.interrupt import held
from fieldwise.features.redact import redacted_tree, remember_urls
from fieldwise.features.store import file_uri, make_dir
from fieldwise.training.tracking.environment import copy_code, packages, requirements, source_tags
from fieldwise.training.tracking.journal import flat
from fieldwise.training.tracking.mlflow_store import (
    artifact_place,
    ask,
    follow_move,
    open_store,
    store_uri,
    tell,
    trouble,
)
from fieldwise.training.tracking.own_database import DATABASE, STORE

# a server that is away must not hold a training for the minutes that MLflow's own defaults take
for name, value in (("MAX_RETRIES", "2"), ("BACKOFF_FACTOR", "1"), ("TIMEOUT", "20")):
    os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)


os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


for name, level in (
    ("alembic", logging.WARNING),
    ("mlflow", logging.WARNING),
    ("urllib3", logging.ERROR),
    ("mlflow.store.db.utils", logging.CRITICAL),
):  # tracebacks of what it raises, too
    logging.getLogger(name).setLevel(level)  # people's words on stderr are ours


def connect(uri: str | None, workspace: str) -> str:
    """Point MLflow at ``uri``, else MLFLOW_TRACKING_URI, else SQLite in the workspace. Returns the store's URI.

    Raises ConfigError for a store that MLflow cannot open.
    """
    given = os.environ.get(STORE)
    uri = uri or given or ""
    own = not uri
    if own:
        if "://" in workspace:
            fix = "Set tracking.uri or MLFLOW_TRACKING_URI."
            expected = "an MLflow server, or a database on a disk, beside a workspace that is a URL"
            raise ConfigError("tracking.uri", expected=expected, found="none", fix=fix)
        make_dir(workspace)
        uri = sqlite_uri(f"{workspace}/{DATABASE}")
    remember_urls(uri)
    uri = store_uri(uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    file = make_url(uri).database if uri.startswith("sqlite") else None
    if own and file and os.path.exists(file):
        follow_move(file, workspace)
    if file:
        with held():  # half a database would refuse every later command
            open_store(uri)
    if given is None:
        os.environ.pop(STORE, None)  # MLflow sets it, which would bind the next config to this one's store
    else:
        os.environ[STORE] = given
    return uri


def is_made(uri: str | None, workspace: str) -> bool:
    """Whether ``connect`` would find a store rather than make one; a server counts as found."""
    uri = uri or os.environ.get(STORE) or ("" if "://" in workspace else sqlite_uri(f"{workspace}/{DATABASE}"))
    file = make_url(uri).database if uri.startswith("sqlite") else None
    return file is None or os.path.exists(file)


def sqlite_uri(path: str) -> str:
    """The URI of an SQLite file, quoted where SQLAlchemy would read another path from the plain one."""
    plain = f"sqlite:///{path}"
    # named with its driver, because MLflow makes the directory that it reads from `sqlite:///...` without unquoting
    quoted = URL.create("sqlite+pysqlite", database=path).render_as_string()
    for uri in (plain, quoted):
        if make_url(uri).database == path and not make_url(uri).query:
            return uri
    fix = "Name the directory otherwise, or set tracking.uri."  # SQLAlchemy 2.0 cannot write a question mark
    raise ConfigError("workspace", expected="a path that SQLAlchemy's URLs can hold", found=path, fix=fix)


class Run:
    """One open MLflow run."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Nested mappings become dotted names."""
        mlflow.log_params(dict(flat(values)))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        mlflow.log_metrics({name: float(value) for name, value in values.items()}, step=step)

    def tags(self, values: Mapping[str, str]) -> None:
        mlflow.set_tags(dict(values))

    def text(self, content: str, name: str) -> None:
        mlflow.log_text(content, name)

    @staticmethod
    def bundle(directory: str | Path, example: pd.DataFrame) -> str:
        """Log a bundle as a pyfunc model taking the columns of ``example``: of any type, any may be missing.

        Returns the URI of the logged model.
        """
        inputs = Schema([ColSpec(AnyType(), name, required=False) for name in example])
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # MLflow tries the model where it lies
        try:
            with tempfile.TemporaryDirectory(prefix="fieldwise-code-") as code, _unchecked():
                copy_code(Path(code))
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=f"{code}/fieldwise/training/tracking/pyfunc_model.py",
                    artifacts={"bundle": file_uri(str(directory))},
                    code_paths=[f"{code}/fieldwise"],
                    signature=ModelSignature(inputs, Schema([ColSpec("double")])),
                    input_example=example,
                    pip_requirements=requirements(),
                )
        finally:
            sys.dont_write_bytecode = writes
        return str(info.model_uri)


_CHECKS = ((requirements_utils, "_check_requirement_satisfied"), (model_utils, "_validate_serving_input"))


@contextmanager
def _unchecked() -> Iterator[None]:
    """Without two looks of MLflow's, which warn at most and take seconds each: at the files of all installed packages,
    for whether the versions that we state are installed (they are what is); and at what the model says of its example,
    for which torch is imported."""
    found = [(module, name, getattr(module, name)) for module, name in _CHECKS if hasattr(module, name)]
    for module, name, _ in found:
        setattr(module, name, lambda *arguments, **named: None)
    try:
        yield
    finally:
        for module, name, check in found:
            setattr(module, name, check)


_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow's pages open with the view of model training, which asks otherwise what an experiment is for."""


@contextmanager
def run(experiment: str, name: str, workspace: str, *, resume: str | None = None) -> Iterator[Run]:
    """Open a run of an experiment (made if new, with artifacts in a local workspace); it records code and packages.

    Inside an open run it becomes that run's child. ``resume`` names a run to go on with, if the store knows it.
    """
    mlflow.set_experiment(experiment_id=experiment_id(experiment, workspace))
    known = resume if resume is not None and _known(resume) else None
    tags = redacted_tree(resolve_tags())  # the remote of a checkout may hold a token
    nested = mlflow.active_run() is not None
    with mlflow.start_run(run_id=known, run_name=name, nested=nested, tags=tags) as active:
        opened = Run(active.info.run_id)
        opened.text(packages(), "environment.txt")
        opened.tags(source_tags())
        yield opened


def _known(run_id: str) -> bool:
    found = ask(lambda: MlflowClient().get_run(run_id))
    return found is not None and found.info.lifecycle_stage == "active"


def experiment_id(name: str, workspace: str) -> str:
    """Id of an experiment, made if new, with artifacts in a local workspace.

    Raises ConfigError when it was deleted or cannot be made, TrackingError when the store is silent.
    """

    def found_or_made() -> Any:
        client = MlflowClient()  # another run may be making it
        return client.get_experiment_by_name(name) or client.get_experiment(
            client.create_experiment(name, artifact_location=artifact_place(name, workspace), tags=_KIND)
        )

    found = tell(found_or_made)
    if not found.experiment_id:
        raise trouble(MlflowException("an experiment without an id"))  # a proxy's answer may be JSON, too
    if found.lifecycle_stage == "deleted":
        raise ConfigError(
            "tracking.experiment", expected="an experiment that takes runs", found=f"{name!r}, which was deleted",
            fix=f"Name another, or restore it: mlflow experiments restore -x {found.experiment_id}.",
        )  # fmt: skip
    return str(found.experiment_id)
