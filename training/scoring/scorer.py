"""A bundle as a scorer: slots become float32 logits, logits become calibrated probabilities, a logit becomes reasons.

logit       = float32(the float64 sum of training.kernels.exact)
probability = 1 / (1 + exp(-g(logit + logit_shift))): calibration (`training.network.calibration`) never reorders
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Protocol

import numpy as np
import torch

from fieldwise.features.arrays import Float32, Float64, Int32
from fieldwise.features.errors import ArtifactError, IntegrityError
from fieldwise.training.kernels.exact import KINDS, Form, constant, score_rows
from fieldwise.training.models import ModelSettings, kinds
from fieldwise.training.models.base import Model, build_model
from fieldwise.training.models.layout import Layout
from fieldwise.training.network.calibration import Isotonic, Platt
from fieldwise.training.step.lookup import Lookup

BLOCK = 8192
"""Rows one thread scores at a time."""


_MASKED = 1 << 16
"""Rows with fields left out that are scored at a time."""
_ROUNDING = 1e-9
"""Of the absolute sums that an explanation subtracts from one another: far above float64's own error."""
_CALLING = threading.Lock()
"""A lookup has a map, and a model a mode: one thread at a time calls them."""


class Weights(Protocol):
    """What a scorer needs of a `training.network.bundle.Bundle`."""

    @property
    def settings(self) -> ModelSettings: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def weight(self) -> Float32: ...
    @property
    def dense(self) -> dict[str, Float32]: ...
    @property
    def logit_shift(self) -> float: ...
    @property
    def calibrator(self) -> Platt | Isotonic | None: ...


@dataclass(frozen=True)
class PlainWeights:
    """`Weights` without a feature spec, for processes that get their slots from elsewhere."""

    settings: ModelSettings
    layout: Layout
    weight: Float32
    dense: dict[str, Float32]
    logit_shift: float = 0.0
    calibrator: Platt | Isotonic | None = None


@dataclass(frozen=True)
class Contribution:
    """What one field, a pair of fields, or nothing (the bias) adds to a logit."""

    fields: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Explanation:
    """Why a row has its probability = 1 / (1 + exp(-calibrated)), calibrated = g(logit + logit_shift), with logit = the
    sum of ``parts``."""

    logit: float
    logit_shift: float
    method: str | None
    """Of the calibrator g; None: g(z) = z."""
    calibrated: float
    probability: float
    parts: list[Contribution]
    """Bias, fields and pairs of fields, largest first."""


