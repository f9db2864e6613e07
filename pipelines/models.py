"""Which bundle a user means, and moves of the champion alias."""

from __future__ import annotations

import os
from typing import Any

from pipelines.config import Config
from training import tracking


def resolve_model(reference: str | None, config: Config) -> str:
    """Local directory of a bundle.

    Args:
        reference: a bundle directory, ``models:/NAME@alias``, ``models:/NAME/3``; default: the config's champion.

    Raises:
        ArtifactError: nothing of that name, a missing champion included.
    """
    if reference is not None and os.path.isfile(os.path.join(reference, "model.json")):
        return os.path.abspath(reference)
    tracking.connect(config.tracking.uri, config.workspace_dir)
    return tracking.bundle_of(reference or champion(config))


def champion(config: Config) -> str:
    """Reference of the config's champion."""
    return f"models:/{config.model_name}@champion"


def promote_model(config: Config, version: str | None = None) -> dict[str, Any]:
    """Make a version (default: the challenger) the champion."""
    tracking.connect(config.tracking.uri, config.workspace_dir)
    return tracking.promote(config.model_name, version)


def rollback_model(config: Config) -> dict[str, Any]:
    """Give the champion alias back to the former champion."""
    tracking.connect(config.tracking.uri, config.workspace_dir)
    return tracking.rollback(config.model_name)
