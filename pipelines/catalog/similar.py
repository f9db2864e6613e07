"""The nearest neighbours of every item, or of every context, by the model's own vectors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from fieldwise.features.arrays import Float32
from fieldwise.features.config import SourceConfig
from fieldwise.features.engine.base import Shared, Task, collect_reports, indices, reports
from fieldwise.features.files.listing import list_files
from fieldwise.features.terminal import say
from fieldwise.pipelines.agreement import require_model
from fieldwise.pipelines.build.quality import say_quarantined
from fieldwise.pipelines.catalog.items import read_items
from fieldwise.pipelines.catalog.vectors import read_contexts, require_similarity
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.engine import open_engine
from fieldwise.pipelines.registry import open_model
from fieldwise.pipelines.score.coverage import Coverage, require_known
from fieldwise.pipelines.score.output import Output, target_of, write_part
from fieldwise.pipelines.score.sides import split_sides
from fieldwise.pipelines.unchanged import require_unchanged, stamps_of
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.scoring.factors import context_factors, item_factors
from fieldwise.training.scoring.neighbours import By, neighbours
from fieldwise.training.scoring.scorer import Scorer

Side = Literal["items", "contexts"]
ROWS_PER_FILE = 4096
_RULES = 1
"""Raised when other neighbours follow from the same request."""


@dataclass(frozen=True)
class _Todo:
    """What tasks know: vectors in the order of their ids."""

    ids: pa.Array
    vectors: Float32
    k: int
    by: By
    version: str
    directory: str
    threads: int | None
    """Of torch, where a task has a process of its own."""


def similar(
    config: Config,
    side: Side,
    *,
    model: str | None = None,
    date: str | None = None,
    k: int = 10,
    by: By = "cosine",
    out: str | None = None,
) -> dict[str, Any]:
    """Publish ``<out>/date=<date or all>``: id, rank (from 1), similar_id, similarity, model_version.

    Exactly those that comparing every pair gives, by (similarity as float32 descending, id ascending); none is its own
    neighbour. The vectors are those of ``export-factors`` without the biases: items are alike where the same contexts
    like them, contexts where they like the same items. All of them lie in the memory of the driver and of each
    executor's processes; the work grows with the square of their number.

    Args:
        by: cosine or inner product.
        out: default ``<workspace>/similar/<side>``.

    Raises: ConfigError for models without such vectors; else as score-catalog.
    """
    started = time.perf_counter()
    catalog = config.require_catalog()
    opened = open_model(model, config)
    bundle = opened.bundle
    require_model(bundle, config, f"model {opened.label}")
    target = target_of(config, out, date, "similar", side)
    sources: list[SourceConfig] = [catalog.items if side == "items" else catalog.contexts, *config.join]
    stamps = stamps_of(file for source in sources for file in list_files(source, config.base, date))
    of_lists = {"max_unmatched", "item_name", "k", "cap", "at_least", "diversity", "exclude", "candidates"}
    asked = catalog.model_dump(mode="json", exclude=of_lists)
    output = Output(target, [_RULES, bundle.digest, opened.label, date, asked, k, by, stamps])
    manifest, status = output.standing(), "already published"
    if manifest is None:
        status = "published"
        files = [file for source in sources for file in list_files(source, config.base, date)]
        engine = open_engine(config, f"similar-{side}", files)
        ids, vectors = _vectors(config, bundle, side, date)
        with output:
            threads = engine.task_cores if engine.apart else None
            todo = _Todo(ids, vectors, k, by, opened.label, output.staging, threads)
            tasks = engine.numbered(-(-len(ids) // ROWS_PER_FILE))
            parts = collect_reports(tasks, _task(engine.share(todo)), f"similar {side}")
            require_unchanged(stamps)
            parts.sort(key=lambda part: part["number"])
            facts = {"date": date, "model": bundle.digest, "model_version": opened.label, side: len(ids), "by": by,
                     "k": k, "dimensions": vectors.shape[1], "rows": sum(part["rows"] for part in parts)}  # fmt: skip
            manifest = output.publish(parts, facts)
    seconds = time.perf_counter() - started
    say(f"neighbours of {manifest[side]:,} {side} by {by} {status}: {target}, {seconds:.1f} s")
    told = {key: value for key, value in manifest.items() if key not in ("files", "request")}
    return {**told, "dir": target, "status": status, "files": len(manifest["files"]), "seconds": round(seconds, 3),
            "used_model": opened.facts}  # fmt: skip


def _vectors(config: Config, bundle: Bundle, side: Side, date: str | None) -> tuple[pa.Array, Float32]:
    """(ids ascending, their vectors)"""
    split = split_sides(config, bundle.spec, date)
    require_similarity(bundle, split, f"similar-{side}")
    scorer, coverage = Scorer(bundle), Coverage.of(bundle, config)
    if side == "items":
        items = read_items(config, split.items, bundle.spec, date, coverage)
        ids, tally, bad = items.ids, items.tally, items.quarantined
        vectors = item_factors(scorer, split.of_item, items.slots).vectors
    else:
        contexts = read_contexts(config, split.contexts, bundle.spec, date, coverage)
        order = pc.sort_indices(contexts.ids)
        ids, tally, bad = contexts.ids.take(order), contexts.tally, contexts.quarantined
        vectors = context_factors(scorer, split.of_item, contexts.slots[order.to_numpy()]).vectors
    say_quarantined(config, bad)
    require_known(config, bundle.spec, f"catalog.{side}", tally.shares(split.fields(bundle.spec, item=side == "items")))
    return ids, vectors


def _task(todo: Shared[_Todo]) -> Task:
    """(report): the neighbours of a file's rows, written."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        of = todo.value
        if of.threads is not None:
            torch.set_num_threads(of.threads)
        for number in indices(batches):
            rows = np.arange(number * ROWS_PER_FILE, min((number + 1) * ROWS_PER_FILE, len(of.ids)))
            place, similarity = neighbours(of.vectors, rows, of.k, of.by)
            each = place.shape[1]
            table = pa.table(
                {
                    "id": of.ids.take(pa.array(np.repeat(rows, each))),
                    "rank": pa.array(np.tile(np.arange(1, each + 1, dtype=np.int32), len(rows))),
                    "similar_id": of.ids.take(pa.array(place.ravel())),
                    "similarity": pa.array(similarity.ravel()),
                    "model_version": pa.repeat(pa.scalar(of.version), place.size),
                }
            )
            often = ["id", "rank", "similar_id", "model_version"]
            report = write_part(of.directory, number, table, dictionary=often, statistics=["id"])
            yield reports([json.dumps(report).encode()])

    return run
