"""Every key a config may hold, as Markdown, read off the config classes and their docstrings.

python -m fieldwise.pipelines.config.reference > docs/config.md
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fieldwise.features.fields.base import BaseField
from fieldwise.pipelines.config.schema import Config

HEAD = """# Every key of a config

A key marked `?` may be left out. `[...]` is a list; one text may stand for a list of texts. Paths count from the
config file's directory; `${VAR}` and `${VAR:-default}` in values come from the environment; `--set a.b=value` overrides
a key on the command line. An unknown key or a wrong type is refused with file, line and the nearest name.

This page is made by `python -m fieldwise.pipelines.config.reference` from the classes that check a config.
"""


def reference() -> str:
    """The whole page: a section per block of keys, in the order in which blocks are met; keys of a base block once."""
    names: dict[type[BaseModel], str] = {Config: "Top level"}
    queue: list[type[BaseModel]] = [Config]
    for block in queue:  # grows as blocks are met
        for key, field in block.model_fields.items():
            for inner in _blocks(field.annotation):
                if inner not in names:
                    names[inner] = f"Field of kind {_type(inner.model_fields['kind'], {})}" if _is_field(inner) else key
                    queue.append(inner)
    return "\n".join([HEAD, *(line for block in queue for line in _section(block, names))])


def _section(block: type[BaseModel], names: dict[type[BaseModel], str]) -> Iterator[str]:
    base = next((parent for parent in block.__mro__[1:] if parent in names), None)
    inherited = base.model_fields if base else {}
    told = _docstrings(block)
    yield f"## {names[block]}\n"
    yield _words(inspect.getdoc(block)) + (f" Besides these, the keys of [{names[base]}]." if base else "") + "\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for key, field in block.model_fields.items():
        if key not in inherited:
            mark = "" if field.is_required() else "?"
            meaning = field.description or told.get(key) or _meaning(field)
            yield f"| `{key}`{mark} | {_type(field, names)} | {_default(field)} | {_words(meaning)} |"
    yield ""


def _docstrings(block: type[BaseModel]) -> dict[str, str]:
    """What stands below each key in the sources of a class and its bases. Read here alone: pydantic would look for it
    whenever a command starts."""
    found: dict[str, str] = {}
    for each in block.__mro__:
        if issubclass(each, BaseModel) and each.__module__ in sys.modules and each.__module__.startswith("fieldwise."):
            for key, words in _below_keys(each).items():
                found.setdefault(key, words)
    return found


def _below_keys(block: type[BaseModel]) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(block))).body[0]
    except OSError:  # made by a function
        return {}
    assert isinstance(body, ast.ClassDef)
    return {
        key.target.id: inspect.cleandoc(below.value.value)
        for key, below in pairwise(body.body)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }  # fmt: skip


def _meaning(field: FieldInfo) -> str | None:
    """What the key's block says."""
    blocks = [block for block in _blocks(field.annotation) if not _is_field(block)]
    return inspect.getdoc(blocks[0]) if blocks else None


def _default(field: FieldInfo) -> str:
    """As one would write it in YAML; nothing for what is absent or follows from other keys."""
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel) or value in ("", (), {}):
        return ""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _type(field: Any, names: dict[type[BaseModel], str]) -> str:
    """``int | None`` is an integer, ``Literal['a', 'b']`` is `a` or `b`, ``list[str]`` is [text], a block its name."""
    annotation: Any = field.annotation if isinstance(field, FieldInfo) else field
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], names)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part, names) for part in inner if part is not type(None)))
    if origin in (list, tuple):
        return f"[{_type(inner[0], names)}]"
    if origin is dict:
        return f"{{{_type(inner[0], names)}: {_type(inner[1], names)}}}"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "field" if _is_field(annotation) else f"keys of {names[annotation]}"
    return {"str": "text", "bool": "true or false", "int": "integer", "float": "number", "date": "date"}[
        annotation.__name__
    ]


def _is_field(block: type[BaseModel]) -> bool:
    return issubclass(block, BaseField)


def _blocks(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every block of keys inside a type."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _blocks(inner)


def _words(text: str | None) -> str:
    """A docstring as one line of a table."""
    return " ".join((text or "").replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
