"""How often does the gate promote what it should not? Models of known worth on a planted log, days of any size.

    python benchmarks/gate_errors.py --rows 100000 --resamples 20000

Labels are drawn from planted logits of users and items with heavy tails. Champion and challenger are the truth with
errors; a challenger's is so large that on the whole log it is worse by ``--errors`` standard errors, or equal.
``noise``: both err at random; ``tails``: the challenger errs more rarely and more; ``lower`` and ``higher``: it
predicts less, or more, of everything; ``sharper``: it exaggerates. Days are rows drawn with replacement, and for
``users`` whole users, whose tastes neither model knows and both guess. ``looks``: one challenger, pooled over days of
200 rows and looked at on each of 30. ``rare``, only when asked for: it is better on 997 of 1,000 rows and far off on
three, which many days hold none of.
Figures are shares of days that promote, with the gate's defaults; for better challengers, by relative gain, its power.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose scripts would hide packages

from benchmarks.record import record  # noqa: E402
from fieldwise.features.arrays import Float32, Float64  # noqa: E402
from fieldwise.pipelines.config.gate import GateConfig  # noqa: E402
from fieldwise.pipelines.cycle.gate import decide  # noqa: E402
from fieldwise.training.evaluation.paired import BLOCKS, Comparison, Sums, interval  # noqa: E402

Ints = npt.NDArray[np.integer]

GATE, KINDS = GateConfig(), ("worse", "equal")
SIZES = (10, 20, 50, 100, 200, 500, 1000, 5000)
FAMILIES = ("noise", "tails", "lower", "higher", "sharper", "users")
PER_USER = 10
DAYS, DAY_ROWS = 30, 200
"""Of looks."""
_CELLS = 4_000_000
"""Of an array."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="of the log")
    parser.add_argument("--resamples", type=int, default=20_000, help="days of each size")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 0.15, 0.03], help="of clicks, about")
    parser.add_argument("--errors", type=float, default=5.0, help="standard errors that worse challengers are worse by")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=[*FAMILIES, "rare"])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Log:
    """Rows in order of their users, ``PER_USER`` each."""

    def __init__(self, rows: int, rate: float, rng: np.random.Generator) -> None:
        self.users = rows // PER_USER
        rows = self.users * PER_USER
        user, item = np.repeat(np.arange(self.users), PER_USER), rng.integers(0, 500, rows)
        own = 0.7 * rng.standard_t(4, self.users)[user]
        self.truth: Float64 = np.log(rate / (1 - rate)) + own + 0.7 * rng.standard_t(4, 500)[item]
        self.label = (rng.random(rows) < 1 / (1 + np.exp(-self.truth))).astype(np.float64)
        self.noise = 0.3 * rng.normal(size=rows)
        self.other, self.tail = rng.normal(size=rows), rng.standard_t(3, rows)
        self.champion = self.truth + self.noise
        guesses = rng.normal(size=(2, self.users))[:, user]
        self.guess: Float64 = self.truth - own + 0.5 * guesses[0]
        self.guesses: Float64 = guesses[1]
        self.blind: Float64 = self.truth - own
        self.rare = np.random.default_rng(rows).random(rows) < 0.003

    def loss(self, logit: Float64) -> Float64:
        return np.logaddexp(0, logit) - self.label * logit

    def families(self) -> dict[str, Callable[[float], Float64]]:
        """Logits by the size of the error."""
        return {
            "noise": lambda s: self.truth + s * self.other,
            "tails": lambda s: self.truth + s * self.tail,
            "lower": lambda s: self.truth - s,
            "higher": lambda s: self.truth + s,
            "sharper": lambda s: self.truth * (1 + s),
            "rare": lambda s: self.truth + self.noise / 2 + 8 * s * self.rare,
            "users": lambda s: self.blind + s * self.guesses,
        }

    def worse_by(self, errors: float, family: str) -> Pair:
        """With the challenger that is worse by so many standard errors of the whole log."""
        clustered, made = family == "users", self.families()[family]
        champion = self.guess if clustered else self.champion
        before = self.loss(champion)

        def gap(size: float) -> float:
            worse = self.loss(made(size)) - before
            spread = worse.reshape(-1, PER_USER).mean(1) if clustered else worse
            return float(worse.mean() - errors * spread.std() / np.sqrt(len(spread)))

        return Pair(self, champion, made(_root(gap, 0.0, 4.0)))

    def better_by(self, gain: float) -> Pair:
        """With a challenger that is better by a relative ``gain``: less of the champion's error."""
        wanted = self.loss(self.champion).mean() * (1 - gain)
        size = _root(lambda s: float(self.loss(self.truth + s * self.noise).mean() - wanted), 0.0, 1.0)
        return Pair(self, self.champion, self.truth + size * self.noise)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return high


