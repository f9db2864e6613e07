"""Which bundle a user means, and moves of the champion alias.

MLflow takes seconds to import: only calls that need the registry do it, so that ranks given a bundle start at once.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from fieldwise.features.terminal import say
from fieldwise.pipelines.config.schema import Config
from fieldwise.training.network.bundle import Bundle, load_bundle


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
        reference: a bundle directory, ``models:/NAME@alias``, ``models:/NAME/3``; default: the config's champion.

    Raises:
        ArtifactError: nothing of that name, a missing champion included.
        TrackingError: the registry does not answer.
    """
    if _is_bundle(reference):
        directory = os.path.abspath(str(reference))
        opened = OpenedModel(directory, load_bundle(directory))
    else:
        registered = registry(config)
        reference = reference or champion_of(config)
        known = registered.find(reference)
        directory = str(registered.bundle_of(known.reference if known else reference))
        opened = OpenedModel(directory, load_bundle(directory), *(known or ()))
    say(f"model: {opened}")
    return opened


def resolve_model(reference: str | None, config: Config) -> str:
    """Local directory of the bundle that ``open_model`` would open."""
    if _is_bundle(reference):
        return os.path.abspath(str(reference))
    return str(registry(config).bundle_of(reference or champion_of(config)))


def _is_bundle(reference: str | None) -> bool:
    return reference is not None and os.path.isfile(os.path.join(reference, "model.json"))


def champion_of(config: Config) -> str:
    """The reference that stands for the config's champion."""
    return f"models:/{config.model_name}@champion"


def registry(config: Config) -> ModuleType:
    """`training.tracking.registry`, connected to the config's store."""
    from fieldwise.training.tracking import registry as registered
    from fieldwise.training.tracking import runs

    runs.connect(config.tracking.uri, config.workspace_dir)
    return registered


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


def promote_model(config: Config, version: str | None = None) -> dict[str, Any]:
    """Make a version (default: the challenger) the champion."""
    return dict(registry(config).promote(config.model_name, version))


def rollback_model(config: Config) -> dict[str, Any]:
    """Give the champion alias back to the former champion."""
    return dict(registry(config).rollback(config.model_name))
