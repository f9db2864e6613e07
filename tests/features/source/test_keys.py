"""Keys of JSON objects, however a writer escapes them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from fieldwise.features.config import SourceConfig
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.keys import keys_found
from fieldwise.features.source.raw import read_range, split_ranges

NAMES = ["größe", "a/b", "u", "日本", "😀k", 'q"x', "tab\t", "plain"]


def escaped(name: str, rng: random.Random) -> str:
    """A spelling of a name as JSON allows it."""
    out = ""
    for char in name:
        units = char.encode("utf-16-be")
        if rng.random() < 0.3:
            out += "".join(f"\\u{int.from_bytes(units[i : i + 2], 'big'):04x}" for i in range(0, len(units), 2))
        else:
            out += "\\/" if char == "/" else json.dumps(char, ensure_ascii=rng.random() < 0.5)[1:-1]
    return f'"{out}"'


def test_escaped_keys_are_the_keys_they_stand_for(tmp_path: Path) -> None:
    rng = random.Random(1)
    lines, expected = [], []
    for _ in range(400):
        names = [name for name in NAMES if rng.random() < 0.8]
        rng.shuffle(names)
        row = {name: f"v{rng.randrange(9)}" for name in names}
        line = "{" + ",".join(f"{escaped(name, rng)}: {json.dumps(value)}" for name, value in row.items()) + "}"
        assert json.loads(line) == row
        lines.append(line)
        expected.append([row.get(name, "") for name in NAMES])
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    config = SourceConfig(path=["a.jsonl"], format="jsonl")
    files = list_files(config, str(tmp_path))
    found = []
    for rng_of in split_ranges(config, files, 1000):
        for batch in read_range(config, rng_of, NAMES):
            assert not batch.rejects
            columns = batch.columns.batch().to_pydict()
            found += [[value or "" for value in row] for row in zip(*(columns[name] for name in NAMES), strict=True)]
    assert found == expected


def test_a_key_that_is_only_written_with_escapes_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"größe": 1, "a/b": 2}).replace("/", "\\/") + "\n")
    files = list_files(SourceConfig(path=["a.jsonl"], format="jsonl"), str(tmp_path))
    assert keys_found(files, ["größe", "a/b", "other"]) == {"größe", "a/b"}
