"""What ``score-catalog`` scores: contexts times items."""

from __future__ import annotations

from features.schema import Strict


class CatalogConfig(Strict):
    """Sources of contexts and items."""
