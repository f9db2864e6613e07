"""FwFM: an FM whose field pairs carry learned strengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fieldwise.training.models.base import Model
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.settings import ModelSettings


class FwFM(Model):
    """``sum over fields i<j of r_ij <v_i, v_j>`` with a dense parameter r per pair of fields (Pan et al. 2018)."""

    init_scale = 0.02

    def __init__(self, layout: Layout, settings: ModelSettings, *, fused: bool = True) -> None:
        super().__init__(layout, settings, fused=fused)
        self.strength = nn.Parameter(torch.ones(layout.fields * (layout.fields - 1) // 2))

    @staticmethod
    def crossing(contexts: int, items: int) -> int:
        return min(contexts, items)

    def interaction(self, v: Tensor) -> Tensor:
        i, j = torch.triu_indices(v.shape[1], v.shape[1], 1)
        return (v @ v.transpose(1, 2))[:, i, j] @ self.strength
