"""``${VAR}`` and ``${VAR:-default}`` in the values of a config."""

from __future__ import annotations

import os
import re
from typing import Any

from fieldwise.features.errors import ConfigError
from fieldwise.features.redact import remember, remember_urls

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def expand(value: Any, where: str) -> Any:
    """Environment variables in all strings of a tree."""
    if isinstance(value, dict):
        return {key: expand(item, f"{where}, {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, where) for item in value]
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


def with_variables(value: Any, written: Any) -> Any:
    """``value`` with texts as they were written, where these name variables. A block may stand for a list of one."""
    if isinstance(value, list) and isinstance(written, dict):
        written = [written]
    if isinstance(value, dict) and isinstance(written, dict):
        return {key: with_variables(item, written.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(written, list) and len(value) == len(written):
        return [with_variables(item, own) for item, own in zip(value, written, strict=True)]
    if isinstance(written, str) and _VARIABLE.search(written):
        return [written] if isinstance(value, list) else written
    return value
