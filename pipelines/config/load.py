"""The only reader of configs."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fieldwise.features import store
from fieldwise.features.errors import ConfigError
from fieldwise.features.schema import expand_names
from fieldwise.pipelines.config.document import MOST_BYTES, UNREADABLE, complaint, dumped, parsed, read_document
from fieldwise.pipelines.config.mistakes import Origin, mistake, placed, require_plain, shortened
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.config.variables import expand
from fieldwise.training.loop.settings import require_trainable


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read and check a config.

    Args:
        path: the YAML file, or its URL.
        overrides: ``a.b=value`` each, value in YAML, list positions as numbers (``fields.0.buckets=1000``).

    Raises:
        ConfigError: anything in the file or the overrides that cannot be meant.
    """
    file, root, data = read_document(str(path))
    for override in overrides or []:
        _override(data, override)
    origin = Origin(file, root, data, list(overrides or []))
    return _checked(expand(data, file), origin)


def load_document(document: dict[str, Any], file: str) -> Config:
    """The config of a document of plain data, which is written into a local ``file`` for the processes that a command
    starts; nothing is written of what is refused. Its relative paths count from the file's directory.

    Raises ConfigError as ``load_config`` does; keys have no lines.
    """
    where = "the config"
    try:
        text = dumped(document)
        data = parsed(text, where)[1]
    except ConfigError:
        raise
    except UNREADABLE as error:
        fix = "Give texts, numbers, true and false, lists and dicts of them."
        raise ConfigError(where, expected="plain data", found=complaint(error), fix=fix) from None
    _checked(expand(data, where), Origin(where, None, data, []))
    if len(text.encode()) > MOST_BYTES:
        fix = "Write less."
        raise ConfigError(where, expected=f"a config of at most {MOST_BYTES:,} bytes", found="more", fix=fix)
    store.make_dir(os.path.dirname(file))
    store.write_atomic(file, text.encode())
    return load_config(file)


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
    joins = origin.data.get("join") or []
    blocks = [origin.data["source"], *([joins] if isinstance(joins, dict) else joins)]
    config._paths = [expand_names(path if isinstance(path, list) else [path]) for path in (b["path"] for b in blocks)]
    return config


_MOST_PARTS, _MOST_OVERRIDE = 20, 64 << 10
"""Keys and characters of one override."""


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
    if "#" in value and not isinstance(parsed_value, dict | list) and "#" not in str(parsed_value):
        parsed_value = value  # a comment to YAML, but who would write one here?
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
