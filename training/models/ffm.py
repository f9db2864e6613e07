"""The field-aware factorization machine."""

from __future__ import annotations

import torch
from torch import Tensor

from fieldwise.training.models.base import Model


class FFM(Model):
    """``sum over fields i<j of <v_{i,f(j)}, v_{j,f(i)}>``: a vector per partner field (Juan et al. 2016)."""

    @property
    def width(self) -> int:
        return 1 + self.layout.fields * self.dim

    @property
    def init_scale(self) -> float:
        return 0.1 / self.dim**0.5

    @staticmethod
    def crossing(contexts: int, items: int) -> int:
        return contexts * items

    def interaction(self, v: Tensor) -> Tensor:
        fields = self.layout.fields
        v = v.view(-1, fields, fields, self.dim)
        i, j = torch.triu_indices(fields, fields, 1)
        return (v[:, i, j] * v[:, j, i]).sum((1, 2))
