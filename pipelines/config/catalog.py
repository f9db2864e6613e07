"""What ``score-catalog`` scores: contexts times items."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field, model_validator

from fieldwise.features import words
from fieldwise.features.columns.expression import Expression
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ConfigError
from fieldwise.features.schema import Names, Strict


class PairsConfig(SourceConfig):
    """A table of (context, item) pairs; its columns are named as the two ids unless said otherwise."""

    context: str | None = None
    """Column of the context's id. Default: ``context_id``."""
    item: str | None = None
    """Column of the item's id. Default: ``item_id``."""


class CapConfig(Strict):
    """At most so many items of one kind in a list."""

    column: str
    """Column of the items; items without a value count as one kind."""
    items: Annotated[int, Field(ge=1)]
    """Most items of one kind in a list."""


class AtLeastConfig(Strict):
    """At least so many items of some kinds in a list, where there are so many that may be in it."""

    column: str
    """Column of the items; that of ``cap``, if there is one."""
    items: Annotated[dict[str, Annotated[int, Field(ge=1)]], Field(min_length=1)]
    """Fewest items of a list by value of the column, such as ``{news: 2, local: 1}``; in all at most ``k``, and none
    more than ``cap`` allows. ``''`` stands for items without a value."""


class DiversityConfig(Strict):
    """Lists whose items differ, by maximal marginal relevance over the model's own vectors of items."""

    penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Logits that an item loses where it is a twin of one above it in the list, less the less it is like any, and none
    where it is like none (a cosine of 0 or less). Above 0, at most 100."""
    among: Annotated[int, Field(ge=2)] | None = None
    """The best items of a context that a list is picked from. Default: three times ``k``."""


class CatalogConfig(Strict):
    """Sources of contexts and items, and what a list may hold.

    A field belongs to the item if the items have its raw columns, else to the context if the contexts have them. Side
    tables of ``join`` add their columns to whichever of the two has the key. Text ids sort by their UTF-8 bytes,
    integer columns of Parquet by value.
    """

    contexts: SourceConfig
    """Who gets a list: users, sessions, requests. One row each; a repeated id is refused."""
    items: SourceConfig
    """What is ranked. One row each; a repeated id among eligible items is refused."""
    context_id: str
    """Column of the contexts that names them in the output."""
    item_id: str
    """Column of the items that names them in the output and breaks ties, smaller first."""
    item_name: str | None = None
    """Column of the items, or of a side table, with what people call them: shown in sample lists and explanations.
    Default: one called like ``name`` or ``title``."""
    k: Annotated[int, Field(ge=1)] = 100
    """Length of a list; shorter where fewer items may be in it."""
    time: str | None = None
    """Moment of scoring for time fields, ISO 8601; ``{date}`` stands for the day. Default: the contexts' own column."""
    fixed: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Raw columns that hold one value while scoring, such as ``position: 1``; null for missing."""
    exclude: PairsConfig | None = None
    """Pairs that must not be in a list, such as items already bought."""
    candidates: PairsConfig | None = None
    """The only pairs that may be in a list. A context without any gets none."""
    filter: str | None = None
    """Expression on the items' columns; only items where it is true are eligible."""
    cap: CapConfig | None = None
    """Limit per category."""
    at_least: AtLeastConfig | None = None
    """Minimum of categories: the best of them are in the list, whatever else is better."""
    diversity: DiversityConfig | None = None
    """Items that are not all alike; not together with ``at_least``."""
    context_fields: Names | None = None
    """Fields taken from the context, where the rule above says otherwise."""
    item_fields: Names | None = None
    """Fields taken from the item, where the rule above says otherwise."""
    max_pairs: Annotated[int, Field(ge=1)] = 20_000_000
    """Most pairs scored one by one, where model or fields do not split into context and item factors."""
    max_unmatched: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    """Share of the exclusion or candidate pairs without a context or an eligible item at which the lists are refused:
    1 refuses when there are pairs and none meets both, null never. Ids meet by their canonical text: 7 and 007 do not.
    """

    @model_validator(mode="after")
    def _once(self) -> CatalogConfig:
        both = sorted(set(self.context_fields or ()) & set(self.item_fields or ()))
        if both:
            raise ValueError(f"field {both[0]!r} in one of context_fields and item_fields")
        if self.filter is not None:
            Expression(self.filter, "catalog.filter")  # does it parse?
        if self.at_least is not None:
            self._possible(self.at_least)
        if self.diversity is not None:
            self._differing(self.diversity)
        if self.time is not None:
            moment_of(self.time, "2000-01-01")
        return self

    def _possible(self, at_least: AtLeastConfig) -> None:
        most = self.k if self.cap is None else min(self.k, self.cap.items)
        if self.cap is not None and self.cap.column != at_least.column:
            raise ValueError(f"at_least.column {self.cap.column!r}, that of cap")
        if sum(at_least.items.values()) > self.k:
            raise ValueError(f"at_least.items of at most k = {self.k} in all")
        if max(at_least.items.values()) > most:
            raise ValueError(f"at_least.items of at most {most} each, as cap says")

    def _differing(self, diversity: DiversityConfig) -> None:
        if self.at_least is not None:
            raise ValueError("must be one of at_least and diversity, got both")
        if diversity.among is not None and diversity.among < self.k:
            raise ValueError(f"must be diversity.among of at least k = {self.k}, got {diversity.among}")

    @property
    def category(self) -> str | None:
        """The column of the items that ``cap`` and ``at_least`` tell kinds by."""
        rule = self.cap or self.at_least
        return None if rule is None else rule.column


def require_fields(key: str, chosen: Sequence[str], names: Sequence[str], beside: Sequence[str] | None = None) -> None:
    """ConfigError for fields that a key names and the config does not have; nor ``beside``, where these serve, too."""
    for name in chosen:
        if name not in names and name not in (beside or ()):
            fix = words.nearest(name, [*names, *(beside or ())], "Name these only.")
            fix += "" if beside is None else " Raw columns serve once `beside` names them."
            columns = f", or columns of `beside`: {', '.join(beside)}" if beside else ""
            raise ConfigError(key, expected=f"fields of the model: {', '.join(names)}{columns}", found=name, fix=fix)


def moment_of(text: str, date: str | None) -> datetime:
    """``catalog.time`` of a day, as ISO 8601 has it."""
    try:
        return datetime.fromisoformat(text.replace("{date}", date or ""))
    except ValueError:
        raise ConfigError(
            "catalog.time", expected="ISO 8601", found=repr(text), fix="Example: '{date}T18:00:00'."
        ) from None
