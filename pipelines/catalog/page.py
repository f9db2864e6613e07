"""Samples of published lists as one HTML page: no scripts, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fieldwise.features.report.chart import Line, Picture, chart
from fieldwise.features.report.markup import render
from fieldwise.pipelines.catalog.samples import Sampled, alike_words, how_different
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.names import names_of

_LISTS, _PLACES, _MOST = 12, 10, 15
"""Lists that are shown, items of each, items that are listed most."""
_DRAWN = 50
"""Places of lists in the picture."""


def page(config: Config, facts: Mapping[str, Any], found: Sampled, kind: str, date: str | None) -> str:
    """Some lists with names, what all of them show, what is listed most, and how much of both sides is known."""
    catalog = config.require_catalog()
    at = np.unique(np.linspace(0, max(0, len(found) - 1), min(_LISTS, len(found))).astype(int))
    lists, most = [found.top(int(n), _PLACES) for n in at], found.most_listed(_MOST)
    listed = {item for _, places in lists for item, _ in places} | {item for item, _ in most}
    items = names_of(config, catalog.item_id, listed, date)
    contexts = names_of(config, catalog.context_id, {context for context, _ in lists}, date)
    return render(
        Path(__file__).with_name("page.html"),
        title=f"{config.name}: lists of {date or 'all'}",
        facts=facts,
        kind=kind,
        different=how_different(facts["different"]),
        alike=alike_words(config, facts, kind),
        context_id=catalog.context_id,
        lists=[(context, contexts.get(context, ""), _named(places, items)) for context, places in lists],
        seen=len(found),
        most=[(item, items.get(item, ""), f"{count:,}", f"{count / len(found):.1%}") for item, count in most],
        picture=_chances(found),
        known=list(_known(facts["fields"])),
    )


def _named(places: list[tuple[str, float]], names: Mapping[str, str]) -> list[tuple[str, str, float]]:
    return [(item, names.get(item, ""), chance) for item, chance in places]


def _chances(found: Sampled) -> Picture:
    """Probabilities by place: their mean, and the middle 80 % of the lists."""
    ranks = found.table["rank"].to_numpy() if len(found) else np.empty(0, int)
    every = [found.probability[ranks == rank] for rank in range(1, min(_DRAWN, ranks.max(initial=0)) + 1)]
    x = [float(rank + 1) for rank in range(len(every))]
    ends = [(float(low), float(high)) for low, high in (np.quantile(each, [0.1, 0.9]) for each in every)]
    lines = [Line("", x, [float(each.mean()) for each in every], dots=True, ends=ends)]
    return chart("Probability by place", "place", "probability", lines, zero=True)


def _known(fields: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Side, field, values, and the shares of missing and unseen ones."""
    for side, shares in fields.items():
        for name, each in shares.items():
            told = ("-" if each[share] is None else f"{each[share]:.2%}" for share in ("missing", "unseen"))
            yield (side, name, f"{each['values']:,}", *told)
