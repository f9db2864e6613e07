"""Records of delimited text: RFC 4180, whatever cuts a file, and lines that are none."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.source import records
from fieldwise.features.source.raw import count_rows, split_ranges
from fieldwise.features.source.rows import RAW_LIMIT, FileRange
from tests.features.sources import read, tsv, write

_VALUES = st.text(st.sampled_from('"",;\r\n\n\n aé\0'), max_size=8)


@given(
    st.lists(st.lists(_VALUES, min_size=3, max_size=3), min_size=1, max_size=12), st.integers(1, 400), st.booleans(),
    st.sampled_from(["\n", "\r\n"]), st.sampled_from([b"", b"\xef\xbb\xbf"]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_csv_reads_what_pythons_csv_writes(
    tmp_path_factory: Any, rows: list[list[str]], target: int, every: bool, line_end: str, bom: bytes
) -> None:
    text = io.StringIO(newline="")
    every = every or any("\r" in value for row in rows for value in row)  # which the writer leaves bare
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator=line_end, quoting=quoting).writerows([["x\n", "y,", 'z"'], *rows])
    base = write(tmp_path_factory.mktemp("csv"), bom + text.getvalue().encode())
    config = SourceConfig(path=["log.txt"])
    got, _, rejects, _ = read(config, base, target)
    assert (got, rejects) == (rows, [])
    assert read(config, base, target, ['z"', "x\n"])[0] == [[r[2], r[0]] for r in rows]
    ranges = split_ranges(config, list_files(config, str(base)), target)
    assert sum(count_rows(config, rng) for rng in ranges) == len(rows)


def by_the_rules(data: bytes) -> tuple[list[list[bytes]], list[tuple[int, str]]]:
    """Rows of two columns, and (position, reason) of refused lines, one byte at a time."""
    rows, bad, i = [], [], 0
    while i < len(data):
        start, values, reason = i, [], ""
        while not reason:
            value = bytearray()
            if data[i : i + 1] == b'"':
                i += 1
                while i < len(data) and (data[i : i + 1] != b'"' or data[i : i + 2] == b'""'):
                    value.append(data[i])
                    i += 2 if data[i : i + 1] == b'"' else 1
                reason = "unclosed_quote" if i == len(data) else ""
                i += 1
                i += data[i : i + 2] in (b"\r\n", b"\r") and (i + 1 == len(data) or data[i + 1] == 10)
                if not reason and data[i : i + 1] not in (b",", b"\n", b""):
                    reason = "bad_quote"
            else:
                while data[i : i + 1] not in (b",", b"\n", b""):
                    value.append(data[i])
                    i += 1
                if data[i : i + 1] != b"," and value.endswith(b"\r"):
                    value.pop()
            values.append(bytes(value))
            if reason or data[i : i + 1] != b",":
                break
            i += 1
        while i < len(data) and data[i] != 10:
            i += 1
        i = min(i, len(data))
        if data[start:i] not in (b"", b"\r"):
            reason = reason or ("column_count" if len(values) != 2 else "")
            if reason:
                at = start
                for line in data[start:i].split(b"\n"):
                    bad += [(at, reason)] if line not in (b"", b"\r") else []
                    at += len(line) + 1
            else:
                rows.append(values)
        i += 1
    return rows, bad


_PIECES = ['"', '"', ",", ",", "\n", "\n", "\r\n", "\r", "a", "bc", '""', 'x"y', '","', '"\n"', "z" * 70]


@given(st.lists(st.sampled_from(_PIECES), max_size=60).map("".join), st.integers(1, 90), st.sampled_from([7, 64, 4096]))
@settings(max_examples=300, deadline=None)
def test_records_do_not_depend_on_cuts(tmp_path_factory: Any, text: str, target: int, block: int) -> None:
    """However quotes are misplaced, every line is part of one row or one reject, the same for any cut and block."""
    assume("\n" in text or "\r" not in text)  # such a file is refused as a whole
    base = write(tmp_path_factory.mktemp("quotes"), text.encode())
    config = SourceConfig(path=["log.txt"], columns=["one", "two"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK", block)
        rows, _, rejects, _ = read(config, base, target)
        ranges = split_ranges(config, list_files(config, str(base)), target)
        counted = sum(count_rows(config, rng) for rng in ranges)
    expected, bad = by_the_rules(text.encode())
    assert [[value.encode() for value in row] for row in rows] == expected
    assert [(r.position, r.reason) for r in rejects] == bad
    assert counted == len(rows) + len(rejects)


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ('1,"a"b\n3,4', ["bad_quote"]),
        ('1,"a" \n3,4', ["bad_quote"]),
        ('1,"x\n2,y\n5,"z",0\n3,4', ["bad_quote"] * 3),  # the first line's quote was not closed
        ('3,4\n1,"a\n\n2,b\n', ["unclosed_quote"] * 2),
        ('3,4\n"', ["unclosed_quote"]),
        ('"1\n2"\n3,4', ["column_count"] * 2),
    ],
)
def test_lines_of_a_record_that_does_not_parse_are_refused_one_by_one(
    tmp_path: Path, text: str, reasons: list[str]
) -> None:
    base = write(tmp_path, text.encode())
    for target in range(1, 30):
        rows, _, rejects, _ = read(SourceConfig(path=["log.txt"], columns=["a", "b"]), base, target)
        assert rows == [["3", "4"]]
        assert [r.reason for r in rejects] == reasons
        assert [r.raw for r in rejects] == [line.encode() for line in text.split("\n") if line not in ("", "3,4")]


def test_cuts_move_only_where_a_line_begins_in_quotes(tmp_path: Path) -> None:
    config = SourceConfig(path=["log.txt"], columns=["one", "two"])
    base = write(tmp_path, b'"a ""b""","c,d"\r\n' * 40)
    size = (base / "log.txt").stat().st_size
    for target in (7, 50, 200):
        cuts = [rng.start for rng in split_ranges(config, list_files(config, str(base)), target)]
        pieces = round(size / target)
        assert set(cuts) <= {size * i // pieces for i in range(pieces)}
        assert len(cuts) > size // max(target, 18) - 2
    base = write(tmp_path, b'a,b\n1,"' + b"x,y\n" * 20 + b'"\n3,4\n')
    assert [rng.start for rng in split_ranges(config, list_files(config, str(base)), 30)] == [0, 89]


def test_quotes_inside_unquoted_values_are_text(tmp_path: Path) -> None:
    base = write(tmp_path, b'5" pipe,a "b"\n"x\r\ny",z\n')
    rows, _, rejects, raws = read(SourceConfig(path=["log.txt"], columns=["a", "b"]), base)
    assert (rows, rejects) == ([['5" pipe', 'a "b"'], ["x\r\ny", "z"]], [])
    assert raws[1] == b'"x\r\ny",z'


def test_a_promise_that_quoted_values_hold_no_line_breaks(tmp_path: Path) -> None:
    config = SourceConfig(path=["log.txt"], columns=["a", "b"], multiline=False)
    assert read(config, write(tmp_path, b'"1","2"\n3,"x""y,"\n'))[0] == [["1", "2"], ["3", 'x"y,']]
    for target in (8, 1 << 30):
        with pytest.raises(
            InputError, match=r"(?s)byte 4: expected no line break .*`multiline: false` promises, found 3,"
        ):
            read(config, write(tmp_path, b'1,2\n3,"x\n9,9"\n'), target)


def test_a_line_longer_than_the_limit_is_rejected_and_the_rest_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(records, "BLOCK", 1 << 12)
    monkeypatch.setattr(records, "MAX_LINE", 1 << 18)
    base = write(tmp_path, b"1\t2\n" + b"x" * (1 << 20) + b"\n3\t" + b"y" * 200_000 + b"\n5\t6")
    rows, _, rejects, _ = read(tsv(), base)
    assert rows == [["1", "2"], ["3", "y" * 200_000], ["5", "6"]]
    assert [(r.reason, r.position) for r in rejects] == [("too_long", 4)]
    assert count_rows(tsv(), FileRange(str(base / "log.txt"), 0, 1 << 30)) == 4
    assert len(rejects[0].raw) == RAW_LIMIT


def test_a_quote_that_is_open_for_longer_than_the_limit_hides_no_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(records, "BLOCK", 1 << 12)
    monkeypatch.setattr(records, "MAX_LINE", 1 << 18)
    lost = [b'8,"x', *(b"%d,y" % i for i in range(1 << 17)), b"z" * (1 << 19) + b'"']
    base = write(tmp_path, b"1,2\n" + b"\n".join(lost) + b"\n3,4\n")
    config = SourceConfig(path=["log.txt"], columns=["a", "b"])
    for target in (100_000, 1 << 30):
        rows, _, rejects, _ = read(config, base, target)
        assert rows == [["1", "2"], ["3", "4"]]
        assert [r.raw for r in rejects] == [line[:RAW_LIMIT] for line in lost]
        assert {r.reason for r in rejects} == {"unclosed_quote"}
        ranges = split_ranges(config, list_files(config, str(base)), target)
        assert sum(count_rows(config, rng) for rng in ranges) == len(lost) + 2
