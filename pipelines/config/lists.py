"""How ``evaluate-lists`` measures published lists."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fieldwise.features.columns.expression import Expression
from fieldwise.features.schema import Names, Strict
from fieldwise.pipelines.config.catalog import PairsConfig

_USUAL = (5, 10, 20)


class ListsConfig(Strict):
    """What published lists are measured against, and how.

    What happened after the lists are the positives of the config's own source, on the days that the command names, or
    a table. What came before says which items are popular, and which contexts and items are new.
    """

    cutoffs: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = None
    """Lengths at which lists are measured: the K of recall@K. Default: those of 5, 10 and 20 that are at most
    ``catalog.k``, else that."""
    events: PairsConfig | None = None
    """A table of (context, item) pairs that happened, in place of the source's positives; ``{date}`` stands for each of
    the days."""
    history: PairsConfig | None = None
    """A table of pairs that happened before, in place of the source's rows."""
    history_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    """How many days before the first one measured are what came before. Default: all that the source holds; where its
    path names the day, ``daily.window``."""
    context: str | None = None
    """Column of the source that holds the context's id. Default: ``catalog.context_id``."""
    item: str | None = None
    """Column of the source that holds the item's id. Default: ``catalog.item_id``."""
    gain: str | None = None
    """Column or expression of what a pair is worth to NDCG, such as ``rating``; only pairs above 0 count. Of a pair
    that happened several times the largest counts. Default: 1."""
    context_slices: Names = Field(default_factory=list)
    """Columns of the contexts or of side tables with at most 200 values: each of them is measured alone."""
    item_slices: Names = Field(default_factory=list)
    """Columns of the items or of side tables with at most 200 values: each of them is measured as if only its items had
    been wanted."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of intervals: between their ends lies the figure of other contexts like these with this probability."""

    def lengths(self, k: int) -> list[int]:
        """``cutoffs``, for lists of at most ``k`` items."""
        return self.cutoffs or [length for length in _USUAL if length <= k] or [k]

    @model_validator(mode="after")
    def _consistent(self) -> ListsConfig:
        if self.cutoffs is not None and self.cutoffs != sorted(set(self.cutoffs)):
            raise ValueError("cutoffs in ascending order, each once")
        if self.gain is not None:
            Expression(self.gain, "lists.gain")  # does it parse?
        if self.events is not None and self.history is not None and (self.context or self.item):
            raise ValueError("neither context nor item: nothing is read from the source, and tables name their own")
        if self.history is not None and self.history_days is not None:
            raise ValueError("one of history and history_days")
        return self
