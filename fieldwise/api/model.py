"""One model over tables: probabilities and explanations, in this process."""

from __future__ import annotations

import os
from typing import Any

from fieldwise.api.calls import call
from fieldwise.api.frames import arrow, column_like
from fieldwise.api.results import Explanation
from fieldwise.features.errors import InputError
from fieldwise.features.terminal import warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.registry import OpenedModel, load_model
from fieldwise.pipelines.score.explain import explain, names_behind
from fieldwise.pipelines.score.frames import FrameScorer


class Model:
    """A trained model.

    Attributes: ``kind``, ``digest``, ``name``, ``version`` and ``alias`` (None for a mere directory), ``fields``, and
    ``columns``, which a table needs; columns of the pipeline's side tables are joined where a table lacks them.
    """

    def __init__(self, opened: OpenedModel, config: Config | None = None) -> None:
        self.kind, self.digest = opened.bundle.kind, opened.bundle.digest
        self.name, self.version, self.alias = opened.name, opened.version, opened.alias
        self.fields = [field.name for field in opened.bundle.spec.fields]
        self.columns = list(opened.bundle.spec.raw_columns)
        self._config = config
        features = None if config is None else config.features
        self._scorer = FrameScorer(opened.bundle, features, "" if config is None else config.base)

    def __repr__(self) -> str:
        known = f", version {self.version} of {self.name}" if self.version else ""
        return f"fieldwise.Model({self.kind}, {self.digest[:12]}{known}; columns {', '.join(self.columns)})"

    def predict(self, frame: Any) -> Any:
        """Calibrated probabilities of a table's rows: a pandas Series with the frame's index, a polars Series, or an
        Arrow array. Further columns, the label too, are passed over.

        Examples:
            >>> fw.load("models:/shop@champion").predict(df.head(2)).name
            'probability'
        """
        with call():
            probabilities, unseen = self._scorer.scored(arrow(frame))
            for name, example in unseen.items():
                warn(
                    f"predict: training has seen none of these values of field {name!r}, such as {example}: are they "
                    "written as in the log (`39` for `39.0`, `true` for `True`)?"
                )
            return column_like(probabilities, "probability", frame)

    def explain(self, row: Any) -> Explanation:
        """Why one row - a dict, a pandas Series, a table of one row - has its probability."""
        with call():
            table = arrow(row, "the row")
            if table.num_rows != 1:
                fix = "Pass one, such as df.iloc[:1]."
                raise InputError("the row", expected="one row", found=f"{table.num_rows:,}", fix=fix)
            raw, slots = self._scorer.encoded(table)
            spec, config = self._scorer.spec, self._config
            names = None if config is None else names_behind(config, spec, raw)
            return Explanation.of(explain(self._scorer.scorer, spec, slots[0], raw, names))

    def __call__(self, frame: Any) -> Any:
        """As ``predict``."""
        return self.predict(frame)


def load(reference: str, *, tracking: str | None = None, workspace: str | None = None) -> Model:
    """A model by name, without its pipeline: tables must then have every column that it reads.

    Args:
        reference: ``models:/NAME@champion``, ``models:/NAME/3``, or a bundle's directory.
        tracking: MLflow server or database. Default: MLFLOW_TRACKING_URI, else SQLite in the workspace.
        workspace: of the pipeline. Default: ``work/NAME`` below the current directory.

    Raises ArtifactError where there is no such model.

    Examples:
        >>> fw.load("models:/shop@champion").kind
        'ffm'
    """
    with call():
        return Model(load_model(reference, uri=tracking, workspace=workspace and os.path.abspath(workspace)))
