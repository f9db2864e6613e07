"""The loss of every model."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def logloss(logits: Tensor, label: Tensor, weight: Tensor | None, total: float) -> Tensor:
    """``sum of w * (softplus(z) - y z) / total``, stable for any logit; ``total`` is the global sum of weights."""
    return functional.binary_cross_entropy_with_logits(logits, label, weight, reduction="sum") / total
