"""The factorization machine."""

from __future__ import annotations

from torch import Tensor

from fieldwise.training.models.base import Model


class FM(Model):
    """``sum over fields i<j of <v_i, v_j> = 1/2 sum over k of ((sum_i v_ik)^2 - sum_i v_ik^2)`` (Rendle 2010)."""

    @property
    def init_scale(self) -> float:
        return 0.02

    @staticmethod
    def crossing(contexts: int, items: int) -> int:
        return 1

    def interaction(self, v: Tensor) -> Tensor:
        return 0.5 * (v.sum(1).square() - v.square().sum(1)).sum(1)
