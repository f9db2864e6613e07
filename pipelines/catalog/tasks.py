"""What runs inside the tasks of score-catalog.

    encode_task   ranges of contexts, exclusions, candidates  ->  (kind, id, key, payload, item)
    place_task    rows get the number of the file their context id belongs to
    rank_task     one file's rows  ->  its lists, written; (report)

Nothing here depends on which task reads what: a context meets its pairs, and its twin if its id is repeated, by its id
alone.
"""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.build.files import write_rejects
from fieldwise.features.build.tallying import to_stream
from fieldwise.features.columns.hashing import xxh64_array
from fieldwise.features.columns.text import texts
from fieldwise.features.columns.vocabulary import TextIndex
from fieldwise.features.engine.base import Shared, Task, indices, reports
from fieldwise.features.errors import InputError
from fieldwise.features.fields.base import text_at
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.kernels.strings import FIRST
from fieldwise.features.source.quarantine import Example, examples
from fieldwise.features.source.raw import read_range
from fieldwise.features.source.rows import FileRange, RawBatch, Reject
from fieldwise.pipelines.catalog.distinct import hashes_of_items, hashes_of_lists, smallest
from fieldwise.pipelines.catalog.items import repeated
from fieldwise.pipelines.config.catalog import DiversityConfig, PairsConfig
from fieldwise.pipelines.score.coverage import Coverage, Tally
from fieldwise.pipelines.score.ids import IdKind, identity, undecodable, wide
from fieldwise.pipelines.score.output import write_part
from fieldwise.pipelines.score.shipping import Shipped
from fieldwise.pipelines.score.sides import Side

CONTEXT, EXCLUDE, CANDIDATE, REPORT = range(4)
ROW = "kind int, id {id}, key bigint, payload binary, item bigint"
PLACED = "place int, kind int, id {id}, payload binary, item bigint"
"""id: see `IdKind`. payload: slots of a context, or what a report says. item: position, or -n for n pairs whose items
are not in the catalog: they are only counted.
"""
PAIRS = {EXCLUDE: "exclude", CANDIDATE: "candidates"}
READ, NO_ITEM = "read", "no_item"
"""Samples of pairs: a context's id as it was read, an item's that is no eligible one."""
_LOOKED_AT = 100
"""Pairs of a range among which different samples are looked for."""


class Pairs(NamedTuple):
    """Item positions per context: ``item[start[c]:start[c + 1]]``, ascending, each once."""

    start: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]


class Lists(NamedTuple):
    """Ranked lists of n contexts, one after another, and the ids that positions stand for."""

    start: npt.NDArray[np.int64]  # [n + 1]
    item: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]
    ids: pa.Array


Rank = Callable[["Model", pa.ChunkedArray, Pairs, "Pairs | None"], Lists]
"""(model, payloads of contexts, excluded, candidates) -> lists; see `pipelines.catalog.lists`."""


@dataclass(frozen=True)
class Inputs:
    """What encoding tasks read: ranges numbered over contexts, then exclusions, then candidates."""

    contexts: Side
    pairs: tuple[tuple[int, PairsConfig, str, str], ...]
    """(EXCLUDE or CANDIDATE, source, context column, item column)."""
    ranges: tuple[tuple[int, FileRange], ...]
    """(CONTEXT, EXCLUDE or CANDIDATE, range)."""
    item_ids: pa.Array
    """Of eligible items, sorted."""
    ids: IdKind
    """Of the contexts."""
    coverage: Coverage
    whole: bool
    """Contexts travel as raw columns, to be encoded pair by pair, not as slots."""
    directory: str


@dataclass(frozen=True)
class Model:
    """Model and catalog as executors find them, and what a list may hold."""

    shipped: Shipped
    k: int
    cap: int
    least: tuple[tuple[int, int], ...]
    """Categories, and how many items of each a list holds at least."""
    diversity: DiversityConfig | None
    only: bool
    """Lists hold candidates alone."""
    version: str
    directory: str
    """Where parts are written."""
    ids: IdKind
    wide: bool
    """Whether ids of contexts need uint64."""
    spec: FeatureSpec | None = None
    """Where pairs are encoded one by one."""


