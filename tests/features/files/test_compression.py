"""Bytes of source files: every codec reads what it wrote, and what is not its own is told with the file's name."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.raw import count_rows, read_range, source_columns, split_ranges

TEXT = b"user,item\n" + b"".join(b"u%d,i%d\n" % (i, i) for i in range(5000))
Pack = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


CODECS = pytest.mark.parametrize(
    ("suffix", "codec", "pack"),
    [(".gz", "gzip", gzip.compress), (".bz2", "bz2", bz2.compress), (".xz", "xz", lzma.compress),
     (".zst", "zstd", zstd)],
)  # fmt: skip


def users(folder: Path, **more: object) -> list[str]:
    config = SourceConfig(path=["."], **more)  # type: ignore[arg-type]
    files = list_files(config, str(folder))
    ranges = split_ranges(config, files, 1 << 14)
    found = [user for rng in ranges for batch in read_range(config, rng, ["user"])
             for user in batch.columns.array("user").to_pylist()]  # fmt: skip
    assert sum(count_rows(config, rng) for rng in ranges) == len(found)
    return found


@CODECS
def test_packed_files_read_as_plain_ones(tmp_path: Path, suffix: str, codec: str, pack: Pack) -> None:
    (tmp_path / f"a.csv{suffix}").write_bytes(pack(TEXT[:10000]) + pack(TEXT[10000:]))
    (tmp_path / f"b.csv{suffix.upper()}").write_bytes(pack(b"user,item\nlast,x"))
    assert users(tmp_path) == [f"u{i}" for i in range(5000)] + ["last"]


@CODECS
@pytest.mark.parametrize("spoil", ["cut", "plain", "tail"])
def test_a_file_that_its_codec_cannot_read_is_named(
    tmp_path: Path, suffix: str, codec: str, pack: Pack, spoil: str
) -> None:
    packed = pack(TEXT)
    bad = {"cut": packed[: len(packed) // 2], "plain": TEXT, "tail": packed[:-3]}[spoil]
    (tmp_path / f"a.csv{suffix}").write_bytes(bad)
    with pytest.raises(
        InputError, match=rf"a\.csv{suffix}: expected a whole {codec} file, found .*\. Write or copy it"
    ):
        users(tmp_path)


@CODECS
def test_parts_without_rows(tmp_path: Path, suffix: str, codec: str, pack: Pack) -> None:
    for name, data in (("a", b""), ("b", pack(b"")), ("c", pack(b"user,item\n")), ("d", pack(b"user,item"))):
        (tmp_path / f"{name}.csv{suffix}").write_bytes(data)
    assert users(tmp_path) == []
    (tmp_path / "e.csv").write_bytes(b"")
    (tmp_path / "f.csv").write_bytes(b"\xef\xbb\xbf")
    (tmp_path / "g.csv").write_bytes(b"user,item\nu,i\n")
    assert users(tmp_path) == ["u"]
    config = SourceConfig(path=["."])
    path, names = source_columns(config, list_files(config, str(tmp_path)))
    assert (Path(path).name, names) == (f"c.csv{suffix}", ["user", "item"])


@pytest.mark.parametrize(
    ("data", "found", "fix"),
    [
        (gzip.compress(TEXT), "gzip data", r"End its name with \.gz\."),
        (bz2.compress(TEXT), "bzip2 data", r"End its name with \.bz2\."),
        (lzma.compress(TEXT), "xz data", r"End its name with \.xz\."),
        (zstd(TEXT), "Zstandard data", r"End its name with \.zst\."),
        (b"PK\x03\x04rest", "a zip archive", "Unpack it"),
        (b"PAR1\x15\x04rest", "a Parquet file", "Set `format: parquet`"),
        (TEXT.decode().encode("utf-16"), "UTF-16", "Convert it to UTF-8"),
        (TEXT.decode().encode("utf-16-be"), "UTF-16", "Convert it to UTF-8"),
        (TEXT.replace(b"\n", b"\r"), "line ends that are CR alone", "Convert them to LF"),
        (b"user,item\ru,i\r", "line ends that are CR alone", "Convert them to LF"),
        (b"us\rer,item\nu,i\n", "a CR in the middle of it", "Convert line ends to LF"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_told_with_the_remedy(tmp_path: Path, data: bytes, found: str, fix: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.csv: expected .*, found {found}\. {fix}"):
        users(tmp_path)


def test_without_header_line_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"u,i\ru,i\r")
    with pytest.raises(InputError, match="found line ends that are CR alone"):
        users(tmp_path, columns=["user", "item"])
    (tmp_path / "a.csv").write_bytes(b'{"user": 1}\r{"user": 2}\r')
    with pytest.raises(InputError, match="found line ends that are CR alone"):
        users(tmp_path, format="jsonl")
    (tmp_path / "a.csv").write_bytes(b"u,i\r")  # one line that ends as lines may
    assert users(tmp_path, columns=["user", "item"]) == ["u"]
