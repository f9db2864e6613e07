"""Which model when: with ``model.kind: auto`` the family is trained, and the simplest is taken that nothing beats.

    lr < poly2 < fm < ffm      each by `train_model`, with settings that the data chooses for it
    best                       the lowest logloss on the validation rows
    chosen                     the first of the four that the best does not beat beyond the interval of their difference

The interval is that of ``pipelines.train.compare``: 95 %, paired, so that chance makes a model no larger. The others
stay runs without a version. Deeper models are no part of it: they have no compiled kernel, and take many times as long.

Each kind is a training with a name, which is done once; the name is kept beside them until the choice is registered. So
a family that was killed goes on where it was, and ends in the same bytes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import ConfigError, DivergedError
from fieldwise.features.store.kept import digest_of, read_record, write_record
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.launch import Days, inside_rank, train_ranks
from fieldwise.pipelines.ranks.node import Nodes
from fieldwise.pipelines.ranks.nodes import train_nodes
from fieldwise.pipelines.train.compare import CONFIDENCE, SideBySide, measure, significant
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.models import AUTO, FAMILY
from fieldwise.training.network.bundle import load_bundle

Result = dict[str, Any]
_SHOWN = ("logloss", "auc")


def train_best(
    config: Config,
    ranks: int = 1,
    days: Days | None = None,
    *,
    init: str | None = None,
    register: bool = True,
    force: bool = False,
    name: str | None = None,
    nodes: Nodes | None = None,
    spark: bool = False,
) -> Result | None:
    """Train the config's model, in this process or in ``ranks`` of them; with ``auto``, the family to choose one of.
    A model that goes on from another one (``init``) is of that one's kind.

    Args:
        nodes: machines that train one model together, each of them with as many ranks.
        spark: ranks are tasks on Spark's executors.

    The arguments are those of `train_model`. Of a family, the result is that of the chosen model, and ``family`` tells
    what it was chosen against.

    Raises what `train_model` raises; for a family besides:
        ConfigError: torchrun started this process, or there are ``nodes``, whose ranks cannot train one model after the
            other.
        DivergedError: all of its models diverged. Those that do are left out.
        InputError: no validation rows of both classes to choose by.
    """
    days = days or Days()
    if config.model.kind != AUTO or init is not None:
        start = _starter(ranks, nodes, spark)
        return start(config, days, init=init, register=register, force=force, name=name)
    if inside_rank() or nodes is not None:
        whose = "ranks of torchrun" if nodes is None else "several nodes"
        fix = "Let fieldwise start the ranks of one machine (`fieldwise train --ranks N`), or name the model."
        raise ConfigError("model.kind", expected=f"one model for {whose}", found=AUTO, fix=fix)
    from fieldwise.pipelines.train.train import open_days, train_model

    data = open_days(config, days)
    data.valid.require_both_classes()
    kept = _Kept(config, data, name)
    say(f"model.kind {AUTO}: {', '.join(FAMILY)} in turn, to choose by {data.valid.rows:,} validation rows")
    trained = _trained(config, _starter(ranks, None, spark), days, kept)
    # fitted on these rows, a calibrator would flatter its model
    bundles = {kind: replace(load_bundle(result["bundle"]), calibrator=None) for kind, result in trained.items()}
    found = measure(bundles, data.valid, config)
    chosen = choose(found)
    gaps = {kind: str(found.difference(kind, chosen)) if kind != chosen else "chosen" for kind in trained}
    seconds = {kind: f"{result['seconds']:.1f}" for kind, result in trained.items()}
    say("", *found.table(_SHOWN, {"logloss less the chosen's": gaps, "seconds": seconds}), "")
    told = _told(found, chosen, trained)
    done = train_model(
        config.of_kind(chosen), days, register=register, force=force, name=kept.name_of(chosen), family=told
    )
    assert done is not None  # this process is its only rank
    kept.forget()
    beside = {kind: {key: trained[kind][key] for key in ("run", "bundle", "seconds")} for kind in trained}
    return {**done, "family": told | {"models": [each | beside[each["kind"]] for each in told["models"]]}}


def choose(found: SideBySide) -> str:
    """The first of the models that the best one, by logloss, does not beat beyond the interval."""
    best = min(found.evaluations, key=lambda kind: found.evaluations[kind].values["logloss"])
    return next(kind for kind in found.evaluations if not found.difference(best, kind).high < 0)


def _starter(ranks: int, nodes: Nodes | None, spark: bool) -> Callable[..., Result | None]:
    """`train_model`, run by as many ranks in their place."""
    from fieldwise.pipelines.train.train import open_days, train_model

    if inside_rank() and (spark or nodes is not None):
        fix = "Start the command itself, without torchrun."
        raise ConfigError("train", expected="one that starts ranks", found="torchrun, and --nnodes or --on", fix=fix)
    if spark:
        from fieldwise.pipelines.ranks.executors import train_on_spark

        return lambda config, days, **how: train_on_spark(train_model, config, ranks, days, **how)
    if nodes is not None:
        return lambda config, days, **how: train_nodes(config, nodes, ranks, days, open_days(config, days), **how)
    if ranks > 1 and not inside_rank():
        return lambda config, days, **how: train_ranks(config, ranks, days, **how)
    return train_model


def _trained(config: Config, start: Callable[..., Result | None], days: Days, kept: _Kept) -> dict[str, Result]:
    """Results by kind, the simplest first, each with its seconds."""
    results: dict[str, Result] = {}
    for kind in FAMILY:
        started = time.perf_counter()
        try:
            result = start(config.of_kind(kind), days, register=False, name=kept.name_of(kind))
        except DivergedError as error:
            warn(f"{kind} is left out: {error}")
            continue
        assert result is not None  # no rank of others
        results[kind] = result | {"seconds": kept.took(kind, time.perf_counter() - started)}
    if not results:
        fix = "Lower training.learning_rate or raise training.l2, or leave them out."
        raise DivergedError("model.kind", expected="a model of the family that does not diverge", found="none", fix=fix)
    return results


def _told(found: SideBySide, chosen: str, trained: dict[str, Result]) -> Result:
    """What was chosen and against what, as the bundle keeps it: nothing that another run of the same would change."""
    models = []
    for kind, measured in found.evaluations.items():
        gap = found.difference(kind, chosen)
        models.append({
            "kind": kind,
            "bundle_digest": trained[kind]["bundle_digest"],
            "settings": trained[kind]["settings"],
            "valid": {name: measured.values[name] for metric in _SHOWN for name in (metric, f"{metric}_se")},
            **gap.told,
            "significant": significant(gap),
        })  # fmt: skip
    return {"chosen": chosen, "confidence": CONFIDENCE, "models": models}


class _Kept:
    """The name under which a family's trainings run, and what each has taken, until the choice is made: a file beside
    them. Another number of epochs is another family."""

    def __init__(self, config: Config, data: TrainData, name: str | None) -> None:
        request = TrainRun(data, config.model, config.training, bundle_dir="").request
        request = digest_of([request, config.training.epochs, name])
        self._path = store.join(config.workspace_dir, "training", f"{AUTO}-{request[:12]}.json")
        found = read_record(self._path, "a family's trainings", "Remove the file: the family is trained anew.") or {}
        self.name = name or str(found.get("name") or f"{AUTO} {uuid.uuid4().hex[:6]}")
        self._seconds: dict[str, float] = dict(found.get("seconds", {}))
        self._write()

    def name_of(self, kind: str) -> str:
        """Of the training, and of its run."""
        return f"{self.name} {kind}"

    def took(self, kind: str, seconds: float) -> float:
        """What a kind's training took when it was done: later calls only return its result."""
        if kind not in self._seconds:
            self._seconds[kind] = round(seconds, 1)
            self._write()
        return self._seconds[kind]

    def forget(self) -> None:
        """The choice is made: the same call begins anew, as a training does."""
        store.remove(self._path)

    def _write(self) -> None:
        store.make_dir(self._path.rpartition("/")[0])
        write_record(self._path, {"name": self.name, "seconds": self._seconds})
