"""Why rows, or a whole model, score as they do: the exact share of every field and every pair of fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.columns.batch import one_table
from fieldwise.features.columns.text import canonical
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.keys import require_keys
from fieldwise.features.source.log import LogReader
from fieldwise.features.source.raw import split_ranges
from fieldwise.features.source.rows import Reject
from fieldwise.features.terminal import say
from fieldwise.pipelines.agreement import require_model
from fieldwise.pipelines.build.quality import judged_rejects
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.registry import open_model
from fieldwise.pipelines.score.names import names_of
from fieldwise.pipelines.score.picture import (
    logit_words,
    page_of,
    picture_of,
    require_picture,
    term_words,
    write_picture,
)
from fieldwise.pipelines.score.sides import Side, split_sides
from fieldwise.pipelines.score.words import Names, as_json, text_of, values_in_words
from fieldwise.pipelines.train.evaluate import open_split
from fieldwise.pipelines.train.importance import model_importance, page, picture, told
from fieldwise.training.scoring.scorer import Scorer

WHOLE = 1 << 62
"""Whole files as ranges: rows are read until there are enough, and no file is looked through for where to cut it."""
_RANGE_BYTES = 8 << 20
"""Of a side, until an id is found."""


def explain_rows(
    config: Config,
    *,
    model: str | None = None,
    rows: int = 1,
    top: int = 10,
    context: str | None = None,
    item: str | None = None,
    date: str | None = None,
    plot: str | None = None,
) -> dict[str, Any]:
    """Explain the first ``rows`` rows of the source, or one pair of the catalog; the largest ``top`` terms of each are
    printed to stderr.

    Args:
        context, item: ids of the pair, whose row is what ``score-catalog`` scores.
        date: of the pair: stands for ``{date}`` in the catalog's paths and its ``time``.
        plot: a file to draw it in: an ``.html`` page, or for one row an ``.svg`` picture.

    Raises ArtifactError for a model that is no sum over fields and pairs of fields.
    """
    if (context is None) != (item is None):
        found = "--context alone" if item is None else "--item alone"
        fix = "Give the other one, or neither to explain rows of the source."
        raise ConfigError("explain", expected="--context and --item together", found=found, fix=fix)
    require_picture(plot, rows if context is None else 1)
    opened = open_model(model, config)
    bundle = opened.bundle
    require_model(bundle, config, model or "the champion")
    scorer = Scorer(bundle)
    scorer.require_pairwise()
    pair = None if context is None or item is None else pair_row(config, bundle.spec, context, item, date)
    raw = head(config, rows) if pair is None else pair
    encoded = Encoder(bundle.spec).encode(raw).require_readable()
    names = names_behind(config, bundle.spec, raw, date)
    explained = [explain(scorer, bundle.spec, slots, raw.slice(n, 1), names) for n, slots in enumerate(encoded)]
    for row in explained:
        _show(row, top)
    if plot is not None:
        title = f"{config.name}: " + (f"context {context}, item {item}" if context is not None else "why rows score so")
        write_picture(plot, page_of(explained, title, top), picture_of(explained[0], top))
    return {"model": bundle.digest, "used_model": opened.facts, "rows": explained}


def explain_model(
    config: Config, *, model: str | None = None, snapshots: Sequence[str] | None = None, role: str = "test",
    top: int = 10, plot: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a model's logits follow from as a whole: the share of every field and every pair of fields in their
    variance over rows of a role (`training.scoring.importance`), and what the logloss rises by where a field is hidden.

    Args:
        snapshots: default: the workspace's ``all``. Unsplit (daily) snapshots count for any role.
        plot: a file to draw it in: an ``.html`` page, or the heat map of pairs as an ``.svg`` picture.

    Raises: as ``evaluate_model``.
    """
    require_picture(plot)
    opened = open_model(model, config)
    split, _ = open_split(config, {model or "the champion": opened.bundle}, snapshots, role)
    found = told(model_importance(opened.bundle, split), opened.bundle.spec)
    _show_importance(found, top)
    if plot is not None:
        title = f"{config.name}: what {opened.bundle.kind} {opened.bundle.digest[:12]} follows from"
        write_picture(plot, page(found, title, role), picture(found))
    return {"model": opened.bundle.digest, "used_model": opened.facts, "role": role, **found}