def encode_task(inputs: Shared[Inputs], spec: Shared[FeatureSpec], schema: pa.Schema) -> Task:
    """Rows of numbered ranges, and one report per task."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        todo = inputs.value
        said = Said(Tally(spec.value, todo.coverage))
        for index in indices(batches):
            kind, rng = todo.ranges[index]
            parts = _contexts(todo, rng, spec.value, index, said) if kind == CONTEXT else _pairs(todo, kind, rng, said)
            for part in parts:
                yield _rows(schema, kind, *part)
        report = pa.array([said.report()], pa.binary())
        yield _rows(schema, REPORT, pa.nulls(1, schema.field("id").type), np.zeros(1, np.int64), report, None)

    return run


class Said:
    """What a task has to say besides rows; the driver puts the words of all tasks together."""

    def __init__(self, tally: Tally) -> None:
        self.counts: Counter[str] = Counter()
        self.tally = tally
        self.samples: dict[str, list[str]] = {}
        """Ids as they were read: of a context, and of a pair of each table."""

    def sample(self, name: str, *ids: pa.Array) -> None:
        """Remember the first."""
        if name not in self.samples and len(ids[0]):
            self.samples[name] = [str(of[0].as_py())[:80] for of in ids]

    def reject(self, name: str, rejects: Sequence[Reject], seen: Sequence[Reject] = ()) -> None:
        """Count rows of a table that are set aside; keep samples of them, and of others that were ``seen``."""
        for reject in rejects:
            self.counts[f"{name} bad {json.dumps([reject.reason, reject.field])}"] += 1
        for example in [*examples(rejects), *examples(seen)]:
            self.counts[f"{name} example {json.dumps(example)}"] += 1

    def set_aside(self, name: str) -> tuple[dict[tuple[str, str], int], list[Example]]:
        """Rows by reason and field, and the samples, of what ``reject`` was told of a table."""

        def of(kind: str) -> dict[str, int]:
            start = f"{name} {kind} "
            return {key.removeprefix(start): n for key, n in self.counts.items() if key.startswith(start)}

        rows = {(*json.loads(text),): n for text, n in of("bad").items()}
        return rows, [Example(*json.loads(text)) for text in of("example")]

    def report(self) -> bytes:
        return json.dumps([self.counts, self.tally.report(), self.samples]).encode()

    def hear(self, report: bytes) -> None:
        counts, tally, samples = json.loads(report)
        self.counts.update(counts)
        self.tally.merge(tally)
        for name, sample in samples.items():
            self.samples[name] = min(sample, self.samples.get(name, sample))


Part = tuple[pa.Array, npt.NDArray[np.int64], pa.Array | None, npt.NDArray[np.int64] | None]
"""ids as they travel, their hashes, payloads, items."""


def _contexts(todo: Inputs, rng: FileRange, spec: FeatureSpec, index: int, said: Said) -> Iterator[Part]:
    rejects = []
    for rows in todo.contexts.rows(rng, spec):
        rejects += rows.rejects
        said.counts["contexts"] += len(rows.ids)
        said.counts["wide"] += wide(rows.ids)
        said.sample("contexts", rows.ids)
        said.tally.add(rows.slots, rows.columns)
        ids, can = todo.ids.packed(rows.ids)
        if not can.all():
            raise InputError(
                f"catalog.contexts: column {todo.contexts.id!r}",
                expected="integers of one type in all files",
                found=f"{rows.ids[int(np.argmin(can))].as_py()} beside files of int64",
                fix="Write the ids as text, or with one type.",
            )
        if todo.whole:
            payload = pa.array([to_stream(rows.columns.slice(i, 1)) for i in range(len(rows.ids))], pa.binary())
        else:
            slots = np.ascontiguousarray(rows.slots)
            offsets = np.arange(len(slots) + 1, dtype=np.int32) * (4 * slots.shape[1])
            payload = pa.Array.from_buffers(pa.binary(), len(slots), [None, pa.py_buffer(offsets), pa.py_buffer(slots)])
        yield ids, xxh64_array(rows.ids).view(np.int64), payload, None
    said.reject("contexts", rejects)
    if rejects:
        said.counts[f"quarantine {write_rejects(todo.directory, index, rejects)}"] = 1


def _pairs(todo: Inputs, kind: int, rng: FileRange, said: Said) -> Iterator[Part]:
    """Pairs whose item is in the catalog; the others cannot matter, so there is one row a context for them."""
    source, context, item = next((s, c, i) for k, s, c, i in todo.pairs if k == kind)
    name, counts = PAIRS[kind], said.counts
    rejects: list[Reject] = []
    seen: list[Reject] = []
    for raw in read_range(source, rng, list(dict.fromkeys([context, item]))):
        rejects += raw.rejects
        bad = {column: undecodable(raw.columns.array(column)) for column in (context, item)}
        rejects += [reject for column in bad for reject in _pointed(raw, column, bad[column], "undecodable")]
        good = ~(bad[context] | bad[item])
        if not good.all():
            raw = replace(raw, columns=raw.columns.filter(good), positions=raw.positions[good])
        read = identity(raw.columns.array(context), f"catalog.{name}: column {context!r}")
        items = identity(raw.columns.array(item), f"catalog.{name}: column {item!r}")
        said.sample(name, read, items)
        ids, can = todo.ids.packed(read)
        place = places_of(todo.item_ids, items)
        met = place >= 0
        if len(seen) < _LOOKED_AT:  # nobody knows yet which contexts there are
            valid = [ids_of.is_valid().to_numpy(zero_copy_only=False) for ids_of in (read, items)]
            seen += _pointed(raw, context, valid[0], READ) + _pointed(raw, item, valid[1] & ~met, NO_ITEM)
        counts[f"{name} read"] += len(place)
        counts[f"{name} blank"] += int(pc.sum(pc.or_(read.is_null(), items.is_null())).as_py() or 0)
        counts[f"{name} item"] += int(met.sum())
        counts[name] += int((met & can).sum())
        none = np.zeros(len(place), np.int64)
        yield ids.filter(pa.array(met & can)), none[met & can], None, place[met & can]
        others = ids.filter(pa.array(~met & can)).value_counts()
        yield others.field("values"), none[: len(others)], None, -others.field("counts").to_numpy()
    counts[f"{name} unreadable"] += len(rejects)
    said.reject(name, rejects, seen)


def _pointed(raw: RawBatch, column: str, rows: npt.NDArray[np.bool_], reason: str) -> list[Reject]:
    """Rows with their value in a column; of samples the first ones, of what is unreadable all."""
    found = np.flatnonzero(rows)
    return [
        Reject(raw.path, int(raw.positions[row]), reason, column, b"", text_at(raw.columns, column, int(row)))
        for row in (found if reason not in (READ, NO_ITEM) else found[:_LOOKED_AT])
    ]


def places_of(ids: pa.Array, wanted: pa.Array) -> npt.NDArray[np.int64]:
    """Position of every one of ``wanted`` among ``ids``, by canonical text; negative where it is none."""
    found = np.empty(len(wanted), np.int32)
    _index(ids).find(texts(wanted), found)
    return found.astype(np.int64) - FIRST


_INDEX: list[tuple[pa.Array, TextIndex]] = []


def _index(ids: pa.Array) -> TextIndex:
    """One per process and array of ids, which is held: after its end another job's could lie at its address."""
    held = _INDEX[0] if _INDEX else None
    if held is None or held[0] is not ids:
        held = (ids, TextIndex(ids))
        _INDEX[:] = [held]  # tasks may be threads, of several jobs: what is returned is what was looked at
    return held[1]


