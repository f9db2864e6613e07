"""What lists show, whether or not anybody wanted it: coverage, concentration, popularity and novelty of listed items.

From x_i, the number of lists that hold item i of a catalog of N, and n_i, how often it was wanted before:

- coverage: share of the catalog that is in some list
- gini: sum_i (2 i - N - 1) x_(i) / (N sum x), x_(1) <= ... <= x_(N): 0 where all items are listed as often, near 1
  where a few take all places (Gini 1912)
- popularity: mean n_i over the listed places (Yin et al. 2012)
- novelty: mean of -log2(n_i / sum n) over the places whose item was wanted before (Zhou et al. 2010)
- unknown: share of the places whose item was never wanted before
"""

from __future__ import annotations

import numpy as np

from fieldwise.features.arrays import Int64

NAMES = ("coverage", "gini", "popularity", "novelty", "unknown")


def exposure(listed: Int64, wanted: Int64) -> dict[str, float | None]:
    """The figures by name; None where the lists or what came before are empty.

    Args:
        listed: x_i [N]; ``wanted``: n_i [N].
    """
    places, total, items = int(listed.sum()), int(wanted.sum()), len(listed)
    found: dict[str, float | None] = dict.fromkeys(NAMES)
    found["coverage"] = float(np.count_nonzero(listed) / items)
    if not places:
        return found
    ordered = np.sort(listed).astype(np.float64)
    found["gini"] = float((2 * np.arange(1, items + 1) - items - 1) @ ordered / (items * ordered.sum()))
    known = wanted > 0
    old = int(listed[known].sum())
    if total:
        found["popularity"] = float(listed.astype(np.float64) @ wanted / places)
        found["unknown"] = 1 - old / places
    if old:
        information = -np.log2(wanted[known] / total)
        found["novelty"] = float(listed[known] @ information / old)
    return found
