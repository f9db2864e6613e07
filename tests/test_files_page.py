"""docs/files.md says what every file is for, in the files' own words."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_page_is_current_and_every_file_says_what_it_is_for() -> None:
    page = runpy.run_path(str(DOCS / "files.py"))["page"]()
    assert (DOCS / "files.md").read_text() == page, "run: python docs/files.py > docs/files.md"
    assert [line for line in page.splitlines() if line.endswith("`: ")] == []
