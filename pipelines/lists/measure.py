"""Contexts to sums of metrics: of their lists, and of two yardsticks on the same items.

- ``lists``: as they were published. An item that a list repeats keeps its places, and counts at the first one.
- ``popularity``: the context's eligible items by (wanted before, most first; item id).
- ``random``: the context's eligible items in a random order, drawn by a hash of context and item.

Both yardsticks leave out what the catalog excludes for the context, and hold candidates alone where there are any, as
the lists do; they do not mind a cap. Neither list is ever made: only the places of the wanted items in it are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fieldwise.features.arrays import Bool, Float64, Int32, Int64, UInt64
from fieldwise.features.columns.hashing import xxh64_array, xxh64_rows
from fieldwise.pipelines.lists.described import OUTSIDE
from fieldwise.pipelines.lists.packed import EVENT, EXCLUDED, LISTED, ONLY, SEEN, Contexts
from fieldwise.pipelines.lists.sums import BLOCKS, SLICE_BLOCKS, Sums
from fieldwise.training.evaluation.ranking import NAMES, ranking

SYSTEMS = ("lists", "popularity", "random")
_SEED, _RANDOM_SEED = 20101, 20102


@dataclass(frozen=True)
class Yardsticks:
    """What measuring needs to know of the catalog's N items."""

    cutoffs: tuple[int, ...]
    popular: Int64
    """[N] place in the list of the most popular, from 1."""
    new: Bool
    """[N] not in the history."""
    only: bool
    """Lists hold candidates alone."""
    context_slices: tuple[str, ...]
    item_slices: Mapping[str, tuple[list[str], Int32]]
    """By column: its values, and which of them each item has."""


class Pairs:
    """Distinct (context, item) pairs of some contexts, found by binary search."""

    def __init__(self, context: Int64, item: Int64, items: int) -> None:
        """``item`` in [0, items)."""
        self._items, self._keys = items, np.unique(context * items + item)

    def has(self, context: Int64, item: Int64) -> Bool:
        key = context * self._items + item
        at = np.searchsorted(self._keys, key)
        found = np.zeros(len(key), np.bool_)
        inside = at < len(self._keys)
        found[inside] = self._keys[at[inside]] == key[inside]
        return found

    def before(self, context: Int64, item: Int64) -> Int64:
        """How many pairs of the context have a smaller item."""
        low, high = (np.searchsorted(self._keys, context * self._items + end) for end in (0, item))
        return high - low


