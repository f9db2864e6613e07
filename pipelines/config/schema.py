"""One YAML file describes one pipeline: data, model, training, tracking, catalog, daily runs.

``load_config`` is the only reader. It refuses unknown keys and wrong types with one message that names file, line, key
and the nearest name. ``${VAR}`` and ``${VAR:-default}`` in values come from the environment; relative paths count from
the config file's directory.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from fieldwise.features import store
from fieldwise.features.columns.expression import Expression
from fieldwise.features.columns.moment import Duration
from fieldwise.features.config import FeatureConfig
from fieldwise.features.errors import ConfigError
from fieldwise.features.redact import redacted_tree
from fieldwise.features.schema import Names, Strict
from fieldwise.features.snapshot import record
from fieldwise.pipelines.config.catalog import CatalogConfig, require_fields
from fieldwise.pipelines.config.evaluation import EvaluationConfig
from fieldwise.pipelines.config.gate import GateConfig
from fieldwise.pipelines.config.lists import ListsConfig
from fieldwise.pipelines.config.suspicion import SuspicionConfig
from fieldwise.pipelines.config.variables import with_variables
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.models import member
from fieldwise.training.models.keys import model_keys, plain

if TYPE_CHECKING:
    ModelKeys = ModelConfig
else:
    ModelKeys = model_keys()


class TrackingConfig(Strict):
    """Where runs and models are recorded."""

    uri: str | None = None
    """MLflow server or database. Default: MLFLOW_TRACKING_URI, else SQLite in the workspace."""
    experiment: str | None = None
    """Experiment of the runs. Default: the config's name."""
    model_name: str | None = None
    """Registered model. Default: the config's name."""

    @field_validator("experiment", "model_name")
    @classmethod
    def _named(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None:
            refuse_name(name, model=info.field_name == "model_name")
        return name


class DailyConfig(Strict):
    """How ``fieldwise daily --date D`` goes on. D itself is held out: models are compared on it."""

    window: Annotated[int, Field(ge=1, le=3650)] = 7
    """Days before D among which the challenger learns from those that it does not know; those that are missing or
    suspicious are left out."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Over these days; see ``training.warm_rate`` for the learning rate."""
    late: Literal["keep", "rebuild"] = "keep"
    """What becomes of the snapshot of a day before D whose source files have changed since, because rows came late or a
    file was touched: it stands, which is said, or is built again where the challenger has not learned from it."""
    lists: bool = True
    """Whether the newest lists of a day before D are measured on D's log, as `evaluate-lists` measures them. Nothing
    depends on the figures; without a `catalog` there are none."""
    gate: GateConfig = GateConfig()
    suspicion: SuspicionConfig = SuspicionConfig()


class DriftConfig(Strict):
    """How far a snapshot may lie from the rows its spec was fitted on (population stability index, chance left out).

    Past a threshold `features` and `daily` stop with exit code 3; the snapshot stands. Default: it is only reported.
    """

    max_psi: Annotated[float, Field(gt=0)] | None = None
    """Of every field but those of the calendar (weekday, day, month), of which a day has one. The usual reading: above
    0.1 some change, above 0.25 a large one."""
    max_label_psi: Annotated[float, Field(gt=0)] | None = None
    """Of the label. A click rate that goes from 10 % to 15 % has 0.023."""


class ScoringConfig(Strict):
    """How much of what is scored may be new to the model; `score-rows` and `score-catalog` say the shares by field.

    Past it they stop with exit code 3 and publish nothing. A share of unseen values is told for vocabularies, and for
    hashed fields of which training has filled at most half of the buckets.
    """

    max_unseen: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Largest share of a field's values that training has not seen, where it had seen all; 1 never refuses. If a part
    was unseen in training, too, the share of seen values must not fall below (1 - max_unseen) of what it was."""
    new_values: Names = Field(default_factory=list)
    """Fields whose values may all be new, such as ids of fresh articles."""


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError("a name of letters, digits, - and _ that begins with a letter or a digit")
    return name


class Config(FeatureConfig):
    """A whole pipeline; the keys of FeatureConfig stand at the top level."""

    name: Annotated[str, AfterValidator(_plain)]
    """Names the experiment, the registered model and the default workspace."""
    workspace: str | None = None
    """Directory (or URL) of snapshots, runs and scores. Default: ``work/<name>`` beside the config file."""
    model: ModelKeys
    training: TrainingConfig = TrainingConfig()
    tracking: TrackingConfig = TrackingConfig()
    engine: Literal["auto", "local", "spark"] = "auto"
    """What runs the tasks of `features`, `score-rows`, `score-catalog` and the like: threads of this process (`local`)
    or Spark. `auto` takes Spark for sources of 256 MiB and more, and where SPARK_MASTER or spark-submit names one.
    Outputs are the same to the byte."""
    catalog: CatalogConfig | None = None
    """What ``score-catalog`` scores; without it that command refuses."""
    scoring: ScoringConfig = ScoringConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    lists: ListsConfig = ListsConfig()
    daily: DailyConfig = DailyConfig()
    drift: DriftConfig = DriftConfig()
    retention: Duration | None = None
    """How long days' snapshots and model versions are kept before the newest day, such as ``30d``: for ``fieldwise
    prune``."""
    _file: str = PrivateAttr(default="")
    _overrides: list[str] = PrivateAttr(default_factory=list)
    _paths: list[list[str]] = PrivateAttr(default_factory=list)
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    _plain_model = field_validator("model", mode="after")(plain)

    @model_validator(mode="after")
    def _fields_exist(self) -> Config:
        names = [field.name for field in self.fields]
        require_fields("scoring.new_values", self.scoring.new_values, names)
        gates = self.daily.gate
        require_fields("daily.gate.slices", gates.slices, names)
        require_fields("daily.gate.group", [gates.group] if gates.group else [], names)
        require_fields("evaluation.slices", self.evaluation.slices, names, self.beside)
        require_fields("evaluation.group", [self.evaluation.group] if self.evaluation.group else [], names, self.beside)
        if self.catalog is not None:
            require_fields("catalog.context_fields", self.catalog.context_fields or (), names)
            require_fields("catalog.item_fields", self.catalog.item_fields or (), names)
        return self

    @model_validator(mode="after")
    def _no_answers(self) -> Config:
        """A field that reads the column which alone is the label knows the answer."""
        answer = Expression(self.label, "label").columns
        for field in self.fields:
            if len(answer) == 1 and field.columns == answer:
                raise ConfigError(
                    f"fields.{field.name}", expected="fields that a row has before its label is known",
                    found=f"the label's own column {answer[0]!r}", fix="Remove the field.",
                )  # fmt: skip
        return self

    @property
    def file(self) -> str:
        """Absolute path of the file this config was read from."""
        return self._file

    @property
    def overrides(self) -> list[str]:
        """What the command line put over the file."""
        return list(self._overrides)

    @property
    def arguments(self) -> list[str]:
        """Command-line arguments that load this config again in another process."""
        return ["--config", self._file, *(f"--set={override}" for override in self._overrides)]

    @property
    def base(self) -> str:
        """Directory that relative paths count from."""
        return store.parent(self._file)

    def require_catalog(self) -> CatalogConfig:
        """``catalog``. ConfigError where there is none."""
        if self.catalog is None:
            found, fix = "none", "Add `catalog:` to the config."
            raise ConfigError("catalog", expected="a block naming contexts and items", found=found, fix=fix)
        return self.catalog

    @property
    def features(self) -> FeatureConfig:
        """The part between raw logs and a snapshot."""
        return FeatureConfig.model_construct(**{key: getattr(self, key) for key in FeatureConfig.model_fields})

    @property
    def record(self) -> dict[str, Any]:
        """What the rows of a snapshot follow from, as manifests keep it: paths as the file has them."""
        return record.record_of(self.features, self._paths)

    def unexpanded(self) -> dict[str, Any]:
        """All keys, defaults too, for artifacts: variables of the environment by their names, no passwords."""
        whole: dict[str, Any] = redacted_tree(with_variables(self.model_dump(mode="json"), self._written))
        return whole

    @property
    def workspace_dir(self) -> str:
        """Absolute directory or URL of the workspace."""
        return resolve(self.workspace or os.path.join("work", self.name), self.base)

    def of_kind(self, kind: str) -> Config:
        """This config with a kind in the place of ``auto``, also where another process loads it by ``arguments``."""
        model = member(self.model, kind)
        left_out = [key for key, value in self.model if value is not None and getattr(model, key) is None]
        one = self.model_copy(update={"model": model})
        one._overrides = [*self._overrides, f"model.kind={kind}", *(f"model.{key}=null" for key in left_out)]
        return one

    @property
    def experiment(self) -> str:
        """Name of the experiment in MLflow."""
        return self.tracking.experiment or self.name

    @property
    def model_name(self) -> str:
        """Name in the model registry."""
        return self.tracking.model_name or self.name


def refuse_name(name: str, *, model: bool) -> None:
    """Raise ValueError for an experiment's or a registered model's name that MLflow or its references cannot carry."""
    most = 256 if model else 500
    if not name.strip() or len(name) > most or not all(char.isprintable() for char in name):
        raise ValueError(f"A name of 1 to {most} printable characters")
    if model and (re.search("[/:?]", name) or name in (".", "..") or {"'", '"'} <= set(name)):
        raise ValueError("A name without / : ? or both kinds of quotes, not . or ..: it goes into models:/NAME@alias")


def resolve(path: str, base: str) -> str:
    """A URL without a slash at its end, a local path absolute; a relative one counted from ``base``, a URL or none."""
    if "://" in path:
        return path.rstrip("/") if not path.endswith("://") else path
    own = os.path.expanduser(path)
    if "://" in base and not os.path.isabs(own):
        return store.below(base, own)
    return os.path.abspath(os.path.join(base, own))
