"""Models of random weights over small layouts, and what scoring them by hand gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldwise.training.models import settings_of
from fieldwise.training.models.base import build_model
from fieldwise.training.models.layout import Layout
from fieldwise.training.scoring.scorer import PlainWeights, Scorer

Slots = npt.NDArray[np.int32]


def layout(sizes: Sequence[int], slots: Sequence[int], mean: Sequence[bool]) -> Layout:
    """Fields of these sizes, slots and poolings, one after another."""
    field = np.repeat(np.arange(len(sizes)), slots).astype(np.int32)
    offset = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    size = np.asarray(sizes, np.int64)
    return Layout(field, offset[field], size[field], np.asarray(mean, np.bool_), int(size.sum()))


def scorer(
    kind: str, shape: Layout, seed: int, *, step: float = 0.0, dim: int = 3, shift: float = 0.0, **own: Any
) -> Scorer:
    """Normal weights; with ``step`` they are multiples of it, so that scores tie."""
    draw = np.random.default_rng(seed)
    model = build_model(settings_of(kind, dim=dim, pair_buckets=67, own=own), shape)
    weight = draw.standard_normal((model.rows, model.width)).astype(np.float32)
    if step:
        weight = np.round(weight / step).astype(np.float32) * np.float32(step)
    dense = {n: draw.standard_normal(tuple(p.shape)).astype(np.float32) for n, p in model.named_parameters()}
    return Scorer(PlainWeights(model.settings, shape, weight, dense, shift))


def rows(shape: Layout, n: int, seed: int) -> Slots:
    """Rows whose slots are any local index, padding included."""
    draw = np.random.default_rng(seed)
    return np.stack([draw.integers(0, size, n) for size in shape.size_of_slot], axis=1).astype(np.int32)


def merged(shape: Layout, of_item: npt.NDArray[np.bool_], contexts: Slots, items: Slots) -> Slots:
    """Rows of all pairs [contexts * items, S]."""
    full = np.where(of_item[shape.field_of_slot], items[None], contexts[:, None])
    return full.reshape(-1, shape.slots)
