"""Exclusions and candidates that met a context and an item, and those that met none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError, RefusedError
from fieldwise.features.files.listing import SourceFile
from fieldwise.features.source.keys import require_keys
from fieldwise.features.source.quarantine import Quarantined, quarantined
from fieldwise.features.terminal import say
from fieldwise.features.words import some
from fieldwise.pipelines.build.columns import known_columns
from fieldwise.pipelines.build.quality import require_quality
from fieldwise.pipelines.catalog.tasks import NO_ITEM, PAIRS, READ, Said
from fieldwise.pipelines.config.catalog import CatalogConfig
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.ids import column_types

Matched = dict[str, dict[str, Any]]
"""By table: rows ``read``, ``blank`` without an id, ``unreadable`` ones (and in which way: ``quarantine``), pairs that
met a ``context``, an eligible ``item``, ``both``, and how ids are ``spelt``, with ``samples`` and their places.
"""


def match(said: Said, reports: Sequence[dict[str, Any]], items: pa.Array, catalog: CatalogConfig) -> Matched:
    """From what encoding tasks and ranking tasks counted; takes the latters' share out of their reports."""
    met = [report.pop("met") for report in reports]
    found: Matched = {}
    for name in PAIRS.values():
        if f"{name} unreadable" in said.counts:
            own = {key: sum(of[name][key] for of in met if name in of) for key in ("context", "both")}
            pair = said.samples.get(name, ["", ""])
            spelt = {"pair": pair, "catalog": [said.samples["contexts"][0], str(items[0].as_py())]}
            read, item = said.counts[f"{name} read"], said.counts[f"{name} item"]
            aside = {key: said.counts[f"{name} {key}"] for key in ("blank", "unreadable")}
            bad, samples = _told(said, name, getattr(catalog, name).format)
            told = {"spelt": spelt, "samples": samples, "quarantine": bad}
            found[name] = {"read": read, **aside, "item": item, **own, **told}
    return found


def _told(said: Said, name: str, format: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What could not be read, and samples of what could, as `Quarantined` in JSON."""
    rows, seen = said.set_aside(name)
    samples = {(example.reason, example.field): 0 for example in seen if example.reason in (READ, NO_ITEM)}
    parts = quarantined(rows | samples, seen, format)
    bad, good = ([part.model_dump() for part in parts if bool(part.rows) is unread] for unread in (True, False))
    return bad, good


def require_matched(config: Config, matched: Mapping[str, Mapping[str, Any]]) -> None:
    """Say the counts.

    Raises RefusedError past ``snapshot.max_bad_fraction`` of unreadable rows, and at ``catalog.max_unmatched`` of the
    pairs.
    """
    for name, found in matched.items():
        told = f"{found['context']:,} met a context, {found['item']:,} an eligible item, {found['both']:,} both"
        pairs, most = found["read"] - found["blank"], config.require_catalog().max_unmatched
        blank = f" and {found['blank']:,} without an id" if found["blank"] else ""
        say(f"  catalog.{name}: {pairs:,} pairs read{blank}, {told}")
        bad = [Quarantined.model_validate(part) for part in found["quarantine"]]
        require_quality(config, f"catalog.{name}", found["read"] + found["unreadable"], bad)
        if most is None or not pairs or pairs - found["both"] < most * pairs:
            continue
        pair, ids = found["spelt"]["pair"], found["spelt"]["catalog"]
        raise RefusedError(
            f"catalog.{name}",
            expected="pairs that meet a context and an eligible item, by the same text"
            if most == 1 else f"less than {most:.2%} of the pairs without a context or an eligible item",
            found=f"{pairs:,} pairs, of which {told}; a pair reads {pair[0]!r}, {pair[1]!r}, "
            f"the catalog {ids[0]!r}, {ids[1]!r}{_places(found['samples'])}",
            fix="Spell the ids as contexts and items do (7 is not 007, a text 7.0 is not 7), check that the columns "
            "are not swapped, or set catalog.max_unmatched to null if such pairs are meant.",
        )  # fmt: skip


def _places(samples: Sequence[dict[str, Any]]) -> str:
    """What ids of the table read, and where."""
    words = {READ: "column {} reads", NO_ITEM: "no eligible item in column {} for"}
    parts = sorted(map(Quarantined.model_validate, samples), key=lambda part: part.reason != READ)
    return "".join(f"; {words[p.reason].format(p.field)} {', '.join(map(str, p.samples))}" for p in parts)


def require_columns(source: SourceConfig, files: Sequence[SourceFile], where: str, columns: Sequence[str]) -> None:
    """Raises InputError, before anything is read, for columns that a table of pairs lacks or that hold no ids."""
    require_keys(source, files, columns)
    names = known_columns(source, files)[1]
    for column in columns:
        if names is not None and column not in names:
            raise InputError(
                where, expected=f"a column {column!r}", found=f"columns {some(names)}",
                fix=f"Name the table's columns: {where}.context and {where}.item.",
            )  # fmt: skip
        column_types(source, files, column, where)