class Pair:
    """Champion and challenger on a log; days of it."""

    def __init__(self, log: Log, champion: Float64, challenger: Float64) -> None:
        self.log, self.logits = log, (champion, challenger)
        self.worse = (log.loss(challenger) - log.loss(champion)).astype(np.float32)

    def promoted(self, drawn: Ints, *, group: bool = False) -> int:
        """Days [days, rows] that promote; with ``group`` by users, who have ``PER_USER`` rows in turn.

        Nothing is promoted without a gain beyond the interval, which is looked at for all days at once; the gate itself
        decides of what is left.
        """
        worse = self.worse[drawn]
        block: Ints = np.broadcast_to(np.arange(drawn.shape[1]) % BLOCKS, drawn.shape)
        if group:
            block = drawn // PER_USER % BLOCKS
            by_user, cells = worse.reshape(len(drawn), -1, PER_USER).sum(2), block[:, ::PER_USER]
            gap = _by_block(by_user, cells)
            weight = _by_block(np.full(cells.shape, float(PER_USER)), cells)
        else:
            gap, weight = _in_turn(worse), _in_turn(np.ones((1, drawn.shape[1]), np.float32))
        able = np.flatnonzero(_ends(gap, weight) < 0)
        return sum(self.decided(drawn[day], block[day]) for day in able)

    def decided(self, rows: Ints, block: Ints) -> bool:
        y, pairs = self.log.label[rows], np.ones((BLOCKS + 1, 2))
        if min(y.sum(), len(y) - y.sum()) < GATE.min_positives:
            return False  # as it would say; many small days end here
        sums = []
        for logit in self.logits:
            z = logit[rows]
            columns = (np.ones(len(y)), y, np.ones(len(y)), y, np.logaddexp(0, z) - y * z, 1 / (1 + np.exp(-z)))
            sums.append(Sums(np.stack([np.bincount(block, c, BLOCKS) for c in columns], axis=1), pairs))
        comparison = Comparison(*sums)
        return decide(comparison, comparison, GATE).decision == "promote"


