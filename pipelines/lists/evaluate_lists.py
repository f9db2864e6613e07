"""Published lists, measured by what happened afterwards, beside the most popular items and random ones."""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from fieldwise.features import store
from fieldwise.features.columns.day import day_of
from fieldwise.features.columns.expression import Expression
from fieldwise.features.columns.text import canonical
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.quarantine import Example
from fieldwise.features.source.raw import split_ranges
from fieldwise.features.store.kept import read_record
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.agreement import is_dated
from fieldwise.pipelines.build.quality import judged, say_quarantined
from fieldwise.pipelines.catalog.items import RANGE_BYTES
from fieldwise.pipelines.config.schema import Config, resolve
from fieldwise.pipelines.engine import open_engine
from fieldwise.pipelines.lists import tasks
from fieldwise.pipelines.lists.asked import Asked, days_after, events_of, history_of, pairs_of, warn_of_trained
from fieldwise.pipelines.lists.described import DescribedSide, Eligible, read_eligible
from fieldwise.pipelines.lists.measure import Measured, Yardsticks
from fieldwise.pipelines.lists.page import PAGE, page
from fieldwise.pipelines.lists.results import beats_popularity, figures, logged
from fieldwise.pipelines.lists.results import told as told_words
from fieldwise.pipelines.lists.sources import Table
from fieldwise.pipelines.registry import registry
from fieldwise.pipelines.score.output import MANIFEST, target_of

RESULT = "lists.json"
_MOST_PLACES = 4096


def evaluate_lists(
    config: Config,
    *,
    date: str | None = None,
    first: str | None = None,
    last: str | None = None,
    lists: str | None = None,
    out: str | None = None,
) -> dict[str, Any]:
    """Measure lists of ``score-catalog``, or any Parquet of its first columns, on what happened afterwards.

    Every context with a wanted item counts once, whether or not it has a list; an item that is not in the catalog
    counts as wanted and was never listed. All of it is done by tasks, in memory for the catalog's items and a batch.

    Args:
        date: of the lists; stands for ``{date}`` in the catalog's paths.
        first, last: the days that the lists are measured on; default: the one after ``date``.
        lists: their directory; default ``<workspace>/scores/catalog/date=<date or all>``.
        out: default ``<workspace>/evaluations/lists``; ``lists.json`` and ``report.html`` go to ``date=<date or all>``.

    Returns: what ``lists.json`` holds, without slices.

    Raises: ConfigError, InputError, ArtifactError (exit code 2), RefusedError (3) past the tolerated share of
    unreadable rows, TrackingError (1) where MLflow does not take the metrics: the result is written by then.
    """
    started = time.perf_counter()
    found, target = measure_lists(config, date=date, first=first, last=last, lists=lists, out=out)
    say(*told_words(found), f"lists measured: {target}, {time.perf_counter() - started:.1f} s")
    if not beats_popularity(found):
        say(*_advice(config))
    note_lists(config, found)
    shown = {key: value for key, value in found.items() if key != "slices"}
    return {**shown, "dir": target, "seconds": round(time.perf_counter() - started, 3)}


