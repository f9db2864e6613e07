"""What pydantic complains about, in our words: where, what a key takes, what stands there."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, StringConstraints, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fieldwise.features.redact import redacted

Place = tuple[int | str, ...]
_PLAIN = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_SHOWN = 60
_MOST_MISTAKES = 1_000
_MUST = re.compile(r"(?:\S+ )?must be (.*), got (.*)")
"""How our validators say it."""


YES_AND_NO = (("yes", "no"), ("y", "n"), ("t", "f"), ("clicked", "not clicked"), ("click", "no click"), ("ja", "nein"),
              ("ja", "nee"), ("ja", "nej"), ("j", "n"), ("oui", "non"), ("si", "no"), ("sí", "no"), ("sim", "não"),
              ("sim", "nao"), ("да", "нет"))  # fmt: skip
"""Words for a positive and for a negative."""
YES = frozenset(yes for yes, _ in YES_AND_NO)


def spellings(positives: Sequence[str], values: Sequence[str]) -> list[str]:
    """What texts of positives to look for: those seen, and in a column that mixes cases whatever is usual beside them.

    >>> spellings(["Yes"], ["Yes", "No"]), spellings(["Yes"], ["Yes", "no"])
    (['Yes'], ['Yes', 'yes', 'YES'])
    """
    cases = (str.lower, str.capitalize, str.upper)
    if any(all(case(value) == value for value in values) for case in cases):
        return list(positives)
    return list(dict.fromkeys([*positives, *(case(value) for value in positives for case in cases)]))


class Takes(NamedTuple):
    """A type and what limits it."""

    annotation: Any
    limits: tuple[Any, ...] = ()


def complaint(error: ValidationError, of: Any) -> str:
    """What was found wrong in a file of the class ``of``, as the ``found`` of an error."""
    if (count := error.error_count()) > _MOST_MISTAKES:  # telling one makes all of them, many times the file's size
        return f"{count:,} mistakes"
    first = error.errors()[0]
    place, (expected, found) = ".".join(map(str, first["loc"])), explained(first, of)
    if first["type"] in ("missing", "extra_forbidden"):
        return f"{'no' if first['type'] == 'missing' else 'an unknown'} {place}"
    if first["type"] == "value_error":
        return f"{place}: {expected}" if place else expected
    return f"{found} at {place} where {expected} belongs" if place else found


def explained(detail: ErrorDetails, of: Any) -> tuple[str, str]:
    """(expected, found) of one of pydantic's errors."""
    kind, value, takes = detail["type"], detail["input"], at(of, detail["loc"])
    if kind == "value_error":
        message = str(detail["ctx"]["error"])
        if found := _MUST.fullmatch(message):
            return found[1], "none" if found[2] == "None" else found[2]
        return message, shown(
            value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else value
        )
    if kind == "missing":
        return described(takes), "none: the key is required"
    if kind == "extra_forbidden":
        return f"one of {', '.join(keys_at(of, detail['loc'][:-1]))}", "an unknown key"
    if kind == "invalid_key":
        return "texts as keys", shown(value)
    if kind == "json_invalid":
        return "JSON", "a text that does not read as JSON"
    if kind.startswith("union_tag"):
        tag = value.get("kind") if isinstance(value, dict) else value
        known = tags_at(of, detail["loc"])
        return f"a kind: {listed(known)}", "none" if tag is None else shown(tag)
    return described(takes), shown(value)


