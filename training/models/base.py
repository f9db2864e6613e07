"""What every model shares: rows of the embedding table become logits.

Shapes: B rows of the batch, K columns (slots, plus pairs for POLY2), F fields, U distinct table rows, k = dim.

A model sees ``rows`` [U, width] (a leaf that requires grad), ``index`` int32 [B, K], ``factor`` [B, K] and returns
logits [B]. Column 0 of a table row is its linear weight. Values are pooled to fields first, then fields interact.
This file is the oracle: any device, any float type. On CPU in float32 a model with a compiled kernel uses it, unless
``fused`` is off. A new model is one class in a file of its own (see `training.models.fwfm`) and one line of
`training.models.MODELS`, which says what it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldwise.features.errors import ConfigError
from fieldwise.training.models import kind_of
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

    field_of_slot: Tensor

    def __init__(self, layout: Layout, settings: ModelSettings, *, fused: bool = True) -> None:
        super().__init__()
        self.layout, self.settings, self.fused = layout, settings, fused
        self.kind = kind_of(settings.kind)
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
        assert self.kind.score is not None
        fields = self.layout.field_of_slot
        if not self.kind.latent:  # nothing interacts: every slot and pair stands for itself
            fields = np.arange(
                self.layout.slots + (len(slot_pairs(self.layout)[0]) if self.kind.paired else 0), dtype=np.int32
            )
        count = self.layout.fields if self.kind.latent else len(fields)
        return Form(self.kind.score, count, self.dim, self.width, np.ascontiguousarray(fields, np.int32))

    def compiled_for(self, rows: Tensor) -> bool:
        """Whether the compiled kernel takes these rows: on the CPU, in float32, with ``fused`` on."""
        return self.compiled_on(rows.device) and rows.dtype == torch.float32

    def compiled_on(self, device: torch.device) -> bool:
        """Whether there is a compiled kernel for this device, with ``fused`` on."""
        return self.fused and self.kind.score is not None and device.type == "cpu"

    def forward(self, rows: Tensor, index: Tensor, factor: Tensor) -> Tensor:
        """Logits [B] of a looked-up batch."""
        rows = at_least_one(rows)
        if self.compiled_for(rows):
            return self.bias + Interaction.apply(rows, index, factor, self.form)  # type: ignore[no-untyped-call]
        weighted = rows[index] * factor.to(rows.dtype)[..., None]
        if not self.kind.latent:
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


def build_model(settings: ModelSettings, layout: Layout, *, fused: bool = True, seed: int = 0) -> Model:
    """The registered model. Its dense parameters start as a function of ``seed`` alone, whatever torch drew before.

    ConfigError for a model with more state than its parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        built = kind_of(settings.kind).load()(layout, settings, fused=fused)
    if lost := set(built.state_dict()) - {name for name, _ in built.named_parameters()}:
        raise ConfigError(
            "model.kind", expected="a model whose whole state is its parameters",
            found=f"{settings.kind}, which also keeps {', '.join(sorted(lost))}",
            fix="Bundles hold parameters alone: leave out layers with running statistics.",
        )  # fmt: skip
    return built