def _in_turn(values: Float32, start: int = 0) -> Float64:
    """[days, rows] -> [days, BLOCKS], rows in turn."""
    days, rows = values.shape
    whole = np.zeros((days, -(-rows // BLOCKS) * BLOCKS), np.float32)
    whole[:, :rows] = values
    found: Float64 = whole.reshape(days, -1, BLOCKS).sum(1, dtype=np.float64)
    return np.roll(found, start, axis=1)


def _by_block(values: Float32 | Float64, block: Ints) -> Float64:
    """[days, cells] -> [days, BLOCKS]"""
    cells = np.arange(len(values))[:, None] * BLOCKS + block
    return np.bincount(cells.ravel(), values.ravel(), len(values) * BLOCKS).astype(np.float64).reshape(-1, BLOCKS)


def _ends(gap: Float64, weight: Float64) -> Float64:
    """Upper end of the difference of logloss by day."""
    total, whole = weight.sum(1), gap.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (whole[:, None] - gap) / (total[:, None] - weight)
    found: Float64 = interval(whole / total, without, weight, GATE.confidence).high
    return found


def share(
    pair: Pair, rows: int, days: int, rng: np.random.Generator, *, users: bool = False, group: bool = False
) -> float:
    """Of days that promote."""
    found, most, log = 0, max(1, _CELLS // max(rows, BLOCKS)), pair.log
    for first in range(0, days, most):
        count = min(days - first, most)
        if users:
            who = rng.integers(0, log.users, (count, max(1, rows // PER_USER), 1), np.int32)
            drawn = (who * PER_USER + np.arange(PER_USER, dtype=np.int32)).reshape(count, -1)
        else:
            drawn = rng.integers(0, len(log.label), (count, rows), np.int32)
        found += pair.promoted(drawn, group=group)
    return found / days


def looks(pair: Pair, resamples: int, rng: np.random.Generator) -> float:
    """Share of challengers that any of ``DAYS`` days promotes, by all rows until then."""
    found, most = 0, _CELLS // DAY_ROWS // 4
    for first in range(0, resamples, most):
        count = min(most, resamples - first)
        gap, weight = np.zeros((count, BLOCKS)), np.zeros((1, BLOCKS))
        rarer, any_day = np.zeros(count), np.zeros(count, np.bool_)
        for day in range(DAYS):
            drawn = rng.integers(0, len(pair.worse), (count, DAY_ROWS), np.int32)
            gap += _in_turn(pair.worse[drawn], 37 * day)
            weight += _in_turn(np.ones((1, DAY_ROWS), np.float32), 37 * day)
            rarer += pair.log.label[drawn].sum(1)
            enough = np.minimum(rarer, (day + 1) * DAY_ROWS - rarer) >= GATE.min_positives
            any_day |= (_ends(gap, weight) < 0) & enough
        found += int(any_day.sum())
    return found / resamples


def measure(options: argparse.Namespace, rate: float, rng: np.random.Generator) -> dict[str, Any]:
    log, days = Log(options.rows, rate, rng), options.resamples
    found: dict[str, Any] = {"rate": round(float(log.label.mean()), 4), "worse": {}, "equal": {}, "better": {}}
    for kind, errors in zip(KINDS, (options.errors, 0.0), strict=True):
        for family in options.families:
            users, pair = family == "users", log.worse_by(errors, family)
            shares = {n: share(pair, n, days, rng, users=users, group=users) for n in SIZES}
            found[kind][family] = shares
            if users:
                ungrouped = {n: share(pair, n, days // 2, rng, users=True) for n in SIZES}
                found.setdefault("users without group", {})[kind] = ungrouped
            if family == "noise":
                found.setdefault("looks", {})[kind] = looks(pair, days // 2, rng)
            print(rate, kind, family, shares, file=sys.stderr, flush=True)
    for gain in (0.001, 0.002, 0.005, 0.01) if "noise" in options.families else ():
        if log.loss(log.truth).mean() < log.loss(log.champion).mean() * (1 - gain):  # the truth itself gains more
            pair = log.better_by(gain)
            found["better"][f"{gain:.1%}"] = {n: share(pair, n, max(1, days // 20), rng) for n in (*SIZES[5:], 20_000)}
    print(
        rate,
        {key: found[key] for key in ("better", "looks", "users without group") if key in found},
        file=sys.stderr,
        flush=True,
    )
    return found


def main() -> None:
    options = parse()
    rng = np.random.default_rng(options.seed)
    logs = [measure(options, rate, rng) for rate in options.rates]
    most = {kind: max(s for log in logs for row in log[kind].values() for s in row.values()) for kind in KINDS}
    figures = {"gate": GATE.model_dump(mode="json"), "logs": logs, "most": most}
    name = "gate_errors_rare" if "rare" in options.families else "gate_errors"
    record(name, figures | {key: getattr(options, key) for key in ("resamples", "rows", "errors")})


if __name__ == "__main__":
    main()
