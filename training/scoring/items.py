"""Items ready for scoring: factors in the order of their bounds, equal items once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fieldwise.features.arrays import Bool, Float32, Float64, Int32, Int64
from fieldwise.training.kernels.exact import constant
from fieldwise.training.kernels.select import Lists
from fieldwise.training.kernels.split import equal_rows
from fieldwise.training.scoring.factors import Factors, item_factors
from fieldwise.training.scoring.scorer import Scorer


@dataclass(frozen=True)
class Catalog:
    """Items ready for scoring. Items with equal slots (and category) are one of G groups: they score alike.

    An item is named by its position in the order of item ids, so a smaller position wins a tie.
    """

    of_item: Bool  # [F] which fields are the item's
    slots: Int32  # [G, S], by descending bound
    linear: Float64  # [G] b
    vectors: Float32  # [G, D] v
    precise: Float64  # [G, D] FM's v before rounding to float32, else [G, 0]
    half: npt.NDArray[np.uint16]  # [G, D] v in bfloat16, [G, 0] where that would not pay
    lost: Float64  # [G] length of what that took from v
    norm: Float64  # [G] |v|
    error: Float64  # [G] see `certify`
    category: Int32  # [G], all 0 without categories
    start: Int64  # [G + 1]
    item: Int64  # [N] items of group g: item[start[g]:start[g + 1]], ascending

    @staticmethod
    def of(scorer: Scorer, of_item: Bool, slots: Int32, category: Int32 | None = None) -> Catalog:
        """Of item rows [N, S] in the order of their ids; ``category`` [N] counts from 0."""
        slots = np.where(of_item[scorer.layout.field_of_slot], slots, 0).astype(np.int32)
        category = np.zeros(len(slots), np.int32) if category is None else category
        distinct, group = _distinct(np.column_stack([slots, category]))
        factors = item_factors(scorer, of_item, distinct[:, :-1], torch.get_num_threads())
        order = np.argsort(-(factors.linear + factors.norm), kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        group = place[group]
        item = np.argsort(group, kind="stable")
        vectors = constant(factors.vectors[order], np.float32)
        half, lost = halved(vectors if half_pays(vectors.shape[1]) else vectors[:, :0])
        return Catalog(
            of_item=of_item,
            slots=constant(distinct[order, :-1], np.int32),
            linear=constant(factors.linear[order], np.float64),
            vectors=vectors,
            precise=constant(factors.precise[order], np.float64),
            half=constant(half.view(torch.int16).numpy().view(np.uint16), np.uint16),
            lost=constant(lost, np.float64),
            norm=constant(factors.norm[order], np.float64),
            error=constant(errors(scorer, factors)[order], np.float64),
            category=constant(distinct[order, -1], np.int32),
            start=constant(np.searchsorted(group[item], np.arange(len(order) + 1)), np.int64),
            item=constant(item, np.int64),
        )

    @property
    def exact(self) -> Float32 | Float64:
        """v as `certify` takes it."""
        return self.precise if self.precise.shape[1] else self.vectors

    @property
    def group(self) -> Int64:
        """[N] of every item."""
        group = np.empty(len(self.item), np.int64)
        group[self.item] = np.repeat(np.arange(len(self.slots)), np.diff(self.start))
        return group

    @property
    def groups(self) -> Lists:
        return Lists(self.start, self.item)

    def of_category(self, category: int) -> tuple[Catalog, Int64]:
        """The items of a category as a catalog of their own, and their positions in this one, ascending."""
        own = self.category == category
        members = self.item[np.repeat(own, np.diff(self.start))]
        positions = np.sort(members)
        arrays = {name: constant(getattr(self, name)[own], getattr(self, name).dtype) for name in _OF_GROUPS}
        part = Catalog(
            of_item=self.of_item,
            category=constant(np.zeros(int(own.sum())), np.int32),
            start=constant(np.r_[0, np.cumsum(np.diff(self.start)[own])], np.int64),
            item=constant(np.searchsorted(positions, members), np.int64),
            **arrays,
        )
        return part, positions

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """One .npy file per array, at ``path(name)``; returns the names."""
        names = {f"catalog-{name}.npy": getattr(self, name) for name in ARRAYS}
        for name, array in names.items():
            np.save(path(name), array, allow_pickle=False)
        return list(names)

    @staticmethod
    def load(path: Callable[[str], Path]) -> Catalog:
        """Memory-mapped: processes on one host share the pages."""
        files = {n: np.load(path(f"catalog-{n}.npy"), mmap_mode="r", allow_pickle=False) for n in ARRAYS}
        return Catalog(**{name: constant(array, array.dtype) for name, array in files.items()})


HALVED = 128
"""Shorter vectors are not worth halving."""
HALF = 2.0**-8 * 1.01
"""Rounding of a product to bfloat16, relative to it."""
ARRAYS = (
    "of_item",
    "slots",
    "linear",
    "vectors",
    "precise",
    "half",
    "lost",
    "norm",
    "error",
    "category",
    "start",
    "item",
)
_OF_GROUPS = ("slots", "linear", "vectors", "precise", "half", "lost", "norm", "error")


def share(scorer: Scorer) -> float:
    """Relative to the sum of absolute terms: how far two float64 sums of a logit's terms in any order may be apart."""
    fields = scorer.layout.fields
    pairs = 2 * fields if scorer.model.kind.summed else fields * fields
    return 4 * (scorer.layout.slots + pairs * max(scorer.dim, 1) + 64) * 2.0**-53


