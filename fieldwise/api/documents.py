"""Configs that are no files: dicts and keywords as a document, and keywords over a file as overrides."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from fieldwise.features.errors import ConfigError
from fieldwise.pipelines.config.load import load_config, load_document
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.config.variables import expand

FILE = "pipeline.yaml"
"""Into which a config that was no file is written, in its workspace: commands and ranks read it there."""
_SOURCES = (("source",), ("negatives", "items"), *(("catalog", of) for of in ("contexts", "items", "exclude",
            "candidates")))  # fmt: skip


def config_of(given: str | os.PathLike[str] | Mapping[str, Any] | None, keys: Mapping[str, Any]) -> Config:
    """The config of a file with ``keys`` over it, or of a dict or keywords alone.

    Of a dict, relative paths count from the current directory, and so does its default workspace, ``work/<name>``.
    """
    if given is not None and not isinstance(given, Mapping):
        return load_config(os.fspath(given), overrides_of(keys))
    document = plain({**(given or {}), **keys}, ())
    here = os.getcwd()
    _anchor(document, here)
    name = str(document.get("name", ""))
    usual = os.path.join(here, "work", *([name] if name.replace("-", "").replace("_", "").isalnum() else []))
    document.setdefault("workspace", usual)
    workspace = document["workspace"]
    local = isinstance(workspace, str) and "://" not in workspace and "${" not in workspace
    return load_document(document, os.path.join(workspace if local else usual, FILE))


def overrides_of(keys: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[str]:
    """``{"training": {"epochs": 3}}`` as ``training.epochs=3``: a dict goes into the block of its name, all else takes
    the place of what stands there."""
    found = []
    for key, value in keys.items():
        place = (*above, str(key))
        by_key = isinstance(value, Mapping) and value and not any(set(".=") & set(str(inner)) for inner in value)
        if by_key:
            found += overrides_of(value, place)
        else:
            found.append(f"{'.'.join(place)}={json.dumps(plain(value, place), ensure_ascii=False)}")
    return found


def plain(value: Any, place: tuple[str, ...]) -> Any:
    """As YAML holds it: tuples as lists, paths and moments as texts, numbers of numpy as Python's. ConfigError for
    others."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, (*place, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, (*place, str(at))) for at, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, date):  # moments, pandas' too
        return value.isoformat()
    if isinstance(value, np.datetime64):
        return str(value)
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ConfigError(
        ".".join(place), expected="a text, a number, true, false, a list or a dict", found=f"a {type(value).__name__}",
        fix="Pass tables to fieldwise.fit.",
    )  # fmt: skip


def _anchor(document: dict[str, Any], base: str) -> None:
    """Make paths absolute: the document will lie elsewhere."""
    joins = document.get("join")
    sources = [*(joins if isinstance(joins, list) else [joins])]
    for keys in _SOURCES:
        block: Any = document
        for key in keys:
            block = block.get(key) if isinstance(block, dict) else None
        sources.append(block)
    for source in sources:
        if isinstance(source, dict) and (path := source.get("path")):
            source["path"] = (
                [_absolute(each, base) for each in path] if isinstance(path, list) else _absolute(path, base)
            )
    if document.get("workspace"):
        document["workspace"] = _absolute(document["workspace"], base)


def _absolute(path: Any, base: str) -> Any:
    if not isinstance(path, str) or "://" in path:
        return path
    found = os.path.expanduser(expand(path, "the config"))
    return path if os.path.isabs(found) else str(Path(base, found if path.startswith("~") else path))
