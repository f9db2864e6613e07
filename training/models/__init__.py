"""What a model is: a file each, in plain torch over what `base` shares, and the registry of them."""

from __future__ import annotations

import difflib

from fieldwise.features.errors import ConfigError
from fieldwise.training.config import ModelConfig
from fieldwise.training.models.base import Model
from fieldwise.training.models.ffm import FFM
from fieldwise.training.models.fm import FM
from fieldwise.training.models.fwfm import FwFM
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.linear import LR, POLY2
from fieldwise.training.models.loss import logloss

__all__ = ["FFM", "FM", "LR", "MODELS", "POLY2", "FwFM", "Model", "build_model", "logloss", "model_of", "sizes_of"]


MODELS: dict[str, type[Model]] = {"lr": LR, "poly2": POLY2, "fm": FM, "ffm": FFM, "fwfm": FwFM}


def model_of(kind: str) -> type[Model]:
    """The registered model; ConfigError with the nearest name where there is none."""
    if kind not in MODELS:
        near = difflib.get_close_matches(kind, list(MODELS), n=1, cutoff=0.5)
        fix = f"Did you mean `{near[0]}`?" if near else "Name a registered model."
        raise ConfigError("model.kind", expected=f"one of {', '.join(MODELS)}", found=repr(kind), fix=fix)
    return MODELS[kind]


def build_model(kind: str, layout: Layout, *, dim: int = 0, pair_buckets: int = 0, fused: bool = True) -> Model:
    """The registered model ``kind``; keys that mean nothing to it are dropped, keys it needs must be positive."""
    model = model_of(kind)
    for needed, key, value in ((model.latent, "dim", dim), (model.paired, "pair_buckets", pair_buckets)):
        if needed and value < 1:
            raise ConfigError(
                f"model.{key}", expected="a positive integer", found=str(value), fix=f"{kind} needs {key}."
            )
    built = model(layout, dim if model.latent else 0, pair_buckets if model.paired else 0, fused=fused)
    if lost := set(built.state_dict()) - {name for name, _ in built.named_parameters()}:
        raise ConfigError(
            "model.kind", expected="a model whose whole state is its parameters",
            found=f"{kind}, which also keeps {', '.join(sorted(lost))}",
            fix="Bundles hold parameters alone: leave out layers with running statistics.",
        )  # fmt: skip
    return built


def sizes_of(config: ModelConfig) -> tuple[int, int]:
    """(dim, pair_buckets) of a configured model, 0 where its kind has none."""
    model = model_of(config.kind)
    for used, key, value in (
        (model.latent, "dim", config.dim),
        (model.latent, "init_scale", config.init_scale),
        (model.paired, "pair_buckets", config.pair_buckets),
    ):
        if value is not None and not used:
            raise ConfigError(
                f"model.{key}", expected=f"no {key} for {config.kind}", found=str(value), fix="Remove the key."
            )
    return (config.dim or model.default_dim) if model.latent else 0, (
        config.pair_buckets or 1 << 20
    ) if model.paired else 0
