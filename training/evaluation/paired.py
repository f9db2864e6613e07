"""Models compared on the same rows: differences of metrics, each with an interval that small and clustered days bear.

Rows are put into 256 blocks: rows of one group together, by the local index of a field's slot modulo 256, so that
groups that meet only make larger ones; without a group, rows in turn. What is kept of a model is a sum per block, so
memory does not grow with the rows, models that were scored apart pair up block by block, and days add up (a user's rows
of all days are in one block).

With theta(-b) a difference without block b, G blocks, I_b = theta - theta(-b):

    se^2 = (G - 1) / G  sum_b I_b^2            the delete-one jackknife (CR3; MacKinnon, Nielsen & Webb 2023)
    a    = sum_b I_b^3 / (sum_b I_b^2)^(3/2)   skewness of theta
    low  = theta - se r(a),  r(a) = 3/a ((1 + a (t - a/6))^(1/3) - 1),  for a < 0, else t     (Hall 1992)

and high as low of -theta. t is Student's quantile with G' - 1 degrees of freedom, G' = (sum W_b)^2 / sum W_b^2 the
effective number of blocks (Kish 1965). Skewness only ever widens: where clicks are rare, a model that predicts less of
them gains a little on most rows and loses much on few, and a day with few of those looks better than it is.

Why not the bootstrap: resampled rows (or groups) give intervals that are too short where there are few, and so rare a
side as one in 2,000 takes tens of thousands of resamples; the jackknife is exact, needs no random numbers, and serves
AUC as it serves means.

What no row of a sample shows, no interval of it knows: a model that is better on 997 of 1,000 rows and far off on three
passes one day of 1,000 rows in nine, worse though it is (``benchmarks/results/gate_errors_rare.json``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldwise.features.arrays import Float32, Float64, Int64
from fieldwise.features.errors import ConfigError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.cache import Seen
from fieldwise.training.data.splits import Split
from fieldwise.training.evaluation.evaluate import require_finite, require_rows, scan
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.network.calibration import measured_logits
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World

BLOCKS, SLICE_BLOCKS = 256, 32
"""Of all rows, and of a slice."""
SUMS = ("rows", "positives", "weight", "positive", "loss", "predicted")
"""Of a block: rows, rows labelled 1, weight w, w y, w loss, w p."""
METRICS = ("logloss", "normalized_entropy", "auc", "calibration")
_ROWS, _POSITIVES, _WEIGHT, _POSITIVE, _LOSS, _PREDICTED = range(len(SUMS))
_BINS = 1024
"""Of logits for AUC: every value has its own on small days; else equal shares of the first batch."""
MOST_VALUES = 1000
"""Of a field whose values are slices."""


@dataclass(frozen=True)
class Interval:
    """An estimate, or an array of them, with both ends; these are infinite where the rows say nothing."""

    value: Any
    low: Any
    high: Any

    @property
    def told(self) -> dict[str, float | None]:
        """Of numbers, for JSON, which has no infinity: what the rows leave open is None."""
        ends = {"difference": self.value, "low": self.low, "high": self.high}
        return {name: float(value) if math.isfinite(value) else None for name, value in ends.items()}

    def __str__(self) -> str:
        """``-0.00210 (-0.00400 to -0.00020)``"""
        return f"{self.value:+.5f} ({self.low:+.5f} to {self.high:+.5f})"


@dataclass(frozen=True)
class Sums:
    """One model's sums over a day, or over several: ``a + b``."""

    table: Float64  # [BLOCKS, 6] of `SUMS`
    pairs: Float64  # [BLOCKS + 1, 2] pairs of a positive and a negative, and those in order: without block b; of all
    slices: dict[str, Float64] = field(default_factory=dict)  # "field = value" -> [SLICE_BLOCKS, 6]

    def __add__(self, other: Sums) -> Sums:
        slices = dict(self.slices)
        for name, table in other.slices.items():
            slices[name] = slices[name] + table if name in slices else table
        return Sums(self.table + other.table, self.pairs + other.pairs, slices)

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it; `from_plain` reads it again."""
        slices = {name: table.tolist() for name, table in self.slices.items()}
        return {"table": self.table.tolist(), "pairs": self.pairs.tolist(), "slices": slices}

    @staticmethod
    def from_plain(kept: Mapping[str, Any]) -> Sums:
        slices = {name: np.array(table) for name, table in kept["slices"].items()}
        return Sums(np.array(kept["table"]), np.array(kept["pairs"]), slices)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows. Comparisons of several days add up: ``a + b``."""

    champion: Sums
    challenger: Sums

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(self.champion + other.champion, self.challenger + other.challenger)

    @property
    def rows(self) -> int:
        return int(self.champion.table[:, _ROWS].sum())

    @property
    def positives(self) -> int:
        """Rows, whatever they weigh."""
        return int(self.champion.table[:, _POSITIVES].sum())

    @property
    def groups(self) -> float:
        """The effective number of blocks: at most `BLOCKS`, far fewer where few groups have most of the weight."""
        return float(effective(self.champion.table[:, _WEIGHT]))

    def difference(self, name: str, confidence: float) -> Interval:
        """Challenger less champion in one of `METRICS`; the truth lies beyond either end with 1 - ``confidence``."""
        before, after = self._jackknifed(self.champion, name), self._jackknifed(self.challenger, name)
        with np.errstate(invalid="ignore"):  # no positives: a calibration is infinite
            value, without = after[0] - before[0], after[1] - before[1]
        return interval(value, without, self.champion.table[:, _WEIGHT], confidence)

    def values(self, name: str) -> tuple[float, float]:
        """(champion's, challenger's); nan where undefined."""
        return float(self._jackknifed(self.champion, name)[0]), float(self._jackknifed(self.challenger, name)[0])

    def calibration(self, confidence: float) -> Interval:
        """Of the challenger alone."""
        whole, without = self._jackknifed(self.challenger, "calibration")
        return interval(whole, without, self.challenger.table[:, _WEIGHT], confidence)

    @staticmethod
    def _jackknifed(sums: Sums, name: str) -> tuple[Any, Any]:
        """A metric of all rows, and without each block."""
        if name == "auc":
            with np.errstate(invalid="ignore"):
                found = sums.pairs[:, 1] / np.where(sums.pairs[:, 0] > 0, sums.pairs[:, 0], np.nan)
            return found[-1], found[:-1]
        return jackknifed(sums.table, name)

    def slices(self, confidence: float, *, min_rows: int, min_positives: int) -> list[tuple[str, float, Interval]]:
        """(name, champion's logloss, challenger's less champion's) of slices with enough rows of both classes, the
        worst relative to the champion first."""
        found = []
        for name, table in self.champion.slices.items():
            rows, positives = table[:, _ROWS].sum(), table[:, _POSITIVES].sum()
            enough = rows >= min_rows and min(positives, rows - positives) >= min_positives
            if enough and name in self.challenger.slices:  # not under another spec that lacks the value
                before, after = (jackknifed(sums, "logloss") for sums in (table, self.challenger.slices[name]))
                gap = interval(after[0] - before[0], after[1] - before[1], table[:, _WEIGHT], confidence)
                found.append((name, float(before[0]), gap))
        return sorted(found, key=lambda slice: -slice[2].value / slice[1])


