"""Field kinds: what a user writes about a field, and what the field does. A new kind is a class in a file of its own
and a line in `AnyField`.

Local index of a slot: 0 padding, 1 missing (null or empty), 2 unseen or rare, values from 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from fieldwise.features.errors import ConfigError
from fieldwise.features.fields.base import BaseField
from fieldwise.features.fields.hashed import CrossField, HashField
from fieldwise.features.fields.number import NumberField
from fieldwise.features.fields.time import TimeField
from fieldwise.features.fields.vocabulary import VocabularyField
from fieldwise.features.schema import expand_names

AnyField = Annotated[
    HashField | VocabularyField | NumberField | TimeField | CrossField,
    Field(discriminator="kind"),
]
"""The registry of kinds."""


def expand_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Several fields declared at once become single ones; time fields take over the config's ``time`` block."""
    if not isinstance(config.get("fields"), list):
        return config
    moment = config.get("time")
    fields: list[Any] = []
    for position, item in enumerate(config["fields"]):
        if not isinstance(item, dict):
            fields.append(item)
            continue
        where = f"fields.{position}"
        try:
            names = expand_names(item["names"] if "names" in item else item.get("name"))
        except ValueError as error:
            raise ConfigError(where, expected="fewer fields", found=str(error), fix="Declare fewer.") from None
        rest = {key: value for key, value in item.items() if key not in ("name", "names")}
        if rest.get("kind") == "time" and moment is None and rest.get("of") is None:
            found, fix = "no `time`", "Name it: `time: COLUMN`, or give the field an `of`."
            raise ConfigError(where, expected="a column of moments to take its part of", found=found, fix=fix)
        if rest.get("kind") == "time" and moment is not None:
            column = moment.get("column") if isinstance(moment, dict) else moment
            rest["of"] = moment if rest.get("of") in (None, column) else rest["of"]
        if "names" in item and "name" in item:
            raise ConfigError(where, expected="either name or names", found="both", fix="Remove one.")
        if isinstance(names, list) and "column" in rest:
            found, fix = f"`column` for {names[0]}, ... declared together", "Remove it, or declare them one by one."
            raise ConfigError(where, expected="each field to read the column of its name", found=found, fix=fix)
        fields += [{"name": name, **rest} for name in (names if isinstance(names, list) else [names])]
    return {**config, "fields": fields}


def check_fields(fields: Sequence[BaseField]) -> None:
    """Names are unique, and a shared index space exists, is of the same kind and is not itself borrowed."""
    by_name: dict[str, BaseField] = {}
    for field in fields:
        if field.name in by_name:
            raise ConfigError(
                f"fields.{field.name}", expected="each name once", found=f"{field.name!r} declared twice",
                fix="Rename one, and name its `column`.",
            )  # fmt: skip
        by_name[field.name] = field
    for field in fields:
        owner = by_name.get(field.source)
        where, fix = f"fields.{field.name}.shares", "Name another field, or remove `shares`."
        if owner is None:
            raise ConfigError(where, expected="a field", found=f"{field.source!r}, which is no field", fix=fix)
        if type(owner) is not type(field) or owner.source != owner.name:
            raise ConfigError(
                where, expected="a field of the same kind that shares none itself", found=repr(field.source), fix=fix
            )
