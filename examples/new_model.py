"""A model of your own, without touching fieldwise: the command line with one more `model.kind`.

    python examples/new_model.py train --config configs/movielens.yaml --set model.kind=nfm
    python examples/new_model.py evaluate --config configs/movielens.yaml --set model.kind=nfm

A model's line of the registry states what it can do (`fieldwise.training.models.Kind`), its class the interaction in
plain torch: `PlainStep` trains it, bundles keep it, `explain` refuses it, since it is no sum over pairs of fields.
Commands that score in Spark's workers (`score-rows`, `score-catalog`) need it registered there, too: then it belongs
into `training/models/`, as one file and one line of the registry (CONTRIBUTING.md).
"""

from __future__ import annotations

import sys

from torch import Tensor, nn

from fieldwise.training.models import MODELS, Kind
from fieldwise.training.models.base import Model
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.settings import ModelSettings


class NFM(Model):
    """``w^T relu(W f + b)`` with ``f = 1/2 ((sum_i v_i)^2 - sum_i v_i^2)``, element by element (He and Chua 2017)."""

    init_scale = 0.02

    def __init__(self, layout: Layout, settings: ModelSettings, *, fused: bool = True) -> None:
        super().__init__(layout, settings, fused=fused)
        self.hidden = nn.Linear(settings.dim, settings.dim)
        self.output = nn.Linear(settings.dim, 1, bias=False)

    def interaction(self, v: Tensor) -> Tensor:
        """[B] from the fields' vectors [B, F, k]."""
        pooled = 0.5 * (v.sum(1).square() - v.square().sum(1))
        logit: Tensor = self.output(self.hidden(pooled).relu()).squeeze(1)
        return logit


MODELS["nfm"] = Kind(NFM, latent=True, dense=True, prior=20.0)

if __name__ == "__main__":
    from fieldwise.jobs.cli import main

    sys.exit(main())
