"""Hooks of the documentation's site (mkdocs.yml): what is true of a checkout made true of pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^\]\n]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A link to a file outside docs/ becomes the file's name: a site does not hold the checkout. Raises where there is
    no such file, so that a moved file is noticed."""

    def named(found: re.Match[str]) -> str:
        text, target, _ = found.groups()
        place = (ROOT / "docs" / page.file.src_uri).parent / target
        place = place.resolve()
        if place.is_relative_to(ROOT / "docs"):
            return found[0]
        if not place.exists():
            raise ValueError(f"docs/{page.file.src_uri}: expected a file or folder of this checkout, found {target}")
        path = f"`{place.relative_to(ROOT)}`"
        return path if text.strip("`") in path else f"{text} ({path})"

    return _LINK.sub(named, markdown)


def on_config(config: Any, **_: Any) -> Any:
    """Pages that only some versions have."""
    if (ROOT / "docs" / "deploy.md").exists():
        work = next(part["Work"] for part in config.nav if "Work" in part)
        if not any("deploy.md" in entry.values() for entry in work):
            work.insert(1, {"Deploy": "deploy.md"})
    return config
