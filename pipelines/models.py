"""Which bundle a user means, and moves of the champion alias.

MLflow takes seconds to import: only calls that need the registry do it, so that ranks given a bundle start at once.
"""

from __future__ import annotations

import os
import re
from types import ModuleType
from typing import Any

from pipelines.config import Config


def resolve_model(reference: str | None, config: Config) -> str:
    """Local directory of a bundle.

    Args:
        reference: a bundle directory, ``models:/NAME@alias``, ``models:/NAME/3``; default: the config's champion.

    Raises:
        ArtifactError: nothing of that name, a missing champion included.
    """
    if reference is not None and os.path.isfile(os.path.join(reference, "model.json")):
        return os.path.abspath(reference)
    return str(registry(config).bundle_of(reference or f"models:/{config.model_name}@champion"))


def model_version(reference: str | None, config: Config) -> str | None:
    """Registered version that a reference stands for now; None for a bundle's directory."""
    match = re.fullmatch(r"models:/([^@/]+)(?:@(.+)|/(\d+))", reference or f"models:/{config.model_name}@champion")
    if match is None:
        return None
    name, alias, version = match.groups()
    return version or registry(config).version_of(name, alias)


def registry(config: Config) -> ModuleType:
    """`training.tracking`, connected to the config's store."""
    from training import tracking

    tracking.connect(config.tracking.uri, config.workspace_dir)
    return tracking


def promote_model(config: Config, version: str | None = None) -> dict[str, Any]:
    """Make a version (default: the challenger) the champion."""
    return dict(registry(config).promote(config.model_name, version))


def rollback_model(config: Config) -> dict[str, Any]:
    """Give the champion alias back to the former champion."""
    return dict(registry(config).rollback(config.model_name))
