"""Models side by side on the same rows: each one's metrics, and what they differ by, with paired intervals.

A metric's standard error says how it would vary over other rows; two models meet the same rows, so their difference
varies far less. It is a paired jackknife's (`training.evaluation.paired`); an interval that leaves out zero is no
chance, at ``CONFIDENCE`` for each pair by itself: of many models some pair will look different.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from fieldwise.features.errors import ConfigError
from fieldwise.features.terminal import printable, say, warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.registry import OpenedModel, open_model
from fieldwise.pipelines.train.evaluate import open_split
from fieldwise.pipelines.train.measured import NAMES, TABLE, with_error
from fieldwise.training.data.cache import Seen, copies_of
from fieldwise.training.data.splits import Split
from fieldwise.training.evaluation.evaluate import Evaluation, evaluate
from fieldwise.training.evaluation.paired import METRICS, Blocks, Comparison, Interval, Sums
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World

CONFIDENCE = 0.95
"""Of an interval: a difference of nothing lies outside by chance in one of twenty."""


def compare_models(
    config: Config, models: Sequence[str], *, snapshots: Sequence[str] | None = None, role: str = "test"
) -> dict[str, Any]:
    """Score every row of one role by each model, and show them side by side. Rows of one ``evaluation.group``, such as
    a user, are taken to err alike.

    Args:
        models: references of at least two, of one feature spec.
        snapshots: default: the workspace's ``all``. Unsplit (daily) snapshots count for any role.

    Returns ``models``, each with its metrics, in the order given, and ``differences`` of every two: by metric the
    first one's less the second one's with both ends, and whether that is ``significant``.

    Raises:
        ConfigError: fewer than two models, or one of them twice.
        ArtifactError: models and snapshots do not share one spec.
        InputError: no rows of that role, or of one class only.
    """
    if len(models) < 2:
        fix = f"Name another: `fieldwise compare {' '.join(models)} models:/{config.model_name}@champion`."
        raise ConfigError("MODEL", expected="at least two models", found=str(len(models)), fix=fix)
    opened: dict[str, OpenedModel] = {}
    for reference in models:
        one = open_model(reference, config)
        for name, other in opened.items():
            if other.bundle.digest == one.bundle.digest:
                same = f"{name} and {reference}, both bundle {one.bundle.digest[:12]}"
                raise ConfigError("MODEL", expected="models that differ", found=same, fix="Leave one of them out.")
        opened[reference] = one
    split, _ = open_split(config, {name: one.bundle for name, one in opened.items()}, snapshots, role)
    found = measure(_named(opened), split, config)
    rows, positives = split.rows, split.positives
    say(f"{role}: {rows:,} rows, {positives:,} positive", "", *found.table(), "", *found.lines())
    if few := next(iter(found.evaluations.values())).few:
        warn(f"{role} has {few}")
    shown = zip(found.evaluations.items(), opened.items(), strict=True)
    return {
        "role": role,
        "rows": rows,
        "positives": positives,
        "models": [
            {"model": name, "reference": reference, **one.facts, "metrics": _metrics(measured)}
            for (name, measured), (reference, one) in shown
        ],
        "differences": found.told(),
    }


@dataclass(frozen=True)
class SideBySide:
    """What models come to on the same rows, by their names."""

    evaluations: dict[str, Evaluation]
    sums: dict[str, Sums]

    def difference(self, one: str, other: str, metric: str = "logloss") -> Interval:
        """The first one's less the other's."""
        pair = Comparison(self.sums[other], self.sums[one])
        return pair.difference(metric, (1 + CONFIDENCE) / 2)

    def told(self) -> list[dict[str, Any]]:
        """All differences, for results."""
        return [
            {"of": one, "less": other, "confidence": CONFIDENCE}
            | {metric: _told(self.difference(one, other, metric)) for metric in METRICS}
            for one, other in combinations(self.evaluations, 2)
        ]

    def table(
        self, metrics: Sequence[str] = TABLE, more: Mapping[str, Mapping[str, str]] | None = None
    ) -> Iterator[str]:
        """Lines of metrics with their standard errors, a model each; ``more``: columns by their heads, to the right."""
        shown = {name: printable(name) for name in self.evaluations}
        first = max(len("model"), *map(len, shown.values()))
        heads = {metric: NAMES[metric] for metric in metrics}
        wide = {head: max(len(head), *map(len, column.values())) for head, column in (more or {}).items()}
        yield "".join([
            "model".ljust(first), *(f"  {head:<18}" for head in heads.values()),
            *(f"  {head.rjust(wide[head])}" for head in wide),
        ]).rstrip()  # fmt: skip
        for name, found in self.evaluations.items():
            measured = [f"  {with_error(found.values, metric):<18}" for metric in metrics]
            right = [f"  {column[name].rjust(wide[head])}" for head, column in (more or {}).items()]
            yield "".join([shown[name].ljust(first), *measured, *right]).rstrip()

    def lines(self) -> Iterator[str]:
        """Of every difference of logloss."""
        names = [f"{printable(one)} - {printable(other)}" for one, other in combinations(self.evaluations, 2)]
        width = max(map(len, [*names, "logloss"]))
        for name, (one, other) in zip(names, combinations(self.evaluations, 2), strict=True):
            gap = self.difference(one, other)
            yield f"{name.ljust(width)}  {gap}{'' if significant(gap) else '  may be chance'}"


def measure(models: Mapping[str, Bundle], split: Split, config: Config) -> SideBySide:
    """Score every row of the split by each model, one after the other."""
    world = World()
    world.use_threads(config.training.threads)
    room, copies = config.training.cache_mb * 10**6, copies_of(config.training)
    seen = Seen(verify=True, room=room, reader=config.training.reader, copies=copies)
    evaluations, sums, group = {}, {}, config.evaluation.group
    if group in config.beside:
        warn(f"evaluation.group {group!r} is no field: rows count as independent here, which makes intervals too short")
        group = None
    for name, bundle in models.items():
        blocks = Blocks(split, bundle.spec, group, key="evaluation")
        evaluations[name] = evaluate(
            Network.from_bundle(bundle), split, world, logit_shift=bundle.logit_shift, calibrator=bundle.calibrator,
            seen=seen, observers=[blocks.add],
        )  # fmt: skip
        sums[name] = blocks.sums()
    return SideBySide(evaluations, sums)


def significant(gap: Interval) -> bool:
    """Whether zero lies outside."""
    return bool(gap.low > 0 or gap.high < 0)


def _named(opened: Mapping[str, OpenedModel]) -> dict[str, Bundle]:
    """Models by short names: kind and version, or kind and digest; by their references where two would be the same."""
    names = [
        f"{one.bundle.kind} {one.bundle.digest[:8] if one.version is None else f'v{one.version}'}"
        for one in opened.values()
    ]
    names = names if len(set(names)) == len(names) else list(opened)
    return {name: one.bundle for name, one in zip(names, opened.values(), strict=True)}


def _metrics(found: Evaluation) -> dict[str, float]:
    return {name: value for name, value in found.told().items() if name not in ("rows", "positives")}


def _told(gap: Interval) -> dict[str, Any]:
    return {**gap.told, "significant": significant(gap)}
