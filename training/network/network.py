"""A model, its embedding table and its lookup, as one thing that turns slots into logits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fieldwise.features.arrays import Float32
from fieldwise.features.errors import ArtifactError, ConfigError
from fieldwise.features.fields.moves import NOWHERE, origins
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.config import ModelConfig
from fieldwise.training.data.batch import layout_of
from fieldwise.training.data.batches import Passes
from fieldwise.training.data.cache import Seen
from fieldwise.training.data.reader import PlanReader
from fieldwise.training.models import ModelSettings, resolved
from fieldwise.training.models.base import build_model
from fieldwise.training.models.compiled import linear_logits
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.ranks.shared import SharedMemory
from fieldwise.training.step.fused import FusedStep
from fieldwise.training.step.lookup import Compact, Lookup
from fieldwise.training.step.table import EmbeddingTable, copy


class Network:
    """``logits = model(table[ids], index, factor)`` with (ids, index, factor) = lookup(slots).

    Args:
        settings: of the model, nothing left open.
        shared: memory of the ranks, for a table that they have together if the compiled step serves them.
        dtype: of the table.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        settings: ModelSettings,
        *,
        seed: int = 0,
        fused: bool = True,
        device: torch.device = torch.device("cpu"),  # noqa: B008  a constant
        shared: SharedMemory | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.spec, self.settings, self.device = spec, settings, device
        layout = layout_of(spec)
        self.model = build_model(settings, layout, fused=fused, seed=seed).to(device)
        self.lookup = Lookup(layout, self.model.pair_buckets)
        scale = self.model.init_scale if settings.init_scale is None else settings.init_scale
        if shared is not None and not FusedStep.serves(self.model, device, shared.world.size):
            shared = None
        self.table = EmbeddingTable(
            self.model.rows, self.model.width, seed=seed, scale=scale, dtype=dtype, shared=shared
        )
        self.table.weight = self.table.weight.to(device)

    @classmethod
    def configured(
        cls, spec: FeatureSpec, config: ModelConfig, *, seed: int, fused: bool, device: torch.device,
        shared: SharedMemory | None, dtype: torch.dtype,
    ) -> Network:  # fmt: skip
        """A fresh network. ConfigError for an unknown kind and for a setting that its kind has no use for."""
        return cls(spec, resolved(config), seed=seed, fused=fused, device=device, shared=shared, dtype=dtype)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        fused: bool = True,
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> Network:
        network = cls(bundle.spec, bundle.settings, fused=fused, device=device)
        network.load(bundle.weight, bundle.dense)
        return network

    def load(self, weight: Float32, dense: dict[str, Float32]) -> None:
        """Take over weights of the same shapes."""
        self.table.copy_(torch.from_numpy(weight))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(torch.from_numpy(dense[name]))

    def warm_start(self, bundle: Bundle, logit_shift: float) -> None:
        """Take a bundle's weights over, the bias as it stands under our ``logit_shift``.

        Under another spec of the same fields rows are taken over by value (``features.fields.moves.origins``); rows
        without origin keep their start. Hashed pairs of rows that moved have no way back: then all pair weights start
        anew.

        Raises ArtifactError for other fields, ConfigError for another model.
        """
        ours, theirs = ([field.name for field in spec.fields] for spec in (self.spec, bundle.spec))
        if ours != theirs:
            differ = [name for name in ours if name not in theirs] + [name for name in theirs if name not in ours]
            raise ArtifactError(
                f"warm start from bundle {bundle.digest[:12]}",
                expected=f"the fields of the data's spec {self.spec.digest[:12]}",
                found=f"spec {bundle.spec.digest[:12]}, which differs in {', '.join(differ) or 'their order'}",
                fix="Build the snapshots with the bundle's spec (--spec), or train from scratch.",
            )
        if self.settings != bundle.settings:
            raise ConfigError(
                "model",
                expected=f"{bundle.settings} (kind, dim, pair_buckets) of the warm start's bundle",
                found=str(self.settings),
                fix="Use the bundle's model settings, or train from scratch.",
            )
        self.load(self._moved(bundle), bundle.dense)
        with torch.no_grad():
            self.model.bias.add_(bundle.logit_shift - logit_shift)

    def _moved(self, bundle: Bundle) -> Float32:
        """The bundle's table rows where our spec has them, our own start elsewhere."""
        rows = origins(bundle.spec, self.spec)
        if len(rows) == bundle.spec.rows and np.array_equal(rows, np.arange(len(rows))):
            return bundle.weight
        weight: Float32 = self.table.weight.float().cpu().numpy().copy()
        known = np.flatnonzero(rows != NOWHERE)
        weight[known] = bundle.weight[rows[known]]
        return weight

    def start_at(self, rate: float) -> None:
        """The bias starts at logit(mean label)."""
        with torch.no_grad():
            self.model.bias.fill_(math.log(rate / (1 - rate)))

    def copy_into(self, tensors: dict[str, Tensor]) -> None:
        """Overwrite tensors like `tensors` by ours; of a table that ranks have together, this rank's share of rows."""
        for name, tensor in self.tensors().items():
            share = self.table.mine if name == "table" else slice(None)
            copy(tensor[share], tensors[name][share])

    def copy_from(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `copy_into`."""
        for name, tensor in self.tensors().items():
            share = self.table.mine if name == "table" else slice(None)
            copy(tensors[name][share], tensor[share])

    def tensors(self) -> dict[str, Tensor]:
        """The weights themselves: the table and the dense parameters by name."""
        return {"table": self.table.weight, **{name: p.data for name, p in self.model.named_parameters()}}

    def dense(self) -> dict[str, Float32]:
        """Copies of the dense parameters (the bias, and what else a model has)."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.model.named_parameters()}

    def bundle(self, weight: Float32, dense: dict[str, Float32], logit_shift: float) -> Bundle:
        return Bundle(self.settings, self.spec, weight, dense, logit_shift)

    def passes(self, epochs: Iterable[Sequence[PlanReader]], seen: Seen | None = None) -> Passes:
        """The readers' batches, looked up; see `Passes`."""
        return Passes(self.lookup, epochs, seen or Seen())

    def inputs(self, compact: Compact) -> tuple[Tensor, Tensor]:
        """Index and factor on the network's device."""
        return compact.index.to(self.device), compact.factor.to(self.device)

    def score(self, compact: Compact) -> Float32:
        """Logits [B] of a looked-up batch."""
        if compact.direct:
            return linear_logits(self.table.weight, self.model.bias.item(), compact.index)
        rows = self.table.gather(compact.ids.to(self.device)).detach()
        with self.model.evaluating():
            logits: Float32 = self.model(rows, *self.inputs(compact)).cpu().numpy()
        return logits

    def logits(self, slots: npt.NDArray[np.int32]) -> Float32:
        """Logits [B] of slots [B, S]."""
        return self.score(self.lookup(slots))
