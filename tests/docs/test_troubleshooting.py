"""Every message that docs/troubleshooting.md quotes is one of the code's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from tests.commands import ROOT

HOLE = "…"


def literals(tree: ast.AST) -> Iterator[str]:
    """Texts of a module, f-strings with a hole for every value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def said() -> str:
    rooms = ("features", "training", "pipelines", "fieldwise", "jobs")
    trees = [ast.parse(path.read_text()) for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return "\n".join(text for tree in trees for text in literals(tree))


def quoted(page: str) -> list[str]:
    """First cells of the tables of messages."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = [re.findall(r"(?<=\| ).*?(?= \|)", line)[0] for line in text.splitlines() if line.startswith("| `")]
    return [cell.strip("`") for cell in rows]


def test_messages_are_the_codes_own() -> None:
    messages = quoted("troubleshooting.md")
    assert len(messages) > 40
    assert [message for message in messages if message not in said()] == []