class Measured:
    """What a task has measured so far."""

    def __init__(self, yardsticks: Yardsticks) -> None:
        self._of = yardsticks
        metrics = len(SYSTEMS) * len(NAMES) * len(yardsticks.cutoffs)
        self._whole = Sums("", BLOCKS, metrics, "")
        self._sums = {"": self._whole} | {
            name: Sums(name, SLICE_BLOCKS, metrics, key)
            for names, key in (
                (("contexts", *_keys("contexts", yardsticks.context_slices)), "lists.context_slices"),
                (("items", *_keys("items", yardsticks.item_slices)), "lists.item_slices"),
            )
            for name in names
        }
        self._listed = np.zeros((len(yardsticks.cutoffs), len(yardsticks.popular)), np.int64)
        self._counts: Counter[str] = Counter()

    def add(self, contexts: Contexts) -> None:
        # items of these contexts by small numbers, so that pairs are single ones
        items, code = np.unique(contexts.item, return_inverse=True)
        kind = contexts.kind

        def of(which: int) -> tuple[Int64, Int64, Float64]:
            mine = kind == which
            return contexts.context[mine], code[mine], contexts.value[mine]

        listed, place = self._places(*of(LISTED), items)
        pair, gain = _best(*of(EVENT), len(items))
        self._counts.update(lists=len(np.unique(contexts.context[kind == LISTED])), pairs=len(pair))
        if not len(pair):
            return
        context, item = np.divmod(pair, len(items))
        at = np.searchsorted(listed, pair)
        found = np.zeros(len(pair), np.int64)
        inside = at < len(listed)
        found[inside] = np.where(listed[at[inside]] == pair[inside], place[at[inside]], 0)
        hashes = xxh64_array(contexts.ids, _SEED)
        places = [found, *self._yardsticks(contexts, context, items[item], hashes)]
        self._measure(contexts, context, items[item], gain, places, hashes)

    def _places(self, context: Int64, code: Int64, rank: Float64, items: Int64) -> tuple[Int64, Int64]:
        """(distinct listed pairs, ascending; their first places), which are counted, too."""
        order = np.lexsort((code, rank, context))
        context, code = context[order], code[order]
        first = np.r_[True, context[1:] != context[:-1]] if len(context) else np.empty(0, np.bool_)
        begin = np.flatnonzero(first)
        place = np.arange(len(context)) - np.repeat(begin, np.diff(np.r_[begin, len(context)])) + 1
        pair, once = np.unique(context * len(items) + code, return_index=True)
        place = place[once]  # the first of each
        self._counts.update(listed=len(context), repeated=len(context) - len(pair))
        item = items[pair % len(items)] if len(items) else pair
        self._counts["outside"] += int(np.sum(item < 0))
        for counts, cutoff in zip(self._listed, self._of.cutoffs, strict=True):
            shown, times = np.unique(item[(item >= 0) & (place <= cutoff)], return_counts=True)
            counts[shown] += times
        return pair, place

    def _yardsticks(self, contexts: Contexts, context: Int64, item: Int64, hashes: UInt64) -> list[Int64]:
        """Places of wanted items in the popularity list and in the random one; 0 where they may not be in them."""
        popular = self._of.popular
        size = len(popular) + 1

        def pairs(which: int) -> tuple[Int64, Int64]:
            mine = (contexts.kind == which) & (contexts.item >= 0)
            return contexts.context[mine], popular[contexts.item[mine]]

        excluded = Pairs(*pairs(EXCLUDED), size)
        rank = np.where(item >= 0, popular[np.maximum(item, 0)], 0)
        may = (rank > 0) & ~excluded.has(context, rank)
        if self._of.only:
            owner, allowed = pairs(ONLY)
            kept = ~excluded.has(owner, allowed)
            only = Pairs(owner[kept], allowed[kept], size)
            may &= only.has(context, rank)
            place, eligible = only.before(context, rank) + 1, only.before(context, np.full(len(context), size))
        else:
            place = rank - excluded.before(context, rank)
            eligible = len(popular) - excluded.before(context, np.full(len(context), size))
        drawn = np.zeros(len(context), np.int64)
        drawn[may] = random_places(context[may], item[may], eligible[may], hashes[context[may]])
        return [np.where(may, place, 0), drawn]

    def _measure(
        self, contexts: Contexts, context: Int64, item: Int64, gain: Float64, places: list[Int64], hashes: UInt64
    ) -> None:
        measured, group = np.unique(context, return_inverse=True)
        block = (hashes % np.uint64(BLOCKS)).astype(np.int64)
        values = self._metrics(group, gain, places, len(measured))

        def add(name: str, texts: list[str], chosen: Int64) -> None:
            sums = self._sums[name]
            sums.add(sums.codes(texts), block[measured[chosen]], values[chosen])

        every = np.arange(len(measured))
        add("", [""] * len(measured), every)
        seen, listed = (np.isin(measured, contexts.context[contexts.kind == which]) for which in (SEEN, LISTED))
        add("contexts", np.where(seen, "known", "new").tolist(), every)
        add("contexts", np.where(listed, "with a list", "without a list").tolist(), every)
        for at, name in enumerate(_keys("contexts", self._of.context_slices)):
            texts = [contexts.slices[c][at] if c in contexts.slices else OUTSIDE for c in measured.tolist()]
            add(name, texts, every)
        catalog = np.append(np.where(self._of.new, "new", "known"), OUTSIDE)
        self._by_item("items", catalog[np.maximum(item, -1)].tolist(), context, gain, places, block)
        for name, column in zip(self._of.item_slices, _keys("items", self._of.item_slices), strict=True):
            names, which = self._of.item_slices[name]
            texts = np.append(np.array(names, object)[which], OUTSIDE)[np.maximum(item, -1)].tolist()
            self._by_item(column, texts, context, gain, places, block)

    def _by_item(
        self, name: str, texts: list[str], context: Int64, gain: Float64, places: list[Int64], block: Int64
    ) -> None:
        """Each value's items as if only they had been wanted."""
        sums = self._sums[name]
        code, most = sums.codes(texts), 1 << 20
        groups, group = np.unique(context * most + code, return_inverse=True)
        owner, value = np.divmod(groups, most)
        sums.add(value, block[owner], self._metrics(group, gain, places, len(groups)))

    def _metrics(self, group: Int64, gain: Float64, places: list[Int64], groups: int) -> Float64:
        return np.hstack([ranking(group, place, gain, self._of.cutoffs, groups) for place in places])

    def found(self) -> Iterator[tuple[str, str, bytes]]:
        """(what, about, data) for `Total.hear`."""
        yield "counts", json.dumps(self._counts), b""
        for name, sums in self._sums.items():
            yield "sums", json.dumps([name, list(sums.values)]), sums.table.tobytes()
        for at, counts in enumerate(self._listed):
            shown = np.flatnonzero(counts)
            yield "listed", str(at), np.stack([shown, counts[shown]]).tobytes()

    def hear(self, what: str, about: str, data: bytes) -> None:
        """Add what another one has ``found``."""
        if what == "counts":
            self._counts.update(json.loads(about))
        elif what == "sums":
            name, values = json.loads(about)
            self._sums[name].merge(values, np.frombuffer(data, np.int64))
        else:
            shown, counts = np.frombuffer(data, np.int64).reshape(2, -1)
            self._listed[int(about), shown] += counts

    @property
    def counts(self) -> Counter[str]:
        return self._counts

    @property
    def sums(self) -> dict[str, Sums]:
        """By `SLICE` column; of all contexts by the empty name."""
        return self._sums

    @property
    def listed(self) -> Int64:
        """[cutoffs, N] how many lists show an item up to each cutoff."""
        return self._listed


