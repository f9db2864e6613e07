"""Exact nearest neighbours among vectors: a blocked matrix product proposes, float64 decides.

    inner(a, b) = <a, b>          cosine(a, b) = <a, b> / (|a| |b|), 0 where either is zero

A product of float32 errs by at most D eps |a| |b| in whatever order it sums (Higham 2002, 3.1), so whatever lies within
twice that of a row's K-th best proposal may be among its best K. These are computed anew, each by itself: the sum of D
products, which float64 holds exactly, in one order, then rounded to float32. Ties go to the smaller position.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from fieldwise.features.arrays import Float32, Float64, Int64

By = Literal["cosine", "inner"]
_ROWS, _COLUMNS = 256, 1 << 15
"""Of a block of the product: 32 MiB."""
_PRODUCTS = 1 << 22
"""Computed anew at a time."""


def norms(vectors: Float32) -> Float64:
    """[n] lengths, each of its vector alone."""
    found: Float64 = np.sqrt((vectors.astype(np.float64) ** 2).sum(1))
    return found


def neighbours(vectors: Float32, rows: Int64, k: int, by: By) -> tuple[Int64, Float32]:
    """([m, K'] positions of the nearest of ``vectors`` [n, D] to each of its ``rows`` [m], itself left out, the nearest
    first; [m, K'] similarities); K' = min(k, n - 1)."""
    most = min(k, len(vectors) - 1)
    place, similarity = np.empty((len(rows), most), np.int64), np.empty((len(rows), most), np.float32)
    if not most:
        return place, similarity
    length = norms(vectors)
    proposed = vectors
    if by == "cosine":
        proposed = (vectors / np.maximum(length, 1e-300)[:, None]).astype(np.float32)
    for begin in range(0, len(rows), _ROWS):
        mine = rows[begin : begin + _ROWS]
        owner, found = _proposals(proposed, mine, most)
        exact = _products(vectors, mine[owner], found)
        if by == "cosine":
            exact = np.divide(exact, length[mine[owner]] * length[found], out=np.zeros_like(exact), where=exact != 0)
        rounded = exact.astype(np.float32)
        order = np.lexsort((found, -rounded, owner))
        first = np.searchsorted(owner[order], np.arange(len(mine)))
        best = order[first[:, None] + np.arange(most)]
        place[begin : begin + _ROWS], similarity[begin : begin + _ROWS] = found[best], rounded[best]
    return place, similarity


def _products(vectors: Float32, left: Int64, right: Int64) -> Float64:
    """Of pairs, each by itself; of items that are all alike there may be very many."""
    found, step = np.empty(len(left)), max(1, _PRODUCTS // vectors.shape[1])
    for begin in range(0, len(left), step):
        part = slice(begin, begin + step)
        found[part] = (vectors[left[part]].astype(np.float64) * vectors[right[part]]).sum(1)
    return found


def _proposals(vectors: Float32, rows: Int64, k: int) -> tuple[Int64, Int64]:
    """(row by its place in ``rows``, position) of all that may be among a row's best k."""
    ours, size = vectors[rows], vectors.shape[1]
    lengths = norms(vectors)
    # eps also for products of normalised vectors, each of whose numbers was rounded once
    margin = 4 * (size + 4) * np.finfo(np.float32).eps * lengths[rows] * lengths.max()
    least = np.full(len(rows), -np.inf)
    best = np.empty((len(rows), 0), np.float32)
    kept: list[tuple[Int64, Int64, Float32]] = []
    for begin in range(0, len(vectors), _COLUMNS):
        scores = (torch.from_numpy(ours) @ torch.from_numpy(vectors[begin : begin + _COLUMNS]).T).numpy()
        inside = (rows >= begin) & (rows < begin + scores.shape[1])
        scores[np.flatnonzero(inside), rows[inside] - begin] = -np.inf  # none is its own neighbour
        best = np.concatenate([best, scores], axis=1)
        if best.shape[1] > k:
            best = np.partition(best, best.shape[1] - k, axis=1)[:, -k:]
            least = np.maximum(least, best.min(1) - margin)
        owner, found = np.nonzero(scores >= np.maximum(least, np.finfo(np.float32).min)[:, None])
        kept.append((owner, found + begin, scores[owner, found]))
    owner, place, score = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    may = score >= least[owner]
    return owner[may], place[may]
