"""Why rows score as they do: the exact share of every field and every pair of fields in the logit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.batch import one_table
from fieldwise.features.columns.text import canonical, plain
from fieldwise.features.errors import InputError
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
from fieldwise.training.scoring.scorer import Scorer

WHOLE = 1 << 62
"""Whole files as ranges: rows are read until there are enough, and no file is looked through for where to cut it."""


def explain_rows(config: Config, *, model: str | None = None, rows: int = 1, top: int = 10) -> dict[str, Any]:
    """Explain the first ``rows`` rows of the source; their largest ``top`` terms are printed to stderr.

    Raises ArtifactError for a model that is no sum over fields and pairs of fields.
    """
    opened = open_model(model, config)
    bundle = opened.bundle
    require_model(bundle, config, model or "the champion")
    scorer = Scorer(bundle)
    scorer.require_pairwise()
    raw = head(config, rows)
    encoded = Encoder(bundle.spec).encode(raw)
    if encoded.problems:
        bad = encoded.problems[0]
        raise InputError(
            f"row {bad.row}, field {bad.field}",
            expected="a readable value",
            found=repr(bad.value),
            fix=f"{bad.reason}.",
        )
    explained = [explain(scorer, bundle.spec, slots, raw.slice(n, 1)) for n, slots in enumerate(encoded.slots)]
    for row in explained:
        _show(row, top)
    return {"model": bundle.digest, "used_model": opened.facts, "rows": explained}


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


def explain(scorer: Scorer, spec: FeatureSpec, slots: npt.NDArray[np.int32], raw: pa.RecordBatch) -> dict[str, Any]:
    """`Scorer.explain` of one row, with the names of its fields and the raw values behind them."""
    values = {f.name: [_shown(raw.column(c)[0]) for c in f.config.columns] for f in spec.fields}
    explained = scorer.explain(slots)
    return {
        "logit": explained.logit,
        "logit_shift": explained.logit_shift,
        "calibration": explained.method,
        "calibrated_logit": explained.calibrated,
        "probability": explained.probability,
        "bias": next(part.value for part in explained.parts if not part.fields),
        "values": {name: found[0] if len(found) == 1 else found for name, found in values.items()},
        "terms": [
            {"fields": [spec.fields[f].name for f in part.fields], "logit": part.value}
            for part in explained.parts
            if part.fields and part.value
        ],
    }


def _shown(value: pa.Scalar) -> Any:
    """A raw value as JSON has it: what JSON lacks by the text that fields read."""
    found = plain(value)
    if isinstance(found, list):
        return [item if isinstance(item, str | int | None) else str(item) for item in found]
    if isinstance(found, float) and not math.isfinite(found):
        return None if math.isnan(found) else str(found)
    if found is None or isinstance(found, str | int | float):
        return found
    return canonical(pa.array([found], value.type)).to_pylist()[0] if not isinstance(found, dict) else str(found)


def _show(row: dict[str, Any], top: int) -> None:
    shift = f" {row['logit_shift']:+.4f} by calibration" if row["logit_shift"] else ""
    if row["calibration"]:
        shift += f", {row['calibrated_logit']:+.4f} by {row['calibration']} calibration"
    say(f"probability {row['probability']:.5f}, logit {row['logit']:+.4f}{shift}, bias {row['bias']:+.4f}")
    for term in row["terms"][:top]:
        named = " x ".join(f"{name}={row['values'][name]}" for name in term["fields"])
        say(f"  {term['logit']:+.4f}  {named}")
