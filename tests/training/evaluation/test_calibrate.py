"""Calibrators against plain loops, what is never reordered, and the way from a training to every probability."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize

from fieldwise.features.errors import InputError
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.splits import TrainData
from fieldwise.training.evaluation import calibrate
from fieldwise.training.evaluation.calibrate import fit_calibrator
from fieldwise.training.evaluation.cuts import Columns
from fieldwise.training.evaluation.evaluate import evaluate
from fieldwise.training.evaluation.metrics import Metrics
from fieldwise.training.evaluation.reliability import Reliability
from fieldwise.training.loop.run import TrainResult, TrainRun
from fieldwise.training.loop.trainer import train
from fieldwise.training.network.bundle import load_bundle, save_bundle
from fieldwise.training.network.calibration import Isotonic, Platt, measured_logits
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World
from fieldwise.training.scoring.scorer import Scorer
from tests.snapshots import hash_spec, planted_logit, write_snapshot

SPEC = hash_spec((12, 10, 5))


def rows(n: int, seed: int = 0, *, weighted: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that say too much (their slope is 2, not 1) and too little of positives, labels, weights."""
    draw = np.random.default_rng(seed)
    z = draw.normal(-1, 2, n).astype(np.float32)
    label = (draw.random(n) < 1 / (1 + np.exp(-(z / 2 + 0.5)))).astype(np.float32)
    weight = draw.choice([0.5, 1.0, 3.0], n).astype(np.float32) if weighted else np.ones(n, np.float32)
    return z, label, weight


