"""The whole job on a shop whose truth is known: log, features, four models, registry, ranked catalog, table."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fieldwise.features.snapshot.manifest import load_snapshot, snapshot_dir
from fieldwise.features.terminal import hushed, say
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.schema import Config, resolve
from fieldwise.pipelines.decision import decide, record_decision, record_first_champion
from fieldwise.pipelines.demo.shop import Shop, generate
from fieldwise.pipelines.engine import open_engine
from fieldwise.pipelines.registry import registry
from fieldwise.pipelines.train.card import Told
from fieldwise.pipelines.train.compare import SideBySide, measure
from fieldwise.pipelines.train.family import train_best
from fieldwise.pipelines.train.measured import TABLE
from fieldwise.training.data.splits import TrainData
from fieldwise.training.models import kind_of
from fieldwise.training.network.bundle import load_bundle

ROWS = 350_000
DAYS = 7


def demo(
    config: Config, *, models: list[str], rows: int | None = None, seed: int = 42, ranks: int = 1
) -> dict[str, Any]:
    """Run everything and return (and show) the table.

    Args:
        models: kinds to train, one after the other.
        ranks: processes that train one model; 1: this one, with a thread per core.
        rows: of the log, all days together.

    Every model's ``excess`` is its test logloss less that of the true probabilities; ``differences`` are those of
    ``pipelines.train.compare``.
    """
    started = time.perf_counter()
    for kind in models:
        kind_of(kind)  # refuses unknown kinds before any work
    shop = Shop(rows or ROWS, seed)
    day = str(shop.day(DAYS - 1))
    data = resolve(os.path.dirname(os.path.dirname(config.source.path[0])), config.base)
    engine = open_engine(config, "demo", [])
    with _stage(f"log of {shop.rows:,} rows over {DAYS} days"):
        truth = generate(engine, shop, data)[-1]["truth_logloss"]
    with _stage("features"), hushed():
        snapshot = build_features(config, replace=True)
    say(f"  {sum(snapshot['rows'].values()):,} rows encoded; data report: {snapshot['report']}")
    results = {}
    for kind in models:
        with _stage(kind if ranks == 1 else f"{kind} on {ranks} ranks"), hushed():
            begun = time.perf_counter()
            trained = train_best(config.of_kind(kind), ranks, register=False)
            assert trained is not None  # only ranks of others return nothing
            results[kind] = trained
            results[kind]["wall"] = time.perf_counter() - begun
        epochs, test = results[kind]["epochs"], results[kind]["metrics"]["test"]["logloss"]
        say(f"  {epochs} epochs, test logloss {test:.5f}; report: {results[kind]['report']}")
    with _stage("comparison"):
        split = TrainData.of_one(load_snapshot(snapshot_dir(config.workspace_dir, "all"))).test
        found = measure({kind: load_bundle(result["bundle"]) for kind, result in results.items()}, split, config)
    best = min(results, key=lambda kind: results[kind]["metrics"]["valid"]["logloss"])
    with _stage(f"registry and catalog of {day} with {best}"):
        registered = _lead(config, results[best])
        catalog = score_catalog(config, date=day)
    table = [_row(kind, result, found, truth) for kind, result in results.items()]
    excess = {row["model"]: f"{row['excess']:.5f}" for row in table}
    seconds = {row["model"]: f"{row['seconds']:.1f}" for row in table}
    say("", *found.table(more={"excess": excess, "seconds": seconds}), f"truth  {truth:.5f}", "", *found.lines())
    return {
        "rows": shop.rows, "snapshot": snapshot["digest"], "truth_logloss": truth, "models": table,
        "differences": found.told(), "best": best, "registered": registered, "catalog": catalog,
        "seconds": round(time.perf_counter() - started, 1),
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


def _row(kind: str, result: dict[str, Any], found: SideBySide, truth: float) -> dict[str, Any]:
    test = found.evaluations[kind].values
    shown = {name: float(test[name]) for metric in TABLE for name in (metric, f"{metric}_se")}
    return {"model": kind, **shown, "excess": shown["logloss"] - truth, "seconds": round(result["wall"], 1)}
