"""A row is never taken for a header: files of one source begin alike."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from fieldwise.features.config import JoinConfig, SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.headers import require_one_header
from fieldwise.features.source.join import SideTable
from fieldwise.features.source.raw import read_range, split_ranges

NAMED = {"columns": ["user", "item", "click"], "header": True}


def parts(base: Path, *contents: bytes) -> None:
    for number, content in enumerate(contents):
        (base / f"part-{number}.csv").write_bytes(content)


def rows(base: Path, **reading: object) -> int:
    config = SourceConfig.model_validate({"path": "part-*", **reading})
    ranges = split_ranges(config, list_files(config, str(base)), 1 << 30)
    return sum(batch.columns.rows for rng in ranges for batch in read_range(config, rng, ["user", "item"]))


def test_a_part_without_header_loses_no_row_silently(tmp_path: Path) -> None:
    parts(tmp_path, b"user,item,click\n1,2,0\n", b"3,4,1\n5,6,0\n")
    message = (
        rf"^{tmp_path}/part-1.csv line 1: expected the names that {tmp_path}/part-0.csv begins with: user, item, "
        r"click, found 3, 4, 1\. .*`header: false`\.$"
    )
    for reading in (NAMED, {}):
        with pytest.raises(InputError, match=message):
            rows(tmp_path, **reading)


def test_headers_may_be_written_differently(tmp_path: Path) -> None:
    """A byte order mark, line ends, quotes, letter case, compression and empty parts are no difference."""
    marked, quoted = b"\xef\xbb\xbfuser,item,click\n1,2,0\n", b'"user","item","click"\r\n3,4,1\r\n'
    parts(tmp_path, marked, quoted, b"", b"\xef\xbb\xbf", b"User, item,click", b"user,item,click\n5,6,0")
    (tmp_path / "part-9.csv.gz").write_bytes(gzip.compress(b"user,item,click\n7,8,1\n"))
    assert rows(tmp_path, **NAMED) == 4
    (tmp_path / "part-4.csv").unlink()
    assert rows(tmp_path) == 4


def test_files_that_name_their_columns_may_have_others(tmp_path: Path) -> None:
    parts(tmp_path, b"user,item,click\n1,2,0\n", b"when,item,user\n1,2,3\n")
    assert rows(tmp_path) == 2
    with pytest.raises(InputError, match=r"part-1.csv line 1: .*found when, item, user"):
        rows(tmp_path, **NAMED)  # by position its columns would be others


def test_files_without_headers_are_not_compared(tmp_path: Path) -> None:
    parts(tmp_path, b"1,2,0\n", b"3,4,1\n")
    assert rows(tmp_path, columns=["user", "item", "click"]) == 2


def test_side_tables_are_held_to_it(tmp_path: Path) -> None:
    parts(tmp_path, b"user,item,click\n1,2,0\n", b"3,4,1\n")
    with pytest.raises(InputError, match=r"part-1.csv line 1"):
        SideTable(JoinConfig(path=["part-*"], on="user", **NAMED), str(tmp_path))


def test_what_a_first_line_holds_does_not_reach_the_terminal(tmp_path: Path) -> None:
    parts(tmp_path, b"user,item\n", b"\x1b[2J,4\n")
    config = SourceConfig(path=["part-*"])
    with pytest.raises(InputError) as error:
        require_one_header(config, list_files(config, str(tmp_path)))
    assert "\x1b" not in str(error.value)
    assert "x1b[2J, 4" in str(error.value)
