"""One YAML file describes one pipeline: data, model, training, tracking, catalog, daily runs.

``load_config`` is the only reader. It refuses unknown keys and wrong types with one message that names file, line, key
and the nearest name. ``${VAR}`` and ``${VAR:-default}`` in values come from the environment; relative paths count from
the config file's directory.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from features import record, store
from features.config import FeatureConfig
from features.errors import ConfigError
from features.moment import Duration
from features.redact import redacted_tree, remember, remember_urls
from features.schema import Names, Strict, expand_names
from pipelines.catalog_config import CatalogConfig, require_fields
from pipelines.document import UNREADABLE, complaint, parsed, read_text
from pipelines.mistakes import Origin, mistake, placed, require_plain, shortened
from training.config import ModelConfig, TrainingConfig
from training.settings import require_trainable


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
    """How ``fieldwise daily --date D`` goes on from the champion. D itself is the held-out day."""

    window: Annotated[int, Field(ge=1)] = 1
    """Days before D that the challenger trains on."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs over these days, starting from the champion's weights."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """The challenger is promoted when its logloss on D is at most the champion's times (1 + tolerance)."""


class DriftConfig(Strict):
    """How far a snapshot may lie from the rows its spec was fitted on (population stability index, chance left out).

    Past a threshold `features` and `daily` stop with exit code 3; the snapshot stands. Default: it is only reported.
    """

    max_psi: Annotated[float, Field(gt=0)] | None = None
    """Of every field. The usual reading: above 0.1 some change, above 0.25 a large one."""
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
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    tracking: TrackingConfig = TrackingConfig()
    catalog: CatalogConfig | None = None
    """What ``score-catalog`` scores; without it that command refuses."""
    scoring: ScoringConfig = ScoringConfig()
    daily: DailyConfig = DailyConfig()
    drift: DriftConfig = DriftConfig()
    retention: Duration | None = None
    """How long days' snapshots are kept before the newest one, such as ``30d``: for ``fieldwise prune``."""
    _file: str = PrivateAttr(default="")
    _overrides: list[str] = PrivateAttr(default_factory=list)
    _paths: list[list[str]] = PrivateAttr(default_factory=list)
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _fields_exist(self) -> Config:
        names = [field.name for field in self.fields]
        require_fields("scoring.new_values", self.scoring.new_values, names)
        if self.catalog is not None:
            require_fields("catalog.context_fields", self.catalog.context_fields or (), names)
            require_fields("catalog.item_fields", self.catalog.item_fields or (), names)
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
        return os.path.dirname(self._file)

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
        whole: dict[str, Any] = redacted_tree(_with_variables(self.model_dump(mode="json"), self._written))
        return whole

    @property
    def workspace_dir(self) -> str:
        """Absolute directory or URL of the workspace."""
        return resolve(self.workspace or os.path.join("work", self.name), self.base)

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
    """A URL as it is, a local path absolute, counted from ``base``."""
    return path if "://" in path else os.path.abspath(os.path.join(base, os.path.expanduser(path)))


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read and check a config.

    Args:
        path: the YAML file.
        overrides: ``a.b=value`` each, value in YAML, list positions as numbers (``fields.0.buckets=1000``).

    Raises:
        ConfigError: anything in the file or the overrides that cannot be meant.
    """
    file = os.path.abspath(path)
    try:
        root, data = parsed(read_text(file), file)
    except ConfigError:
        raise
    except UNREADABLE as error:
        found = complaint(error)
        fix = "Indent by spaces, not by tabs." if "\\t" in found else "Mend the syntax at that line."
        raise ConfigError(file, expected="valid YAML", found=found, fix=fix) from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a single {type(data).__name__}"
        raise ConfigError(file, expected="keys and values", found=found, fix="See configs/ for examples.")
    for override in overrides or []:
        _override(data, override)
    origin = Origin(file, root, data, list(overrides or []))
    return _checked(_expand(data, file), origin)


def _checked(data: dict[str, Any], origin: Origin) -> Config:
    """The config of a document. Everything that any command would refuse in it is refused here, by the first one."""
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise mistake(error, Config, origin) from None
    require_plain(Config, origin)
    config._file = origin.file
    if (found := store.unfit(config.workspace_dir)) is not None:
        expected = "a directory or a store's URL to keep snapshots, runs and scores in"
        raise ConfigError(origin.where(("workspace",)), expected=expected, found=found, fix="Set another `workspace`.")
    try:
        require_trainable(config.model, config.training)
    except ConfigError as error:
        raise placed(error, origin) from None
    config._overrides, config._written = origin.overrides, origin.data
    blocks = [origin.data["source"], *(origin.data.get("join") or [])]
    config._paths = [expand_names(path if isinstance(path, list) else [path]) for path in (b["path"] for b in blocks)]
    return config


_MOST_PARTS, _MOST_OVERRIDE = 20, 64 << 10
"""Keys and characters of one override."""
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def _expand(value: Any, where: str) -> Any:
    """Environment variables in all strings of a tree."""
    if isinstance(value, dict):
        return {key: _expand(item, f"{where}, {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, where) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if os.environ.get(name):
            remember(name, os.environ[name])
        if found is None:
            fix = f"Export {name}, or write ${{{name}:-default}}."
            raise ConfigError(where, expected=f"environment variable {name}", found="none", fix=fix)
        return found

    expanded = _VARIABLE.sub(replace, value)
    remember_urls(expanded)
    return expanded


def _with_variables(value: Any, written: Any) -> Any:
    """``value`` with texts as they were written, where these name variables."""
    if isinstance(value, dict) and isinstance(written, dict):
        return {key: _with_variables(item, written.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(written, list) and len(value) == len(written):
        return [_with_variables(item, own) for item, own in zip(value, written, strict=True)]
    if isinstance(written, str) and _VARIABLE.search(written):
        return [written] if isinstance(value, list) else written
    return value


def _override(data: dict[str, Any], text: str) -> None:
    """Apply one ``a.b=value`` in place; missing blocks on the way are made."""
    where = f"--set {shortened(text)}"
    path, sign, value = text.partition("=")
    parts = path.split(".")
    if not sign or not all(parts):
        raise ConfigError(where, expected="KEY=VALUE", found=shortened(text), fix="Example: --set training.epochs=3.")
    if len(parts) > _MOST_PARTS or len(text) > _MOST_OVERRIDE:
        found = f"{len(parts)} keys, {len(text):,} characters"
        expected = f"at most {_MOST_PARTS} keys in each other, {_MOST_OVERRIDE:,} characters"
        raise ConfigError(where, expected=expected, found=found, fix="Write it into the config file.")
    try:
        parsed_value = parsed(value, where)[1]
    except ConfigError:
        raise
    except UNREADABLE as error:
        found = complaint(error) if len(value) > len(shortened(value)) else value
        raise ConfigError(where, expected="a YAML value", found=found, fix="Quote it.") from None
    here: Any = data
    for part, following in pairwise(parts):
        if isinstance(here, dict) and not isinstance(here.get(part), dict | list):
            if _is_position(following):
                fix = "Only items that exist can be set."
                raise ConfigError(where, expected=f"a list at {part}", found="none", fix=fix)
            here[part] = {}
        here = here[_step(here, part, where)]
    here[_step(here, parts[-1], where)] = parsed_value


def _step(here: Any, part: str, where: str) -> str | int:
    if isinstance(here, dict):
        return part
    if isinstance(here, list) and _is_position(part) and int(part) < len(here):
        return int(part)
    found = f"{part!r} in a list of {len(here)}" if isinstance(here, list) else f"a single value before {part!r}"
    raise ConfigError(where, expected="a key of a block or a position of a list", found=found, fix="Check the path.")


def _is_position(part: str) -> bool:
    return re.fullmatch("[0-9]{1,6}", part) is not None
