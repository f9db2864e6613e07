"""docs/config.md says what the config classes say."""

from __future__ import annotations

from pathlib import Path

from fieldwise.pipelines.config.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "config.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "run: python -m fieldwise.pipelines.config.reference > docs/config.md"


def test_every_key_has_its_meaning() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |") and not row.startswith("| `kind`")] == []
