"""What a model's logits follow from, on rows of a snapshot: fields and pairs of fields by their share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.plan import Plan
from fieldwise.training.data.reader import PlanReader
from fieldwise.training.data.splits import Split
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.scoring.importance import Importance, importance, rows_for
from fieldwise.training.scoring.scorer import Scorer


def sample_of(split: Split, spec: FeatureSpec, rows: int) -> Batch:
    """About ``rows`` rows, from files that lie evenly spread."""
    found = split.sample(rows)
    counts = [file.rows for file in found.files]
    plan = Plan(counts, batch_size=max(1, found.rows), streams=1, shuffle=False)
    (batch,) = PlanReader(found.files, plan, [0], spec.slot_names)
    return batch


def model_importance(bundle: Bundle, split: Split) -> Importance:
    """Over as many of the split's rows as a second allows."""
    scorer = Scorer(bundle)
    rows = rows_for(len(bundle.spec.fields), scorer.model.pairwise)
    batch = sample_of(split, bundle.spec, rows)
    return importance(scorer, np.ascontiguousarray(batch.slots), batch.label, batch.weight)


def told(found: Importance, spec: FeatureSpec) -> dict[str, Any]:
    """As JSON: fields and pairs, the largest share first. ``share`` of fields add up to 1, and so do ``alone`` and the
    ``share`` of pairs together; None where a model has none."""
    names, share = [field.name for field in spec.fields], found.fields
    fields = [
        {
            "field": name,
            "share": None if share is None else float(share[f]),
            "alone": None if found.alone is None else float(found.alone[f]),
            "hidden": float(found.hidden[f]),
        }
        for f, name in enumerate(names)
    ]
    fields.sort(key=lambda each: -(each["hidden"] if share is None else each["share"]))  # type: ignore[operator]
    pairs = found.pairs
    return {
        "rows": found.rows,
        "logit": {"mean": found.mean, "variance": found.variance},
        "fields": fields,
        "pairs": []
        if pairs is None
        else [{"fields": [names[f], names[g]], "share": float(pairs[f, g])} for f, g in found.strongest],
    }
