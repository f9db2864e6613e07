"""Why rows score as they do: the exact share of every field and every pair of fields in the logit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from training.scoring import Scorer

from features.encoder import Encoder
from features.errors import InputError
from features.log import LogReader
from features.source import list_files, split_ranges
from pipelines.config import Config
from pipelines.models import resolve_model
from pipelines.say import say
from training.bundle import load_bundle

HEAD_BYTES = 1 << 16


def explain_rows(config: Config, *, model: str | None = None, rows: int = 1, top: int = 10) -> dict[str, Any]:
    """Explain the first ``rows`` rows of the source; their largest ``top`` terms are printed to stderr."""
    bundle = load_bundle(resolve_model(model, config))
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
    scorer = Scorer(bundle)
    explained = [explain(scorer, bundle.spec, slots, raw.slice(n, 1)) for n, slots in enumerate(encoded.slots)]
    for row in explained:
        _show(row, top)
    return {"model": bundle.digest, "rows": explained}


def head(config: Config, rows: int) -> pa.RecordBatch:
    """The first readable rows of the source, side tables joined."""
    files = list_files(config.source, config.base, None)
    reader = LogReader(config.features, config.base, need_label=False)
    for part in split_ranges(config.source, files, HEAD_BYTES):
        for batch in reader.read(part):
            if batch.columns.num_rows:
                return batch.columns.slice(0, rows)
    raise InputError("source", expected="at least one row", found="none", fix="Check source.path.")


def explain(scorer: Scorer, spec: Any, slots: npt.NDArray[np.int32], raw: pa.RecordBatch) -> dict[str, Any]:
    """Split one row's logit: ``logit = bias + sum of field terms + sum of pair terms``.

    Every model of the family is a sum over fields and pairs of fields, and padding contributes nothing. So the logit
    with only fields i and j present, less those with i and j alone, is the pair's term, whatever the model.
    """
    fields = spec.fields
    pairs = list(itertools.combinations(range(len(fields)), 2))
    shown: list[tuple[int, ...]] = [(), *((f,) for f in range(len(fields))), *pairs, tuple(range(len(fields)))]
    masked = np.zeros((len(shown), len(slots)), np.int32)
    for row, present in enumerate(shown):
        for f in present:
            own = slice(fields[f].first_slot, fields[f].first_slot + fields[f].slots)
            masked[row, own] = slots[own]
    logits = dict(zip(shown, scorer.logits(masked).astype(np.float64).tolist(), strict=True))
    bias = logits[()]
    terms: list[tuple[tuple[int, ...], float]] = [((f,), logits[f,] - bias) for f in range(len(fields))]
    terms += [((f, g), logits[f, g] - logits[f,] - logits[g,] + bias) for f, g in pairs]
    terms.sort(key=lambda term: -abs(term[1]))
    values = {f.name: [raw.column(c)[0].as_py() for c in f.config.columns] for f in fields}
    total = logits[shown[-1]]
    return {
        "logit": total,
        "probability": float(1.0 / (1.0 + np.exp(-total))),
        "bias": bias,
        "values": {name: found[0] if len(found) == 1 else found for name, found in values.items()},
        "terms": [{"fields": [fields[f].name for f in present], "logit": term} for present, term in terms if term],
    }


def _show(row: dict[str, Any], top: int) -> None:
    say(f"probability {row['probability']:.5f}, logit {row['logit']:+.4f}, bias {row['bias']:+.4f}")
    for term in row["terms"][:top]:
        named = " x ".join(f"{name}={row['values'][name]}" for name in term["fields"])
        say(f"  {term['logit']:+.4f}  {named}")
