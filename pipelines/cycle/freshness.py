"""How a model ages: trained once, measured on each later day."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fieldwise.features import store
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.report.chart import Line, chart
from fieldwise.features.terminal import say
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.bootstrap import days_between, first_model
from fieldwise.pipelines.train.evaluate import evaluate_model


def freshness(
    config: Config, *, first: str, last: str, days: int | None = None, loss: float = 0.01, ranks: int = 1
) -> dict[str, Any]:
    """Train on the first days, measure on every later one, and say after how many days to train again.

    With normalized entropy NE(a) at age a (1 on the day after the last training day), fitted by NE = c + s a, weighted
    by each day's own standard error, s being as uncertain as the days scatter about the line:

        interval = ceil(loss c / s)    where s is beyond twice its standard error; else no ageing was seen

    Args:
        days: how many of the range train; default: the first half.
        loss: relative loss of normalized entropy that is put up with.

    Returns: ``ages`` (age, date, rows, normalized_entropy and its error), slope, its error, ``interval`` in days or
    None; a plot lies in ``plot``. The model is not registered.

    Raises ConfigError where fewer than three later days can be measured.
    """
    every = days_between(first, last)
    count = len(every) // 2 if days is None else days
    if not 2 <= count <= len(every) - 3:
        found = f"{count} of {len(every)}"
        raise ConfigError("--days", expected="at least two days to train on, and three later ones", found=found,
                          fix="Name a longer range.")  # fmt: skip
    trained = first_model(config, every[:count], ranks=ranks, register=False)
    ages: list[dict[str, Any]] = []
    for age, date in enumerate(every[count:], 1):
        try:
            built = build_features(config, date=date, spec=trained["bundle"])
            measured = evaluate_model(config, snapshots=[built["dir"]], model=trained["bundle"])
        except InputError as told:
            say(f"{date} is left out: {told}")
            continue
        entropy, own = (measured["metrics"][f"normalized_entropy{end}"] for end in ("", "_se"))
        ages.append({"age": age, "date": date, "rows": measured["rows"], "normalized_entropy": entropy, "se": own})
    if len(ages) < 3:
        raise ConfigError("--from, --to", expected="three later days with rows", found=str(len(ages)),
                          fix="Name a longer range.")  # fmt: skip
    start, slope, error = line_through(*([row[key] for row in ages] for key in ("age", "normalized_entropy", "se")))
    ageing = slope > 2 * error
    interval = max(1, math.ceil(loss * start / slope)) if ageing else None
    advice = (
        f"train every {interval} days to lose at most {loss:.1%}" if interval else "no ageing was seen in this range"
    )
    say(*(f"  age {row['age']:>3}  {row['date']}  {row['rows']:>10,} rows  NE {row['normalized_entropy']:.5f} +- "
          f"{row['se']:.5f}" for row in ages),
        f"normalized entropy {start:.5f} {slope:+.6f} +- {error:.6f} a day: {advice}")  # fmt: skip
    place = store.join(config.workspace_dir, "freshness", f"{first}_{last}.svg")
    store.make_dir(store.join(config.workspace_dir, "freshness"))
    store.write_atomic(place, _picture(ages, start, slope).encode())
    return {"ages": ages, "slope": slope, "slope_se": error, "interval": interval, "loss": loss, "plot": place,
            "bundle": trained["bundle"]}  # fmt: skip


def line_through(x: Sequence[float], y: Sequence[float], error: Sequence[float]) -> tuple[float, float, float]:
    """(value at 0, slope, standard error of the slope): least squares, weighted by 1 / error^2; the error is that of
    the points about the line, or what their own errors give, whichever is larger."""
    a, b, w = np.array(x, np.float64), np.array(y), 1 / np.maximum(np.array(error), 1e-12) ** 2
    middle = (w @ a) / w.sum()
    spread = w @ (a - middle) ** 2
    slope = (w * (a - middle)) @ b / spread
    start = (w @ b) / w.sum() - slope * middle
    scatter = max(1.0, w @ (b - start - slope * a) ** 2 / (len(a) - 2))
    return float(start), float(slope), float(math.sqrt(scatter / spread))


def _picture(ages: Sequence[dict[str, Any]], start: float, slope: float) -> str:
    """Normalized entropy by a model's age, two standard errors each, and the line through it; an SVG file."""
    x, y, error = ([float(row[key]) for row in ages] for key in ("age", "normalized_entropy", "se"))
    ends = [(at - 2 * each, at + 2 * each) for at, each in zip(y, error, strict=True)]
    line = [0.0, max(x)]
    lines = [Line("", line, [start + slope * end for end in line], grey=True)]
    lines += [Line("", [a], [b], ends=[end]) for a, b, end in zip(x, y, ends, strict=True)]
    return chart("Ageing", "age in days", "normalized entropy", lines).alone()
