"""What an evaluation of lists says: figures with intervals, slices, a table for people, metrics for MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fieldwise.features.arrays import Float64, Int64
from fieldwise.pipelines.config.lists import ListsConfig
from fieldwise.pipelines.lists.measure import SYSTEMS, Measured
from fieldwise.pipelines.lists.sums import Estimate, estimates
from fieldwise.training.evaluation import exposure
from fieldwise.training.evaluation.ranking import metric_names

FIRST_SLICES = 12
"""That are shown on screen; ``lists.json`` and the page have all."""


def figures(
    config: ListsConfig, cutoffs: list[int], measured: Measured, read: Mapping[str, Counter[str]], wanted: Int64
) -> dict[str, Any]:
    """JSON: ``read`` (rows by table), ``counts``, ``metrics`` (by name the lists' value with the ends of its interval,
    the yardsticks' likewise, and the differences from them), ``exposure``, and ``slices``, the worst first."""
    names, counts = metric_names(cutoffs), measured.counts
    whole = measured.sums[""].table[0]
    metrics = _metrics(names, whole, config.confidence)
    shown = {
        f"{name}@{cutoff}": value
        for cutoff, listed in zip(cutoffs, measured.listed, strict=True)
        for name, value in exposure.exposure(listed, wanted).items()
    }
    slices: list[dict[str, Any]] = [
        {"slice": f"{column} = {value}", "contexts": int(table[:, 0].sum())} | _metrics(names, table, config.confidence)
        for column, sums in measured.sums.items()
        if column
        for value, table in zip(sums.values, sums.table, strict=True)
    ]
    middle = f"ndcg@{cutoffs[len(cutoffs) // 2]}"
    slices.sort(key=lambda each: (each[middle]["lists"]["value"], each["slice"]))
    return {
        "cutoffs": cutoffs,
        "confidence": config.confidence,
        "by": middle,
        "read": {name: dict(sorted(found.items())) for name, found in read.items()},
        "counts": {"contexts": int(whole[:, 0].sum())} | {name: counts[name] for name in _COUNTS},
        "metrics": metrics,
        "exposure": shown,
        "slices": slices,
    }


_COUNTS = ("pairs", "lists", "listed", "repeated", "outside")
"""Wanted pairs; lists; their rows, those that repeat an item, and those whose item is not in the catalog."""


def _metrics(names: list[str], table: Int64, confidence: float) -> dict[str, Any]:
    """By metric: of each system, and of the lists less each yardstick."""
    found = iter(estimates(table, confidence, _combined(len(names))))
    every = [[_ends(next(found)) for _ in names] for _ in _COLUMNS]
    return {
        name: dict(zip(_COLUMNS, of, strict=True)) for name, of in zip(names, zip(*every, strict=True), strict=True)
    }


_COLUMNS = (*SYSTEMS, *(f"over_{name}" for name in SYSTEMS[1:]))


def _combined(metrics: int) -> Float64:
    """[systems * metrics, columns * metrics]: metrics as they are, then the lists' less each yardstick's."""
    one, systems = np.eye(metrics), len(SYSTEMS)
    whole = np.eye(systems * metrics)
    less = [
        np.vstack([one, *(-one if at == other else 0 * one for at in range(1, systems))]) for other in range(1, systems)
    ]
    return np.hstack([whole, *less])


def _ends(found: Estimate) -> dict[str, float | None]:
    return found._asdict()


def told(found: Mapping[str, Any]) -> Iterator[str]:
    """The table for people."""
    read, counts = found["read"], found["counts"]
    events, days = read["events"], found["days"]
    when = f" from {days[0]} to {days[-1]}" if days else ""
    yield (
        f"lists {found['lists']['dir']}: {counts['lists']:,} lists of {counts['listed']:,} items; wanted{when}: "
        f"{counts['pairs']:,} pairs of {counts['contexts']:,} contexts, from {events['rows']:,} rows"
    )
    for name, text in (
        ("repeated", "rows repeat an item of their list"),
        ("outside", "listed items are not in the catalog"),
    ):
        if counts[name]:
            yield f"  {counts[name]:,} {text}"
    if events["outside"]:
        yield f"  {events['outside']:,} rows of what happened are of items that are not in the catalog"
    head = ["", *SYSTEMS, "over popularity"]
    rows = [
        [name, *(_shown(of[system]) for system in SYSTEMS), _shown(of["over_popularity"], "+")]
        for name, of in found["metrics"].items()
    ]
    yield from _table([head, *rows])
    yield verdict(found)
    names = exposure.NAMES
    yield from _table(
        [["", *names], *([f"@{k}", *(_number(found["exposure"][f"{n}@{k}"]) for n in names)] for k in found["cutoffs"])]
    )
    by, slices = found["by"], found["slices"]
    rows = [
        [each["slice"], f"{each['contexts']:,}", *(_shown(each[by][system]) for system in SYSTEMS)] for each in slices
    ]
    yield f"slices by {by}, the worst first" + (
        f" ({len(slices)}, {FIRST_SLICES} shown):" if len(slices) > FIRST_SLICES else ":"
    )
    yield from _table([["", "contexts", *SYSTEMS], *rows[:FIRST_SLICES]])


def verdict(found: Mapping[str, Any]) -> str:
    """Whether the lists are better than the most popular items, by the middle of the metrics, beyond chance."""
    low, high = _ends_over_popularity(found)
    how = "better than" if low > 0 else "worse than" if high < 0 else "no better, beyond chance, than"
    gap = _shown(found["metrics"][found["by"]]["over_popularity"], "+")
    return f"the lists are {how} the most popular items: {found['by']} {gap}"


def beats_popularity(found: Mapping[str, Any]) -> bool:
    """See ``verdict``."""
    return _ends_over_popularity(found)[0] > 0


def _ends_over_popularity(found: Mapping[str, Any]) -> tuple[float, float]:
    """Of the interval; the value twice where too few contexts leave none."""
    gap = found["metrics"][found["by"]]["over_popularity"]
    low, high = (gap["value"] if gap[end] is None else gap[end] for end in ("low", "high"))
    return low, high


def told_shortly(found: Mapping[str, Any]) -> str:
    """The middle of the metrics, beside the yardsticks, in one line."""
    by, of = found["by"], found["metrics"][found["by"]]
    beside = ", ".join(f"{system} {of[system]['value']:.5f}" for system in SYSTEMS[1:])
    over = f"over popularity {_shown(of['over_popularity'], '+')}"
    return f"{by} {_shown(of['lists'])}; {beside}; {over}; {found['counts']['contexts']:,} contexts"


def _shown(estimate: Mapping[str, float | None], sign: str = "") -> str:
    """``0.12340 (0.12001 to 0.12700)``"""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    return f"{value:{sign}.5f}" if low is None else f"{value:{sign}.5f} ({low:{sign}.5f} to {high:{sign}.5f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4f}"


def _table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        yield "  " + "  ".join([first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(others, widths[1:], strict=True))])


def logged(found: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of the model's run; MLflow's names have no ``@``."""
    values = {f"lists/{name}": of["lists"]["value"] for name, of in found["metrics"].items()}
    values |= {
        f"lists/{system}/{name}": of[system]["value"] for name, of in found["metrics"].items() for system in SYSTEMS[1:]
    }
    values |= {f"lists/{name}": value for name, value in found["exposure"].items() if value is not None}
    return {name.replace("@", "_at_"): float(value) for name, value in values.items()}
