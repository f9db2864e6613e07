"""The model registry: versions, the aliases ``champion`` and ``challenger``, and the bundles behind them."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fieldwise.features.errors import ArtifactError, TrackingError
from fieldwise.training.tracking.mlflow_store import ask, tell, trouble

HISTORY = "champion_history"
ALIASES = ("champion", "challenger")


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
