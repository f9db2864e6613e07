"""The model MLflow loads, as code: raw columns in, probabilities out. Its only state is the bundle beside it."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa

from fieldwise.features.errors import InputError
from fieldwise.features.fields.encoder import Encoder
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.scoring.scorer import Scorer


class FieldwiseModel(mlflow.pyfunc.PythonModel):
    """One probability per row of a frame with the spec's raw columns; absent columns count as missing."""

    def load_context(self, context: Any) -> None:
        bundle = load_bundle(context.artifacts["bundle"])
        self.encoder, self.scorer = Encoder(bundle.spec), Scorer(bundle)
        self.columns = bundle.spec.raw_columns

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.Series:
        """Probabilities [rows], indexed as the input."""
        frame = model_input.reindex(columns=list(self.columns))
        columns = [_array(frame[name]) for name in frame]
        encoded = self.encoder.encode(pa.RecordBatch.from_arrays(columns, list(frame)))
        if encoded.problems:
            first = encoded.problems[0]
            raise InputError(
                f"row {first.row}, field {first.field}", expected="a readable value", found=repr(first.value),
                fix=f"{first.reason}: mend it or leave it missing.",
            )  # fmt: skip
        found = self.scorer.probabilities(encoded.slots).astype("float64")
        return pd.Series(found, index=model_input.index, name="probability")


def _array(values: pd.Series) -> pa.Array:
    """Text, or lists of it."""
    plain = values.astype(object)  # pandas 3 keeps texts in Arrow, in several chunks after a concat
    if any(isinstance(value, list | np.ndarray) for value in plain):
        return pa.array(plain, pa.list_(pa.string()), from_pandas=True)
    return pa.array(plain, pa.string(), from_pandas=True)


mlflow.models.set_model(FieldwiseModel())