def errors(scorer: Scorer, factors: Factors) -> Float64:
    """What a side adds to the error of ``a + b + <u, v>`` in float64; infinite where that cannot certify a logit.

    Vectors that are rows of the table are lossless, unless pooling does not fit float32; see ``Kind.certain``.
    """
    certain = scorer.model.kind.certain
    known = factors.lossless if certain == "lossless" else np.full(len(factors.mass), certain == "always")
    return np.where(known, share(scorer) * factors.mass, np.inf)


def _distinct(rows: Int32) -> tuple[Int32, Int64]:
    """Distinct rows and, for every row, which it is."""
    group = np.empty(len(rows), np.int64)
    scratch = np.full(1 << (2 * len(rows) + 1).bit_length(), -1, np.int64)
    distinct = np.empty((equal_rows(constant(rows, np.int32), scratch, group), rows.shape[1]), np.int32)
    distinct[group] = rows
    return distinct, group


def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch would mind that the catalog is read-only
        return torch.from_numpy(array)


def halved(vectors: Float32) -> tuple[torch.Tensor, Float64]:
    """bfloat16 vectors, and the lengths of what rounding took from each."""
    full = tensor(vectors)
    half, lost = full.bfloat16(), torch.empty(len(full), dtype=torch.float64)
    for start in range(0, len(full), 4096):
        block = slice(start, start + 4096)
        lost[block] = (full[block] - half[block].float()).norm(dim=1, dtype=torch.float64)
    return half, lost.numpy()


def bfloat16(half: npt.NDArray[np.uint16]) -> torch.Tensor:
    """Stored halves as torch sees them; no copy."""
    return tensor(half.view(np.int16)).view(torch.bfloat16)


@lru_cache(maxsize=8)
def half_pays(dimensions: int) -> bool:
    """Whether this machine multiplies bfloat16 faster (AMX does, three times), and within the bound relied on here.

    The lists do not depend on the answer: only how many finalists are rescored does.
    """
    if dimensions < HALVED:
        return False
    draw = torch.Generator().manual_seed(0)
    u, v = (torch.randn(n, dimensions, generator=draw) for n in (256, 2048))
    (half_u, lost_u), (half_v, lost_v) = halved(u.numpy()), halved(v.numpy())
    seconds = {}
    for a, b in ((u, v), (half_u, half_v)):
        torch.mm(a, b.T)
        started = time.perf_counter()
        product = torch.mm(a, b.T)
        seconds[a.dtype] = time.perf_counter() - started
    if seconds[torch.bfloat16] >= 0.7 * seconds[torch.float32]:
        return False
    true = u.double() @ v.double().T
    norm_u, norm_v = u.double().norm(dim=1).numpy()[:, None], v.double().norm(dim=1).numpy()
    bound = norm_u * lost_v + lost_u[:, None] * (norm_v + lost_v) + dimensions * 2.0**-23 * norm_u * norm_v
    return bool(((product.double() - true).abs().numpy() <= bound + HALF * product.double().abs().numpy()).all())
