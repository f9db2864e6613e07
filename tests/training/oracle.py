"""The models in plain Python loops over Python floats, straight from their equations; for tests at small odd sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldwise.training.models.layout import Layout

Rows = npt.NDArray[np.float64]

_64 = (1 << 64) - 1


def factors(layout: Layout, row: npt.NDArray[np.int32]) -> list[float]:
    """A row's pooling factors, slot by slot."""
    values = []
    for s in range(layout.slots):
        field = layout.field_of_slot[s]
        held = sum(1 for t in range(layout.slots) if layout.field_of_slot[t] == field and row[t] != 0)
        values.append(0.0 if row[s] == 0 else 1.0 / held if layout.mean_pooled[field] else 1.0)
    return values


def pair_row(layout: Layout, first: int, second: int, buckets: int) -> int:
    """Table row of the pair of table rows (first, second)."""
    h = (first * 0x9E3779B97F4A7C15 + second) * 0xBF58476D1CE4E5B9 & _64
    h = (h ^ h >> 29) * 0x94D049BB133111EB & _64
    return layout.rows + ((h >> 32) * buckets >> 32)


def pooled(layout: Layout, table: Rows, row: npt.NDArray[np.int32]) -> list[list[float]]:
    """A row's fields: for each, the weighted sum of its values' table rows."""
    fields = [[0.0] * table.shape[1] for _ in range(layout.fields)]
    for s, factor in enumerate(factors(layout, row)):
        for c in range(table.shape[1]):
            weight = float(table[layout.offset_of_slot[s] + row[s], c])
            fields[layout.field_of_slot[s]][c] += factor * weight
    return fields


def logit(
    kind: str, layout: Layout, table: Rows, bias: float, row: npt.NDArray[np.int32], *, dim: int, buckets: int,
    dense: Mapping[str, Any],
) -> tuple[float, float]:  # fmt: skip
    """(logit, sum of the absolute values of all terms) of one row of slots."""
    fields = pooled(layout, table, row)
    terms = [bias] + [field[0] for field in fields]
    if kind == "poly2":
        factor = factors(layout, row)
        for s, t in combinations(range(layout.slots), 2):
            if layout.field_of_slot[s] != layout.field_of_slot[t] and factor[s] and factor[t]:
                first, second = (int(layout.offset_of_slot[u] + row[u]) for u in (s, t))
                terms.append(factor[s] * factor[t] * float(table[pair_row(layout, first, second, buckets), 0]))
    for number, (i, j) in enumerate(combinations(range(layout.fields), 2)):
        for d in range(1, dim + 1):
            if kind in ("fm", "deepfm"):
                terms.append(fields[i][d] * fields[j][d])
            elif kind == "fwfm":
                terms.append(float(dense["strength"][number]) * fields[i][d] * fields[j][d])
            elif kind == "ffm":
                terms.append(fields[i][j * dim + d] * fields[j][i * dim + d])
    sizes = [abs(term) for term in terms]
    if kind == "deepfm":
        h = [value for field in fields for value in field[1:]]
        size = [abs(value) for value in h]
        names = sorted((name for name in dense if name.endswith("weight")), key=lambda name: int(name.split(".")[1]))
        for name in names:
            weight, bias = dense[name].tolist(), dense[name.replace("weight", "bias")].tolist()
            h = [
                math.fsum([b, *(w * x for w, x in zip(row, h, strict=True))])
                for row, b in zip(weight, bias, strict=True)
            ]
            size = [
                abs(b) + math.fsum(abs(w) * x for w, x in zip(row, size, strict=True))
                for row, b in zip(weight, bias, strict=True)
            ]
            if name != names[-1]:
                h = [max(0.0, x) for x in h]
        terms, sizes = [*terms, h[0]], [*sizes, size[0]]
    return math.fsum(terms), math.fsum(sizes)


def logloss(z: float, y: float) -> float:
    """-y log p - (1 - y) log(1 - p) with p = sigmoid(z)."""
    return math.log1p(math.exp(-abs(z))) + max(z, 0.0) - y * z
