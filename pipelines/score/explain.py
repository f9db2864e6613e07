"""Why rows, or a whole model, score as they do: the exact share of every field and every pair of fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.batch import one_table
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
from fieldwise.pipelines.score.pair import pair_row
from fieldwise.pipelines.score.words import Names, as_json, text_of, values_in_words
from fieldwise.pipelines.train.evaluate import open_split
from fieldwise.pipelines.train.importance import model_importance, told
from fieldwise.training.scoring.scorer import Scorer

WHOLE = 1 << 62
"""Whole files as ranges: rows are read until there are enough, and no file is looked through for where to cut it."""


def explain_rows(
    config: Config,
    *,
    model: str | None = None,
    rows: int = 1,
    top: int = 10,
    context: str | None = None,
    item: str | None = None,
    date: str | None = None,
) -> dict[str, Any]:
    """Explain the first ``rows`` rows of the source, or one pair of the catalog; the largest ``top`` terms of each are
    printed to stderr.

    Args:
        context, item: ids of the pair, whose row is what ``score-catalog`` scores.
        date: of the pair: stands for ``{date}`` in the catalog's paths and its ``time``.

    Raises ArtifactError for a model that is no sum over fields and pairs of fields.
    """
    if (context is None) != (item is None):
        found = "--context alone" if item is None else "--item alone"
        fix = "Give the other one, or neither to explain rows of the source."
        raise ConfigError("explain", expected="--context and --item together", found=found, fix=fix)
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
    return {"model": bundle.digest, "used_model": opened.facts, "rows": explained}


def explain_model(
    config: Config, *, model: str | None = None, snapshots: Sequence[str] | None = None, role: str = "test",
    top: int = 10,
) -> dict[str, Any]:  # fmt: skip
    """What a model's logits follow from as a whole: the share of every field and every pair of fields in their
    variance over rows of a role (`training.scoring.importance`), and what the logloss rises by where a field is hidden.

    Args:
        snapshots: default: the workspace's ``all``. Unsplit (daily) snapshots count for any role.

    Raises: as ``evaluate_model``.
    """
    opened = open_model(model, config)
    split, _ = open_split(config, {model or "the champion": opened.bundle}, snapshots, role)
    found = told(model_importance(opened.bundle, split), opened.bundle.spec)
    _show_importance(found, top)
    return {"model": opened.bundle.digest, "used_model": opened.facts, "role": role, **found}


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
    shift = f" {row['logit_shift']:+.4f} by calibration" if row["logit_shift"] else ""
    if row["calibration"]:
        shift += f", {row['calibrated_logit']:+.4f} by {row['calibration']} calibration"
    say(f"probability {row['probability']:.5f}, logit {row['logit']:+.4f}{shift}, bias {row['bias']:+.4f}")
    for term in row["terms"][:top]:
        named = " x ".join(f"{name}={row['values'][name]}" for name in term["fields"])
        say(f"  {term['logit']:+.4f}  {named}")


def _show_importance(found: dict[str, Any], top: int) -> None:
    say(f"share of the logits' variance over {found['rows']:,} rows, and what the logloss rises by without the field")
    for each in found["fields"][:top]:
        share = "      -" if each["share"] is None else f"{each['share']:7.2%}"
        say(f"  {share}  {each['hidden']:+.5f}  {each['field']}")
    for each in found["pairs"][:top]:
        say(f"  {each['share']:7.2%}            {' x '.join(each['fields'])}")
