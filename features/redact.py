"""Secrets stay out of messages, results, artifacts and logs: one rule for all of them.

What counts as a secret, wherever it stands in a text:

- the password of a URL (``https://user:password@host``, a web address' mere ``token@host``), and values of its
  parameters named like one (``?sig=...``); those of a config also where a library tells them without the URL;
- the value of an environment variable that a config names as ``${VAR}``, which is written as ``${VAR}`` again: where
  the variable's name says secret, and in words for people wherever the value is not plainly something else: a place
  (path, URL), a date, a number, a single short word. Results keep such values, since programs read names in them.

Texts that hold none are returned as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

_TELLTALE = r"pass|pwd|secret|token|credential|signature|sig|api_?key|access_?key|auth|private"
_SECRET_NAME = re.compile(rf"(?i)({_TELLTALE}|key)")
_PASSWORD = re.compile(
    r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:'\"]*):(?!\d+/)(?P<secret>[^\s'\"]*?)@"  # a port and a path are none
    r"(?=[^\s/@'\"]*(?:[/\s'\"?#,)]|$))"
)
_SPACED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:]*:(?P<secret>[^@]*\s[^@]*)@[^\s@]*")
"""A URL with a password that holds blanks: only told from words where it is all there is."""
_USER = re.compile(r"(?P<head>(?i:https?)://)(?P<secret>[^\s/@:'\"]+)@")
_PARAMETER = re.compile(
    rf"(?i)(?P<head>[?&;](?:[\w.-]*(?:{_TELLTALE})[\w.-]*|key|odbc_connect)=)(?P<secret>[^\s&;#'\"]+)"
)
_PLAIN = re.compile(r"[\d.:+TZ-]*|[A-Za-z]{1,11}")
"""Numbers, dates, times; short words such as a day's or a stage's name."""

_SHORTEST = 3
"""Shorter values would be found in every other word."""

_known: dict[str, tuple[str, bool]] = {}
"""By value: what is written in its place, and whether its variable's name says secret."""


def remember(variable: str, value: str) -> None:
    """Take note of a value that ``${variable}`` brought into a config."""
    _note(value.strip(), f"${{{variable}}}", named=_SECRET_NAME.search(variable) is not None)


def remember_urls(text: str) -> None:
    """Take note of what is secret in the URLs of a config's text: libraries tell parts of them, decoded."""
    if spaced := _SPACED.fullmatch(text.strip()):
        _note(spaced["secret"], "***", named=True)
    for pattern in (_PASSWORD, _PARAMETER) if "://" in text else ():
        for match in pattern.finditer(text):
            _note(match["secret"], "***", named=False)
            _note(unquote(match["secret"]), "***", named=False)


def known() -> dict[str, tuple[str, bool]]:
    """What is remembered, for another process to ``adopt``."""
    return dict(_known)


def adopt(secrets: Mapping[str, tuple[str, bool]]) -> None:
    """Remember what another process does."""
    _known.update(secrets)


def _note(value: str, mask: str, *, named: bool) -> None:
    place = "/" in value and (value.startswith(("/", ".", "~")) or "://" in value)
    plain = place or os.path.exists(value) or _PLAIN.fullmatch(value)
    if len(value) >= _SHORTEST and (named or not plain):
        forms = (repr(value)[1:-1], json.dumps(value)[1:-1], quote(value), quote(value, safe=""))
        for form in (value, *forms, " ".join(value.split())):
            _known.setdefault(form, (mask, named))


def redacted(text: str, *, words: bool = True) -> str:
    """``text`` without secrets; ``words``: it is for people."""
    for value in sorted(_known, key=len, reverse=True):  # a secret may hold another
        mask, named = _known[value]
        if named or words:
            text = text.replace(value, mask)
    if "://" in text:
        text = _USER.sub(r"\g<head>***@", _PASSWORD.sub(r"\g<head>:***@", text))
    return _PARAMETER.sub(r"\g<head>***", text) if "=" in text else text


def redacted_tree(value: Any) -> Any:
    """Of a result: the same of every text inside lists and mappings, keys included."""
    if isinstance(value, str):
        return redacted(value, words=False)
    if isinstance(value, dict):
        return {redacted_tree(key): redacted_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_tree(item) for item in value]
    return value
