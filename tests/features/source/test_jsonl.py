"""Lines of JSON: every value as it was written, every line a row or a reject."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.features.config import SourceConfig
from tests.features.sources import read, write

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
