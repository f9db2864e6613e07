"""Models that are sums of weights: logistic regression over values, and over pairs of values."""

from __future__ import annotations

from fieldwise.training.models.base import Model


class LR(Model):
    """Logistic regression: one weight per value."""


class POLY2(Model):
    """Logistic regression over values and over hashed pairs of values of different fields (Chang et al. 2010)."""