def measure_lists(
    config: Config, *, date: str | None, first: str | None, last: str | None, lists: str | None = None,
    out: str | None = None,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """What ``lists.json`` holds, and the directory that holds it; nobody is told. See `evaluate_lists`."""
    catalog = config.require_catalog()
    cutoffs = config.lists.lengths(catalog.k)
    days = days_after(date, first, last)
    place = lists or target_of(config, None, date, "scores", "catalog")
    manifest = read_record(store.join(place, MANIFEST), "the manifest of published lists", "Score the catalog again.")
    pairs = _pairs(config, place, days, date)
    items = read_eligible(config, date)
    measured, seen = _measure(config, cutoffs, pairs, items, date)
    if cutoffs[-1] > catalog.k and lists is None:
        warn(f"lists.cutoffs goes to {cutoffs[-1]}, lists to {catalog.k} (catalog.k): there yardsticks are longer")
    warn_of_trained(config, days)
    _warn_of_seen(config)
    found = {
        "date": date,
        "lists": {"dir": place} | {key: (manifest or {}).get(key) for key in ("model", "model_version", "digest")},
        "days": days,
        "items": len(items.ids),
        **figures(config.lists, cutoffs, measured, *seen),
    }
    target = target_of(config, out, date, "evaluations", "lists")
    store.make_dir(target)
    store.write_atomic(store.join(target, RESULT), (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())
    store.write_atomic(store.join(target, PAGE), page(found, f"{config.name}: lists of {date or 'all'}").encode())
    return found, target


def _advice(config: Config) -> Iterator[str]:
    """What may help lists that do not beat popularity; see docs/lists.md."""
    catalog = config.require_catalog()
    if config.negatives is None:
        items = catalog.items.model_dump(mode="json", exclude_unset=True)
        ids = {"context": config.lists.context or catalog.context_id, "item": config.lists.item or catalog.item_id}
        block = json.dumps({"items": items, **ids, "per_positive": 16, "by": "uniform", "exclude": None})
        yield (
            "  a model of what was shown ranks by what follows being shown. Of what people turn to learns one of the "
            "positives alone, beside items drawn for each (docs/lists.md): write these two lines, then `fieldwise "
            "features --replace`, and train"
        )
        both = f"({config.filter}) and ({config.label})" if config.filter else config.label
        yield f"    filter: {json.dumps(both)}"
        yield f"    negatives: {block}"
    else:
        yield "  what else may help: fields of contexts and items that tell tastes apart, more days, catalog.fixed"


def _warn_of_seen(config: Config) -> None:
    """Negatives that spare what a context does later have told the model of it."""
    if config.negatives is not None and config.negatives.exclude == "seen" and not is_dated(config):
        warn(
            "negatives.exclude: seen leaves out what contexts did on these days, too, when negatives are drawn: their "
            "lists look better than they are. Write `exclude: null` below `negatives:` to measure lists"
        )


def note_lists(config: Config, found: Mapping[str, Any]) -> None:
    """Tell the run of the registered model that made the lists, if one did, their metrics on their last day. Twice is
    once. Raises TrackingError."""
    version, days = found["lists"]["model_version"], found["days"]
    if version is not None and str(version).isdecimal():
        moment = day_of(days[-1]) if days else datetime.date(1970, 1, 1)
        since = (moment - datetime.date(1970, 1, 1)).days * 86_400_000
        registry(config).note(version, {}, run={}, metrics=logged(found), time=since)


def _pairs(config: Config, place: str, days: list[str], date: str | None) -> dict[str, Asked]:
    """All tables of contexts and items, and their files."""
    catalog = config.require_catalog()
    source = SourceConfig(path=[resolve(place, config.base)], format="parquet")
    listed = Table(source, "context_id", "item_id", Expression("rank"))
    pairs = {
        "lists": Asked(listed, list_files(source, config.base)),
        "events": events_of(config, days),
        "history": history_of(config, days, date),
    }
    for name in ("exclude", "candidates"):
        table = getattr(catalog, name)
        if table is not None:
            pairs[name] = pairs_of(config, table, date)
    return pairs


def _measure(
    config: Config, cutoffs: list[int], pairs: dict[str, Asked], items: Eligible, date: str | None
) -> tuple[Measured, tuple[dict[str, Counter[str]], Any]]:
    """What all tasks have measured; what was read, by table; [N] how often each item was wanted before."""
    lists = config.lists
    sliced = DescribedSide.of(config, "contexts", lists.context_slices, date) if lists.context_slices else None
    read = {name: (asked.rows.source, asked.files) for name, asked in pairs.items()}
    if sliced is not None:
        read["contexts"] = sliced.source, list_files(sliced.source, config.base, date)
    engine = open_engine(config, "evaluate-lists", [file for _, files in read.values() for file in files])
    ranges = [(name, rng) for name, (source, files) in read.items() for rng in split_ranges(source, files, RANGE_BYTES)]
    ids = canonical(items.ids).cast(pa.string())
    inputs = tasks.Inputs({name: asked.rows for name, asked in pairs.items()}, sliced, tuple(ranges), ids)
    with engine.numbered(len(ranges)).mapped(tasks.read_task(engine.share(inputs)), tasks.ROW).kept() as rows:
        told = rows.where("kind", [tasks.REPORT, tasks.COUNTS], ["kind", "payload"]).rows("read")
        seen, wanted = _heard(config, told, read, len(ids))
        popular = np.empty(len(ids), np.int64)
        popular[np.argsort(-wanted[1], kind="stable")] = np.arange(1, len(ids) + 1)
        of = Yardsticks(
            tuple(cutoffs), popular, wanted[0] == 0, "candidates" in pairs, tuple(lists.context_slices),
            items.slices,
        )  # fmt: skip
        places = max(engine.cores, min(len(ranges), _MOST_PLACES))
        said = rows.where("kind", sorted(tasks.KINDS), ["key", "context", "kind", "payload"])
        by_context = said.shuffled("key", places, order=["key", "context"])
        measured = Measured(of)
        for row in by_context.mapped(tasks.measure_task(engine.share(of)), tasks.FOUND).rows("measure"):
            measured.hear(row["what"], row["about"], bytes(row["data"]))
    return measured, (seen, wanted[1])


def _heard(config: Config, rows: list[Any], read: dict[str, Any], items: int) -> tuple[dict[str, Counter[str]], Any]:
    """Counts by table, and [2, items] rows and positives of the history. RefusedError for too many unreadable rows."""
    counts = {name: Counter[str]() for name in read}
    bad: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in read}
    examples: dict[str, list[Example]] = {name: [] for name in read}
    wanted = np.zeros((2, items), np.int64)
    for row in rows:
        payload = bytes(row["payload"])
        if row["kind"] == tasks.COUNTS:
            item, *happened = np.frombuffer(payload, np.int64).reshape(-1, 3).T
            wanted[:, item] += np.stack(happened)
            continue
        said = json.loads(payload)
        counts[said["name"]].update(said["counts"])
        bad[said["name"]].update({(reason, field): n for reason, field, n in said["bad"]})
        examples[said["name"]] += [Example(*each) for each in said["examples"]]
    for name, (source, _) in read.items():
        found = judged(config, f"lists: {name}", counts[name]["rows"], bad[name], examples[name], source.format)
        say_quarantined(config, found)
        counts[name]["unreadable"] = sum(part.rows for part in found)
    if not counts["events"]["positives"]:
        none, fix = f"none among {counts['events']['rows']:,} rows", "Check --from, --to and lists.events."
        raise InputError("evaluate-lists", expected="pairs that happened after the lists", found=none, fix=fix)
    return counts, wanted
