"""What published lists look like: some of them with names, how much they differ, a warning where not at all."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.features.arrays import Int64
from fieldwise.features.columns.text import canonical
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.names import names_of
from fieldwise.training.models import MODELS

_SAID, _PLACES = 3, 5
"""Lists, and items of each, that the screen shows."""
_COLUMNS = ["context_id", "rank", "item_id", "probability"]
_ROWS = 1 << 17
"""Of the first file that are looked at."""


@dataclass(frozen=True)
class Sampled:
    """The lists of the first file, by the order of their contexts' ids; of a very large one the first lists."""

    table: pa.Table
    start: Int64
    """Where lists begin, and the end of the last."""

    @staticmethod
    def of(directory: str, parts: Sequence[Mapping[str, Any]]) -> Sampled:
        """Lists as ``score-catalog`` writes them; ``parts`` are its reports of its files."""
        path = next((part["path"] for part in parts if part["rows"]), None)
        if path is None:
            return Sampled(pa.table({name: pa.array([], pa.string()) for name in _COLUMNS}), np.zeros(1, np.int64))
        with store.opened(store.join(directory, path)) as file:
            parquet = pq.ParquetFile(file)
            rows = parquet.metadata.num_rows
            table = pa.Table.from_batches([next(parquet.iter_batches(_ROWS, columns=_COLUMNS))])
        ranks = table["rank"].to_numpy()
        start = np.append(np.flatnonzero(ranks == 1), table.num_rows)
        if table.num_rows < rows and len(start) > 2:
            start = start[:-1]  # the last one may go on
        return Sampled(table.slice(0, start[-1]), start)

    def __len__(self) -> int:
        """Lists."""
        return len(self.start) - 1

    @cached_property
    def items(self) -> pa.ChunkedArray:
        """Their texts, place by place."""
        return canonical(self.table["item_id"].combine_chunks()).cast(pa.string())

    @cached_property
    def probability(self) -> Any:
        return self.table["probability"].to_numpy()

    def top(self, at: int, places: int) -> tuple[str, list[tuple[str, float]]]:
        """A context, and (item, probability) of the first places of its list."""
        first, last = int(self.start[at]), int(min(self.start[at + 1], self.start[at] + places))
        context = canonical(self.table["context_id"].slice(first, 1).combine_chunks()).cast(pa.string())[0].as_py()
        items = self.items.slice(first, last - first).to_pylist()
        return context, list(zip(items, self.probability[first:last].tolist(), strict=True))

    def most_listed(self, most: int) -> list[tuple[str, int]]:
        """Items and how many lists hold them, the most listed first."""
        counts = pc.value_counts(self.items)
        pairs = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:most]


def say_samples(config: Config, manifest: Mapping[str, Any], target: str, kind: str, date: str | None) -> None:
    """On stderr, of an output that stands."""
    found = Sampled.of(target, manifest["files"])
    lists = [found.top(at, _PLACES) for at in range(min(_SAID, len(found)))]
    catalog = config.require_catalog()
    items = {item for _, places in lists for item, _ in places}
    names = names_of(config, catalog.item_id, items, date)
    for context, places in lists:
        told = [f"{item}{f' {names[item]}' if item in names else ''} ({chance:.4f})" for item, chance in places]
        say(f"  {catalog.context_id} {context}: {', '.join(told)}")
    if manifest.get("different") is not None:  # not in outputs of older versions
        say(f"  {how_different(manifest['different'])}")
        if (alike := alike_words(config, manifest, kind)) is not None:
            warn(alike)


def how_different(different: Mapping[str, Any]) -> str:
    """``3 different lists, which show 7 items``"""
    about = "" if different["exact"] else "about "
    one = different["lists"] == 1
    shown = "1 list, which shows" if one else f"{about}{different['lists']:,} different lists, which show"
    return f"{shown} {about}{different['items']:,} items"


def alike_words(config: Config, facts: Mapping[str, Any], kind: str) -> str | None:
    """Lists that are the same for everybody serve nobody: whence it comes, and what to do. None where they differ."""
    if facts["contexts"] < 2 or config.require_catalog().candidates is not None:
        return None
    alike = facts["different"]["lists"] == 1
    if not _crosses(kind):
        able = ", ".join(filter(_crosses, MODELS))
        keys = [word for each in config.overrides for word in ("--set", each)]
        command = shlex.join(["fieldwise", "train", "--config", config.file, *keys, "--set", "model.kind=ffm"])
        said = "all lists are the same" if alike else "lists differ by what they may not hold alone"
        return (
            f"{said}: model kind {kind} adds up weights of single values, so it ranks the items alike for everybody. "
            f"For lists of their own train one that crosses fields ({able}), such as `{command}`, and promote it"
        )
    if not alike:
        return None
    return (
        f"all {facts['contexts']:,} lists are the same: nothing that the model knows of these contexts sets one "
        "apart from another. Do they have values that training has seen? The shares of missing and unseen values "
        "stand under `fields` in the result"
    )


def _crosses(kind: str) -> bool:
    """Whether what a context has can change the order of the items."""
    return MODELS[kind].latent or MODELS[kind].paired
