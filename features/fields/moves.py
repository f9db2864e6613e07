"""From one fitted spec to the next: where the meaning of each table row was before, by value and not by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from fieldwise.features.arrays import Int64
from fieldwise.features.columns.text import texts
from fieldwise.features.columns.vocabulary import TextIndex
from fieldwise.features.fields.spec import FeatureSpec, FittedField
from fieldwise.features.kernels.strings import FIRST
from fieldwise.features.schema import Strict

NOWHERE = -1
"""Origin of a row that meant nothing before: it starts afresh."""

Count = Annotated[int, Field(ge=0)]


class Moved(Strict):
    """What became of a field's values."""

    before: Count
    after: Count
    kept: Count
    """Values that mean what they meant, at any index."""
    moved: Count
    """Those of them whose index changed."""
    new: Count
    """Values, bins or buckets that were not there; they start from what they read as before, if anything."""
    dropped: Count
    """Values that are no more."""


def origins(old: FeatureSpec, new: FeatureSpec) -> Int64:
    """[new.rows]: the row of ``old``'s table that each row of ``new``'s starts from, or NOWHERE.

    A vocabulary's value comes from its own row, a new one from the unseen row, which it read as before; so a model
    moved to the new spec scores a row as it did, unless a value of it was dropped. A bin comes from the bin that held
    its middle. Buckets stay, or are divided where their number is multiplied; any other number of them, another kind
    and a new field start afresh, but for missing and unseen of the same kind.
    """
    result = np.full(new.rows, NOWHERE, np.int64)
    for field in new.fields:
        if field.config.source == field.name:
            local = _local(old, new, field)
            rows = result[field.offset : field.offset + field.size]
            known = local != NOWHERE
            if known.any():
                rows[known] = old[field.name].offset + local[known]
    return result


def moves(old: FeatureSpec, new: FeatureSpec) -> dict[str, Moved]:
    """What moved in every field of ``new`` that has an index space of its own."""
    return {f.name: _moved(old, new, f) for f in new.fields if f.config.source == f.name}


def _counterpart(old: FeatureSpec, field: FittedField) -> FittedField | None:
    """The field of this name, kind and columns that owns its index space."""
    names = {other.name for other in old.fields}
    other = old[field.name] if field.name in names else None
    same = other is not None and other.config.source == other.name and type(other.config) is type(field.config)
    return other if same and other is not None and other.config.columns == field.config.columns else None


def _local(old: FeatureSpec, new: FeatureSpec, field: FittedField) -> Int64:
    """[size]: local index under ``old`` that each of the field's starts from, or NOWHERE."""
    other = _counterpart(old, field)
    local = np.full(field.size, NOWHERE, np.int64)
    if other is None:
        return local
    local[:FIRST] = np.arange(FIRST)
    fit, former = new.fit_of(field.name), old.fit_of(field.name)
    if fit.vocabulary is not None and former.vocabulary is not None:
        found = np.empty(field.values, np.int32)
        TextIndex(former.vocabulary.values).find(texts(fit.vocabulary.values), found)
        local[FIRST:] = found
    elif fit.edges and former.edges:
        bounds = np.array([fit.edges[0] - 1.0, *fit.edges, fit.edges[-1] + 1.0])
        local[FIRST:] = FIRST + np.searchsorted(former.edges, (bounds[:-1] + bounds[1:]) / 2, "right")
    elif field.config.hashed and field.values % other.values == 0:
        local[FIRST:] = FIRST + np.arange(field.values) % other.values
    elif field.config.model_dump() == other.config.model_dump():
        local[FIRST:] = np.arange(FIRST, field.size)
    return local


def _moved(old: FeatureSpec, new: FeatureSpec, field: FittedField) -> Moved:
    other = _counterpart(old, field)
    if other is None:
        return Moved(before=0, after=field.values, kept=0, moved=0, new=field.values, dropped=0)
    local = _local(old, new, field)
    at = np.arange(field.size)
    kept = (at >= FIRST) & (local >= FIRST)
    fit, former = new.fit_of(field.name), old.fit_of(field.name)
    if fit.edges:
        pairs = enumerate((local[FIRST:] - FIRST).tolist())
        kept[FIRST:] &= [_bounds(fit.edges, n) == _bounds(former.edges, m) for n, m in pairs]
    elif field.values != other.values and field.config.hashed:
        kept[:] = False
    stays = int(kept.sum())
    return Moved(
        before=other.values, after=field.values, kept=stays, moved=int((kept & (local != at)).sum()),
        new=field.values - stays, dropped=other.values - stays,
    )  # fmt: skip


def _bounds(edges: tuple[float, ...], n: int) -> tuple[float | None, float | None]:
    return (edges[n - 1] if n else None, edges[n] if n < len(edges) else None)


def table(moved: Mapping[str, Moved]) -> list[str]:
    """Lines for people."""
    lines = [f"  {'field':<20} {'before':>10} {'after':>10} {'kept':>10} {'moved':>10} {'new':>10} {'dropped':>10}"]
    for name, field in moved.items():
        counts = (field.before, field.after, field.kept, field.moved, field.new, field.dropped)
        lines.append(f"  {name:<20} " + " ".join(f"{count:>10,}" for count in counts))
    return lines
