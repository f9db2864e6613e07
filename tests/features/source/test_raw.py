"""Sources: every line is a row or a reject wherever a file is cut, and rows read as written."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
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
from fieldwise.features.files.compression import require_text
from fieldwise.features.files.listing import list_files
from fieldwise.features.source import records
from fieldwise.features.source.keys import require_keys
from fieldwise.features.source.raw import column_names, count_rows, read_range, split_ranges
from fieldwise.features.source.rows import RAW_LIMIT, FileRange, Reject


def read(
    config: SourceConfig,
    base: Path,
    target: int = 1 << 30,
    columns: list[str] | None = None,
    lists: tuple[str, ...] = (),
) -> Any:
    """(rows as lists, positions, rejects, raw bytes of rows) of a whole source."""
    rows: list[list[Any]] = []
    positions: list[int] = []
    rejects: list[Reject] = []
    raws: list[bytes] = []
    files = list_files(config, str(base))
    require_keys(config, files, columns or [])
    for rng in split_ranges(config, files, target):
        for batch in read_range(config, rng, columns, lists):
            rows += [list(row.values()) for row in batch.columns.batch().to_pylist()]
            positions += batch.positions.tolist()
            rejects += batch.rejects
            raws += [batch.raw(i) for i in range(batch.columns.rows)]
    return rows, positions, rejects, raws


def is_text(data: bytes) -> bool:
    try:
        require_text("log.txt", data, "utf-8")
    except InputError:
        return False
    return True


def write(base: Path, data: bytes, name: str = "log.txt") -> Path:
    (base / name).write_bytes(data)
    return base


def tsv(**extra: Any) -> SourceConfig:
    return SourceConfig(path=["log.txt"], format="tsv", columns=["a", "b"], **extra)


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


_VALUES = st.text(st.sampled_from('"",;\r\n\n\n aé\0'), max_size=8)


@given(
    st.lists(st.lists(_VALUES, min_size=3, max_size=3), min_size=1, max_size=12), st.integers(1, 400), st.booleans(),
    st.sampled_from(["\n", "\r\n"]), st.sampled_from([b"", b"\xef\xbb\xbf"]),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
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


_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(st.characters(exclude_categories=["Cs"])))


@given(st.lists(st.fixed_dictionaries({"a": _SCALARS, "b": _SCALARS}, optional={"c": st.lists(_SCALARS)}), min_size=1),
       st.booleans(), st.integers(20, 800))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_jsonl_reads_values_as_written(
    tmp_path_factory: Any, rows: list[dict[str, Any]], plain: bool, target: int
) -> None:
    data = "".join(json.dumps(row, ensure_ascii=plain) + "\n" for row in rows).encode()
    base = write(tmp_path_factory.mktemp("json"), data)
    config = SourceConfig(path=["log.txt"], format="jsonl")
    got, _, rejects, _ = read(config, base, target, ["b", "a"])
    assert (got, rejects) == ([[written(row["b"]), written(row["a"])] for row in rows], [])


def written(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@given(st.lists(st.fixed_dictionaries({"a": st.one_of(_SCALARS, st.lists(_SCALARS)), "b": _SCALARS}), min_size=1),
       st.booleans(), st.sampled_from([(",", ":"), (" , ", " : ")]), st.integers(20, 800))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_jsonl_reads_lists(
    tmp_path_factory: Any, rows: list[dict[str, Any]], plain: bool, separators: tuple[str, str], target: int
) -> None:
    """Of the columns that may hold some; there a bare value is a list of one, and null or empty text of none."""
    data = "".join(json.dumps(row, ensure_ascii=plain, separators=separators) + "\n" for row in rows).encode()
    base = write(tmp_path_factory.mktemp("lists"), data)
    config = SourceConfig(path=["log.txt"], format="jsonl")
    got, _, rejects, _ = read(config, base, target, ["b", "a"], ("a",))
    expected = []
    for row in rows:
        items = row["a"] if isinstance(row["a"], list) else [row["a"]] if written(row["a"]) else []
        expected.append([written(row["b"]), [written(item) for item in items]])
    assert (got, rejects) == (expected, [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [("[[1]]", "nested"), ("[1, {}]", "nested"), ("{}", "nested"), ("[1,]", "bad_json"), ("[1 2]", "bad_json"),
     ("[,]", "bad_json"), ("[tru]", "bad_json"), ("[1", "bad_json")],
)  # fmt: skip
def test_bad_json_lists(tmp_path: Path, value: str, reason: str) -> None:
    lines = ['{"a": [ ]}', f'{{"a": {value}}}', '{"a": [ 1 , "[x]" ]}', '{"a": "[x]"}']
    base = write(tmp_path, "\n".join(lines).encode())
    rows, _, rejects, _ = read(SourceConfig(path=["log.txt"], format="jsonl"), base, 1 << 30, ["a"], ("a",))
    assert rows == [[[]], [["1", "[x]"]], [["[x]"]]]
    assert [(r.reason, r.raw) for r in rejects] == [(reason, lines[1].encode())]


@given(st.lists(st.binary(max_size=40).map(lambda v: v.replace(b"\n", b"{")), max_size=20))
@settings(max_examples=60, deadline=None)
def test_random_json_lines_add_up(tmp_path_factory: Any, lines: list[bytes]) -> None:
    good = b'{"a": 1, "b": "x"}'
    base = write(tmp_path_factory.mktemp("json"), b"\n".join([good, *lines, good]))
    rows, _, rejects, _ = read(SourceConfig(path=["log.txt"], format="jsonl"), base, 50, ["a", "b"])
    assert len(rows) + len(rejects) == 2 + sum(bool(line.removesuffix(b"\r")) for line in lines)
    assert rows[0] == rows[-1] == ["1", "x"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1', "bad_json"), ('{"a": [1]}', "nested"), ('{"a": {"b": 1}}', "nested"), ('{"a": tru}', "bad_json"),
        ('{"a": 1} x', "bad_json"), ('{"a": "\\q"}', "bad_json"), ('{"a": "\\ud800"}', "bad_json"), ("[1]", "bad_json"),
        ('{"a" 1}', "bad_json"), ('{"a": 1,}', "bad_json"), ('{"a": "x}', "bad_json"), ("\x00", "bad_json"),
    ],
)  # fmt: skip
def test_bad_json(tmp_path: Path, line: str, reason: str) -> None:
    base = write(tmp_path, f'{{"a": 0}}\n{line}\n{{"x": [{{}}, "]"], "a": "\\u00e9\\n"}}\n'.encode())
    rows, _, rejects, _ = read(SourceConfig(path=["log.txt"], format="jsonl"), base, columns=["a"])
    assert rows == [["0"], ["é\n"]]
    assert [(r.reason, r.raw, r.position) for r in rejects] == [(reason, line.encode(), 9)]


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
