"""MLflow, and nothing else, lives here: runs, logged bundles, the model registry. Only rank 0 calls it.

The default store is SQLite in the workspace with artifacts beside it. A bundle is logged as a pyfunc model by "models
from code": files and this package's sources, no pickle, so it loads where there is no checkout. ``champion`` and
``challenger`` are registry aliases; the registered model's tag ``champion_history`` is the stack of former champions
that rollback pops.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema

from features.errors import ArtifactError, ConfigError

ROOT = Path(__file__).resolve().parent.parent
SERVING = ["mlflow", "numba", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch", "xxhash"]
"""What a loaded model imports."""
HISTORY = "champion_history"
STORE = "MLFLOW_TRACKING_URI"

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
for name in ("alembic", "mlflow"):  # people's words on stderr are ours
    logging.getLogger(name).setLevel(logging.WARNING)


def connect(uri: str | None, workspace: str) -> str:
    """Point MLflow at ``uri``, else MLFLOW_TRACKING_URI, else SQLite in the workspace. Returns the store's URI."""
    given = os.environ.get(STORE)
    uri = uri or given
    if not uri:
        if "://" in workspace:
            fix = "Set tracking.uri or MLFLOW_TRACKING_URI."
            raise ConfigError("tracking.uri", expected="an MLflow server", found="none, remote workspace", fix=fix)
        os.makedirs(workspace, exist_ok=True)
        uri = f"sqlite:///{workspace}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if given is None:
        os.environ.pop(STORE, None)  # MLflow sets it, which would bind the next config to this one's store
    else:
        os.environ[STORE] = given
    return uri


class Run:
    """One open MLflow run."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Nested mappings become dotted names."""
        mlflow.log_params(dict(_flat(values)))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        mlflow.log_metrics({name: float(value) for name, value in values.items()}, step=step)

    def tags(self, values: Mapping[str, str]) -> None:
        mlflow.set_tags(dict(values))

    def file(self, path: str | Path, folder: str | None = None) -> None:
        mlflow.log_artifact(str(path), folder)

    def text(self, content: str, name: str) -> None:
        mlflow.log_text(content, name)

    def figure(self, figure: Any, name: str) -> None:
        mlflow.log_figure(figure, name)

    def bundle(self, directory: str | Path, example: pd.DataFrame) -> str:
        """Log a bundle as a pyfunc model taking the columns of ``example`` (text, any may be missing).

        Returns the URI of the logged model.
        """
        inputs = Schema([ColSpec("string", name, required=False) for name in example.columns])
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(ROOT / "training" / "pyfunc_model.py"),
            artifacts={"bundle": str(directory)},
            code_paths=[str(ROOT / "features"), str(ROOT / "training")],
            signature=ModelSignature(inputs, Schema([ColSpec("double")])),
            input_example=example,
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in SERVING],
        )
        return str(info.model_uri)


@contextmanager
def run(experiment: str, name: str, workspace: str, *, resume: str | None = None) -> Iterator[Run]:
    """Open a run of an experiment (made if new, with artifacts in a local workspace); it records code and packages.

    Inside an open run it becomes that run's child. ``resume`` names a run to go on with, if the store knows it.
    """
    if mlflow.get_experiment_by_name(experiment) is None:
        local = "://" not in workspace and str(mlflow.get_tracking_uri()).startswith("sqlite")
        place = Path(workspace, "artifacts", experiment).as_uri() if local else None
        mlflow.create_experiment(experiment, artifact_location=place)
    mlflow.set_experiment(experiment)
    known = resume if resume is not None and _known(resume) else None
    with mlflow.start_run(run_id=known, run_name=name, nested=mlflow.active_run() is not None) as active:
        opened = Run(active.info.run_id)
        packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}, key=str.lower)
        opened.text("\n".join(packages) + "\n", "environment.txt")
        commit = git_commit()
        if commit is not None:
            opened.tags({"mlflow.source.git.commit": commit})
        yield opened


def _known(run_id: str) -> bool:
    try:
        return MlflowClient().get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException:
        return False


def git_commit() -> str | None:
    """Commit of this checkout; None for an installed package or without git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def register(model_uri: str, name: str) -> dict[str, Any]:
    """Register a logged model as ``challenger``, and as ``champion`` when there is none yet."""
    client = MlflowClient()
    version = str(mlflow.register_model(model_uri, name).version)
    client.set_registered_model_alias(name, "challenger", version)
    first = version_of(name, "champion") is None
    if first:
        client.set_registered_model_alias(name, "champion", version)
    return {"model": name, "version": version, "champion": version if first else version_of(name, "champion")}


def version_of(name: str, alias: str) -> str | None:
    """Version an alias stands for; None when model or alias is unknown."""
    try:
        return str(MlflowClient().get_model_version_by_alias(name, alias).version)
    except MlflowException:
        return None


def promote(name: str, version: str | None = None) -> dict[str, Any]:
    """Make ``version`` (default: the challenger) the champion and remember the former one."""
    client = MlflowClient()
    wanted = version or version_of(name, "challenger")
    if wanted is None:
        raise _absent(f"models:/{name}@challenger", "Train first.")
    try:
        client.get_model_version(name, wanted)
    except MlflowException as error:
        raise _absent(f"models:/{name}/{wanted}", "Name a registered version.") from error
    former = version_of(name, "champion")
    if former != wanted:
        if former is not None:
            _remember(client, name, [*history(name), former])
        client.set_registered_model_alias(name, "champion", wanted)
    return {"model": name, "champion": wanted, "former": former}


def rollback(name: str) -> dict[str, Any]:
    """Give the champion alias back to the version that had it before the last promotion."""
    client = MlflowClient()
    current, past = version_of(name, "champion"), history(name)
    if not past:
        raise ArtifactError(
            f"models:/{name}",
            expected="a former champion",
            found="none recorded",
            fix="Only a promotion can be undone.",
        )
    client.set_registered_model_alias(name, "champion", past[-1])
    _remember(client, name, past[:-1])
    return {"model": name, "champion": past[-1], "former": current}


def history(name: str) -> list[str]:
    """Former champions' versions, latest last."""
    try:
        tags = MlflowClient().get_registered_model(name).tags
    except MlflowException:
        return []
    return list(json.loads(tags.get(HISTORY, "[]")))


def _remember(client: MlflowClient, name: str, versions: list[str]) -> None:
    client.set_registered_model_tag(name, HISTORY, json.dumps(versions))


def bundle_of(reference: str) -> str:
    """Local bundle directory of ``models:/NAME@alias``, ``models:/NAME/3`` or a logged model's URI.

    Raises:
        ArtifactError: no such model, alias or version, or it holds no bundle.
    """
    try:
        local = mlflow.artifacts.download_artifacts(artifact_uri=reference)
    except (MlflowException, OSError) as error:
        raise _absent(reference, "Train and promote a model first, or name another.") from error
    found = sorted(Path(local).glob("artifacts/*/model.json"))
    if not found:
        raise ArtifactError(
            reference, expected="a model logged by fieldwise train", found="no bundle inside", fix="Name another model."
        )
    return str(found[0].parent)


def _absent(reference: str, fix: str) -> ArtifactError:
    found = f"nothing of that name in {mlflow.get_tracking_uri()}"
    return ArtifactError(reference, expected="a registered model", found=found, fix=fix)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
