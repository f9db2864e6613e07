"""DeepFM: an FM and a multilayer perceptron over the same latent vectors."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from fieldwise.training.models.base import Model
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.settings import DeepKeys, ModelSettings


class DeepFM(Model):
    """``FM + W h_n + b`` with ``h_0 = (v_1, .., v_F)``, ``h_i = dropout(max(0, W_i h_{i-1} + b_i))`` (Guo et al. 2017).

    The layers see all fields at once: the logit neither is a sum over pairs of fields nor splits.
    """

    init_scale = 0.02

    def __init__(self, layout: Layout, settings: ModelSettings, *, fused: bool = True) -> None:
        super().__init__(layout, settings, fused=fused)
        own, layers = settings.own, nn.Sequential()
        assert isinstance(own, DeepKeys)
        sizes = [layout.fields * settings.dim, *own.hidden]
        for inputs, outputs in pairwise(sizes):
            layers.extend([nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(own.dropout)])
        self.deep = layers.append(nn.Linear(sizes[-1], 1))

    def interaction(self, v: Tensor) -> Tensor:
        deep: Tensor = self.deep(v.flatten(1))
        return 0.5 * (v.sum(1).square() - v.square().sum(1)).sum(1) + deep.squeeze(1)
