"""The model MLflow loads, as code: raw columns in, probabilities out. Its only state is the bundle beside it."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa

from fieldwise.features.errors import InputError


class FieldwiseModel(mlflow.pyfunc.PythonModel):
    """One probability per row of a frame with the spec's raw columns; absent columns count as missing.

    Texts, numbers, booleans, dates and lists of them as a frame has them: values are compared by their canonical text
    (``features.columns.text``), so 39, 39.0 and "39" are one.
    """

    def load_context(self, context: Any) -> None:
        # here, because MLflow executes this file to log a model, too, which needs neither torch nor kernels
        from fieldwise.features.fields.encoder import Encoder
        from fieldwise.training.network.bundle import load_bundle
        from fieldwise.training.scoring.scorer import Scorer

        bundle = load_bundle(context.artifacts["bundle"])
        self.encoder, self.scorer = Encoder(bundle.spec), Scorer(bundle)
        self.columns = bundle.spec.raw_columns

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.Series:
        """Probabilities [rows], indexed as the input."""
        frame = model_input.reindex(columns=list(self.columns))
        columns = [_array(frame[name]) for name in frame]
        slots = self.encoder.encode(pa.RecordBatch.from_arrays(columns, list(frame))).require_readable()
        found = self.scorer.probabilities(slots).astype("float64")
        return pd.Series(found, index=model_input.index, name="probability")


_EXACT = 2.0**53
"""From which on float64 holds no longer every integer."""


def _array(values: pd.Series) -> pa.Array:
    """A column with Arrow's type for what it holds; its canonical texts where it holds several types."""
    try:
        if any(isinstance(value, np.ndarray) for value in values.array):
            values = pd.Series([v.tolist() if isinstance(v, np.ndarray) else v for v in values], dtype=object)
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # a text among numbers
        found = pa.array([_text(value) for value in values.astype(object)], pa.string())
    if isinstance(found, pa.ChunkedArray):  # pandas 3 keeps texts in Arrow, in several chunks after a concat
        found = found.combine_chunks() if found.num_chunks != 1 else found.chunk(0)
    if pa.types.is_floating(found.type):
        _require_exact(values)
    return found


def _text(value: Any) -> str | None:
    from fieldwise.features.columns.text import canonical

    text: str | None = canonical(pa.array([value], from_pandas=True))[0].as_py()
    return text


def _require_exact(values: pd.Series) -> None:
    """Integers that a frame keeps as floats, for the sake of a missing one, have lost digits from 2^53 on."""
    number = values.to_numpy(np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):
        lost = np.flatnonzero((np.abs(number) >= _EXACT) & np.isfinite(number) & (number == np.floor(number)))
    if len(lost):
        raise InputError(
            f"column {values.name!r}, row {lost[0]}", expected="a number that float64 holds to the digit",
            found=f"{number[lost[0]]:.0f}", fix="Pass such ids as text, or as pandas' Int64.",
        )  # fmt: skip


mlflow.models.set_model(FieldwiseModel())