class Scorer:
    """Logits that depend on the row alone: not on the batch around it, its order or the number of threads.

    Kinds that `training.kernels.exact` knows are summed by it. Another model is called itself, in float64: equal to
    within float64's last bits before the rounding to float32, whatever the batch.
    """

    def __init__(self, model: Weights) -> None:
        self.kind, self.layout, self.logit_shift = model.settings.kind, model.layout, model.logit_shift
        self.calibrator = model.calibrator
        self.table = constant(model.weight, np.float32)  # a memory map stays one
        self.dense = {name: np.asarray(value, np.float64) for name, value in model.dense.items()}
        self.bias = float(self.dense["bias"][0])
        self.model = build_model(model.settings, model.layout, fused=False)
        self.dim, self.pair_buckets = self.model.dim, self.model.pair_buckets
        if self.table.shape != (self.model.rows, self.model.width):
            raise IntegrityError(
                "embedding table",
                expected=f"shape {(self.model.rows, self.model.width)}",
                found=str(self.table.shape),
                fix="The weights belong to another spec or model: load the bundle whole.",
            )

    @property
    def exact(self) -> bool:
        """Whether the kind is one that `training.kernels.exact` sums."""
        return self.kind in KINDS

    @cached_property
    def form(self) -> Form:
        """The model as the compiled kernels see it."""
        layout, fields = self.layout, self.layout.fields
        relation = np.zeros((fields, fields))
        if "strength" in self.dense:
            relation[np.triu_indices(fields, 1)] = self.dense["strength"]
        return Form(
            kind=KINDS[self.kind],
            dim=self.dim,
            bias=self.bias,
            table=self.table,
            first=constant(np.searchsorted(layout.field_of_slot, np.arange(fields + 1)), np.int32),
            field=constant(layout.field_of_slot, np.int32),
            offset=constant(layout.offset_of_slot, np.int64),
            mean=constant(layout.mean_pooled, np.bool_),
            relation=constant(relation + relation.T, np.float64),
            pair_first=layout.rows,
            pair_buckets=max(self.pair_buckets, 1),
        )

    def checked(self, slots: Int32) -> Int32:
        """Slots [n, S] in row order, every local index inside its field.

        Raises:
            IntegrityError: before any kernel reads with a stray index.
        """
        slots = np.asarray(slots, np.int32)
        if slots.ndim != 2 or slots.shape[1] != self.layout.slots:
            raise IntegrityError(
                "slots",
                expected=f"shape [n, {self.layout.slots}]",
                found=str(slots.shape),
                fix="Encode with the model's own spec.",
            )
        if len(slots):
            low, high = slots.min(axis=0), slots.max(axis=0)
            stray = np.flatnonzero((low < 0) | (high >= self.layout.size_of_slot))
            if len(stray):
                s = int(stray[0])
                raise IntegrityError(
                    f"slot {s} (field {self.layout.field_of_slot[s]})",
                    expected=f"local indices in [0, {self.layout.size_of_slot[s]})",
                    found=f"{low[s]} to {high[s]}",
                    fix="Encode with the model's own spec.",
                )
        return constant(slots, np.int32)

    def logits(self, slots: Int32, threads: int = 1) -> Float32:
        """float32 [n] of slots [n, S]."""
        return self._sums(self.checked(slots), threads).astype(np.float32)

    def probabilities(self, slots: Int32, threads: int = 1) -> Float32:
        """float32 [n], calibrated."""
        return self.calibrated(self.logits(slots, threads))

    def calibrated(self, logits: Float32) -> Float32:
        """Probabilities of logits; a larger logit never gets a smaller one."""
        z = self.calibrated_logits(logits)
        tail = np.exp(-np.abs(z))
        return (np.where(z >= 0, 1.0, tail) / (1.0 + tail)).astype(np.float32)

    def calibrated_logits(self, logits: Float32) -> Float64:
        """What probabilities are the logistic function of."""
        z = logits.astype(np.float64) + self.logit_shift
        return z if self.calibrator is None else self.calibrator(z)

    def require_pairwise(self) -> None:
        """Raises ArtifactError for a kind that does not claim to be a sum over fields and pairs of fields."""
        if not self.model.kind.pairwise:
            raise self._not_pairwise("one that does not claim to be")

    def _not_pairwise(self, found: str) -> ArtifactError:
        able = ", ".join(kinds("pairwise"))
        return ArtifactError(
            f"model kind {self.kind!r}", expected="a logit that is a sum over fields and pairs of fields", found=found,
            fix=f"Explain a model of another kind ({able}); this one has no shares of fields and pairs.",
        )  # fmt: skip

    def parts(self, slots: Int32) -> tuple[list[tuple[int, ...]], Float64]:
        """Rows [n, S] taken apart: which parts there are - none (the bias), each field, each pair of fields - and what
        each adds to a row's logit [n, parts]; a row's parts add up to its logit before rounding.

        Padding contributes nothing, so the logit with only fields f and g present, less those of f and of g alone, is
        the pair's part: of any model that is a sum over fields and pairs of fields.

        Raises ArtifactError for other models.
        """
        self.require_pairwise()
        slots = self.checked(slots)
        fields = range(self.layout.fields)
        shown: list[tuple[int, ...]] = [(), *((f,) for f in fields), *combinations(fields, 2)]
        place = {part: at for at, part in enumerate(shown)}
        present = np.zeros((len(shown), self.layout.fields), np.bool_)
        for row, some in enumerate(shown):
            present[row, list(some)] = True
        seen = present[:, self.layout.field_of_slot]
        sums = np.empty((len(slots), len(shown)))
        block = max(1, _MASKED // len(shown))
        for start in range(0, len(slots), block):
            masked = np.where(seen, slots[start : start + block, None, :], 0).reshape(-1, slots.shape[1])
            sums[start : start + block] = self._sums(self.checked(masked), 1).reshape(-1, len(shown))
        parts = sums - sums[:, :1]
        parts[:, 0] = sums[:, 0]
        for f, g in combinations(fields, 2):
            parts[:, place[f, g]] = sums[:, place[f, g]] - sums[:, place[f,]] - sums[:, place[g,]] + sums[:, 0]
        whole = self._sums(slots, 1)
        missing = whole - [math.fsum(row) for row in parts.tolist()]
        far = np.abs(missing) > _ROUNDING * np.abs(sums).sum(1)
        if far.any():
            row = int(np.flatnonzero(far)[0])
            raise self._not_pairwise(f"a row whose parts miss {missing[row]:.3g} of its logit {whole[row]:.5g}")
        return shown, parts

    def explain(self, slots: Int32) -> Explanation:
        """One row [S] taken apart; the `parts` add up to its logit before rounding. Raises ArtifactError as they do."""
        slots = np.asarray(slots, np.int32)[None]
        which, values = self.parts(slots)
        parts = [Contribution(part, value) for part, value in zip(which, values[0].tolist(), strict=True)]
        parts.sort(key=lambda part: -abs(part.value))
        logit = self.logits(slots)
        method = None if self.calibrator is None else self.calibrator.method
        calibrated, probability = (float(of(logit)[0]) for of in (self.calibrated_logits, self.calibrated))
        return Explanation(float(logit[0]), self.logit_shift, method, calibrated, probability, parts)

    def _sums(self, slots: Int32, threads: int) -> Float64:
        """Logits before rounding."""
        out = np.empty(len(slots), np.float64)
        blocks = [slice(i, i + BLOCK) for i in range(0, len(slots), BLOCK)]
        if not self.exact:
            for block in blocks:
                out[block] = self._called(slots[block])
        elif threads == 1:
            score_rows(self.form, slots, out)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda block: score_rows(self.form, slots[block], out[block]), blocks))
        return out

    def _called(self, slots: Int32) -> Float64:
        """The model itself, in float64."""
        with _CALLING:
            model, lookup = self._oracle
            found = lookup(slots)
            rows = torch.from_numpy(self.table[found.ids.numpy()].astype(np.float64))
            with model.evaluating():
                logits: Float64 = model(rows, found.index, found.factor.double()).numpy()
            return logits

    @cached_property
    def _oracle(self) -> tuple[Model, Lookup]:
        own = {name: torch.from_numpy(value) for name, value in self.dense.items()}
        self.model.double().load_state_dict(own)
        return self.model, Lookup(self.layout, self.pair_buckets)
