"""A model's settings with nothing left open: what travels from the config to training, bundles and scoring; and the
configuration keys that one kind alone has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from fieldwise.features.schema import Strict

NONE = Strict()
"""The keys of a kind that has none of its own."""


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and what decides its shape and its logits.

    `fieldwise.training.models.resolved` makes them from a config, ``settings_of`` from code.
    """

    kind: str
    dim: int = 0
    """k, the length of a latent vector; 0 for models without."""
    pair_buckets: int = 0
    """Rows of hashed pair weights; 0 for models without."""
    own: Strict = NONE
    """The keys that the kind alone has, see ``Kind.keys``."""
    init_scale: float | None = field(default=None, compare=False)
    """Standard deviation of the latent weights at the start, None: the model's own. No bundle keeps it."""

    def __str__(self) -> str:
        own = self.own.model_dump(mode="json")
        return str((self.kind, self.dim, self.pair_buckets, *([own] if own else [])))


class DeepKeys(Strict):
    """What DeepFM alone has."""

    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], ...],
        Field(min_length=1, max_length=8, description="Sizes of the hidden layers."),
    ] = (64, 32)
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share of each hidden layer's numbers that a training step leaves out.")
    ] = 0.0