def metric(sums: Float64, name: str) -> Any:
    """A metric of `SUMS` [..., 6]: the formulas of `training.evaluation.metrics`."""
    weight, positive, loss, predicted = (sums[..., column] for column in (_WEIGHT, _POSITIVE, _LOSS, _PREDICTED))
    with np.errstate(divide="ignore", invalid="ignore"):
        if name == "logloss":
            return loss / weight
        if name == "calibration":
            return predicted / positive
        rate = positive / weight
        return loss / weight / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))


def jackknifed(table: Float64, name: str) -> tuple[Any, Any]:
    """A metric of a table [..., blocks, 6]: of all blocks [...], and without each [..., blocks]."""
    whole = table.sum(-2)
    return metric(whole, name), metric(whole[..., None, :] - table, name)


def effective(weight: Float64) -> Any:
    """(sum W)^2 / sum W^2 over the last axis: the number of blocks if all weighed the same (Kish 1965)."""
    return weight.sum(-1) ** 2 / np.maximum((weight**2).sum(-1), 1e-300)


def interval(value: Any, without: Float64, weight: Float64, confidence: float) -> Interval:
    """The jackknife's, see the module's docstring.

    Args:
        value: [...]; ``without``: the same without each block [..., blocks].
        weight: of the blocks [..., blocks]; one that weighs nothing counts as none.
        confidence: of each end.
    """
    value, blocks = np.asarray(value), np.count_nonzero(weight > 0, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = value[..., None] - without
        squares = (parts**2).sum(-1)
        error = np.sqrt((1 - 1 / blocks) * squares)
        skew = np.where(squares > 0, (parts**3).sum(-1) / squares**1.5, 0.0)
        quantile = _student(confidence, effective(weight) - 1)
        low, high = (np.where(error > 0, error * _reach(sign * skew, quantile), 0.0) for sign in (1, -1))
    known = np.isfinite(error)  # not of a single block
    low, high = np.where(known, value - low, -np.inf), np.where(known, value + high, np.inf)
    return Interval(value[()], low[()], high[()])  # numbers for a number


def _reach(skew: Any, quantile: Any) -> Any:
    """r(a) of the module's docstring."""
    a = np.minimum(skew, -1e-6)  # next to it, r is the quantile to six digits
    return 3 / a * (np.cbrt(1 + a * (quantile - a / 6)) - 1)


def _student(confidence: float, freedom: Any) -> Any:
    """Student's quantile, to 0.1 % from 8 degrees of freedom up (Abramowitz & Stegun 26.7.5)."""
    z, n = NormalDist().inv_cdf(confidence), np.maximum(freedom, 0.1)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4


def score_blocks(
    split: Split,
    models: Mapping[str, Bundle],
    *,
    group: str | None = None,
    slices: Sequence[str] = (),
    seen: Seen | None = None,
) -> dict[str, Sums]:
    """Score every row of the split once by all models, in one pass.

    Args:
        models: of one spec, by any name.
        group: a field of one value: rows with equal local index are one group. All missing values are one group, and
            all unseen ones. None: rows are independent.
        slices: fields of one value and at most 1,000 local indices: every value is a slice.

    Raises ConfigError for a field that cannot serve, DivergedError for logits that are not finite, IntegrityError when
    the rows read are not those the manifests promise.
    """
    networks = {name: Network.from_bundle(bundle) for name, bundle in models.items()}
    spec = next(iter(models.values())).spec
    blocks = {name: Blocks(split, spec, group, slices, key="gate") for name in models}
    first, *_ = networks.values()
    rows, overflows = 0, 0
    with first.passes([[scan(split, spec, World(), streams=8)]], seen) as works:
        for batch, compact in works:
            for name, network in networks.items():
                logits = network.score(compact if network is first else network.lookup(batch.slots))
                own, downsampled = models[name], bool(split.negative_rate)
                logits = measured_logits(logits, own.logit_shift, own.calibrator, downsampled=downsampled)
                finite = bool(np.isfinite(logits).all())
                overflows += not finite
                if finite:
                    blocks[name].add(batch, logits)
            rows += batch.rows
    require_finite(split, overflows)
    require_rows(split, rows)
    return {name: each.sums() for name, each in blocks.items()}


class Blocks:
    """One model's sums by block, an observer of `evaluate`. Models that see the same rows in the same order pair up.

    Args:
        group, slices: as in `score_blocks`.
        key: block of the config that names them, for errors.
    """

    def __init__(
        self, split: Split, spec: FeatureSpec, group: str | None = None, slices: Sequence[str] = (), *, key: str
    ) -> None:
        self._spec = spec
        self._grouped = None if group is None else slot_of(spec, group, f"{key}.group")
        self._sliced = {name: slot_of(spec, name, f"{key}.slices", MOST_VALUES) for name in slices}
        self._collector = _Collector([spec[field].size for field in self._sliced])
        # small days begin at different blocks: many of them fill all
        self._next = int(split.files[0].identity[:8], 16) if split.files else 0

    def add(self, batch: Batch, logits: Float32) -> None:
        """A batch with its calibrated logits."""
        block = self._next + np.arange(batch.rows) if self._grouped is None else batch.slots[:, self._grouped]
        self._next += batch.rows
        weight = np.ones(batch.rows) if batch.weight is None else batch.weight.astype(np.float64)
        values = [batch.slots[:, slot] for slot in self._sliced.values()]
        self._collector.add(logits, batch.label, weight, (block % BLOCKS).astype(np.int64), values)

    def sums(self) -> Sums:
        """Of all rows so far."""
        named = [(field, local) for field in self._sliced for local in range(self._spec[field].size)]
        return self._collector.sums([f"{field} = {self._spec.value_of(field, local)}" for field, local in named])


def slot_of(spec: FeatureSpec, name: str, key: str, most: int | None = None) -> int:
    """The slot of a field of one value. ConfigError for any other, and for one of more local indices than ``most``."""
    fields = {field.name: field for field in spec.fields}
    if name not in fields:
        found, fix = f"{name!r}", f"The fields are {', '.join(fields)}."
    elif fields[name].slots > 1:
        found, fix = f"{name}, which holds up to {fields[name].slots} values", "Name another field."
    elif most is not None and fields[name].size > most:
        found, fix = f"{name}, which has {fields[name].size:,}", "Slices are for few values: name another field."
    else:
        return fields[name].first_slot
    values = "" if most is None else f" of at most {most:,} local indices"
    raise ConfigError(key, expected=f"a field of one value{values}", found=found, fix=fix)


class _Collector:
    """One model's sums while rows arrive."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._tables = [np.zeros((BLOCKS, len(SUMS))), *(np.zeros((n * SLICE_BLOCKS, len(SUMS))) for n in sizes)]
        self._edges: Float32 | None = None
        self._counts = np.zeros((2, BLOCKS * _BINS))  # weight of negatives, of positives, by block and bin

    def add(
        self, z: Float32, label: Float32, weight: Float64, block: Int64, values: Sequence[npt.NDArray[Any]]
    ) -> None:
        """``values``: local indices of each field of slices."""
        y, logit = label.astype(np.float64), z.astype(np.float64)
        loss, p = np.logaddexp(0.0, logit) - y * logit, 1 / (1 + np.exp(-np.maximum(logit, -700.0)))
        columns = [np.ones(len(y)), y > 0, weight, weight * y, weight * loss, weight * p]
        cells = [block, *(value.astype(np.int64) * SLICE_BLOCKS + block % SLICE_BLOCKS for value in values)]
        for table, cell in zip(self._tables, cells, strict=True):
            for at, column in enumerate(columns):
                table[:, at] += np.bincount(cell, column, len(table))
        if self._edges is None:
            self._edges = np.unique(np.quantile(z, np.linspace(0, 1, _BINS - 1), method="inverted_cdf"))
        cell = block * _BINS + np.searchsorted(self._edges, z)
        for counts, column in zip(self._counts, (weight * (1 - y), weight * y), strict=True):
            counts += np.bincount(cell, column, len(counts))

    def sums(self, names: Sequence[str]) -> Sums:
        """``names``: of all slices; those without rows are left out."""
        table, *others = self._tables
        tables = np.concatenate([np.empty((0, SLICE_BLOCKS, len(SUMS))),
                                 *(other.reshape(-1, SLICE_BLOCKS, len(SUMS)) for other in others)])  # fmt: skip
        slices = {name: t for name, t in zip(names, tables, strict=True) if t[:, _ROWS].any()}
        return Sums(table, self._pairs(), slices)

    def _pairs(self) -> Float64:
        negative, positive = (
            np.concatenate([counts.sum(0) - counts, counts.sum(0, keepdims=True)])
            for counts in self._counts.reshape(2, BLOCKS, _BINS)
        )
        below = np.cumsum(negative, axis=1) - negative / 2  # pairs of one bin count half
        return np.stack([negative.sum(1) * positive.sum(1), (positive * below).sum(1)], axis=1)