def _keys(side: str, names: Mapping[str, object] | tuple[str, ...]) -> list[str]:
    return [f"{side}.{name}" for name in names]


def _best(context: Int64, code: Int64, gain: Float64, items: int) -> tuple[Int64, Float64]:
    """(distinct pairs, ascending; the largest gain of each)"""
    pair = context * items + code
    order = np.lexsort((-gain, pair))
    pair, gain = pair[order], gain[order]
    first = np.r_[True, pair[1:] != pair[:-1]] if len(pair) else np.empty(0, np.bool_)
    return pair[first], gain[first]


def random_places(context: Int64, item: Int64, eligible: Int64, hashes: UInt64) -> Int64:
    """Places of distinct pairs, sorted by context, in a random order of each context's ``eligible`` items.

    A place is a hash of context and item, modulo their number; of several pairs with one place the first keeps it, and
    the others draw again. No number of a place is preferred, so all choices of distinct places are equally likely.

    Args:
        hashes: of each pair's context.
    """
    place = np.zeros(len(context), np.int64)
    left = np.arange(len(context))
    for attempt in range(1 << 20):
        if not len(left):
            break
        row = np.column_stack([hashes[left].view(np.int64), item[left], np.full(len(left), attempt)])
        drawn = xxh64_rows(row.astype(np.int64).view(np.uint8).reshape(len(left), -1), _RANDOM_SEED)
        place[left] = (drawn % eligible[left].astype(np.uint64)).astype(np.int64) + 1
        waiting = np.zeros(len(context), np.bool_)
        waiting[left] = True
        among = np.flatnonzero(np.isin(context, context[left]))
        order = among[np.lexsort((waiting[among], place[among], context[among]))]  # who holds a place, then the others
        same = (context[order][1:] == context[order][:-1]) & (place[order][1:] == place[order][:-1])
        left = np.sort(order[1:][same])
    return place