def shown(value: Any) -> str:
    """A value as its writer knows it."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, dict | list | tuple | bool | int | float):
        text = json.dumps(value, default=str, ensure_ascii=False)
    else:
        text = f"{type(value).__name__} {value}"
    text = redacted(text)  # whole: a part is not known again
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def listed(names: Iterable[Any]) -> str:
    """``a, b or c``."""
    *most, last = [str(name) for name in names] or ["nothing"]
    return f"{', '.join(most)} or {last}" if most else last


def some(names: Sequence[str], most: int = 40) -> str:
    """``a, b, c``; of very many the first ones and how many there are."""
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])}, ... ({len(names):,} in all)"


def nearest(name: Any, known: Sequence[str], otherwise: str) -> str:
    """A question after the nearest known name, else ``otherwise``."""
    written = {str(each).casefold(): str(each) for each in reversed(known)}
    exact = [str(name)] if str(name) in map(str, known) else []
    near = exact or difflib.get_close_matches(str(name), [str(each) for each in known], n=1)
    near = near or [written[each] for each in difflib.get_close_matches(str(name).casefold(), written, n=1)]
    return f"Did you mean `{near[0]}`?" if near else otherwise


def described(takes: Takes) -> str:
    """What a key takes: ``a whole number, at least 1``; ``a text or a list of texts``."""
    annotation, limits = takes
    inner, origin = get_args(annotation), get_origin(annotation)
    if origin is Annotated:
        return described(Takes(inner[0], (*limits, *inner[1:])))
    limits = tuple(_flat(limits))
    short = any(isinstance(limit, BeforeValidator) for limit in limits)
    members = [part for part in inner if part is not type(None)]
    if _is_model(annotation) or (origin in (Union, types.UnionType) and all(map(_is_model, members))):
        words = _block(members or [annotation])
    elif origin in (Union, types.UnionType):
        words = listed(dict.fromkeys(described(Takes(part)) for part in members))
    elif origin is Literal:
        words = f"{'one of ' * (len(inner) > 1)}{listed(inner)}"
    elif origin in (list, tuple):
        item = described(Takes(inner[0]))
        words = f"a list of {item.removeprefix('a ')}s" if item in _PLAIN.values() else f"a list, each {item}"
    elif origin is dict:
        words = "a block of keys and values"
    else:
        words = _PLAIN.get(annotation, "a value")
    bounds = [f"{word} {getattr(limit, key):g}" for limit in limits for key, word in _BOUNDS.items()
              if isinstance(getattr(limit, key, None), int | float)]  # fmt: skip
    words = ("a text or " * short + words) + f" {' and '.join(bounds)}" * bool(bounds)
    for limit in limits:
        if isinstance(getattr(limit, "min_length", None), int):
            words += f", at least {limit.min_length} of them"
        if isinstance(limit, StringConstraints) and limit.pattern:
            words += f" of the form {limit.pattern}"
    return words


def _block(models: Sequence[type[BaseModel]]) -> str:
    def required(model: type[BaseModel]) -> list[str]:
        return [key for key, field in model.model_fields.items() if field.is_required()]

    common = [key for key in required(models[0]) if all(key in required(model) for model in models)]
    some = common or [*list(models[0].model_fields)[:3], "..."]
    return f"a block with the key{'s' * (len(some) > 1)} {', '.join(some)}"


def _flat(limits: Iterable[Any]) -> Iterator[Any]:
    for limit in limits:
        if isinstance(limit, FieldInfo):
            yield from limit.metadata
        yield limit


def at(of: Any, place: Place) -> Takes:
    """What stands at a place of a class, names of union members (which pydantic puts in between) left out."""
    current = [Takes(of)]
    for part in place:
        leaves = [leaf for takes in current for leaf in _leaves(takes)]
        below = [inner for leaf in leaves for inner in _below(leaf, part)]
        tagged = [leaf for leaf in leaves if _is_model(leaf.annotation) and part in _tags(leaf.annotation)]
        current = below or tagged or current
    if len(current) == 1:
        return current[0]
    return Takes(Union[tuple(takes.annotation for takes in current)])  # noqa: UP007


def _leaves(takes: Takes) -> Iterator[Takes]:
    """The members of a union, whatever lies around it."""
    origin, inner = get_origin(takes.annotation), get_args(takes.annotation)
    if origin is Annotated:
        yield from _leaves(Takes(inner[0], inner[1:]))
    elif origin in (Union, types.UnionType):
        for part in inner:
            yield from _leaves(Takes(part))
    else:
        yield takes


def _below(leaf: Takes, part: int | str) -> Iterator[Takes]:
    origin, inner = get_origin(leaf.annotation), get_args(leaf.annotation)
    if _is_model(leaf.annotation):
        if part in leaf.annotation.model_fields:
            field = leaf.annotation.model_fields[part]
            yield Takes(field.annotation, tuple(field.metadata))
    elif dataclasses.is_dataclass(leaf.annotation):
        hints = get_type_hints(leaf.annotation)
        if part in hints:
            yield Takes(hints[str(part)])
    elif origin in (list, tuple) and isinstance(part, int):
        yield Takes(inner[0])
    elif origin is dict:
        yield Takes(inner[1])


def keys_at(of: Any, place: Place) -> list[str]:
    """Keys of the blocks that may stand at a place."""
    models = [leaf.annotation for leaf in _leaves(at(of, place)) if _is_model(leaf.annotation)]
    return sorted({key for model in models for key in model.model_fields})


def tags_at(of: Any, place: Place) -> list[str]:
    """Kinds of the blocks that may stand at a place."""
    return [tag for leaf in _leaves(at(of, place)) if _is_model(leaf.annotation) for tag in _tags(leaf.annotation)]


def _tags(model: type[BaseModel]) -> list[Any]:
    kind = model.model_fields.get("kind")
    return list(get_args(kind.annotation)) if kind and get_origin(kind.annotation) is Literal else []


def _is_model(annotation: Any) -> bool:
    plain = isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias)
    return plain and issubclass(annotation, BaseModel)


def options(takes: Takes) -> list[Any]:
    """The values that a key of few values takes."""
    return [v for leaf in _leaves(takes) if get_origin(leaf.annotation) is Literal for v in get_args(leaf.annotation)]


def in_a_block(key: str, value: str, takes: Takes) -> str | None:
    """A text in place of a block as the block that was meant: ``source: {path: log.csv}``; None where there is none."""
    for leaf in _leaves(takes):
        if _is_model(leaf.annotation):
            fields = leaf.annotation.model_fields
            own = next((name for name, field in fields.items() if field.is_required()), next(iter(fields)))
            return f"{key}: {{{own}: {value}}}"
    return None


def block_of(key: str, of: Any) -> str | None:
    """The block at the top of a config that has a key of this name; None where none has."""
    return next((block for block in of.model_fields if key in keys_at(of, (block,)) and block not in _LISTED), None)


_LISTED = ("fields", "join")


def is_number(takes: Takes) -> bool:
    """Whether a key takes numbers and neither true nor false."""
    leaves = [leaf.annotation for leaf in _leaves(takes)]
    return (int in leaves or float in leaves) and bool not in leaves