def _rows(
    schema: pa.Schema, kind: int, ids: pa.Array, key: npt.NDArray[np.int64], payload: pa.Array | None, items: Any
) -> pa.RecordBatch:
    n = len(ids)
    kinds, places = pa.array(np.full(n, kind, np.int32)), pa.nulls(n, pa.int64()) if items is None else pa.array(items)
    return pa.RecordBatch.from_arrays(
        [kinds, ids, pa.array(key), pa.nulls(n, pa.binary()) if payload is None else payload, places], schema=schema
    )


def drawn_task(share: float) -> Task:
    """(id): of the contexts, those whose hash is among the first ``share`` of all hashes."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            drawn = batch["key"].to_numpy().view(np.uint64) >> np.uint64(40) < int(share * 2**24)
            yield batch.filter(pa.array(drawn)).select(["id"])

    return run


def place_task(borders: list[Any], keys: list[int]) -> Task:
    """(place, kind, id, payload, item): file p holds the ids in [borders[p - 1], borders[p]), ``keys[p]`` sends it
    away.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            kind, ids, payload, item = batch.columns
            part = [bisect.bisect_right(borders, value) for value in ids.to_pylist()]
            place = pa.array(np.array(keys, np.int32)[np.array(part, np.int64)])
            yield pa.RecordBatch.from_arrays(
                [place, kind, ids, payload, item], ["place", "kind", "id", "payload", "item"]
            )

    return run


