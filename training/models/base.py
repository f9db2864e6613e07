"""What every model shares: rows of the embedding table become logits.

Shapes: B rows of the batch, K columns (slots, plus pairs for POLY2), F fields, U distinct table rows, k = dim.

A model sees ``rows`` [U, width] (a leaf that requires grad), ``index`` int32 [B, K], ``factor`` [B, K] and returns
logits [B]. Column 0 of a table row is its linear weight. Values are pooled to fields first, then fields interact.
This file is the oracle: any device, any float type. On CPU in float32 a model with a compiled kernel uses it, unless
``fused`` is off. A new model is one class in a file of its own (see `training.models.fwfm`) and one line of
`training.models.MODELS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldwise.features.schema import Strict
from fieldwise.training.models.compiled import Form, Interaction
from fieldwise.training.models.layout import Layout, slot_pairs
from fieldwise.training.models.settings import ModelSettings


class Model(nn.Module):
    """``logit = bias + sum of pooled linear weights + interaction(pooled blocks)``.

    Args:
        layout: the shape of a row.
        settings: nothing left open, as `training.models` makes them.
        fused: use the compiled kernel where there is one.
    """

    latent: ClassVar[bool] = False
    """Whether the model has latent vectors, so that ``dim`` means something."""
    default_dim: ClassVar[int] = 16
    """``dim`` when the user names none."""
    paired: ClassVar[bool] = False
    """Whether the model has hashed pair rows, so that ``pair_buckets`` means something."""
    pairwise: ClassVar[bool] = False
    """Whether the logit is a sum over fields and pairs of fields, which is what `explain` takes apart."""
    splits: ClassVar[bool] = False
    """Whether the logit splits into factors of context and item (`training.scoring.factors`); else catalogs are scored
    pair by pair."""
    summed: ClassVar[bool] = False
    """Whether a side of the split is the float64 sum of its fields' vectors."""
    certain: ClassVar[Literal["never", "lossless", "always"]] = "never"
    """When the error of a logit summed from the split is known: never, for vectors that fit float32, always."""
    dense: ClassVar[bool] = False
    """Whether there are dense parameters beside the bias."""
    learning_rate: ClassVar[float] = 0.03
    """Of Adagrad, when the user names none."""
    prior: ClassVar[float] = 10.0
    """Precision of a weight's Gaussian prior: ``l2`` times training rows where the user names none (``defaults``)."""
    keys: ClassVar[type[Strict]] = Strict
    """Configuration keys that this model alone has: a class in its file, whose values are ``settings.own``."""
    score: ClassVar[str | None] = None
    """Its compiled kernel in ``kernels.SCORES``, if it has one."""

    field_of_slot: Tensor

    def __init__(self, layout: Layout, settings: ModelSettings, *, fused: bool = True) -> None:
        super().__init__()
        self.layout, self.settings, self.fused = layout, settings, fused
        self.dim, self.pair_buckets = settings.dim, settings.pair_buckets
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("field_of_slot", torch.from_numpy(layout.field_of_slot).long(), persistent=False)

    @property
    def width(self) -> int:
        """Columns of a table row: the linear weight and what the interaction needs."""
        return 1 + self.dim

    @property
    def rows(self) -> int:
        """Rows of the embedding table."""
        return self.layout.rows + self.pair_buckets

    @property
    def init_scale(self) -> float:
        """Standard deviation of the latent weights at the start; linear weights start at 0."""
        return 0.0

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Logits that depend on the row alone: without dropout and gradients, whatever mode the model is in."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)

    @cached_property
    def form(self) -> Form:
        """The model as its compiled kernel sees it."""
        assert self.score is not None
        fields = self.layout.field_of_slot
        if not self.latent:  # nothing interacts: every slot and pair stands for itself
            fields = np.arange(
                self.layout.slots + (len(slot_pairs(self.layout)[0]) if self.paired else 0), dtype=np.int32
            )
        count = self.layout.fields if self.latent else len(fields)
        return Form(self.score, count, self.dim, self.width, np.ascontiguousarray(fields, np.int32))

    def compiled_for(self, rows: Tensor) -> bool:
        """Whether the compiled kernel takes these rows: on the CPU, in float32, with ``fused`` on."""
        return self.compiled_on(rows.device) and rows.dtype == torch.float32

    def compiled_on(self, device: torch.device) -> bool:
        """Whether there is a compiled kernel for this device, with ``fused`` on."""
        return self.fused and self.score is not None and device.type == "cpu"

    def forward(self, rows: Tensor, index: Tensor, factor: Tensor) -> Tensor:
        """Logits [B] of a looked-up batch."""
        rows = at_least_one(rows)
        if self.compiled_for(rows):
            return self.bias + Interaction.apply(rows, index, factor, self.form)  # type: ignore[no-untyped-call]
        weighted = rows[index] * factor.to(rows.dtype)[..., None]
        if not self.latent:
            return self.bias + weighted.sum((1, 2))
        pooled = rows.new_zeros(len(index), self.layout.fields, self.width).index_add(1, self.field_of_slot, weighted)
        return self.bias + pooled[..., 0].sum(1) + self.interaction(pooled[..., 1:])

    @staticmethod
    def crossing(contexts: int, items: int) -> int:
        """Vectors of k numbers that a side of the split has, of so many fields of context and item."""
        return 0

    def interaction(self, v: Tensor) -> Tensor:
        """[B] from the fields' pooled latent weights ``v`` [B, F, width - 1]."""
        raise NotImplementedError


def at_least_one(rows: Tensor) -> Tensor:
    """``rows``, or one row of zeros for the index of a batch of nothing but padding to point at."""
    return rows if len(rows) else functional.pad(rows, (0, 0, 0, 1))
