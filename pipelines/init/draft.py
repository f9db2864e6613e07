"""A config before it is text: everything that was guessed, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fieldwise.features.columns.moment import show_moment
from fieldwise.features.config import SourceConfig
from fieldwise.pipelines.init.guess.columns import Column
from fieldwise.pipelines.init.guess.fields import Field, Left
from fieldwise.pipelines.init.guess.labels import Label
from fieldwise.pipelines.init.guess.times import Moments
from fieldwise.pipelines.init.opening import Opening, shown_path
from fieldwise.pipelines.init.yaml_text import Page

HELD_OUT = 0.1
"""Share of the rows to validate, and to test on."""
USUAL_BAD = 0.0005
"""Share of unreadable rows up to which the default of ``snapshot.max_bad_fraction`` is left alone."""
_ORDER = ("path", "format", "separator", "quote", "header", "encoding", "columns", "on", "select")


@dataclass
class Draft:
    """What will be written."""

    name: str
    heading: list[str]
    source: Opening
    joins: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    """(block, reason)"""
    label: Label | None = None
    negatives: dict[str, Any] | None = None
    filter: str | None = None
    time: Moments | None = None
    split: tuple[dict[str, Any], str] = ({}, "")
    fields: list[Field] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    bad: float = 0.0
    """Share of rows that cannot be read."""
    kind: str = "ffm"
    catalog: dict[str, Any] | None = None
    catalog_notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def source_block(config: SourceConfig, directory: str) -> dict[str, Any]:
    """What is not the default, in the order of the docs."""
    found = config.model_dump(exclude_defaults=True, mode="json")
    paths = [shown_path(path, directory) for path in config.path]
    found["path"] = paths[0] if len(paths) == 1 else paths
    return {key: found[key] for key in _ORDER if key in found}


def split_of(
    label: Label | None, moments: Moments | None, columns: Mapping[str, Column], context: str | None
) -> tuple[dict[str, Any], str]:
    """By time where the newest rows make two parts with both classes, else by a hash of whom rows are of."""
    parts = {"valid": HELD_OUT, "test": HELD_OUT}
    why = "there is no time"
    if moments is not None:
        edges = _edges(label, moments)
        if edges is not None:
            cuts = " and ".join(show_moment(edge, "UTC")[:16] for edge in edges)
            return {"by": "time", **parts}, f"the newest rows test, those before them validate: cut at about {cuts}"
        why = "too few different moments, or one class only, in the newest rows"
    spread = context is not None and columns[context].top[1] <= HELD_OUT  # else a part might be all or nothing
    key = context if context is not None and spread else _split_key(columns)
    whose = "rows of one value stay together" if key != context else "all rows of one context stay together"
    return {"by": "hash", "key": key, **parts}, f"{why}, so by the hash of a column: {whose}"


def _edges(label: Label | None, moments: Moments) -> tuple[int, int] | None:
    """Where the valid and the test rows begin; None where one of the three parts would lack a class."""
    there = ~moments.bad
    found = np.sort(moments.found[there])
    valid, test = (int(found[int(len(found) * share)]) for share in (1 - 2 * HELD_OUT, 1 - HELD_OUT))
    part = np.digitize(moments.found, [valid, test])
    for number in range(3):
        rows = there & (part == number)
        classes = rows.any() if label is None else {0.0, 1.0} <= set(np.unique(label.positive[rows]).tolist())
        if not classes or rows.sum() < HELD_OUT / 4 * len(found):
            return None
    return valid, test


def _split_key(columns: Mapping[str, Column]) -> str:
    """The column of the most values whose rows are spread over them."""
    fit = [c for c in columns.values() if not c.is_list and c.readable and c.distinct >= 20]
    spread = [c for c in fit if c.top[1] < 0.05 and c.missing < 0.05]
    among = spread or fit or list(columns.values())
    return max(among, key=lambda column: column.distinct).name


def text_of(draft: Draft, directory: str) -> str:
    """The YAML."""
    page = Page()
    for line in [*draft.heading, *(f"WARNING {line}" for line in draft.warnings)]:
        page.comment(line)
    page.space()
    page.line("name", draft.name)
    page.space()
    page.comment("; ".join(draft.source.notes))
    page.block("source", source_block(draft.source.config, directory))
    if draft.joins:
        page.space()
        page.open("join")
        for block, reason in draft.joins:
            page.item(block, reason)
    page.space()
    _label_and_time(page, draft)
    page.comment(draft.split[1])
    page.line("split", draft.split[0])
    page.space()
    _fields(page, draft)
    page.space()
    page.comment("A model of every pair of fields. fm is smaller and quicker, lr a yardstick: --set model.kind=fm")
    page.line("model", {"kind": draft.kind})
    if draft.bad > USUAL_BAD:
        page.space()
        page.comment(f"{draft.bad:.2%} of the rows cannot be read (the default stops above 0.10 %): see why in the "
                     "words of `fieldwise features`, then lower this.")  # fmt: skip
        page.line("snapshot", {"max_bad_fraction": float(f"{min(1.0, 2 * draft.bad + 0.001):.2g}")})
    page.space()
    _catalog(page, draft)
    return page.text


def _label_and_time(page: Page, draft: Draft) -> None:
    if draft.label is not None:
        page.comment(f"{draft.label.reason}; {draft.label.rate:.2%} of the rows are positives")
        page.line("label", draft.label.expression)
    else:
        page.comment("No column says what is no positive, so every row is taken for one, and other items are drawn for "
                     "each: probabilities then mean nothing, their order does.")  # fmt: skip
        page.line("label", "true")
        page.block("negatives", draft.negatives or {})
    if draft.filter is not None:
        page.comment("rows without a label are left out")
        page.line("filter", draft.filter)
    page.space()
    if draft.time is not None:
        page.comment(draft.time.reason)
        plain = draft.time.config.format == "auto"
        column = draft.time.config.column
        page.line("time", column if plain else {"column": column, "format": draft.time.config.format})


def _fields(page: Page, draft: Draft) -> None:
    page.open("fields")
    for one in draft.fields:
        page.item({"name": one.name, **one.keys}, one.reason)
    for left in draft.left:
        page.comment(f"left out: {left.column}: {left.reason}", indent=2)


def _catalog(page: Page, draft: Draft) -> None:
    for note in draft.catalog_notes:
        page.comment(note)
    if draft.catalog is None:
        return
    page.open("catalog")
    for key, value in draft.catalog.items():
        page.block(key, value, 2) if isinstance(value, dict) else page.line(key, value, 2)


def grave(left: Sequence[Left]) -> list[str]:
    """What somebody should read first, a line each."""
    return [f"{one.column}: {one.reason}" for one in left if one.grave]
