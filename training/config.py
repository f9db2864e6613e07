"""What a user writes about the model and its training. Every default lives here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from features.schema import Strict


class ModelConfig(Strict):
    """Which interaction, and how wide."""

    kind: str
    """A name of ``training.models.MODELS``: lr, poly2, fm, ffm."""
    dim: Annotated[int, Field(ge=1)] = 4
    """Latent dimension k of fm and ffm."""
    pair_buckets: Annotated[int, Field(ge=1)] = 1 << 20
    """Hashed pair rows of poly2."""


class TrainingConfig(Strict):
    """How the model is trained."""

    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 4096
    """Rows of one step over all ranks together."""
    optimizer: Literal["adagrad", "adam", "sgd"] = "adagrad"
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    l2: Annotated[float, Field(ge=0)] = 1e-6
    seed: int = 42
