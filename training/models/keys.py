"""What may stand under ``model:`` in a config: the keys of all models, and those that a registered one has alone."""

from __future__ import annotations

from typing import Annotated, Any, Optional

from pydantic import ConfigDict, Field, create_model

from fieldwise.training.config import ModelConfig
from fieldwise.training.models import AUTO, FAMILY, MODELS


class _Closed(ModelConfig):
    model_config = ConfigDict(extra="forbid")


def model_keys() -> type[ModelConfig]:
    """`ModelConfig` with every model's own keys, each of which may be left out; `resolved` refuses those of others."""
    told = f"The model: {', '.join(MODELS)}; or {AUTO}, the best of {', '.join(FAMILY)} on the validation rows."
    own: dict[str, Any] = {"kind": (str, Field(description=told))}
    for kind, model in MODELS.items():
        for key, field in model.keys.model_fields.items():
            takes = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            told = f"Of {kind} alone, default {field.get_default()}. {field.description}"
            own[key] = (Optional[takes], Field(default=None, description=told))  # noqa: UP045  a value, not an annotation
    return create_model("ModelConfig", __base__=_Closed, __doc__=ModelConfig.__doc__, **own)


def plain(model: ModelConfig) -> ModelConfig:
    """The keys that are set, lists as they were written."""
    return ModelConfig.model_validate(model.model_dump(mode="json", exclude_none=True))