def pair_row(config: Config, spec: FeatureSpec, context: str, item: str, date: str | None) -> pa.RecordBatch:
    """One context with one item, as ``score-catalog`` scores them: the raw columns that the spec reads, [1 row].

    Raises ConfigError without a ``catalog`` block, InputError for ids that its sources do not have.
    """
    split = split_sides(config, spec, date)
    of_context = _row_of(config, split.contexts, spec, context, date)
    of_item = _row_of(config, split.items, spec, item, date)
    joined = {name for table in split.items.tables for name in table.names}
    own = {*split.items.read, *joined} - set(split.contexts.constants)
    columns = [(of_item if name in own else of_context).column(name) for name in spec.raw_columns]
    return pa.RecordBatch.from_arrays(columns, list(spec.raw_columns))


def _row_of(config: Config, side: Side, spec: FeatureSpec, wanted: str, date: str | None) -> pa.RecordBatch:
    """The row of an id; ids are compared by their canonical text. What the catalog's filter says does not matter."""
    files = list_files(side.source, config.base, date)
    for part in split_ranges(side.source, files, _RANGE_BYTES):
        for rows in side.rows(part, spec):
            met = pc.fill_null(pc.equal(canonical(rows.ids).cast(pa.string()), wanted), False)
            if pc.any(met).as_py():
                return rows.columns.filter(met).slice(0, 1)
    raise InputError(
        f"--{side.name.removesuffix('s')}", expected=f"a value of column {side.id!r} in catalog.{side.name}",
        found=repr(wanted), fix=f"Look it up in {', '.join(side.source.path)}.",
    )  # fmt: skip


def names_behind(config: Config, spec: FeatureSpec, raw: pa.RecordBatch, date: str | None = None) -> Names:
    """What keys of fields that read one column each are called, where a table says so."""
    columns = dict.fromkeys(f.config.columns[0] for f in spec.fields if len(f.config.columns) == 1 and f.slots == 1)
    keys = {column: {text_of(value) for value in raw.column(column)} - {""} for column in columns}
    return {column: names_of(config, column, wanted, date) for column, wanted in keys.items()}


def head(config: Config, rows: int) -> pa.RecordBatch:
    """The first readable rows of the source, side tables joined."""
    files = list_files(config.source, config.base, None)
    reader = LogReader(config.features, config.base, need_label=False)
    require_keys(config.source, files, reader.columns)
    rejects: list[Reject] = []
    found: list[pa.RecordBatch] = []
    for part in split_ranges(config.source, files, WHOLE):
        for batch in reader.read(part):
            rejects += batch.rejects
            if batch.rows:
                found.append(batch.columns.batch().slice(0, rows - sum(had.num_rows for had in found)))
            if sum(had.num_rows for had in found) >= rows:
                return one_table(found).combine_chunks().to_batches()[0]
    if found:
        return one_table(found).combine_chunks().to_batches()[0]
    judged_rejects(config, "source", 0, rejects, config.source.format)
    raise InputError("source", expected="at least one row", found="none", fix="Check source.path.")


def explain(
    scorer: Scorer, spec: FeatureSpec, slots: npt.NDArray[np.int32], raw: pa.RecordBatch, names: Names | None = None
) -> dict[str, Any]:
    """`Scorer.explain` of one row, with the names of its fields and what stands in them: ``values`` in words, ``raw``
    as the row has it."""
    behind = {f.name: [as_json(raw.column(c)[0]) for c in f.config.columns] for f in spec.fields}
    explained = scorer.explain(slots)
    return {
        "logit": explained.logit,
        "logit_shift": explained.logit_shift,
        "calibration": explained.method,
        "calibrated_logit": explained.calibrated,
        "probability": explained.probability,
        "bias": next(part.value for part in explained.parts if not part.fields),
        "values": values_in_words(spec, slots, raw, names or {}),
        "raw": {name: found[0] if len(found) == 1 else found for name, found in behind.items()},
        "terms": [
            {"fields": [spec.fields[f].name for f in part.fields], "logit": part.value}
            for part in explained.parts
            if part.fields and part.value
        ],
    }


def _show(row: dict[str, Any], top: int) -> None:
    say(logit_words(row))
    for term in row["terms"][:top]:
        say(f"  {term['logit']:+.4f}  {term_words(row, term)}")


def _show_importance(found: dict[str, Any], top: int) -> None:
    say(f"share of the logits' variance over {found['rows']:,} rows, and what the logloss rises by without the field")
    for each in found["fields"][:top]:
        share = "      -" if each["share"] is None else f"{each['share']:7.2%}"
        say(f"  {share}  {each['hidden']:+.5f}  {each['field']}")
    for each in found["pairs"][:top]:
        say(f"  {each['share']:7.2%}            {' x '.join(each['fields'])}")