def collected(z: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Metrics:
    metrics = Metrics()
    metrics.add(z, label, weight)
    return metrics


def pooled(y: list[float], w: list[float]) -> list[float]:
    """Isotonic regression by its min-max formula: g_i = max over a <= i of min over b >= i of the mean of a .. b."""

    def mean(a: int, b: int) -> float:
        return math.fsum(y[k] * w[k] for k in range(a, b + 1)) / math.fsum(w[a : b + 1])

    n = len(y)
    return [max(min(mean(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [2, 7, 61])
def test_isotonic_equals_the_min_max_formula(n: int, weighted: bool) -> None:
    z, label, weight = rows(n, n, weighted=weighted)
    label[:2] = 0, 1
    order = np.argsort(z)
    y, w = label[order].astype(float), weight[order].astype(float)
    one = weight.mean()  # a positive more at the lowest logit, a negative at the highest
    y[0], w[0] = (y[0] * w[0] + one) / (w[0] + one), w[0] + one
    y[-1], w[-1] = y[-1] * w[-1] / (w[-1] + one), w[-1] + one
    g = fit_calibrator("isotonic", collected(z, label, weight))
    assert g is not None
    found = 1 / (1 + np.exp(-g(z[order].astype(np.float64) * (1 + 1e-12))))
    np.testing.assert_allclose(found, pooled(y.tolist(), w.tolist()), rtol=1e-3)  # bins of logits
    assert found.min() > 0
    assert found.max() < 1
    beyond = g(np.array([-1e3, 1e3]))
    assert beyond.tolist() == [g.calibrated[0], g.calibrated[-1]]  # type: ignore[union-attr]


@pytest.mark.parametrize("weighted", [False, True])
def test_platt_is_the_maximum_of_the_likelihood(weighted: bool) -> None:
    z, label, weight = rows(3001, 1, weighted=weighted)
    g = fit_calibrator("platt", collected(z, label, weight))
    assert isinstance(g, Platt)
    one, positive = float(weight.mean()), float((weight * label).sum())
    negative = float(weight.sum()) - positive
    target = np.where(label == 1, (positive + one) / (positive + 2 * one), one / (negative + 2 * one))

    def loss(of: np.ndarray) -> float:
        logit = of[0] * z.astype(np.float64) + of[1]
        return float((weight * (np.logaddexp(0, logit) - target * logit)).sum())

    slope, intercept = minimize(loss, [1.0, 0.0], tol=1e-12).x
    assert (g.slope, g.intercept) == (pytest.approx(slope, rel=2e-3), pytest.approx(intercept, abs=2e-3))
    assert (g.slope, g.intercept) == (pytest.approx(0.5, abs=0.05), pytest.approx(0.5, abs=0.1))  # as planted


def test_separated_and_turned_round_classes() -> None:
    z = np.array([-2, -1, 1, 2], np.float32)
    apart = fit_calibrator("platt", collected(z, (z > 0).astype(np.float32), np.ones(4, np.float32)))
    assert isinstance(apart, Platt)
    assert apart.slope < 3  # not infinite: Platt's targets
    turned = collected(z, (z < 0).astype(np.float32), np.ones(4, np.float32))
    assert fit_calibrator("platt", turned) is None
    flat = fit_calibrator("isotonic", turned)
    assert isinstance(flat, Isotonic)
    assert flat.calibrated == pytest.approx([0.0] * len(flat.calibrated))


KNOTS = st.lists(st.tuples(st.floats(-50, 50), st.floats(-30, 30)), min_size=1, max_size=8, unique_by=lambda k: k[0])


@given(KNOTS, st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=40), st.floats(-2, 2))
def test_no_calibrator_reorders(knots: list[tuple[float, float]], logits: list[float], shift: float) -> None:
    g = Isotonic(logits=sorted(k[0] for k in knots), calibrated=sorted(k[1] for k in knots))
    ordered = np.sort(np.array(logits, np.float32))
    for calibrator in (g, Platt(slope=0.37, intercept=-1.1)):
        assert (np.diff(measured_logits(ordered, shift, calibrator, downsampled=False)) >= 0).all()


def test_few_knots_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = collected(*rows(5001, 2))
    whole = fit_calibrator("isotonic", metrics)
    monkeypatch.setattr(calibrate, "MOST_KNOTS", 9)
    thin = fit_calibrator("isotonic", metrics)
    assert isinstance(whole, Isotonic)
    assert isinstance(thin, Isotonic)
    assert len(thin.logits) == 9 < len(whole.logits)
    assert (thin.logits[0], thin.logits[-1]) == (whole.logits[0], whole.logits[-1])


def test_knots_out_of_order_are_refused() -> None:
    for x, y in (([0, 1], [1, 0]), ([1, 0], [0, 1]), ([0, 0], [0, 1]), ([0], [0, 1]), ([math.inf], [0])):
        with pytest.raises(ValidationError):
            Isotonic(logits=x, calibrated=y)


def trained(folder: Path, data: TrainData, method: str | None, **changes: object) -> TrainResult:
    config = TrainingConfig(epochs=6, batch_size=256, threads=1, patience=None, l2=0.0, calibration=method)
    return train(TrainRun(data, ModelConfig(kind="fm"), config, str(folder), **changes), World())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    """Few rows to learn from, so that a model which is not held back says too much."""
    files = {"train": [700], "valid": [4000], "test": [4000]}
    return TrainData.of_one(write_snapshot(tmp_path_factory.mktemp("calibrated") / "s", SPEC, files))


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_training_is_calibrated(data: TrainData, tmp_path: Path, method: str) -> None:
    plain, found = trained(tmp_path / "plain", data, None), trained(tmp_path / "b", data, method)
    assert found.bundle_digest != plain.bundle_digest
    for name in ("logloss", "ece"):
        assert found.evaluations["test"].values[name] < plain.evaluations["test"].values[name]
    assert found.evaluations["valid"].values == plain.evaluations["valid"].values, "it was fitted there"
    bundle = load_bundle(tmp_path / "b")
    assert bundle.calibrator is not None
    assert bundle.calibrator.method == method
    assert (load_bundle(tmp_path / "plain").weight == bundle.weight).all()
    network = Network.from_bundle(bundle)
    again = evaluate(network, data.test, World(), logit_shift=bundle.logit_shift, calibrator=bundle.calibrator)
    assert again.values == found.evaluations["test"].values
    other = save_bundle(tmp_path / "other", replace(bundle, calibrator=Platt(slope=1.5, intercept=0.0)))
    assert other not in (found.bundle_digest, plain.bundle_digest), "it is part of the digest"

    # a scorer's probabilities are those that were measured
    scorer, slots = Scorer(bundle), np.ascontiguousarray([[3, 4, 5], [1, 1, 1], [7, 2, 3]], np.int32)
    z = scorer.logits(slots).astype(np.float64) + bundle.logit_shift
    np.testing.assert_allclose(scorer.probabilities(slots), 1 / (1 + np.exp(-bundle.calibrator(z))), rtol=1e-6)
    explained = scorer.explain(slots[0])
    assert (explained.method, explained.calibrated) == (method, bundle.calibrator(z)[0])
    assert explained.probability == scorer.probabilities(slots)[0]

    # without validation rows, a model that goes on from it keeps its calibrator
    alone = replace(data, valid=replace(data.valid, files=[]))
    trained(tmp_path / "next", alone, method, warm_start=bundle)
    assert load_bundle(tmp_path / "next").calibrator == bundle.calibrator
    with pytest.raises(InputError, match="split valid: expected rows of both classes, found no rows"):
        trained(tmp_path / "none", alone, method)


def test_downsampled_rows_are_measured_at_their_own_rate(tmp_path: Path) -> None:
    logit = planted_logit(SPEC)
    files = {"train": [20000], "valid": [6000], "test": [6000]}
    snapshot = write_snapshot(tmp_path / "s", SPEC, files, logit=lambda s: logit(s) - 1.5, negative_rate=0.25)
    found = trained(tmp_path / "b", TrainData.of_one(snapshot), "platt").evaluations
    assert found["test"].values["calibration"] == pytest.approx(1, abs=0.08)
    assert found["train"].values["calibration"] == pytest.approx(1, abs=0.08)


def test_reliability_of_slices(data: TrainData, tmp_path: Path) -> None:
    trained(tmp_path / "b", data, "platt")
    bundle = load_bundle(tmp_path / "b")
    slices, seen = Reliability(Columns(SPEC), ["f2"]), []
    evaluate(
        Network.from_bundle(bundle), data.test, World(), calibrator=bundle.calibrator,
        observers=[slices.add, lambda batch, logits: seen.append((batch, logits))],
    )  # fmt: skip
    slots = np.concatenate([batch.slots for batch, _ in seen])
    label = np.concatenate([batch.label for batch, _ in seen]).astype(float)
    p = 1 / (1 + np.exp(-np.concatenate([logits for _, logits in seen]).astype(float)))
    found = slices.by_slice()
    assert list(found) == [f"f2 = {SPEC.value_of('f2', local)}" for local in np.unique(slots[:, 2])]
    for local in np.unique(slots[:, 2]):
        mine, told = slots[:, 2] == local, found[f"f2 = {SPEC.value_of('f2', local)}"]
        assert sum(told["weight"]) == mine.sum()
        assert told["calibration"] == pytest.approx(p[mine].sum() / label[mine].sum())
        for column, of in (("predicted", p), ("observed", label)):
            assert np.dot(told[column], told["weight"]) == pytest.approx(of[mine].sum())
        assert told["ece"] == pytest.approx(
            np.dot(np.abs(np.subtract(told["predicted"], told["observed"])), told["weight"]) / mine.sum()
        )
        assert told["predicted"] == sorted(told["predicted"])
