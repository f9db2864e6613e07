"""An evaluation of lists as one HTML page: no scripts, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldwise.features.report.chart import Interval, Line, Picture, chart, strip
from fieldwise.features.report.markup import render
from fieldwise.pipelines.lists.measure import SYSTEMS
from fieldwise.pipelines.lists.results import verdict
from fieldwise.training.evaluation import exposure
from fieldwise.training.evaluation.ranking import NAMES

PAGE = "report.html"
_APART = 0.02
"""Share of the axis by which the systems' points of one length stand apart: their intervals would hide each other."""


def page(found: Mapping[str, Any], title: str) -> str:
    """Metrics by cutoff beside both yardsticks, what the lists show, and slices with their intervals."""
    cutoffs, exposed = found["cutoffs"], found["exposure"]
    return render(
        Path(__file__).with_name("page.html"),
        title=title,
        found=found,
        verdict=verdict(found),
        over=[_over(name, of) for name, of in found["metrics"].items()],
        systems=SYSTEMS,
        pictures=[_curves(name, found["metrics"], cutoffs) for name in NAMES],
        exposures=exposure.NAMES,
        exposed=[
            (f"{cutoff}", *(_number(exposed[f"{name}@{cutoff}"]) for name in exposure.NAMES)) for cutoff in cutoffs
        ],
        slices=list(_slices(found["slices"], found["by"])),
    )


def _over(name: str, of: Mapping[str, Any]) -> tuple[str, ...]:
    gap = of["over_popularity"]
    ends = ("-" if gap[end] is None else f"{gap[end]:+.5f}" for end in ("low", "high"))
    return (name, f"{of['lists']['value']:.5f}", f"{of['popularity']['value']:.5f}", f"{gap['value']:+.5f}", *ends)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4f}"


def _curves(name: str, metrics: Mapping[str, Any], cutoffs: Sequence[int]) -> Picture:
    """One metric at all cutoffs."""
    at = [float(n) for n in range(len(cutoffs))]
    lines = []
    for place, system in enumerate(SYSTEMS):
        every = [Interval(**metrics[f"{name}@{cutoff}"][system]) for cutoff in cutoffs]
        ends = [None if each.low is None or each.high is None else (each.low, each.high) for each in every]
        beside = [x + _APART * max(1, len(at) - 1) * (place - 1) for x in at]
        lines.append(Line(system, beside, [each.value for each in every], dots=True, ends=ends))
    return chart(name, "length of the list", name, lines, names=[f"{cutoff}" for cutoff in cutoffs], zero=True)


def _slices(slices: Sequence[Mapping[str, Any]], by: str) -> Iterator[dict[str, Any]]:
    every = [[Interval(**each[by][system]) for system in SYSTEMS] for each in slices]
    top = max([value.high or value.value for of in every for value in of] + [1e-12])
    for each, values in zip(slices, every, strict=True):
        yield {
            "name": each["slice"],
            "contexts": each["contexts"],
            "values": [f"{value.value:.5f}" for value in values],
            "strip": strip(f"{by} of {each['slice']}", values, top),
        }
