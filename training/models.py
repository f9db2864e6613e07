"""The model family in plain torch, each a few lines over what `training.model` shares, and the registry of models."""

from __future__ import annotations

import difflib

import torch
from torch import Tensor

from features.errors import ConfigError
from training.config import ModelConfig
from training.fwfm import FwFM
from training.layout import Layout
from training.model import Model, logloss

__all__ = ["FFM", "FM", "LR", "MODELS", "POLY2", "FwFM", "Model", "build_model", "logloss", "model_of", "sizes_of"]


class LR(Model):
    """Logistic regression: one weight per value."""

    pairwise = True
    learning_rate = 0.1
    prior = 1.0
    score = "lr"


class POLY2(Model):
    """Logistic regression over values and over hashed pairs of values of different fields (Chang et al. 2010)."""

    pairwise = paired = True
    prior = 5.0
    score = "lr"


class FM(Model):
    """``sum over fields i<j of <v_i, v_j> = 1/2 sum over k of ((sum_i v_ik)^2 - sum_i v_ik^2)`` (Rendle 2010)."""

    pairwise = latent = True
    prior = 20.0
    score = "fm"

    @property
    def init_scale(self) -> float:
        return 0.02

    def interaction(self, v: Tensor) -> Tensor:
        return 0.5 * (v.sum(1).square() - v.square().sum(1)).sum(1)


class FFM(Model):
    """``sum over fields i<j of <v_{i,f(j)}, v_{j,f(i)}>``: a vector per partner field (Juan et al. 2016)."""

    pairwise = latent = True
    learning_rate = 0.05
    prior = 20.0
    score = "ffm"
    default_dim = 4  # per partner field

    @property
    def width(self) -> int:
        return 1 + self.layout.fields * self.dim

    @property
    def init_scale(self) -> float:
        return 0.1 / self.dim**0.5

    def interaction(self, v: Tensor) -> Tensor:
        fields = self.layout.fields
        v = v.view(-1, fields, fields, self.dim)
        i, j = torch.triu_indices(fields, fields, 1)
        return (v[:, i, j] * v[:, j, i]).sum((1, 2))


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
