"""What a model is: a file each, in plain torch over what `base` shares, and the registry of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from pydantic import ValidationError

from fieldwise.features import words
from fieldwise.features.errors import ConfigError
from fieldwise.training.config import ModelConfig
from fieldwise.training.models.base import Model
from fieldwise.training.models.deepfm import DeepFM
from fieldwise.training.models.ffm import FFM
from fieldwise.training.models.fm import FM
from fieldwise.training.models.fwfm import FwFM
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.linear import LR, POLY2
from fieldwise.training.models.loss import logloss
from fieldwise.training.models.settings import ModelSettings

__all__ = [
    "AUTO", "FAMILY", "FFM", "FM", "LR", "MODELS", "POLY2", "DeepFM", "FwFM", "Model", "ModelSettings", "build_model",
    "family", "kinds", "logloss", "member", "model_of", "resolved", "settings_of",
]  # fmt: skip


NO_KEYS: Mapping[str, Any] = MappingProxyType({})


MODELS: dict[str, type[Model]] = {"lr": LR, "poly2": POLY2, "fm": FM, "ffm": FFM, "fwfm": FwFM, "deepfm": DeepFM}


AUTO = "auto"
"""In place of a kind: that one of the family which is best on the validation rows."""
FAMILY = ("lr", "poly2", "fm", "ffm")
"""The simplest first. Those with a compiled kernel: the others take many times as long to train, so that they are
trained when they are asked for."""


def model_of(kind: str) -> type[Model]:
    """The registered model; ConfigError with the nearest name where there is none."""
    if kind not in MODELS:
        near = difflib.get_close_matches(kind.lower(), list(MODELS), n=1, cutoff=0.5)
        fix = f"Did you mean `{near[0]}`?" if near else "Name a registered model."
        raise ConfigError("model.kind", expected=f"one of {', '.join(MODELS)}", found=repr(kind), fix=fix)
    return MODELS[kind]


def settings_of(kind: str, *, dim: int = 0, pair_buckets: int = 0, own: Mapping[str, Any] = NO_KEYS) -> ModelSettings:
    """Settings of a registered model; sizes that mean nothing to it are dropped, those it needs must be positive."""
    model = model_of(kind)
    for needed, key, value in ((model.latent, "dim", dim), (model.paired, "pair_buckets", pair_buckets)):
        if needed and value < 1:
            raise ConfigError(
                f"model.{key}", expected="a positive integer", found=str(value), fix=f"{kind} needs {key}."
            )
    return ModelSettings(kind, dim if model.latent else 0, pair_buckets if model.paired else 0, _own(kind, own))


def resolved(config: ModelConfig) -> ModelSettings:
    """Settings of a configured model, what it leaves open filled in; ConfigError for a key without effect."""
    model = model_of(config.kind)
    for used, key, value in (
        (model.latent, "dim", config.dim),
        (model.latent, "init_scale", config.init_scale),
        (model.paired, "pair_buckets", config.pair_buckets),
    ):
        if value is not None and not used:
            raise _unfit(config.kind, key, value)
    return ModelSettings(
        kind=config.kind,
        dim=(config.dim or model.default_dim) if model.latent else 0,
        pair_buckets=(config.pair_buckets or 1 << 20) if model.paired else 0,
        own=_own(config.kind, config.model_extra or {}),
        init_scale=config.init_scale,
    )


def family(config: ModelConfig) -> list[ModelConfig]:
    """The models that a config may come to: one, or with ``auto`` all of the family. ConfigError for a key that none of
    these has use for."""
    if config.kind != AUTO:
        return [config]
    for key, value in (config.model_extra or {}).items():
        raise _unfit(AUTO, key, value)
    return [member(config, kind) for kind in FAMILY]


def member(config: ModelConfig, kind: str) -> ModelConfig:
    """A kind in the place of ``auto``, with those of the keys that it has use for."""
    model = model_of(kind)
    unused = {} if model.latent else {"dim": None, "init_scale": None}
    unused |= {} if model.paired else {"pair_buckets": None}
    return config.model_copy(update={"kind": kind, **unused})


def _own(kind: str, given: Mapping[str, Any]) -> Any:
    """The kind's own keys, checked by the class that declares them."""
    keys = MODELS[kind].keys
    for key, value in given.items():
        if key not in keys.model_fields and any(key in model.keys.model_fields for model in MODELS.values()):
            raise _unfit(kind, key, value)
    try:
        return keys.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        expected, found = words.explained(first, keys)
        fix = "Remove it." if first["type"] == "extra_forbidden" else "Change the value."
        where = ".".join(map(str, ("model", *first["loc"])))
        raise ConfigError(where, expected=expected, found=found, fix=fix) from None


def _unfit(kind: str, key: str, value: Any) -> ConfigError:
    return ConfigError(f"model.{key}", expected=f"no {key} for {kind}", found=str(value), fix="Remove the key.")


def build_model(settings: ModelSettings, layout: Layout, *, fused: bool = True, seed: int = 0) -> Model:
    """The registered model. Its dense parameters start as a function of ``seed`` alone, whatever torch drew before.

    ConfigError for a model with more state than its parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        built = model_of(settings.kind)(layout, settings, fused=fused)
    if lost := set(built.state_dict()) - {name for name, _ in built.named_parameters()}:
        raise ConfigError(
            "model.kind", expected="a model whose whole state is its parameters",
            found=f"{settings.kind}, which also keeps {', '.join(sorted(lost))}",
            fix="Bundles hold parameters alone: leave out layers with running statistics.",
        )  # fmt: skip
    return built


def kinds(ability: str) -> list[str]:
    """Names of the models that have an ability, a class attribute of `Model`."""
    return [kind for kind, model in MODELS.items() if getattr(model, ability)]
