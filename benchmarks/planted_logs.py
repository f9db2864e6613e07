"""Click logs unlike each other whose true probabilities are known: ``planted_log(number)`` is a pure function.

Twenty-four logs cover rows (20 k to 2 M), fields (5 to 40), distinct values, tail, label rate (0.2 % to 50 %), strength
of main effects and of pairs, pairs that come back and can be learned by heart, label noise, drift, sampled negatives:
a Latin square in every property, so no two are alike in any. The even numbers are for development; settings and search
may be tried on them at will. The odd ones are held out: they are looked at once, when nothing is changed any more.
Numbers from 24 on are of further such squares, for a question that the first cannot answer without being looked at.

    z = bias + sum of main effects + sum of low-rank pairs (+ or - own, where a row's first two values know each other)
    p = (1 - noise) sigmoid(z) + noise * rate

Rows come in time: under drift, effects turn by a right angle's share from the first row to the last. The last rows are
the test rows, those before them validation, as a split by time cuts them; where negatives are sampled, only training
rows are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldwise.features.build.files import snapshot_schema, write_rows
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot.manifest import Manifest, snapshot_digest
from fieldwise.features.snapshot.publish import Attempt

LOGS = 24
DEVELOPMENT, HELD_OUT = range(0, LOGS, 2), range(1, LOGS, 2)
TEST_ROWS = 50_000
"""Beyond ``rows``: the truth is known, so even few rows' excess is measured well."""
SHARE_VALID = 0.1
FILE_ROWS = 65536
RANK = 4
"""Of every planted pair of fields."""
OWN = 12
"""Values of the second field that a value of the first knows."""
CIRCLES = 16
"""Of values of the first field that know nearly the same."""
ZEROS = hashlib.sha256(b"").hexdigest()
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Log:
    """Properties of one log, and its rows."""

    number: int
    seed: int
    rows: int
    """Of training and validation, before negatives are sampled."""
    fields: int
    values: int
    """Distinct values of the largest field."""
    tail: float
    """Zipf exponent of a field's values."""
    rate: float
    """Mean probability."""
    main: float
    """Deviation of the summed main effects, in logits."""
    pairs: float
    """Deviation of the summed pairs, in logits."""
    own: float
    """Logits of a row whose first two values know each other, and minus those of any other; 0: no such pairs."""
    noise: float
    drift: float
    """Share of a right angle."""
    negative_rate: float | None

    @cached_property
    def sizes(self) -> list[int]:
        """Values per field: the first two are the largest, the others log-uniform below."""
        draw = self._random("sizes")
        others = np.exp(draw.uniform(np.log(3), np.log(self.values), self.fields - 2))
        return [self.values, max(3, self.values // 2), *map(int, np.sort(others)[::-1])]

    @cached_property
    def slots(self) -> Ints:
        """[rows + TEST_ROWS, fields]: hash buckets, of which the first three mean missing and the like."""
        draw, total = self._random("slots"), self.rows + TEST_ROWS
        slots = np.empty((self.fields, total), np.int32)
        for field, size in enumerate(self.sizes):
            slots[field] = 3 + _zipf(size, self.tail, total, draw)
        if self.own:  # every third row is of a pair that came before and will come again
            repeated = np.flatnonzero(draw.random(total) < 1 / 3)
            slots[1, repeated] = 3 + self._knows[slots[0, repeated] - 3, draw.integers(0, OWN, len(repeated))]
        return slots.T

    @cached_property
    def _knows(self) -> Ints:
        """[values of the first field, OWN] values of the second: nearly all those that its circle knows."""
        draw, (first, second) = self._random("knows"), self.sizes[:2]
        of_circle = _zipf(second, self.tail, CIRCLES * OWN, draw).reshape(CIRCLES, OWN)
        common = of_circle[draw.integers(0, CIRCLES, first)]
        rare = _zipf(second, self.tail, first * OWN, draw).reshape(first, OWN)
        known: Ints = np.where(draw.random((first, OWN)) < 0.9, common, rare).astype(np.int32)
        return known

    @cached_property
    def probability(self) -> Floats:
        """True, of every row given its slots and its time."""
        z, low, high = self._effects(), -60.0, 60.0
        for _ in range(60):
            bias = (low + high) / 2
            low, high = (bias, high) if _sigmoid(z + bias).mean() < self.rate else (low, bias)
        return (1 - self.noise) * _sigmoid(z + bias) + self.noise * self.rate

    def _effects(self) -> Floats:
        slots, total = self.slots, len(self.slots)
        angle = np.linspace(0, self.drift * np.pi / 2, total)
        z = np.zeros(total)
        chosen = self._random("pairs").permutation(np.stack(np.triu_indices(self.fields, 1), 1))[: self.fields]
        for scale, parts in (
            (self.main, [self._main(field) for field in range(self.fields)]),
            (self.pairs, [self._pair(i, j) for i, j in chosen]),
        ):
            sums = np.zeros((2, total))
            for of_rows in parts:
                sums += of_rows(slots)
            summed = np.cos(angle) * sums[0] + np.sin(angle) * sums[1]
            z += scale * summed / summed.std()
        if self.own:
            known = np.zeros((self.sizes[0], self.sizes[1]), bool)
            known[np.arange(self.sizes[0])[:, None], self._knows] = True
            z += self.own * (2.0 * known[slots[:, 0] - 3, slots[:, 1] - 3] - 1)
        return z

    def _main(self, field: int) -> Any:
        weights = self._random("main", field).normal(size=(2, self.sizes[field] + 3))
        return lambda slots: weights[:, slots[:, field]]

    def _pair(self, i: int, j: int) -> Any:
        draw = self._random("pair", i, j)
        left, right = (draw.normal(size=(2, self.sizes[f] + 3, RANK)) for f in (i, j))
        return lambda slots: np.stack([
            np.einsum("rk,rk->r", a[slots[:, i]], b[slots[:, j]]) for a, b in zip(left, right, strict=True)
        ])  # fmt: skip

    @cached_property
    def label(self) -> npt.NDArray[np.float32]:
        drawn = self._random("label").random(len(self.slots)) < self.probability
        return drawn.astype(np.float32)

    @cached_property
    def roles(self) -> dict[str, Any]:
        """Numbers of the rows of each role."""
        valid = int(self.rows * (1 - SHARE_VALID))
        train = np.arange(valid)
        if self.negative_rate is not None:
            kept = self._random("negatives").random(valid) < self.negative_rate
            train = train[kept | (self.label[:valid] == 1)]
        train = self._random("order").permutation(train)  # files of a snapshot hold their rows in no order
        return {"train": train, "valid": np.arange(valid, self.rows), "test": np.arange(self.rows, len(self.slots))}

    def excess(self, logits: npt.NDArray[np.float32]) -> float:
        """Mean divergence from the truth of the test rows' logits: their expected logloss over the best possible."""
        p, z = self.probability[self.rows :], logits.astype(np.float64)
        best = -(p * np.log(p) + (1 - p) * np.log1p(-p))
        return float((np.logaddexp(0, z) - p * z - best).mean())

    def publish(self, directory: Path) -> str:
        """A snapshot of all roles, written as feature jobs write theirs; its directory."""
        configs = [HashField(kind="hash", name=f"f{i}", buckets=size) for i, size in enumerate(self.sizes)]
        spec = FeatureSpec.assemble(configs, {config.name: config.fit(None) for config in configs})
        schema, files = snapshot_schema(spec.slot_names, has_weight=False), []
        with Attempt(str(directory)) as attempt:
            spec.save(attempt.data_dir)
            for role, rows in self.roles.items():
                for at in range(0, len(rows), FILE_ROWS):
                    of = rows[at : at + FILE_ROWS]
                    slots = np.asfortranarray(self.slots[of])
                    entry = write_rows(attempt.data_dir, 0, f"{role}{at:09d}", schema, slots, self.label[of], None)
                    files.append(entry.model_copy(update={"role": role}))
            manifest = Manifest(
                id="all", spec_digest=spec.digest, source_fingerprint=ZEROS, request=ZEROS, data=attempt.data,
                slot_names=spec.slot_names, has_weight=False, files=files, quarantined={}, filtered=0,
                dropped_negatives=0, negative_rate=self.negative_rate, fields={},
                digest=snapshot_digest(spec.digest, [file.identity for file in files]),
            )  # fmt: skip
            attempt.publish(manifest, replace=True)
        return str(directory)

    def _random(self, *what: Any) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.number, *hashlib.sha256(repr(what).encode()).digest()])


