"""Markup from templates, one environment for all pages: what comes from data is escaped and printable.

A page's template lies beside the module that gathers what it shows; ``base.html``, ``parts.html`` and the styles, which
all pages share, lie here. A name that a template misses ends it: no page is half a page.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fieldwise.features.terminal import printable

_SHARED = Path(__file__).resolve().parent


def render(template: Path, **facts: Any) -> str:
    """A template with its facts. Objects with ``__html__`` (pictures) stand as they are, texts are escaped."""
    return _environment(template.parent).get_template(template.name).render(facts)


@cache
def _environment(folder: Path) -> Environment:
    """Templates of a folder, which may extend and include those that lie here."""
    return Environment(
        loader=FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """What has no shape is written as an escape; markup of templates is text that has been through this already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
