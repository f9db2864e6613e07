"""A shop whose catalog is scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.shop import write_shop


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_shop(tmp_path)
    return tmp_path
