"""Which files a path means: what is written, what is found behind links and patterns, each file once."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import directory_columns, list_files


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory whose name would match its neighbour's, were it taken for a pattern."""
    put(tmp_path / "run1/part.csv", tmp_path / "run1/lake/day1/part.csv")
    (tmp_path / "run[1]*?").mkdir()
    return tmp_path / "run[1]*?"


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("user,item\nu,i\n")


def listed(base: Path, *paths: str, date: str | None = None, format: str = "csv") -> list[str]:
    config = SourceConfig(path=list(paths), format=format)
    return [os.path.relpath(file.path, base) for file in list_files(config, str(base), date)]


def test_links_are_followed_wherever_they_are_met(base: Path) -> None:
    put(base / "lake/day1/part.csv", base / "archive/day2/part.csv", base / "archive/one.csv")
    (base / "lake/day2").symlink_to("../archive/day2")
    (base / "lake/three.csv").symlink_to("../archive/one.csv")
    both = ["lake/day1/part.csv", "lake/day2/part.csv"]
    assert listed(base, "lake/*/part.csv") == listed(base, "lake/**/part.csv") == both
    assert listed(base, "lake") == listed(base, "lake/**") == [*both, "lake/three.csv"]
    assert listed(base, "lake/day2") == listed(base, "lake/day2/*.csv") == both[1:]
    assert list_files(SourceConfig(path=["lake/three.csv"]), str(base))[0].size == 14


def test_a_file_that_several_ways_lead_to_is_read_once(base: Path) -> None:
    put(base / "lake/day1/part.csv", base / "lake/day2/part.csv")
    (base / "lake/a-newest").symlink_to("day2")
    (base / "lake/day1/up").symlink_to("..")  # a loop
    both = ["lake/day1/part.csv", "lake/day2/part.csv"]
    assert listed(base, "lake") == listed(base, "lake/*/part.csv") == listed(base, "**/part.csv") == both
    assert listed(base, "lake", "lake/day1", "./lake/*/part.csv", "lake/day1/part.csv") == both
    os.link(base / "lake/day1/part.csv", base / "lake/day1/same.csv")  # a name of its own, as a copy would have
    assert len(listed(base, "lake")) == 3


def test_a_name_that_exists_is_taken_as_written(base: Path) -> None:
    put(base / "logs/x.csv", base / "log[a].csv", base / "loga.csv", base / "what?/x.csv", base / "whatx/x.csv")
    put(
        base / "d[1]/2024-01-01/x.csv",
        base / "d1/2024-01-01/y.csv",
        base / "c::d/%20 #ü.csv",
        base / "s/*",
        base / "s/x",
    )
    assert listed(base, "logs/*.csv") == ["logs/x.csv"]
    assert listed(base, "log[a].csv") == ["log[a].csv"]
    assert listed(base, "log[ab].csv") == ["loga.csv"]
    assert listed(base, "what?/*.csv") == ["what?/x.csv"]
    assert listed(base, "d[1]/{date}/*", date="2024-01-01") == listed(base, "d[1]/{date}") == ["d[1]/2024-01-01/x.csv"]
    assert listed(base, "c::d/%20 #ü.csv") == listed(base, "c::d/*.csv") == listed(base, "c::d") == ["c::d/%20 #ü.csv"]
    assert listed(base, "s/*") == ["s/*", "s/x"]  # a star is a pattern even where such a file exists


def test_hidden_names(base: Path) -> None:
    put(base / "in/a.csv", base / "in/.b.csv", base / "in/_c/d.csv", base / "in/_e=1/f.csv", base / "in/.g/h.csv")
    assert listed(base, "in") == ["in/_e=1/f.csv", "in/a.csv"]
    assert listed(base, "in/*.csv") == ["in/a.csv"]
    assert listed(base, "in/.*.csv") == ["in/.b.csv"]
    assert listed(base, "in/**/*.csv") == ["in/_c/d.csv", "in/_e=1/f.csv", "in/a.csv"]


@pytest.mark.parametrize("path", ["lake", "lake/*", "lake/*/part.csv", "lake/gone", "lake/**/part.csv"])
def test_a_link_to_nothing_is_told(base: Path, path: str) -> None:
    put(base / "lake/day1/part.csv")
    (base / "lake/gone").symlink_to("../archive/day2")
    text = r"lake/gone: expected a file or directory to read, found a link to nothing \(\.\./archive/day2\)\. Mend it"
    with pytest.raises(InputError, match=text):
        listed(base, path)


def test_suffixes_of_other_compressions_are_refused_by_name(base: Path) -> None:
    put(base / "in/a.csv", base / "in/b.csv.lz4", base / "t/c.TAR.GZ")
    text = r"b\.csv\.lz4: expected plain text, or text compressed as \.gz, \.bz2, \.xz, \.zst, found the suffix \.lz4\."
    with pytest.raises(InputError, match=text):
        listed(base, "in")
    with pytest.raises(InputError, match=r"found the suffix \.TAR\.GZ"):
        listed(base, "t/*")
    assert len(listed(base, "in", format="parquet")) == 2


def test_other_stores_follow_the_same_rules() -> None:
    fs = fsspec.filesystem("memory")
    for name in ("a[1]/x.csv", "a1/x.csv", "a1/_y.csv", "b/date=3/z.csv"):
        fs.pipe_file(f"/listing/{name}", b"user\nu\n")

    def of(*paths: str) -> list[str]:
        files = list_files(SourceConfig(path=[f"memory://listing/{path}" for path in paths]), "/nowhere")
        return [file.path.removeprefix("memory:///listing/").removeprefix("memory://listing/") for file in files]

    assert of("a[1]/*.csv") == of("a[1]") == ["a[1]/x.csv"]
    assert of("a?/x.csv", "a1") == ["a1/x.csv"]
    assert of("**/z.csv") == of("b") == ["b/date=3/z.csv"]


def test_columns_of_directories() -> None:
    path = "/data/date=2024-01-31/city=Den%20Haag%2FNL/empty=/none=__HIVE_DEFAULT_PARTITION__/x=y.csv"
    assert directory_columns(path) == {"date": "2024-01-31", "city": "Den Haag/NL", "empty": "", "none": None}
    assert directory_columns("s3://bucket/a=1/a=b=c/f.parquet") == {"a": "b=c"}


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/day/*.csv", "https://host/{date}.csv?sig=x"])
def test_web_servers_list_no_files(path: str) -> None:
    with pytest.raises(InputError, match=r"expected web addresses of files, found a pattern, and web servers list no"):
        list_files(SourceConfig(path=[path]), "/nowhere")
