"""What is wrong with a config, in one line: file and line (or ``--set``), key, what it takes, what stands there, what
to do."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fieldwise.features import words
from fieldwise.features.errors import ConfigError, FieldwiseError
from fieldwise.features.fields import expand_fields
from fieldwise.features.redact import redacted
from fieldwise.features.words import Place, Takes

_SHOWN = 200


class Origin(NamedTuple):
    """Where the keys and values of a config come from."""

    file: str
    root: yaml.Node | None
    data: dict[str, Any]
    """The file's document with the overrides in it."""
    overrides: list[str]

    def where(self, keys: Place) -> str:
        """File and line of the deepest key that the file has, or the override that set it; then the dotted key."""
        key = ".".join(map(str, keys))
        for override in reversed(self.overrides):
            path = override.partition("=")[0]
            if f"{key}.".startswith(f"{path}.") or f"{path}.".startswith(f"{key}."):
                return f"{self.file}, --set {shortened(override)}, {key}"
        line = _line(self.root, _by_number(keys, self.data))
        return f"{self.file}{f' line {line}' if line else ''}, {key or 'top level'}"


def shortened(override: str) -> str:
    """An override as messages show it."""
    text = redacted(override)  # whole: half a password is not known again
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def mistake(error: ValidationError, of: Any, origin: Origin) -> ConfigError:
    """The first of pydantic's complaints about a config of the class ``of``."""
    details = error.errors()
    first = min(details, key=lambda d: d["type"] != "extra_forbidden")  # a misspelt key explains the missing one
    loc, kind = first["loc"], first["type"]
    keys = _keys(first, origin.data)
    places = {_keys(detail, origin.data) for detail in details}
    left = len(places) - 1
    more = f" The config has {left} more mistake{'s' * (left > 1)}." if left else ""
    known = first.get("ctx", {}).get("error")
    if isinstance(known, FieldwiseError):
        place: Place = tuple(known.where.split("."))
        inside = place if keys[: len(place)] != place else keys
        return ConfigError(origin.where(inside), expected=known.expected, found=known.found, fix=known.fix + more)
    expected, found = words.explained(first, of)
    named = re.match(rf"(?:{re.escape(str(keys[-1])) if keys else ''}\.)?(\w+) must be ", str(known or ""))
    if named and named[1] in words.keys_at(of, loc):
        keys = (*keys, named[1])  # the validator of a block tells the key
    fix = "Change the value."
    text = isinstance(first["input"], str) and re.fullmatch(r"[\w./*-]{1,80}", first["input"]) is not None
    if kind == "extra_forbidden":
        fix = words.nearest(loc[-1], words.keys_at(of, loc[:-1]), "Remove it.")
        block = words.block_of(str(loc[-1]), of) if len(loc) == 1 and fix == "Remove it." else None
        fix = f"Write it below `{block}:`, set in by two spaces." if block else fix
    elif text and kind.startswith(("union_tag", "model_attributes_type", "model_type", "dict_type")):
        field = f"Write `- {{name: {first['input']}, kind: vocabulary}}`." if keys[:1] == ("fields",) else None
        block = words.in_a_block(str(keys[-1]), first["input"], words.at(of, loc)) if keys else None
        fix = field or (f"Write `{block}`." if block else fix)
    elif kind == "list_type" and keys == ("fields",) and isinstance(first["input"], dict) and first["input"]:
        fix = f"Write a list: `- {{name: {next(iter(first['input']))}, kind: vocabulary}}`."
    elif kind == "missing":
        fix = f"Add `{keys[-1]}: {{path: FILE}}`." if expected == "a block with the key path" else "Add it."
    elif kind.startswith("union_tag"):
        tag = first["input"].get("kind") if isinstance(first["input"], dict) else None
        keys = (*keys, "kind")
        fix = words.nearest(tag, words.tags_at(of, loc), "Name one of these.")
    elif kind == "literal_error":
        fix = words.nearest(first["input"], [*words.options(words.at(of, loc))], fix)
    elif first["input"] is None:
        fix = "Give it a value, or remove the key."
    elif kind in ("string_type", "invalid_key") and not isinstance(first["input"], dict | list):
        fix = "Put it in quotes."
    return ConfigError(origin.where(keys), expected=expected, found=found, fix=fix + more)


def placed(error: ConfigError, origin: Origin) -> ConfigError:
    """An error whose ``where`` is a dotted key, with the key's file and line."""
    where = origin.where(tuple(int(part) if part.isdigit() else part for part in error.where.split(".")))
    return ConfigError(where, expected=error.expected, found=error.found, fix=error.fix)


def require_plain(of: Any, origin: Origin) -> None:
    """Refuse what would silently be read as another value: true as the number 1, numbers beyond 64 bits."""

    def look(value: Any, place: Place) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                look(item, (*place, key))
        elif isinstance(value, list):
            for position, item in enumerate(value):
                look(item, (*place, position))
        elif isinstance(value, bool | int):
            takes = words.at(of, place)
            numbers = words.is_number(takes)
            if isinstance(value, bool) and numbers:
                raise _unfit(place, takes, value, origin)
            if numbers and abs(value) >= 1 << 63:
                raise _unfit(place, takes, value, origin)

    look(origin.data, ())


def _unfit(place: Place, takes: Takes, value: Any, origin: Origin) -> ConfigError:
    beyond = "" if isinstance(value, bool) else " of at most 64 bits"
    expected = words.described(takes) + beyond
    return ConfigError(origin.where(place), expected=expected, found=words.shown(value), fix="Change the value.")


def _written(loc: Place, data: Any) -> Place:
    """Position of a field in the file, where one item may declare several fields."""
    if len(loc) < 2 or loc[0] != "fields" or not isinstance(loc[1], int):
        return loc
    declared = [n for n, item in enumerate(data["fields"]) for _ in expand_fields({**data, "fields": [item]})["fields"]]
    return ("fields", declared[loc[1]], *loc[2:])


def _by_number(keys: Place, data: Any) -> Place:
    """A field's name in a key as its position in the file; the last one of that name."""
    if len(keys) < 2 or keys[0] != "fields" or not isinstance(keys[1], str) or keys[1].isdigit():
        return keys
    for position in range(len(data["fields"]) - 1, -1, -1):
        one = expand_fields({**data, "fields": data["fields"][position : position + 1]})["fields"]
        if any(isinstance(field, dict) and field["name"] == keys[1] for field in one):
            return ("fields", position, *keys[2:])
    return keys


def _keys(detail: ErrorDetails, data: Any) -> Place:
    """The keys of an error that the file has (pydantic adds tags of unions in between), plus one that lacks."""
    keys: list[int | str] = []
    loc = _written(detail["loc"], data)
    for position, part in enumerate(loc):
        there = isinstance(part, int) and part < len(data) if isinstance(data, list) else part in _mapping(data)
        if there:
            data = data[part]
        elif position < len(loc) - 1 or (detail["type"] != "missing" and detail["input"] is not None):
            continue
        keys.append(part)
    return tuple(keys)


def _mapping(data: Any) -> dict[Any, Any]:
    return data if isinstance(data, dict) else {}


def _line(node: yaml.Node | None, keys: Place) -> int | None:
    """Line of the deepest key of the path that the file has; None if none has."""
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(key)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
