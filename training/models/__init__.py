"""What a model is: a line of the registry, and a file of plain torch over what `base` shares.

The registry says what there is to know of a kind before its mathematics. Configs are checked against it, so no command
imports torch, which takes seconds, to read one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from fieldwise.features import words
from fieldwise.features.errors import ConfigError
from fieldwise.features.schema import Strict
from fieldwise.training.config import ModelConfig
from fieldwise.training.models.settings import DeepKeys, ModelSettings

if TYPE_CHECKING:
    from fieldwise.training.models.base import Model

__all__ = [
    "AUTO", "FAMILY", "MODELS", "NO_KEYS", "Kind", "ModelSettings", "family", "kind_of", "kinds", "member", "resolved",
    "settings_of",
]  # fmt: skip


NO_KEYS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Kind:
    """What a model can, which settings it has use for, and what they are where the user names none."""

    model: type[Model] | str
    """The class, or where it stands in this room: ``file.Class``."""
    latent: bool = False
    """Whether the model has latent vectors, so that ``dim`` means something."""
    default_dim: int = 16
    """``dim`` when the user names none."""
    paired: bool = False
    """Whether the model has hashed pair rows, so that ``pair_buckets`` means something."""
    pairwise: bool = False
    """Whether the logit is a sum over fields and pairs of fields, which is what `explain` takes apart."""
    splits: bool = False
    """Whether the logit splits into factors of context and item (`training.scoring.factors`); else catalogs are scored
    pair by pair."""
    summed: bool = False
    """Whether a side of the split is the float64 sum of its fields' vectors."""
    certain: Literal["never", "lossless", "always"] = "never"
    """When the error of a logit summed from the split is known: never, for vectors that fit float32, always."""
    dense: bool = False
    """Whether there are dense parameters beside the bias."""
    learning_rate: float = 0.03
    """Of Adagrad, when the user names none."""
    prior: float = 10.0
    """Precision of a weight's Gaussian prior: ``l2`` times training rows where the user names none (``defaults``)."""
    keys: type[Strict] = Strict
    """Configuration keys that this model alone has, whose values are ``settings.own``."""
    score: str | None = None
    """Its compiled kernel in ``kernels.SCORES``, if it has one."""

    def load(self) -> type[Model]:
        """The class; imports torch."""
        if not isinstance(self.model, str):
            return self.model
        file, name = self.model.split(".")
        found: type[Model] = getattr(import_module(f"{__name__}.{file}"), name)
        return found


MODELS: dict[str, Kind] = {
    "lr": Kind("linear.LR", pairwise=True, splits=True, certain="always", learning_rate=0.1, prior=1.0, score="lr"),
    "poly2": Kind("linear.POLY2", paired=True, pairwise=True, splits=True, prior=5.0, score="lr"),
    "fm": Kind(
        "fm.FM", latent=True, pairwise=True, splits=True, summed=True, certain="always", prior=20.0, score="fm"
    ),
    "ffm": Kind(
        "ffm.FFM", latent=True, default_dim=4, pairwise=True, splits=True, certain="lossless", learning_rate=0.05,
        prior=20.0, score="ffm",
    ),
    "fwfm": Kind("fwfm.FwFM", latent=True, pairwise=True, splits=True, dense=True),
    "deepfm": Kind("deepfm.DeepFM", latent=True, dense=True, prior=20.0, keys=DeepKeys),
}  # fmt: skip


AUTO = "auto"
"""In place of a kind: that one of the family which is best on the validation rows."""
FAMILY = ("lr", "poly2", "fm", "ffm")
"""The simplest first. Those with a compiled kernel: the others take many times as long to train, so that they are
trained when they are asked for."""


def kind_of(kind: str) -> Kind:
    """What the registry says of a model; ConfigError with the nearest name where there is none."""
    if kind not in MODELS:
        near = difflib.get_close_matches(kind.lower(), list(MODELS), n=1, cutoff=0.5)
        fix = f"Did you mean `{near[0]}`?" if near else "Name a registered model."
        raise ConfigError("model.kind", expected=f"one of {', '.join(MODELS)}", found=repr(kind), fix=fix)
    return MODELS[kind]


def settings_of(kind: str, *, dim: int = 0, pair_buckets: int = 0, own: Mapping[str, Any] = NO_KEYS) -> ModelSettings:
    """Settings of a registered model; sizes that mean nothing to it are dropped, those it needs must be positive."""
    model = kind_of(kind)
    for needed, key, value in ((model.latent, "dim", dim), (model.paired, "pair_buckets", pair_buckets)):
        if needed and value < 1:
            raise ConfigError(
                f"model.{key}", expected="a positive integer", found=str(value), fix=f"{kind} needs {key}."
            )
    return ModelSettings(kind, dim if model.latent else 0, pair_buckets if model.paired else 0, _own(kind, own))


def resolved(config: ModelConfig) -> ModelSettings:
    """Settings of a configured model, what it leaves open filled in; ConfigError for a key without effect."""
    model = kind_of(config.kind)
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
    model = kind_of(kind)
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


def kinds(ability: str) -> list[str]:
    """Names of the models that have an ability, an attribute of `Kind`."""
    return [kind for kind, model in MODELS.items() if getattr(model, ability)]
