"""A row's values as its owner would say them: ``hour=14``, ``price=12.5 in [10, 20)``, ``item=172 Alien``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.text import canonical, plain
from fieldwise.features.fields.spec import FeatureSpec, FittedField

Names = Mapping[str, Mapping[str, str]]
"""By raw column: what its keys are called."""


def values_in_words(
    spec: FeatureSpec, slots: npt.NDArray[np.int32], raw: pa.RecordBatch, names: Names
) -> dict[str, str]:
    """By field, of one row: its slots [S], and the raw columns behind them."""
    return {field.name: _told(spec, field, slots, raw, names) for field in spec.fields}


def _told(
    spec: FeatureSpec, field: FittedField, slots: npt.NDArray[np.int32], raw: pa.RecordBatch, names: Names
) -> str:
    own = slots[field.first_slot : field.first_slot + field.slots]
    described = [spec.value_of(field.name, int(local)) for local in own if local != 0] or ["padding"]
    texts = [text_of(raw.column(column)[0]) for column in field.config.columns]
    told = field.config.told(described, ", ".join(text for text in texts if text))
    if len(texts) == 1 and (name := names.get(field.config.columns[0], {}).get(texts[0])):
        return f"{told} {name}"
    return told


def text_of(value: pa.Scalar) -> str:
    """The canonical text that fields read; of a list with commas; empty for none."""
    found = plain(value)
    if found is None or (isinstance(found, float) and math.isnan(found)):
        return ""
    if isinstance(found, list):
        return ", ".join("" if each is None else str(each) for each in found)
    if isinstance(found, str | dict):
        return str(found)
    return str(canonical(pa.array([found], value.type)).to_pylist()[0])


def as_json(value: pa.Scalar) -> Any:
    """A raw value as JSON has it: what JSON lacks by the text that fields read."""
    found = plain(value)
    if isinstance(found, list):
        return [item if isinstance(item, str | int | None) else str(item) for item in found]
    if isinstance(found, float) and not math.isfinite(found):
        return None if math.isnan(found) else str(found)
    if found is None or isinstance(found, str | int | float):
        return found
    return canonical(pa.array([found], value.type)).to_pylist()[0] if not isinstance(found, dict) else str(found)
