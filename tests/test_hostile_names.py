"""Names that shells, URLs, SQL and fsspec would take apart, and names that are too long."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldwise.features import store
from fieldwise.features.config import JoinConfig, SourceConfig
from fieldwise.features.errors import ArtifactError, ConfigError, InputError, known_error
from fieldwise.features.files.listing import list_files
from fieldwise.features.snapshot.manifest import Manifest
from fieldwise.features.source.join import SideTable
from fieldwise.features.source.raw import read_range, split_ranges
from tests.snapshots import hash_spec, write_snapshot

NAMES = [
    "a::b.csv", "simplecache::file.csv", "a|b;c.csv", "new\nline.csv", "quo'te\"s.csv", "back\\slash.csv",
    "per%cent%20.csv", "#hash?.csv", "$HOME`x`.csv", "[x]{a,b}.csv", "C:\\x.csv", "tab\t\x01.csv", "\u202ex.csv",
    "-rf.csv", "http:x.csv", "x" * 251 + ".csv",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_file_of_any_name_is_read(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "it's a::b|c"
    folder.mkdir()
    (folder / name).write_text("user,age\nu1,3\nu2,4\n")
    if kind == "parquet":
        pq.write_table(pa.table({"user": ["u1", "u2"], "age": [3, 4]}), tmp_path / "plain")
        shutil.copy(tmp_path / "plain", folder / name)
    for path in (str(folder / name), name, str(folder), f"{folder}/*"):
        source = SourceConfig.model_validate({"path": path, "format": kind})
        (file,) = list_files(source, str(folder))
        assert file.path == str(folder / name)
        assert store.stamp(file.path)
        ranges = split_ranges(source, [file], 1000)
        assert sum(batch.columns.rows for rng in ranges for batch in read_range(source, rng)) == 2
        side = JoinConfig.model_validate({"path": path, "format": kind, "on": "user"})
        assert SideTable(side, str(folder)).names == ["age"]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Reports and manifests could not name it."""
    (tmp_path / "\udcff.csv").write_text("user,age\nu1,3\n")
    with pytest.raises(InputError, match=r"\\udcff.csv: expected a name in UTF-8, found bytes that are none"):
        list_files(SourceConfig.model_validate({"path": "*.csv"}), str(tmp_path))


def test_a_manifest_names_no_file_that_no_file_system_takes(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "s", hash_spec(), {"train": [10]})
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("data-test", "d" * 300))
    with pytest.raises(ArtifactError, match="at data where a text of the form"):
        Manifest.load(str(tmp_path / "s"))


def test_a_name_too_long_is_no_defect() -> None:
    with pytest.raises(OSError, match="too long") as raised:
        store.read_bytes(f"/tmp/{'x' * 300}/manifest.json")
    told = known_error(raised.value)
    assert isinstance(told, ConfigError)
    assert "expected a name that the file system takes, found File name too long. Shorten it." in str(told)
