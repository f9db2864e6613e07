"""Commands refuse a file that begins with a row in place of its header before they do anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.pipelines.build.columns import require_columns
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.score.score_rows import score_rows
from tests.pipelines.shop import log_columns, shop_config, write_bundle, write_shop


def split(file: Path) -> str:
    """Cut a file in two as `split -l` does; the pattern of its parts."""
    lines = file.read_text().splitlines(keepends=True)
    half = len(lines) // 2
    (file.parent / f"{file.stem}-a.csv").write_text("".join(lines[:half]))
    (file.parent / f"{file.stem}-b.csv").write_text("".join(lines[half:]))
    return f"{file.stem}-[ab].csv"


def test_rows_and_catalogs_are_refused_before_any_work(tmp_path: Path) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path)
    bundle = write_bundle(tmp_path, config)
    columns = (tmp_path / "items.csv").read_text().splitlines()[0].split(",")
    parts = {"path": [split(tmp_path / "items.csv")], "columns": columns, "header": True}
    assert config.catalog is not None
    items = config.catalog.items.model_validate(parts)
    changed = config.model_copy(update={"catalog": config.catalog.model_copy(update={"items": items})})
    with pytest.raises(InputError, match=r"items-b.csv line 1: expected the names that .*items-a.csv begins with"):
        score_catalog(changed, model=bundle)
    source = {"path": [split(tmp_path / "log.csv")], "columns": log_columns(tmp_path), "header": True}
    changed = config.model_copy(update={"source": config.source.model_validate(source)})
    with pytest.raises(InputError, match=r"log-b.csv line 1: expected the names that .*log-a.csv begins with"):
        score_rows(changed, model=bundle)
    with pytest.raises(InputError, match=r"log-b.csv line 1"):
        require_columns(changed, list_files(changed.source, changed.base))
    assert not (tmp_path / "work").exists()
