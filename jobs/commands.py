"""What each command does, by its name: load the config, call one pipeline. Imports wait until a command needs them."""

from __future__ import annotations

import argparse
import os
import shlex
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fieldwise.features.errors import ConfigError
from fieldwise.features.terminal import say

DEMO = "configs/demo.yaml"
"""The demo's config, which installations bring along."""


def _load(options: argparse.Namespace) -> Any:
    from fieldwise.pipelines.config.load import load_config

    return load_config(options.config, options.overrides)


def _mlflow_beside(wanted: bool = True) -> AbstractContextManager[None]:
    """Where a command reports to MLflow from its own process: its import takes seconds, so it begins at once, in
    another one."""
    from fieldwise.training.tracking.apart import beside

    return beside(wanted)


def look_first(options: argparse.Namespace) -> None:
    """Refuse a config that is not there, or is no YAML, before imports that take seconds."""
    path = getattr(options, "config", None)
    if path and (path != DEMO or os.path.exists(DEMO)):
        from fieldwise.pipelines.config.document import read_document

        read_document(path)


def _here(path: str) -> str:
    """Paths on the command line count from the current directory, those in a config from its own."""
    return path if "://" in path else os.path.abspath(path)


def init(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.init.places import require_places

    log, users, items = (path and _here(path) for path in (o.log, o.users, o.items))
    require_places(os.path.abspath(o.out), *filter(None, (log, users, items)))
    from fieldwise.pipelines.init.init import init

    return init(log, users=users, items=items, label=o.label, out=o.out, context=o.context, item=o.item)


def demo(o: argparse.Namespace) -> dict[str, Any]:
    if o.config == DEMO and not os.path.exists(DEMO):
        os.makedirs(os.path.dirname(DEMO), exist_ok=True)
        with open(DEMO, "xb") as file:
            file.write((files("fieldwise.configs") / os.path.basename(DEMO)).read_bytes())
        say(f"wrote {DEMO}, the demo's pipeline")
    with _mlflow_beside(o.ranks == 1):
        from fieldwise.pipelines.demo.demo import demo

        return demo(_load(o), models=o.models.split(","), rows=o.rows, seed=o.seed, ranks=o.ranks)


def _say_next(o: argparse.Namespace, command: str, *more: str) -> None:
    """What most people do after this command, as they would write it."""
    own = [word for each in o.overrides for word in ("--set", each)]
    say(f"next: {shlex.join(['fieldwise', command, '--config', o.config, *own, *more])}")


def features(o: argparse.Namespace) -> dict[str, Any]:
    if o.refit:
        from fieldwise.pipelines.build.refit import refit_features

        if o.replace or o.against:
            fix = "A refit replaces nothing, and is compared with no rows but its own: leave them out."
            raise ConfigError("--refit", expected="neither --replace nor --against", found="one of them", fix=fix)
        return refit_features(_load(o), date=o.date, spec=o.spec)
    from fieldwise.pipelines.build.features import build_features

    made = build_features(_load(o), date=o.date, spec=o.spec, replace=o.replace, against=o.against)
    if o.date is None and o.spec is None:
        _say_next(o, "train")
    return made


def train(o: argparse.Namespace) -> dict[str, Any] | None:
    if o.nnodes:  # before torch is imported: it warns of hosts without a name
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    reports = o.ranks == 1 and not o.nnodes and not o.on and os.environ.get("RANK", "0") == "0"
    with _mlflow_beside(reports):
        return _train(o)


def _train(o: argparse.Namespace) -> dict[str, Any] | None:
    from fieldwise.pipelines.ranks.launch import Days
    from fieldwise.pipelines.ranks.node import Nodes
    from fieldwise.pipelines.train.family import train_best

    days, nodes = Days(o.train, o.valid, o.test), Nodes.parse(o.nnodes, o.rdzv, o.node_rank)
    how = {"init": o.init, "register": not o.no_register, "force": o.force, "name": o.name}
    if o.on and nodes:
        fix = "Spark knows its machines: leave --nnodes and --rdzv out."
        raise ConfigError("--on spark", expected="Spark's executors alone", found=f"{nodes.count} nodes", fix=fix)
    config = _load(o)
    found = train_best(config, o.ranks, days, nodes=nodes, spark=o.on == "spark", **how)
    if found is not None and not (o.train or o.name or o.no_register):
        _say_next(o, "evaluate" if config.catalog is None else "score-catalog")
    return found


def send(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.train.train import send_reports

    made = send_reports(_load(o))
    say(f"{made['sent']} reports sent, none is left" if made["sent"] else "no report of a training is left to be sent")
    return made


def sweep(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.train.sweep import sweep

    return sweep(_load(o), trials=o.trials, seed=o.seed, kinds=o.kinds.split(",") if o.kinds else (), name=o.name)


def evaluate(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.train.evaluate import evaluate_model

    return evaluate_model(_load(o), snapshots=o.snapshot, model=o.model, role=o.role)


def compare(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.train.compare import compare_models

    return compare_models(_load(o), o.models, snapshots=o.snapshot, role=o.role)


def score_rows(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.score.score_rows import score_rows

    inputs = [_here(path) for path in o.input] if o.input else None
    columns = o.columns.split(",") if o.columns else None
    return score_rows(_load(o), model=o.model, inputs=inputs, columns=columns, date=o.date, out=o.out and _here(o.out))


def score_catalog(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.catalog.score_catalog import score_catalog

    config = _load(o)
    made = score_catalog(config, model=o.model, date=o.date, out=o.out and _here(o.out))
    if o.date is None and o.out is None:
        from fieldwise.pipelines.lists.asked import by_training

        _, unseen = by_training(config)
        if unseen:
            _say_next(o, "evaluate-lists", "--from", unseen[0], "--to", unseen[-1])
    return made


def export_factors(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.catalog.export_factors import export_factors

    return export_factors(_load(o), model=o.model, date=o.date, out=o.out and _here(o.out))


def evaluate_lists(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.lists.evaluate_lists import evaluate_lists

    lists, out = o.lists and _here(o.lists), o.out and _here(o.out)
    return evaluate_lists(_load(o), date=o.date, first=o.first, last=o.last, lists=lists, out=out)


def similar_items(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.catalog.similar import similar

    return similar(_load(o), "items", model=o.model, date=o.date, k=o.k, by=o.by, out=o.out and _here(o.out))


def similar_contexts(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.catalog.similar import similar

    return similar(_load(o), "contexts", model=o.model, date=o.date, k=o.k, by=o.by, out=o.out and _here(o.out))


def explain(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.score.explain import explain_model, explain_rows

    plot = o.plot and _here(o.plot)
    if o.importance:
        if o.context or o.item:
            fix = "Leave out --importance, or the pair."
            raise ConfigError("explain", expected="a pair or the whole model", found="both", fix=fix)
        return explain_model(_load(o), model=o.model, snapshots=o.snapshot, role=o.role, top=o.top, plot=plot)
    pair = {"context": o.context, "item": o.item, "date": o.date}
    return explain_rows(_load(o), model=o.model, rows=o.rows, top=o.top, plot=plot, **pair)


def promote(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.cycle.decisions import promote_model

    return promote_model(_load(o), o.version, reason=o.reason, force=o.force)


def rollback(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.cycle.decisions import rollback_model

    return rollback_model(_load(o), reason=o.reason, rescore=o.rescore, date=o.date)


def history(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.cycle.decisions import history

    return history(_load(o), o.last)


def daily(o: argparse.Namespace) -> dict[str, Any]:
    with _mlflow_beside():
        from fieldwise.pipelines.cycle.daily import Wish, run_day

        wish = Wish(trust=o.trust, hold=o.hold, force=o.force, reason=o.reason)
        if o.dry_run:
            from fieldwise.pipelines.cycle.plan import plan_day

            return plan_day(_load(o), date=o.date, refit=o.refit, wish=wish)
        return run_day(_load(o), date=o.date, ranks=o.ranks, refit=o.refit, wish=wish)


def bootstrap(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.cycle.bootstrap import bootstrap

    return bootstrap(_load(o), first=o.first, last=o.last, ranks=o.ranks)


def backfill(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.cycle.backfill import backfill

    return backfill(_load(o), first=o.first, last=o.last, ranks=o.ranks)


def freshness(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.cycle.freshness import freshness

    return freshness(_load(o), first=o.first, last=o.last, days=o.days, loss=o.loss, ranks=o.ranks)


def prune(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.operate.prune import prune

    o.overrides += [f"retention={o.keep}"] if o.keep else []
    return prune(_load(o), dry_run=o.dry_run)


def doctor(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.operate.doctor import examine

    return examine(_load(o) if o.config else None, quick=o.quick)


def pack(o: argparse.Namespace) -> dict[str, Any]:
    from fieldwise.pipelines.operate.pack import pack

    return pack(_here(o.out))


def spark_submit(o: argparse.Namespace) -> None:
    from fieldwise.pipelines.operate.submit import submit

    submit(o.passed_on, Path(__file__).parent)
