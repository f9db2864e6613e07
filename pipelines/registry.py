"""Which bundle a user means, and the registry of its model.

MLflow and torch take seconds to import: only calls that need the registry, or open a bundle, do it.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.terminal import say
from fieldwise.pipelines.config.schema import Config
from fieldwise.training.tracking.apart import Store
from fieldwise.training.tracking.own_database import look_up

_MLFLOW = ("models:/", "runs:/", "mlflow-artifacts:", "http://", "https://")

if TYPE_CHECKING:
    from fieldwise.training.network.bundle import Bundle
    from fieldwise.training.tracking.own_database import Registered
    from fieldwise.training.tracking.registry import Registry


@dataclass(frozen=True)
class OpenedModel:
    """A bundle, and what the registry knows it as: ``name``, ``version``, ``alias`` are None for a mere directory."""

    directory: str
    bundle: Bundle
    name: str | None = None
    version: str | None = None
    alias: str | None = None

    @property
    def label(self) -> str:
        """The version, else the bundle's digest, as scores are stamped with it."""
        return self.version or self.bundle.digest[:12]

    @property
    def facts(self) -> dict[str, str | None]:
        """For the results of commands."""
        facts = {"name": self.name, "version": self.version, "alias": self.alias}
        return {"kind": self.bundle.kind, "digest": self.bundle.digest, **facts}

    def __str__(self) -> str:
        digest = f"bundle {self.bundle.digest[:12]}"
        if self.version is None:
            return f"{self.bundle.kind}, {digest} in {self.directory}, not a registered version"
        return f"{self.bundle.kind}, version {self.version} of {self.name}, {self.alias or 'no alias'}, {digest}"


def open_model(reference: str | None, config: Config) -> OpenedModel:
    """The model that a command works with; says on stderr which one that is.

    Args:
        reference: a bundle's directory or URL, ``models:/NAME@alias``, ``models:/NAME/3``; default: the champion.

    Raises:
        ArtifactError: nothing of that name, a missing champion included.
        TrackingError: the registry does not answer.
    """
    from fieldwise.training.network.bundle import load_bundle

    directory, known = _found(reference, config)
    opened = OpenedModel(directory, load_bundle(directory), *(known or ()))
    say(f"model: {opened}")
    return opened


def resolve_model(reference: str | None, config: Config) -> str:
    """Directory or URL of the bundle that ``open_model`` would open."""
    return _found(reference, config)[0]


def _found(reference: str | None, config: Config) -> tuple[str, Registered | None]:
    """Directory or URL of a bundle, and the version that it is, if any."""
    if reference is not None and (bundle := _bundle(reference)) is not None:
        return bundle, None
    reference = reference or champion_of(config)
    if (seen := look_up(reference, config.tracking.uri, config.workspace_dir)) is not None:
        return seen
    tracking = tracking_of(config)
    tracking.connect()
    known = tracking.find(reference)
    return tracking.bundle_of(known.reference if known else reference), known


def _bundle(reference: str) -> str | None:
    """The directory or URL of a bundle that lies where a reference says; None for one of MLflow."""
    if reference.startswith(_MLFLOW) or not store.exists(store.join(reference, "model.json")):
        return None
    return reference.rstrip("/") if "://" in reference else os.path.abspath(reference)


def load_model(reference: str, *, uri: str | None, workspace: str | None) -> OpenedModel:
    """A model without a config: of a directory, or of the store that ``uri`` names, else the environment, else a
    workspace (default: that of a pipeline of the model's name in the current directory).

    Raises ArtifactError where there is no such store or model: none is made.
    """
    from fieldwise.training.network.bundle import load_bundle

    if (bundle := _bundle(reference)) is not None:
        return OpenedModel(bundle, load_bundle(bundle))
    named = re.fullmatch(r"models:/([^/@:]+)(?:@[^/@]+|/\d+)", reference)
    if named is None:
        fix = "Name a version, models:/NAME/3, or an alias, models:/NAME@champion."
        expected = "a bundle's directory, or a registered model"
        raise ArtifactError(reference, expected=expected, found="neither", fix=fix)
    workspace = workspace or os.path.abspath(os.path.join("work", named[1]))
    if (seen := look_up(reference, uri, workspace)) is not None:
        return OpenedModel(seen[0], load_bundle(seen[0]), *seen[1])
    tracking = Store(uri, workspace)
    if not tracking.is_made():
        fix = "Pass the workspace it was trained in, the tracking server (tracking=), or set MLFLOW_TRACKING_URI."
        raise ArtifactError(reference, expected=f"MLflow's database in {workspace}", found="none", fix=fix)
    tracking.connect()
    known = tracking.find(reference)
    assert known is not None
    directory = tracking.bundle_of(known.reference)
    return OpenedModel(directory, load_bundle(directory), *known)


def champion_of(config: Config) -> str:
    """The reference that stands for the config's champion."""
    return f"models:/{config.model_name}@champion"


def registry(config: Config) -> Registry:
    """The config's registered model, its store connected."""
    tracking = tracking_of(config)
    tracking.connect()
    return tracking.registry(config.model_name)


def tracking_of(config: Config) -> Store:
    """MLflow, as the config names it."""
    return Store(config.tracking.uri, config.workspace_dir)


def say_registered(found: dict[str, Any], config: Config) -> None:
    """What became of a trained model in the registry, and how it gets further."""
    version, champion = found["version"], found["champion"]
    become = "champion (there was none)" if champion == version else "challenger"
    if champion != version and found["challenger"] != version:
        become = f"without an alias: version {found['challenger']} is newer and the challenger"
    named = ("name=", "workspace=", "tracking.")
    overrides = [f"--set={override}" for override in config.overrides if override.startswith(named)]
    command = shlex.join(["fieldwise", "promote", "--config", config.file, *overrides, "--version", version])
    promote = "" if champion == version else f"; promote it with: {command}"
    say(f"registered as version {version} of {found['model']}, {become}{promote}")
