"""The whole job on a shop whose truth is known: log, features, four models, registry, ranked catalog, table."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fieldwise.features.arrays import Float64
from fieldwise.features.snapshot.manifest import load_snapshot, snapshot_dir
from fieldwise.features.spark.session import spark_session
from fieldwise.features.terminal import hushed, say
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.schema import Config, resolve
from fieldwise.pipelines.decision import decide, record_decision, record_first_champion
from fieldwise.pipelines.demo.shop import Shop, generate
from fieldwise.pipelines.registry import registry
from fieldwise.pipelines.train.card import Told
from fieldwise.pipelines.train.launch import train_ranks
from fieldwise.pipelines.train.measured import NAMES, TABLE, with_error
from fieldwise.training.data.cache import Seen
from fieldwise.training.data.plan import Plan
from fieldwise.training.data.reader import PlanReader
from fieldwise.training.data.splits import TrainData
from fieldwise.training.models import model_of
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.network.calibration import measured_logits
from fieldwise.training.network.network import Network

ROWS = 350_000
DAYS = 7
RESAMPLES = 200


def demo(
    config: Config, *, models: list[str], rows: int | None = None, seed: int = 42, ranks: int = 2
) -> dict[str, Any]:
    """Run everything and return (and show) the table.

    Args:
        models: kinds to train, each in ``ranks`` processes.
        rows: of the log, all days together.

    Every model's ``excess`` is its test logloss less that of the true probabilities; ``gaps`` are differences of test
    logloss between models, with the standard error of a paired bootstrap over rows.
    """
    started = time.perf_counter()
    for kind in models:
        model_of(kind)  # refuses unknown kinds before any work
    shop = Shop(rows or ROWS, seed)
    day = str(shop.day(DAYS - 1))
    data = resolve(os.path.dirname(os.path.dirname(config.source.path[0])), config.base)
    spark = spark_session("fieldwise-demo")
    with _stage(f"log of {shop.rows:,} rows over {DAYS} days"):
        truth = generate(spark, shop, data)[-1]["truth_logloss"]
    with _stage("features"), hushed():
        snapshot = build_features(config, replace=True)
    say(f"  {sum(snapshot['rows'].values()):,} rows encoded; data report: {snapshot['report']}")
    results = {}
    for kind in models:
        with _stage(f"{kind} on {ranks} ranks"), hushed():
            begun = time.perf_counter()
            results[kind] = train_ranks(config, ranks, overrides=[f"model.kind={kind}"], register=False)
            results[kind]["wall"] = time.perf_counter() - begun
        epochs, test = results[kind]["epochs"], results[kind]["metrics"]["test"]["logloss"]
        say(f"  {epochs} epochs, test logloss {test:.5f}; report: {results[kind]['report']}")
    losses = {kind: losses_of(config, result["bundle"]) for kind, result in results.items()}
    best = min(results, key=lambda kind: results[kind]["metrics"]["valid"]["logloss"])
    with _stage(f"registry and catalog of {day} with {best}"):
        registered = _lead(config, results[best])
        catalog = score_catalog(config, date=day)
    table = [_row(kind, result, float(losses[kind].mean()) - truth) for kind, result in results.items()]
    gaps = {f"{a}-{b}": _gap(losses[a] - losses[b], seed) for a in models for b in models if a != b}
    gaps = {pair: gap for pair, gap in gaps.items() if gap["mean"] > 0}
    _show(table, truth, gaps)
    return {
        "rows": shop.rows, "snapshot": snapshot["digest"], "truth_logloss": truth, "models": table, "gaps": gaps,
        "best": best, "registered": registered, "catalog": catalog, "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def _lead(config: Config, result: dict[str, Any]) -> dict[str, Any]:
    """Register a model and make it the champion."""
    model, metrics = registry(config), result["metrics"]["test"]
    former = model.version_of("champion")
    told = Told(result)
    registered = model.register(result["model_uri"], tags=told.tags, description=told.description)
    version = registered["version"]
    if former is None:
        record_first_champion(config, version, metrics)
    elif former != version:
        why = "the best of the demo's models"
        decision = decide(
            config, "promoted", champion=former, challenger=version, metrics={"challenger": metrics}, reason=why
        )
        model.promote(version, expected=former, anew=True, tags=decision.tags)
        record_decision(config, decision)
    return registered


@contextmanager
def _stage(name: str) -> Iterator[None]:
    started = time.perf_counter()
    say(f"{name} ...")
    yield
    say(f"{name}: {time.perf_counter() - started:.1f} s")


def losses_of(config: Config, bundle_dir: str) -> Float64:
    """Logloss of every test row, in the snapshot's order."""
    bundle = load_bundle(bundle_dir)
    network = Network.from_bundle(bundle)
    split = TrainData.of_one(load_snapshot(snapshot_dir(config.workspace_dir, "all"))).test
    plan = Plan([file.rows for file in split.files], batch_size=16384, streams=1, shuffle=False)
    losses = []
    reader = PlanReader(split.files, plan, [0], bundle.spec.slot_names)
    with network.passes([[reader]], Seen(reader=config.training.reader)) as steps:
        for batch, compact in steps:
            logits = network.score(compact)
            z = measured_logits(logits, bundle.logit_shift, bundle.calibrator, downsampled=False).astype(np.float64)
            losses.append(np.logaddexp(0.0, z) - batch.label * z)
    return np.concatenate(losses)


def _gap(difference: Float64, seed: int) -> dict[str, float]:
    """Mean and bootstrap standard error of paired differences."""
    draw = np.random.default_rng(seed)
    n = len(difference)
    means = [difference[draw.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
    return {"mean": float(difference.mean()), "se": float(np.std(means))}


def _row(kind: str, result: dict[str, Any], excess: float) -> dict[str, Any]:
    test = result["metrics"]["test"]
    shown = {name: test[name] for metric in TABLE for name in (metric, f"{metric}_se")}
    return {"model": kind, **shown, "excess": excess, "seconds": round(result["wall"], 1)}


def _show(table: list[dict[str, Any]], truth: float, gaps: dict[str, dict[str, float]]) -> None:
    say("", f"{'model':6}" + "".join(f"  {NAMES[metric]:<18}" for metric in TABLE) + f"{'excess':>9}{'seconds':>9}")
    for row in table:
        measured = "".join(f"  {with_error(row, metric):<18}" for metric in TABLE)
        say(f"{row['model']:6}{measured}{row['excess']:9.5f}{row['seconds']:9.1f}")
    say(f"{'truth':6}  {truth:.5f}", "")
    for pair, gap in gaps.items():
        say(f"{pair:12}{gap['mean']:+.5f} +- {gap['se']:.5f}")
