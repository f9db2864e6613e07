"""Paired differences: against textbook formulas, DeLong, and what they promise of small and clustered samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from fieldwise.features.errors import ConfigError, DivergedError
from fieldwise.features.snapshot.manifest import Snapshot
from fieldwise.training.data.splits import Split, TrainData
from fieldwise.training.evaluation.evaluate import evaluate
from fieldwise.training.evaluation.paired import BLOCKS, METRICS, Comparison, Sums, _student, interval, score_blocks
from fieldwise.training.models import settings_of
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World
from tests.snapshots import hash_spec, write_snapshot

SPEC = hash_spec((60, 12, 5), (1, 1, 2))


def bundle(seed: int, shift: float = 0.0, kind: str = "fm") -> Bundle:
    settings = settings_of(kind, dim=2, pair_buckets=64 if kind == "poly2" else 0, own={})
    network, rng = Network(SPEC, settings), np.random.default_rng(seed)
    weight = rng.normal(0, 0.4, tuple(network.table.weight.shape)).astype(np.float32)
    return Bundle(network.settings, SPEC, weight, network.dense(), shift)


MODELS = {"champion": bundle(1), "challenger": bundle(2, 0.1)}


def split_of(where: Path, files: Sequence[int] = (700, 300), weighted: bool = False, seed: int = 0) -> Split:
    snapshot: Snapshot = write_snapshot(where, SPEC, {"test": files}, weighted=weighted, seed=seed)
    return TrainData.of_one(snapshot).test


def compared(split: Split, **options: object) -> Comparison:
    return Comparison(*score_blocks(split, MODELS, **options).values())  # type: ignore[arg-type]


@pytest.mark.parametrize("weighted", [False, True])
def test_values_are_those_of_evaluate(tmp_path: Path, weighted: bool) -> None:
    split = split_of(tmp_path / "day", weighted=weighted)
    comparison = compared(split)
    assert (comparison.rows, comparison.positives) == (1000, split.positives)
    for name in METRICS:
        alone = [
            evaluate(Network.from_bundle(b), split, World(), logit_shift=b.logit_shift).values[name]
            for b in MODELS.values()
        ]
        assert comparison.values(name) == pytest.approx(alone, abs=2e-4 if name == "auc" else 1e-9), name


def test_any_kind_in_one_pass(tmp_path: Path) -> None:
    split = split_of(tmp_path / "day")
    models = {kind: bundle(3, kind=kind) for kind in ("poly2", "lr", "ffm")}
    together = score_blocks(split, models)
    for kind, model in models.items():
        np.testing.assert_array_equal(together[kind].table, score_blocks(split, {kind: model})[kind].table)


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' logits and labels."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1, 1, rows)
    noise = rng.normal(0, 0.6, (2, rows))
    return truth + noise[0], truth + noise[1], (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(float)


def table_of(z: np.ndarray, y: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
    one, loss, p = np.ones(len(y)), np.logaddexp(0, z) - y * z, 1 / (1 + np.exp(-z))
    block = np.arange(len(y)) if block is None else block
    return np.stack([np.bincount(block, c) for c in (one, y, one, y, loss, p)], axis=1)


def test_of_single_rows_it_is_the_paired_t_interval_widened_by_skewness() -> None:
    a, b, y = drawn(200, 1)
    gap = Comparison(*(Sums(table_of(z, y), np.ones((201, 2))) for z in (a, b))).difference("logloss", 0.975)
    d = table_of(b, y)[:, 4] - table_of(a, y)[:, 4]
    assert gap.value == pytest.approx(d.mean())
    error = d.std(ddof=1) / np.sqrt(200)
    reach = sorted([(gap.value - gap.low) / error, (gap.high - gap.value) / error])
    assert reach[0] == pytest.approx(1.97196, rel=1e-4)  # Student's quantile of 199
    skew = abs(((d - d.mean()) ** 3).sum() / ((d - d.mean()) ** 2).sum() ** 1.5)
    h = -reach[1]  # Hall's transform of that end is the quantile again
    assert -(h + skew * (h * h / 3 + 1 / 6) + skew**2 * h**3 / 27) == pytest.approx(1.97196, rel=1e-4)


def test_auc_interval_is_paired_delongs(tmp_path: Path) -> None:
    split = split_of(tmp_path / "day", [240])
    z, y = logits_of(split)
    aucs, gap = [roc_auc_score(y, each) for each in z], compared(split).difference("auc", 0.9)
    assert gap.value == pytest.approx(aucs[1] - aucs[0], abs=1e-9)
    placed = [(each[y == 1][:, None] > each[y == 0]) + 0.5 * (each[y == 1][:, None] == each[y == 0]) for each in z]
    over = placed[1] - placed[0]
    variance = over.mean(1).var(ddof=1) / (y == 1).sum() + over.mean(0).var(ddof=1) / (y == 0).sum()
    assert (gap.high - gap.low) / 2 / 1.2851 == pytest.approx(np.sqrt(variance), rel=0.02)


def logits_of(split: Split) -> tuple[list[np.ndarray], np.ndarray]:
    table = pq.read_table(split.files[0].path)
    slots = np.stack([table[name].to_numpy() for name in SPEC.slot_names], axis=1)
    found = [Network.from_bundle(b).logits(slots) + np.float32(b.logit_shift) for b in MODELS.values()]
    return found, table["label"].to_numpy()


def test_entropy_and_calibration_by_brute_force() -> None:
    a, b, y = drawn(60, 5)
    comparison = Comparison(*(Sums(table_of(z, y), np.ones((61, 2))) for z in (a, b)))

    def differences(rows: np.ndarray) -> tuple[float, float]:
        base = log_loss(y[rows], np.full(len(rows), y[rows].mean()))
        p, q = (1 / (1 + np.exp(-z[rows])) for z in (a, b))
        entropy = (log_loss(y[rows], q) - log_loss(y[rows], p)) / base
        return entropy, (q.sum() - p.sum()) / y[rows].sum()

    whole = differences(np.arange(60))
    without = np.array([differences(np.delete(np.arange(60), i)) for i in range(60)]).T
    for name, value, left in zip(("normalized_entropy", "calibration"), whole, without, strict=True):
        by_hand = interval(np.array(value), left, np.ones(60), 0.99)
        found = comparison.difference(name, 0.99)
        assert [found.value, found.low, found.high] == pytest.approx([value, by_hand.low, by_hand.high], rel=1e-6)


def test_groups_stay_together_and_widen_the_interval(tmp_path: Path) -> None:
    split = split_of(tmp_path / "day")
    rows, grouped = compared(split), compared(split, group="f1")
    assert rows.groups == pytest.approx(BLOCKS, rel=0.03)
    assert 2 < grouped.groups < 14  # local indices of f1, long-tailed
    assert (grouped.champion.table[:, 0] > 0).sum() <= 15
    narrow, wide = (each.difference("logloss", 0.99) for each in (rows, grouped))
    assert narrow.value == pytest.approx(wide.value)
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_clustered_rows_need_their_group() -> None:
    """Users who like one model or the other: of equal models, how often is one better beyond the interval?"""
    rng, user = np.random.default_rng(4), np.repeat(np.arange(40), 25)
    d = rng.normal(0, 1, (2000, 40))[:, user] * 0.3 + rng.normal(0, 1, (2000, 1000))
    found = []
    for blocks in (user, np.arange(1000) % BLOCKS):
        sums = np.stack([np.bincount(blocks, each) for each in d]), np.bincount(blocks).astype(float)
        without = (sums[0].sum(1)[:, None] - sums[0]) / (1000 - sums[1])
        found.append((interval(d.mean(1), without, np.broadcast_to(sums[1], sums[0].shape), 0.99).high < 0).mean())
    assert found[0] < 0.016  # 1 % is promised; the standard error of 2,000 is 0.2 %
    assert found[1] > 0.05


def test_rare_clicks_do_not_fool_it() -> None:
    """A model that predicts less of everything, equal in the mean: gains of most rows, losses of few."""
    rng = np.random.default_rng(6)
    d = np.where(rng.random((20_000, 400)) < 0.05, 0.95, -0.05)  # challenger less champion
    without = (d.sum(1)[:, None] - d) / 399
    found = interval(d.mean(1), without, np.ones_like(d), 0.999)
    assert (found.high < 0).mean() < 0.001
    t = -d.mean(1) / (d.std(1, ddof=1) / np.sqrt(400))
    assert (t > 3.111).mean() > 0.005  # the t interval of the same confidence


def test_students_quantile() -> None:
    for freedom, expected in ((9, 4.7809), (30, 3.6460), (255, 3.3317)):
        assert _student(0.9995, freedom) == pytest.approx(expected, rel=1e-3)


def test_days_add_up_and_are_kept_as_json(tmp_path: Path) -> None:
    days = [compared(split_of(tmp_path / str(n), [400], seed=n), slices=["f1"]) for n in range(2)]
    pooled = days[0] + days[1]
    assert pooled.rows == 800
    assert sum(table[:, 0].sum() for table in pooled.champion.slices.values()) == 800
    a, b = (day.values("auc")[1] for day in days)
    pairs = [day.positives * (day.rows - day.positives) for day in days]
    assert pooled.values("auc")[1] == pytest.approx(np.average([a, b], weights=pairs))
    kept = Sums.from_plain(json.loads(json.dumps(pooled.champion.plain())))
    assert Comparison(kept, pooled.challenger).difference("auc", 0.99) == pooled.difference("auc", 0.99)
    narrow, wide = (each.difference("logloss", 0.99) for each in (pooled, days[0]))
    assert narrow.high - narrow.low < wide.high - wide.low


def test_slices_come_worst_first_with_their_own_rows(tmp_path: Path) -> None:
    split = split_of(tmp_path / "day", [2000])
    found = compared(split, slices=["f1"]).slices(0.99, min_rows=100, min_positives=20)
    assert len(found) > 3
    relative = [gap.value / before for _, before, gap in found]
    assert relative == sorted(relative, reverse=True)
    name, before, gap = found[0]
    z, y = logits_of(split)
    assert np.isfinite(gap.low)
    assert (compared(split, slices=["f1"]).champion.slices[name][:, 0] > 0).sum() > 20  # of 32 blocks
    (local,) = (i for i in range(15) if f"f1 = {SPEC.value_of('f1', i)}" == name)
    rows = pq.read_table(split.files[0].path)["slot_0001"].to_numpy() == local
    losses = [log_loss(y[rows], 1 / (1 + np.exp(-each[rows].astype(float)))) for each in z]
    assert (before, gap.value) == pytest.approx((losses[0], losses[1] - losses[0]), rel=1e-5)


def test_equal_models_differ_by_nothing_and_one_block_says_nothing(tmp_path: Path) -> None:
    split = split_of(tmp_path / "day")
    sums = score_blocks(split, MODELS)["champion"]
    gap = Comparison(sums, sums).difference("logloss", 0.99)
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    alone = compared(split_of(tmp_path / "one", [1])).difference("logloss", 0.99)
    assert (alone.low, alone.high) == (-np.inf, np.inf)


def test_ties_count_half(tmp_path: Path) -> None:
    flat = replace(MODELS["champion"], weight=np.zeros_like(MODELS["champion"].weight))
    found = score_blocks(split_of(tmp_path / "day"), {"flat": flat, "champion": MODELS["champion"]})
    assert Comparison(found["flat"], found["champion"]).values("auc")[0] == 0.5


def test_what_cannot_serve_is_refused(tmp_path: Path) -> None:
    split = split_of(tmp_path / "day")
    for options, words in (
        ({"group": "f9"}, "gate.group: expected a field of one value, found 'f9'. The fields are f0, f1, f2."),
        ({"group": "f2"}, "gate.group: expected a field of one value, found f2, which holds up to 2 values. "),
        ({"slices": ["f9"]}, "gate.slices: expected a field of one value of at most 1,000 local indices, found 'f9'."),
    ):
        with pytest.raises(ConfigError) as caught:
            score_blocks(split, MODELS, **options)  # type: ignore[arg-type]
        assert str(caught.value).startswith(words)
    broken = replace(MODELS["champion"], weight=np.full_like(MODELS["champion"].weight, 1e38))
    with pytest.raises(DivergedError, match="expected finite logits, found an overflow"):
        score_blocks(split, {"champion": broken})


def test_slots_of_a_wide_field_are_no_slices(tmp_path: Path) -> None:
    spec = hash_spec((1000, 4))
    snapshot = write_snapshot(tmp_path / "wide", spec, {"test": [50]})
    network = Network(spec, settings_of("lr", dim=0, pair_buckets=0, own={}))
    model = Bundle(network.settings, spec, network.table.weight.numpy(), network.dense())
    with pytest.raises(ConfigError, match=r"found f0, which has 1,003\. Slices are for few values: name another"):
        score_blocks(TrainData.of_one(snapshot).test, {"a": model}, slices=["f0"])
