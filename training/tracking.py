"""MLflow lives here, in ``sender`` and ``mlflow_store``: runs, logged bundles, the registry. Only rank 0 calls it.

The default store is SQLite in the workspace with artifacts beside it. A bundle is logged as a pyfunc model by "models
from code": files and this package's sources, no pickle, so it loads where there is no checkout. ``champion`` and
``challenger`` are registry aliases; the registered model's tag ``champion_history`` is the stack of former champions
that rollback pops.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array
from sqlalchemy.engine import URL, make_url

from features.errors import ArtifactError, ConfigError, TrackingError
from features.interrupt import held
from features.redact import redacted_tree, remember_urls
from features.store import file_uri, make_dir
from training.journal import flat
from training.mlflow_store import artifact_place, ask, follow_move, open_store, store_uri, tell, trouble

ROOT = Path(__file__).resolve().parent.parent
SERVING = ["mlflow", "numba", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch", "xxhash"]
"""What a loaded model imports."""
HISTORY = "champion_history"
ALIASES = ("champion", "challenger")
STORE = "MLFLOW_TRACKING_URI"

# a server that is away must not hold a training for the minutes that MLflow's own defaults take
for name, value in (("MAX_RETRIES", "2"), ("BACKOFF_FACTOR", "1"), ("TIMEOUT", "20")):
    os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
for name, level in (("alembic", logging.WARNING), ("mlflow", logging.WARNING), ("urllib3", logging.ERROR)):
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
            raise ConfigError("tracking.uri", expected="an MLflow server", found="none, remote workspace", fix=fix)
        make_dir(workspace)
        uri = sqlite_uri(f"{workspace}/mlflow.db")
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

    def figure(self, figure: Any, name: str) -> None:
        mlflow.log_figure(figure, name)

    @staticmethod
    def bundle(directory: str | Path, example: pd.DataFrame) -> str:
        """Log a bundle as a pyfunc model taking the columns of ``example`` (text or lists of it, any may be missing).

        Returns the URI of the logged model.
        """
        lists = {name for name in example if any(isinstance(value, list) for value in example[name])}
        types = {name: Array(DataType.string) if name in lists else DataType.string for name in example}
        inputs = Schema([ColSpec(type, name, required=False) for name, type in types.items()])
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # MLflow tries the model where it lies
        try:
            with tempfile.TemporaryDirectory(prefix="fieldwise-code-") as code:
                _copy_code(Path(code))
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=f"{code}/training/pyfunc_model.py",
                    artifacts={"bundle": file_uri(str(directory))},
                    code_paths=[f"{code}/features", f"{code}/training"],
                    signature=ModelSignature(inputs, Schema([ColSpec("double")])),
                    input_example=example,
                    pip_requirements=[f"{name}=={metadata.version(name)}" for name in SERVING],
                )
        finally:
            sys.dont_write_bytecode = writes
        return str(info.model_uri)


def _copy_code(folder: Path) -> None:
    """What a logged model holds of this package, under the modes of files made here: MLflow would copy those of an
    installation, which everybody may read."""
    for package in ("features", "training"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.parent.name != "__pycache__":
                copy = folder / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


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


def packages() -> str:
    """What is installed, one ``name==version`` per line."""
    found = sorted({f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}, key=str.lower)
    return "\n".join(found) + "\n"


def source_tags() -> dict[str, str]:
    commit = git_commit()
    return {} if commit is None else {"mlflow.source.git.commit": commit}


def experiment_id(name: str, workspace: str) -> str:
    """Id of an experiment, made if new, with artifacts in a local workspace.

    Raises ConfigError when it was deleted or cannot be made, TrackingError when the store is silent.
    """

    def found_or_made() -> Any:
        client = MlflowClient()  # another run may be making it
        return client.get_experiment_by_name(name) or client.get_experiment(
            client.create_experiment(name, artifact_location=artifact_place(name, workspace))
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


def register(model_uri: str, name: str, *, may_lead: bool = True) -> dict[str, Any]:
    """Register a logged model, once, and say which versions have the aliases then.

    It becomes ``challenger`` unless a newer version is; ``champion`` only where there is none and it ``may_lead``.
    """

    def version_made() -> str:
        there = [found for found in _versions(name) if found.source == model_uri]
        return str((there[0] if there else mlflow.register_model(model_uri, name)).version)

    version = tell(version_made)

    def pointed() -> None:
        client, standing = MlflowClient(), version_of(name, "challenger")
        if standing is None or int(standing) < int(version):
            client.set_registered_model_alias(name, "challenger", version)
        if may_lead and version_of(name, "champion") is None:
            client.set_registered_model_alias(name, "champion", version)

    tell(pointed)
    return {"model": name, "version": version, **{alias: version_of(name, alias) for alias in ALIASES}}


def _versions(name: str) -> list[Any]:
    quote = '"' if "'" in name else "'"
    return list(MlflowClient().search_model_versions(f"name = {quote}{name}{quote}"))


def version_of(name: str, alias: str) -> str | None:
    """Version an alias stands for; None when model or alias is unknown."""
    found = ask(lambda: MlflowClient().get_model_version_by_alias(name, alias))
    if found is not None and not str(found.version).isdigit():
        raise trouble(MlflowException(f"a version {found.version!r}"))
    return None if found is None else str(found.version)


class Registered(NamedTuple):
    """A version in the registry; ``alias`` is the one it was named by, else its most important one."""

    name: str
    version: str
    alias: str | None

    @property
    def reference(self) -> str:
        return f"models:/{self.name}/{self.version}"


def find(reference: str) -> Registered | None:
    """The version that ``models:/NAME@alias`` or ``models:/NAME/3`` stands for now; None for other references.

    Raises:
        ArtifactError: no such model, alias or version.
    """
    match = re.fullmatch(r"models:/(.+)(?:@([^@/]+)|/(\d+))", reference)
    if match is None:
        return None
    name, alias, version = match.groups()
    if version is None:
        version = version_of(name, alias)
    found = None if version is None else ask(lambda: MlflowClient().get_model_version(name, version))
    if found is None:
        raise _absent(reference, "Train and promote a model first, or name another.")
    known = [each for each in (alias, *ALIASES, *sorted(found.aliases)) if each in found.aliases]
    return Registered(name, str(found.version), alias or next(iter(known), None))


def promote(name: str, version: str | None = None) -> dict[str, Any]:
    """Make ``version`` (default: the challenger) the champion and remember the former one."""
    wanted = version or version_of(name, "challenger")
    if wanted is None:
        raise _absent(f"models:/{name}@challenger", "Train first.")
    if ask(lambda: MlflowClient().get_model_version(name, wanted)) is None:
        raise _absent(f"models:/{name}/{wanted}", "Name a registered version.")
    former = version_of(name, "champion")
    if former != wanted:
        if former is not None:
            _remember(name, [*history(name), former])
        _crown(name, wanted)
    return {"model": name, "champion": wanted, "former": former}


def rollback(name: str) -> dict[str, Any]:
    """Give the champion alias back to the version that had it before the last promotion."""
    current, past = version_of(name, "champion"), history(name)
    if not past:
        raise ArtifactError(
            f"models:/{name}",
            expected="a former champion",
            found="none recorded",
            fix="Only a promotion can be undone.",
        )
    _crown(name, past[-1])
    _remember(name, past[:-1])
    return {"model": name, "champion": past[-1], "former": current}


def history(name: str) -> list[str]:
    """Former champions' versions, latest last. ArtifactError where the tag that keeps them holds something else."""
    found = ask(lambda: MlflowClient().get_registered_model(name))
    told = "[]" if found is None else found.tags.get(HISTORY, "[]")
    try:
        versions = json.loads(told)
    except (ValueError, RecursionError):
        versions = None
    if not isinstance(versions, list) or not all(isinstance(each, str) and each.isdigit() for each in versions):
        fix = f"Delete or mend the tag {HISTORY} of the registered model."
        raise ArtifactError(f"models:/{name}", expected="former versions as JSON", found=repr(told[:80]), fix=fix)
    return versions


