"""What a model's logits follow from, on rows of a snapshot: fields and pairs of fields by their share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.report.chart import Picture, bars, heat
from fieldwise.features.report.markup import render
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.plan import Plan
from fieldwise.training.data.reader import PlanReader
from fieldwise.training.data.splits import Split
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.scoring.importance import Importance, importance, rows_for
from fieldwise.training.scoring.scorer import Scorer

_FIELDS, _PAIRS = 40, 15
"""That are shown."""


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
    rows = rows_for(len(bundle.spec.fields), scorer.model.kind.pairwise)
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


def picture(found: Mapping[str, Any]) -> Picture:
    """Of what ``told`` tells, the most telling: pairs where there are any, else fields."""
    return _pairs(found) or _fields(found)


def shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `fields.html` writes of it: pictures, and tables of fields and of the strongest pairs."""
    shares, pairs = _has_shares(found), _pairs(found)
    return {
        "rows": found["rows"],
        "shares": shares,
        "pictures": [_fields(found), pairs],
        "fields": [
            (
                each["field"], *(percent(each[share]) for share in ("share", "alone") if shares),
                f"{each['hidden']:+.5f}",
            )
            for each in found["fields"][:_FIELDS]
        ],
        "pairs": [(" x ".join(each["fields"]), percent(each["share"])) for each in found["pairs"][:_PAIRS] if pairs],
    }  # fmt: skip


def _has_shares(found: Mapping[str, Any]) -> bool:
    return all(each["share"] is not None for each in found["fields"])


def _fields(found: Mapping[str, Any]) -> Picture:
    fields = found["fields"][:_FIELDS]
    names = [each["field"] for each in fields]
    if _has_shares(found):
        return bars("Share of the logits' variance", names, [each["share"] for each in fields], percent)
    return bars("Logloss without the field", names, [each["hidden"] for each in fields], "{:+.5f}".format)


def _pairs(found: Mapping[str, Any]) -> Picture:
    """All pairs, with fields alone on the diagonal; nothing for a model without pairs."""
    title, fields = "Pairs; the diagonal: fields alone", found["fields"][:_FIELDS]
    share = {frozenset(each["fields"]): each["share"] for each in found["pairs"]}
    if not any(share.values()):
        return Picture(title)
    share |= {frozenset([each["field"]]): each["alone"] for each in fields}
    names = [each["field"] for each in fields]
    return heat(title, names, [[share[frozenset([one, other])] for other in names] for one in names], percent)


def page(found: Mapping[str, Any], title: str, role: str) -> str:
    """The whole of it as an HTML page."""
    return render(Path(__file__).with_name("importance.html"), title=title, importance=shown(found), role=role)


def percent(share: float) -> str:
    """Without the sign of a share that is none."""
    return f"{round(share, 4) + 0.0:.2%}"