def rank_task(model: Shared[Model], keys: list[int], lists: Rank) -> Task:
    """(report): every file's contexts in the order of their ids, their lists in the order of ranks."""
    part_of = {key: part for part, key in enumerate(keys)}

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: dict[int, list[pa.RecordBatch]] = {}
        for batch in batches:
            places = batch.column(0).to_numpy()
            for place in np.unique(places):
                held.setdefault(part_of[int(place)], []).append(batch.filter(pa.array(places == place)))
        for part in sorted(held):
            report = _rank(model.value, part, pa.Table.from_batches(held.pop(part)), lists)
            yield reports([json.dumps(report).encode()])

    return run


def _rank(model: Model, part: int, rows: pa.Table, lists: Rank) -> dict[str, Any]:
    kinds = rows["kind"].to_numpy()
    contexts = rows.filter(pa.array(kinds == CONTEXT)).sort_by("id").combine_chunks()
    packed = contexts["id"].combine_chunks() if len(contexts) else pa.array([], rows.schema.field("id").type)
    ids = model.ids.unpacked(packed, model.wide)
    twins = repeated(ids)
    if len(twins):
        return {"twin": ids[int(twins[0])].as_py()}
    met: dict[str, dict[str, int]] = {}

    def pairs(kind: int) -> Pairs:
        mine = rows.filter(pa.array(kinds == kind))
        context = pc.fill_null(pc.index_in(mine["id"], packed), -1).to_numpy() if len(mine) else np.empty(0, np.int64)
        found, item = context >= 0, mine["item"].to_numpy()
        known = found & (item >= 0)
        both = int(known.sum())
        met[PAIRS[kind]] = {"context": both - int(item[found & (item < 0)].sum()), "both": both}
        flat = np.unique(np.column_stack([context[known].astype(np.int64), item[known]]), axis=0)
        return Pairs(np.searchsorted(flat[:, 0], np.arange(len(ids) + 1)), np.ascontiguousarray(flat[:, 1]))

    exclude, only = pairs(EXCLUDE), pairs(CANDIDATE) if model.only else None
    ranked = lists(model, contexts["payload"], exclude, only)
    lengths = np.diff(ranked.start)
    rank = np.arange(len(ranked.item)) - np.repeat(ranked.start[:-1], lengths) + 1
    table = pa.table(
        {
            "context_id": ids.take(pa.array(np.repeat(np.arange(len(ids)), lengths))),
            "rank": pa.array(rank.astype(np.int32)),
            "item_id": ranked.ids.take(pa.array(ranked.item)),
            "probability": pa.array(ranked.probability),
            "model_version": pa.repeat(pa.scalar(model.version), len(rank)),
        }
    )
    often = ["context_id", "rank", "model_version"]
    report = write_part(model.directory, part, table, dictionary=often, statistics=["context_id"])
    varied = {
        "lists": smallest(hashes_of_lists(ranked.start, ranked.item)),
        "listed": smallest(hashes_of_items(ranked.item)),
    }
    return {**report, "contexts": len(ids), "met": met, **varied}
