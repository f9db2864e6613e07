"""The bundle of a registered or logged model, on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

from fieldwise.features.errors import ArtifactError, TrackingError
from fieldwise.training.tracking.mlflow_store import ask
from fieldwise.training.tracking.registry import absent

_ELSEWHERE = "Download it, and name its directory."
_FETCHED: dict[str, TemporaryDirectory[str]] = {}
"""What this process has downloaded, by the place it came from; it goes when the process ends."""


def remove_copies() -> None:
    """Of a process that ends otherwise than Python does."""
    for folder in _FETCHED.values():
        folder.cleanup()
    _FETCHED.clear()


def bundle_of(reference: str) -> str:
    """Local bundle directory of ``models:/NAME@alias``, ``models:/NAME/3`` or a logged model's URI.

    Raises:
        ArtifactError: no such model, alias or version, or it holds no bundle.
    """
    if reference.startswith(("http://", "https://")):
        expected = "a bundle directory or models:/NAME@alias"
        raise ArtifactError(reference, expected=expected, found="a web address", fix=_ELSEWHERE)
    if reference.startswith("models:/") and not re.fullmatch(r"models:/([^/@]+[/@][^/@]+|m-[0-9a-f]+)", reference):
        expected = "models:/NAME@alias or models:/NAME/3"
        raise ArtifactError(reference, expected=expected, found="another form", fix="Write it so.")
    try:
        local = ask(lambda: _bundles(reference))
    except TrackingError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            if reference.startswith(("models:/", "runs:/")):
                raise  # an artifact store's other errors pass
            kind = ArtifactError if isinstance(error.__cause__, MlflowException) else TrackingError
            raise kind(reference, expected="a place that answers", found=error.found, fix=_ELSEWHERE) from None
        local = None
    except ImportError as error:  # of the store's own library: boto3, google-cloud-storage, ...
        raise ArtifactError(reference, expected="an installed library", found=str(error), fix=_ELSEWHERE) from None
    if local is None:
        raise absent(reference, "Train one first (`fieldwise train`: the first becomes the champion), or name another.")
    found = sorted(Path(local).glob("*/model.json"))
    if not found:
        raise ArtifactError(
            reference, expected="a model logged by fieldwise train", found="no bundle inside", fix="Name another model."
        )
    return str(found[0].parent)


def _bundles(reference: str) -> str | None:
    """Local directory of a logged model's artifacts: where they lie, or for a server or object store a copy, once."""
    asked = get_artifact_repository(reference)
    store = asked.repo if isinstance(asked, ModelsArtifactRepository) else asked
    if isinstance(store, LocalArtifactRepository):
        return os.path.join(store.artifact_dir, "artifacts") if os.path.isdir(store.artifact_dir) else None
    place = str(store.artifact_uri)
    if place not in _FETCHED:
        folder = TemporaryDirectory(prefix="fieldwise-model-")
        asked.download_artifacts("artifacts", folder.name)
        _FETCHED[place] = folder
    return os.path.join(_FETCHED[place].name, "artifacts")
