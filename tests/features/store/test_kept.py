"""Records that say whether they are whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fieldwise.features.errors import ArtifactError
from fieldwise.features.store.kept import read_record, write_record

RECORD = {"b": [1, 2.5, None, "ü"], "a": {"x": True}}


def read(path: Path) -> object:
    return read_record(str(path), "a record", "Remove it.")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert read(path) is None
    write_record(str(path), RECORD)
    assert read(path) == RECORD


def test_records_of_earlier_versions_have_no_seal(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(RECORD))
    assert read(tmp_path / "r.json") == RECORD


def test_a_seal_that_was_taken_off_is_missed_where_earlier_versions_wrote_no_such_key(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    write_record(path, RECORD)
    assert read_record(path, "a record", "Remove it.", newer=("b",)) == RECORD
    (tmp_path / "r.json").write_text(json.dumps(RECORD))
    assert read_record(path, "a record", "Remove it.", newer=("c",)) == RECORD
    with pytest.raises(ArtifactError, match="a record, found it changed since it was written"):
        read_record(path, "a record", "Remove it.", newer=("b",))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "JSON, found "),
        (b'{"a": {', "JSON, found "),
        (b"\xff\xfe{}", "JSON, found "),
        (b"[" * 100_000, "at most 100 levels of nesting, found more"),
        (b"[1]", "a JSON object, found a list"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "JSON, found the key 'c' 2 times in one object"),
        (b"null", "a JSON object, found a NoneType"),
        (None, "a record, found it changed since it was written"),
    ],
)
def test_damage_is_told_with_file_and_remedy(tmp_path: Path, content: bytes | None, found: str) -> None:
    path = tmp_path / "r.json"
    write_record(str(path), RECORD)
    path.write_bytes(path.read_bytes().replace(b"2.5", b"2.4") if content is None else content)
    with pytest.raises(ArtifactError, match=f"r.json: expected {found}.*Remove it") as error:
        read(path)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_directory_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found a directory"):
        read(tmp_path)
