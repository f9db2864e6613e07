from __future__ import annotations

from pathlib import Path

import pytest

from fieldwise.features.errors import IntegrityError
from fieldwise.features.files.listing import SourceFile
from fieldwise.pipelines.unchanged import require_unchanged, stamps_of


def test_a_file_that_was_cut_replaced_or_removed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a,b\n1,2\n")
    stamps = stamps_of([SourceFile(str(path), 8)])
    require_unchanged(stamps)
    with path.open("a") as file:
        file.write("3,4\n")
    require_unchanged(stamps)
    assert "log.csv has grown from 8 to 12 bytes" in capsys.readouterr().err
    path.write_text("a,b\n")
    with pytest.raises(IntegrityError, match=r"log\.csv: expected a file that stays .* found another one of 4 bytes"):
        require_unchanged(stamps)
    path.unlink()
    with pytest.raises(IntegrityError, match="found it gone"):
        require_unchanged(stamps)