def _remember(name: str, versions: list[str]) -> None:
    tell(lambda: MlflowClient().set_registered_model_tag(name, HISTORY, json.dumps(versions)))


def _crown(name: str, version: str) -> None:
    tell(lambda: MlflowClient().set_registered_model_alias(name, "champion", version))


def snapshots_in_use(name: str, experiment: str) -> dict[str, str]:
    """Digests of snapshots that aliased versions of a model and running trainings of an experiment use, with a reason.

    A training that was killed counts as running until its run is ended or resumed. Raises TrackingError when the store
    is silent: nothing is free then.
    """
    runs = {}
    found = tell(lambda: MlflowClient().get_experiment_by_name(experiment))
    if found is not None:
        for run in tell(lambda: MlflowClient().search_runs([found.experiment_id], "attributes.status = 'RUNNING'")):
            runs[run.info.run_id] = f"run {run.info.run_id} is training on it"
    model = ask(lambda: MlflowClient().get_registered_model(name))
    for alias, version in ({} if model is None else model.aliases).items():
        run_id = tell(partial(MlflowClient().get_model_version, name, version)).run_id
        runs[run_id] = f"models:/{name}@{alias} comes from it"
    used: dict[str, str] = {}
    for run_id, reason in runs.items():
        params = tell(partial(MlflowClient().get_run, run_id)).data.params
        used |= {digest: reason for key, digest in params.items() if key.startswith("snapshots.")}
    return used


def bundle_of(reference: str) -> str:
    """Local bundle directory of ``models:/NAME@alias``, ``models:/NAME/3`` or a logged model's URI.

    Raises:
        ArtifactError: no such model, alias or version, or it holds no bundle.
    """
    if reference.startswith(("http://", "https://")):
        fix = "Download it, and name its directory."
        raise ArtifactError(
            reference, expected="a bundle directory or models:/NAME@alias", found="a web address", fix=fix
        )
    try:
        local = ask(lambda: mlflow.artifacts.download_artifacts(artifact_uri=reference))
    except TrackingError as error:
        if not isinstance(error.__cause__, FileNotFoundError):  # an artifact store's other errors pass
            raise
        local = None
    if local is None:
        raise _absent(reference, "Train and promote a model first, or name another.")
    found = sorted(Path(local).glob("artifacts/*/model.json"))
    if not found:
        raise ArtifactError(
            reference, expected="a model logged by fieldwise train", found="no bundle inside", fix="Name another model."
        )
    return str(found[0].parent)


def _absent(reference: str, fix: str) -> ArtifactError:
    found = f"nothing of that name in {mlflow.get_tracking_uri()}"
    return ArtifactError(reference, expected="a registered model", found=found, fix=fix)
