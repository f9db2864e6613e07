"""JSON from elsewhere, inside limits: how many bytes it has, and how much they can stand for, is looked at before
anything is built of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.words import complaint

T = TypeVar("T", bound=BaseModel)

MOST_BYTES = 16 << 20
"""Of an artifact: a manifest, a spec, a record."""
_BYTES_A_VALUE = 11
"""Fewer on average, and what is small on disk could be large in memory. Brackets, commas and colons tell of values."""
MOST_DEPTH = 100
_FIX = "It is none of ours, or damaged: make it again, or copy it again whole."


def read(path: str, most: int = MOST_BYTES, fix: str = _FIX) -> bytes:
    """The bytes of a JSON artifact. Raises FileNotFoundError; ArtifactError for one past the limits, or no file."""
    fs, inner = store.resolve(path)
    facts = fs.info(inner)
    if facts["type"] != "file":  # a pipe would never end, a device neither
        found = "a directory" if facts["type"] == "directory" else "no plain file"
        raise ArtifactError(path, expected="a file", found=found, fix=fix)
    size = int(facts["size"] or 0)
    if size <= most:
        with fs.open(inner, "rb") as file:
            content: bytes = file.read(most + 1)  # of what grows, or tells no size, no more either
        require_within(content, path, most, fix)
        return content
    raise ArtifactError(path, expected=f"at most {most:,} bytes", found=f"{size:,}", fix=fix)


def require_within(content: bytes, path: str, most: int = MOST_BYTES, fix: str = _FIX) -> None:
    """Refuse what is past the limits; before it is written, too, since nobody could read it."""
    if len(content) > most:
        raise ArtifactError(path, expected=f"at most {most:,} bytes", found=f"{len(content):,}", fix=fix)
    values = sum(map(content.count, (b"[", b"{", b",", b":")))
    if values > most // _BYTES_A_VALUE:
        expected = f"at most {most // _BYTES_A_VALUE:,} values"
        raise ArtifactError(path, expected=expected, found=f"up to {values:,}", fix=fix)


def parse(content: bytes, where: str, fix: str = _FIX) -> dict[str, Any]:
    """The object that is written there. Raises ArtifactError for anything else, one nested too deep, a key twice."""
    try:
        value = json.loads(content, object_pairs_hook=_once)
    except RecursionError:
        found = "more"
    except ValueError as error:
        raise ArtifactError(where, expected="JSON", found=str(error), fix=fix) from None
    else:
        if not isinstance(value, dict):
            raise ArtifactError(where, expected="a JSON object", found=f"a {type(value).__name__}", fix=fix)
        if _depth_within(value):
            return value
        found = "more"
    raise ArtifactError(where, expected=f"at most {MOST_DEPTH} levels of nesting", found=found, fix=fix)


def load(path: str, most: int = MOST_BYTES, fix: str = _FIX) -> dict[str, Any]:
    """Both."""
    return parse(read(path, most, fix), path, fix)


def validated(
    content: bytes, of: type[T], where: str, expected: str, fix: str = _FIX, *, short_forms: bool = False
) -> T:
    """What is written there, as a class of artifacts takes it; ``true`` is no number, nor ``"3"``, unless the class is
    one of configs, which takes short forms.

    Raises ArtifactError, which says what was ``expected`` and the ``fix``.
    """
    parse(content, where, fix)  # pydantic takes the last of two equal keys
    try:
        return of.model_validate_json(content, strict=not short_forms)
    except ValidationError as error:
        raise ArtifactError(where, expected=expected, found=complaint(error, of), fix=fix) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two that are alike, one would be lost without a word."""
    value = dict(pairs)
    if len(value) < len(pairs):
        [(name, times)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name[:60]!r} {times} times in one object")
    return value


def _depth_within(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_DEPTH + 1):
        held = [item for item in level if isinstance(item, dict | list)]
        if not held:
            return True
        level = [part for item in held for part in (item.values() if isinstance(item, dict) else item)]
    return False
