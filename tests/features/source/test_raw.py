"""Sources: every line is a row or a reject wherever a file is cut, and rows read as written."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.raw import column_names, count_rows, read_range, split_ranges
from fieldwise.features.source.rows import FileRange
from tests.features.sources import is_text, read, tsv, write


@given(
    st.lists(st.binary(max_size=30).map(lambda v: v.replace(b"\n", b"\t")), max_size=30),
    st.integers(1, 60),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_line_is_a_row_or_a_reject(tmp_path_factory: Any, lines: list[bytes], target: int, ends: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    assume(is_text(data))
    base = write(tmp_path_factory.mktemp("random"), data)
    expected, bad, at = [], [], 0
    for number, line in enumerate(data.split(b"\n")):
        start = at + (3 if number == 0 and line.startswith(b"\xef\xbb\xbf") else 0)
        text = line[start - at :].removesuffix(b"\r")
        at += len(line) + 1
        if not text:
            continue
        fields = text.split(b"\t")
        try:
            decoded = [field.decode() for field in fields]
        except UnicodeDecodeError:
            bad.append((start, "undecodable" if len(fields) == 2 else "column_count", text))
            continue
        if len(fields) == 2:
            expected.append((start, decoded, text))
        else:
            bad.append((start, "column_count", text))
    rows, positions, rejects, raws = read(tsv(), base, target)
    assert list(zip(positions, rows, raws, strict=True)) == expected
    assert [(r.position, r.reason, r.raw) for r in rejects] == bad
    assert sum(count_rows(tsv(), rng) for rng in split_ranges(tsv(), list_files(tsv(), str(base)), target)) == len(
        rows + rejects
    )


@pytest.mark.parametrize(("name", "pack"), [("l.tsv.gz", gzip.compress), ("l.tsv.bz2", bz2.compress)])
def test_compressed_files_are_one_range(tmp_path: Path, name: str, pack: Any) -> None:
    write(tmp_path, pack(b"".join(b"%d\tx\n" % i for i in range(9000))), name)
    config = SourceConfig(path=[name], format="tsv", columns=["a", "b"])
    assert len(split_ranges(config, list_files(config, str(tmp_path)), 10)) == 1
    rows, positions, _, _ = read(config, tmp_path, 10)
    assert [row[0] for row in rows] == [str(i) for i in range(9000)]
    assert positions[1] == 4


def test_latin_1_becomes_utf_8(tmp_path: Path) -> None:
    base = write(tmp_path, "é|ÿ\nplain|x\n".encode("latin-1"))
    config = SourceConfig(path=["log.txt"], separator="|", columns=["a", "b"], encoding="latin-1")
    rows, _, _, raws = read(config, base)
    assert rows == [["é", "ÿ"], ["plain", "x"]]
    assert raws[0] == "é|ÿ".encode("latin-1")
    _, _, rejects, _ = read(config.model_copy(update={"encoding": "cp1252"}), write(tmp_path, b"\x81|a\n\x80|b"))
    assert [(r.reason, r.position) for r in rejects] == [("undecodable", 0)]
    with pytest.raises(ValidationError, match="single-byte superset"):
        SourceConfig(path=["log.txt"], encoding="utf-16")


def test_parquet_by_row_groups(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": range(100), "b": [str(i) for i in range(100)]}), tmp_path / "x.parquet", row_group_size=9
    )
    config = SourceConfig(path=["*.parquet"], format="parquet")
    assert len(split_ranges(config, list_files(config, str(tmp_path)), 1)) == 12
    rows, positions, _, raws = read(config, tmp_path, 1, ["a"])
    assert positions == [row[0] for row in rows] == list(range(100))
    assert [count_rows(config, r) for r in split_ranges(config, list_files(config, str(tmp_path)), 1)] == [9] * 11 + [1]
    assert json.loads(raws[7]) == {"a": 7}
    with pytest.raises(InputError, match="Did you mean 'b'"):
        read(config, tmp_path, 1, ["bb"])


def test_files_and_days(tmp_path: Path) -> None:
    for name in ("d/2024-01-01/a.csv", "d/2024-01-02/a.csv", "d/2024-01-02/_tmp/x.csv", "d/2024-01-02/.x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("h\n1\n")
    config = SourceConfig(path=["d/{date}"])
    names = [Path(f.path).relative_to(tmp_path).as_posix() for f in list_files(config, str(tmp_path), "2024-01-02")]
    assert names == ["d/2024-01-02/a.csv"]
    assert len(list_files(config, str(tmp_path))) == 2
    with pytest.raises(InputError, match="at least one file, found none"):
        list_files(config, str(tmp_path), "2024-01-03")


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_missing_column_names_file_and_nearest(tmp_path: Path, format: str) -> None:
    base = write(tmp_path, b"user,item\n1,2\n" if format == "csv" else b'{"user": 1, "item": 2}\n')
    config = SourceConfig(path=["log.txt"], format=format)
    with pytest.raises(
        InputError, match=r"log.txt: expected a column 'itme', found columns user, item. Did you mean 'item'"
    ):
        read(config, base, columns=["user", "itme"])


def test_header_is_no_row_in_any_range(tmp_path: Path) -> None:
    base = write(tmp_path, b"\xef\xbb\xbfuser;item\r\n1;2\r\n\r\n3;4\r\n\r\n")
    config = SourceConfig(path=["log.txt"], separator=";")
    for target in range(1, 30):
        rows, positions, _, _ = read(config, base, target)
        assert rows == [["1", "2"], ["3", "4"]]
        assert positions == [14, 21]
        assert sum(count_rows(config, rng) for rng in split_ranges(config, list_files(config, str(base)), target)) == 2
    assert list(read_range(config, FileRange(str(base / "log.txt"), 0, 2))) == []


def test_columns_name_by_position_and_the_header_is_skipped(tmp_path: Path) -> None:
    base = write(tmp_path, b'user,"item\nid",click\n1,2,0\n3,4,1\n')
    config = SourceConfig(path=["log.txt"], columns=["u", "i", "c"], header=True)
    assert column_names(config, str(base / "log.txt")) == ["u", "i", "c"]
    for target in range(1, 30):
        assert read(config, base, target, ["c", "u"])[0] == [["0", "1"], ["1", "3"]]


@pytest.mark.parametrize(
    ("first", "header", "message"),
    [
        (b"user,item,click", None, "expected a row in the first line, as `columns` is given .*found names: user, item, "
         "click. Set `header: true` to skip that line, or remove `columns`"),
        (b'\xef\xbb\xbf\n User,ITEM,"x\n"', False, "expected a row in the first line"),
        (b"item,click,user", None, "expected the order of `columns`: user, item, click, found a first line with item, "
         "click, user. Remove `columns`"),
        (b"item,user,click", True, "expected the order of `columns`"),
        (b"user,item", True, "expected a header of 3 names, as many as `columns` has, found 2: user, item"),
        (b"", True, "expected a header of 3 names, as many as `columns` has, found 0"),
    ],
)  # fmt: skip
def test_a_first_line_that_contradicts_columns_is_refused(
    tmp_path: Path, first: bytes, header: bool | None, message: str
) -> None:
    base = write(tmp_path, first + b"\n1,2,3\n")
    config = SourceConfig(path=["log.txt"], columns=["user", "item", "click"], header=header)
    with pytest.raises(InputError, match=message):
        column_names(config, str(base / "log.txt"))
    with pytest.raises(InputError, match=message):
        read(config, base, 4)


def test_columns_of_formats_that_name_their_own_are_refused() -> None:
    with pytest.raises(ValidationError, match="columns has no effect: parquet names its own columns"):
        SourceConfig(path=["x"], format="parquet", columns=["a"])
    with pytest.raises(ValidationError, match="separator and quote must differ"):
        SourceConfig(path=["x"], separator='"')


def test_parts_without_keys_of_their_own_count(tmp_path: Path) -> None:
    """Whether a key is one is decided by all objects, whatever their order."""
    (tmp_path / "a.jsonl").write_text('{"user": 1, "note": "price", "in": {"price": 2}}\n\n[]\nno json "price"\n')
    config = SourceConfig(path=["*.jsonl"], format="jsonl")
    with pytest.raises(InputError, match=r"^\*\.jsonl: expected a column 'price', found columns user, note, in\."):
        read(config, tmp_path, columns=["user", "price"])
    (tmp_path / "b.jsonl").write_text('{"user": 2}\n{"user": 3, "price": null}\n')
    assert read(config, tmp_path, columns=["user", "price"])[0] == [["1", ""], ["2", ""], ["3", ""]]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_what_directories_tell_is_a_column_that_files_lack(tmp_path: Path, format: str) -> None:
    for folder, users in (("date=2024-01-31/city=a%2Fb", ["u"]), ("date=__HIVE_DEFAULT_PARTITION__/city=", ["v", "w"])):
        place = tmp_path / "in" / folder
        place.mkdir(parents=True)
        if format == "parquet":
            pq.write_table(pa.table({"user": users}), place / "x")
        elif format == "csv":
            (place / "x").write_text("user\n" + "".join(f"{user}\n" for user in users))
        else:
            (place / "x").write_text("".join(json.dumps({"user": user}) + "\n" for user in users))
    config = SourceConfig(path=["in"], format=format)  # type: ignore[arg-type]
    rows = read(config, tmp_path, columns=["date", "user", "city"])[0]
    named = (
        [dict(zip(("user", "date", "city"), row, strict=True)) for row in rows]
        if format != "jsonl"
        else [dict(zip(("date", "user", "city"), row, strict=True)) for row in rows]
    )
    expected = [("u", "2024-01-31", "a/b"), ("v", None, ""), ("w", None, "")]
    assert sorted((row["user"], row["date"], row["city"]) for row in named) == expected
    if format != "jsonl":
        assert all(len(row) == 1 for row in read(config, tmp_path)[0])  # "all columns" are those of the files


def test_a_column_of_the_file_goes_before_one_of_its_directory(tmp_path: Path) -> None:
    (tmp_path / "user=7").mkdir()
    (tmp_path / "user=7/a.csv").write_text("user,item\n1,2\n")
    (tmp_path / "user=7/b.jsonl").write_text('{"user": 1}\n{"user": null}\n{"item": 2}\n')
    assert read(SourceConfig(path=["user=7/*.csv"]), tmp_path, columns=["user"])[0] == [["1"]]
    config = SourceConfig(path=["user=7/*.jsonl"], format="jsonl")
    assert read(config, tmp_path, columns=["user"])[0] == [["1"], ["7"], ["7"]]
    assert read(config, tmp_path, columns=["user"], lists=("user",))[0] == [[["1"]], [["7"]], [["7"]]]


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [str(i) for i in range(30000)]}), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    config = SourceConfig(path=["x.parquet"], format="parquet")
    for data in (whole[:500] + b"\xff" * 5000 + whole[5500:], whole[:-300], b"text", b""):
        (tmp_path / "x.parquet").write_bytes(data)
        with pytest.raises(InputError, match=r"x\.parquet: expected a whole Parquet file, found .*\. Write or copy it"):
            read(config, tmp_path)
