"""Every file in a line, room by room: ``python docs/files.py > docs/files.md``. The lines are the files' own
docstrings."""

from __future__ import annotations

import ast
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fieldwise", "jobs", "pipelines", "training", "features")
HEAD = """# Every file in a line

Made by `python docs/files.py > docs/files.md` from the first sentence of each file; [architecture.md](architecture.md)
says how the rooms stand to each other.
"""


def first_sentence(path: Path) -> str:
    """Of a module's docstring, in one line; empty where there is none."""
    paragraph = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return (sentence + dot).strip().rstrip(":")


def page() -> str:
    """The page as Markdown."""
    lines = [HEAD]
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    for room, files in groupby(
        sorted(paths, key=lambda path: (PACKAGES.index(path.relative_to(ROOT).parts[0]), path.parent)),
        key=lambda path: path.parent,
    ):
        inside = list(files)
        about = first_sentence(room / "__init__.py")
        lines += [f"## {room.relative_to(ROOT)}/", "", about, ""]
        lines += [f"- `{path.name}`: {first_sentence(path)}" for path in inside if path.name != "__init__.py"]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