def planted_log(number: int, seed: int = 1) -> Log:
    """Log ``number``: of the first ``LOGS``, or of another square of as many."""
    square, place = divmod(number, LOGS)

    def level(what: str) -> float:
        """In [0, 1], another for every log of a square; each half of the logs has its share of all levels."""
        draw = np.random.default_rng([seed + square, *hashlib.sha256(what.encode()).digest()])
        halves = [draw.permutation(LOGS // 2) for _ in range(2)]
        return float(2 * halves[place % 2][place // 2] + draw.integers(0, 2, LOGS)[place]) / (LOGS - 1)

    def between(what: str, low: float, high: float) -> float:
        return float(np.exp(np.log(low) + level(what) * np.log(high / low)))

    rate = between("rate", 0.002, 0.5)
    rows = int(between("rows", 20_000, 2_000_000))
    own = level("own")
    return Log(
        number, seed,
        rows=rows,
        fields=round(between("fields", 5, 40)),
        values=int(min(between("values", 30, 15_000), rows / 20)),
        tail=0.4 + level("tail"),
        rate=rate,
        main=between("main", 0.3, 2.0),
        pairs=between("pair effects", 0.15, 2.0),
        own=3 * (own - 0.6) / 0.4 + 1 if own > 0.6 else 0.0,
        noise=max(0.0, 0.3 * (level("noise") - 0.4)),
        drift=max(0.0, 0.6 * (level("drift") - 0.5)),
        negative_rate=0.1 if rate < 0.1 and level("negatives") > 0.5 else None,
    )  # fmt: skip


def _zipf(size: int, exponent: float, count: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
    """Values below ``size``, the first the most frequent."""
    shares = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -exponent)
    return np.minimum(np.searchsorted(shares, draw.random(count) * shares[-1]), size - 1)


def _sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))
