"""The bytes of source files, decompressed as their names say; what cannot be read is told with the file's name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from fieldwise.features import store
from fieldwise.features.errors import GoneError, InputError

_CODECS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
_UNREAD = (".lz4", ".snappy", ".sz", ".zip", ".z", ".br", ".lzo", ".lzma", ".7z", ".rar", ".deflate", ".tar", ".tgz",
           *(f".tar{suffix}" for suffix in _CODECS))  # fmt: skip
_HEAD = 64 << 10
"""Bytes of a file that are looked at before they are taken for text."""
_MAGIC = {
    b"\x1f\x8b": ("gzip data", "End its name with .gz."),
    b"\x28\xb5\x2f\xfd": ("Zstandard data", "End its name with .zst."),
    b"\xfd7zXZ\x00": ("xz data", "End its name with .xz."),
    b"PK\x03\x04": ("a zip archive", "Unpack it, or compress the file as gz, bz2, xz or zst."),
    b"\x04\x22\x4d\x18": ("LZ4 data", "Compress the file as gz, bz2, xz or zst."),
    b"PAR1\x15": ("a Parquet file", "Set `format: parquet`."),
    b"ORC\x0a": ("an ORC file", "Write it as Parquet."),
    b"Obj\x01": ("an Avro file", "Write it as Parquet."),
} | {b"BZh%d1AY&SY" % level: ("bzip2 data", "End its name with .bz2.") for level in range(1, 10)}


def compression(path: str) -> str | None:
    """The codec a text file's name tells, None for plain files."""
    return _CODECS.get(os.path.splitext(path)[1].lower())


def require_known_suffix(path: str) -> None:
    """Raises InputError for a name that tells of a compression or archive that is not read."""
    suffix = next((suffix for suffix in reversed(_UNREAD) if path.lower().endswith(suffix)), None)
    if suffix is not None:
        raise InputError(
            path,
            expected=f"plain text, or text compressed as {', '.join(_CODECS)}",
            found=f"the suffix {path[-len(suffix) :]}",
            fix="Compress or unpack it so, or leave it out of the path.",
        )


@contextmanager
def opened(path: str) -> Iterator[io.BufferedReader]:
    """The bytes of a text file, decompressed. Reading raises InputError where the codec finds none of its own."""
    with opened_raw(path) as raw:
        yield io.BufferedReader(_Told(path, raw), _HEAD)


@contextmanager
def opened_raw(path: str) -> Iterator[Any]:
    """The bytes of a listed file as they are. InputError when it may not be read, GoneError when it is gone."""
    try:
        raw = store.opened(path)
    except FileNotFoundError as error:
        fix = "It was removed since it was listed: run the command again once nobody does."
        raise GoneError(path, expected="a file to read", found="no such file", fix=fix) from error
    except PermissionError as error:
        found = error.strerror or type(error).__name__
        raise InputError(path, expected="a file to read", found=found, fix="Mend it, or narrow the path.") from error
    with raw:
        yield raw


class _Told(io.RawIOBase):
    """A stream whose codec's errors name the file; those of the disk or the network stay what they are."""

    def __init__(self, path: str, raw: Any) -> None:
        self._path, self._codec = path, compression(path)
        self._stream: Any = raw
        if self._codec is not None and not raw.read(1):
            self._codec = None  # a file without a byte is empty, whatever its name
        elif self._codec is not None:
            raw.seek(0)
        if self._codec == "gzip":
            self._stream = gzip.GzipFile(fileobj=raw, mode="rb")
        elif self._codec == "bz2":
            self._stream = bz2.BZ2File(raw)
        elif self._codec == "xz":
            self._stream = lzma.LZMAFile(raw)  # noqa: SIM115  whoever opened the raw file closes it
        elif self._codec == "zstd":
            self._stream = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self._stream.seek(position, whence))

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._stream.readinto(buffer))
        except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            if self._codec is None or getattr(error, "errno", None) is not None:
                raise
            raise InputError(
                self._path,
                expected=f"a whole {self._codec} file",
                found=" ".join(str(error).split()) or type(error).__name__,
                fix="Write or copy it again; a file that is not compressed must not be called so.",
            ) from error


def require_text(path: str, head: bytes, encoding: str) -> None:
    """Raises InputError when the first bytes of a text source are no lines of text, with the remedy.

    Args:
        head: the first ``_HEAD`` bytes, or all where there are fewer.
    """
    found, fix = _found(head, encoding)
    if found:
        raise InputError(path, expected="lines of text", found=found, fix=fix)


def _found(head: bytes, encoding: str) -> tuple[str, str]:
    """What the bytes are instead of text, and the remedy; nothing if they are text."""
    for magic, (found, fix) in _MAGIC.items():
        if head.startswith(magic):
            return found, fix
    if (head[:2] in (b"\xff\xfe", b"\xfe\xff") and (encoding == "utf-8" or b"\0" in head)) or _every_other_nul(head):
        return "UTF-16", "Convert it to UTF-8 (`iconv -f UTF-16 -t UTF-8`)."
    line, ended, _ = head.partition(b"\n")
    if not ended and b"\r" in line[:-1].rstrip(b"\r"):
        return "line ends that are CR alone", "Convert them to LF (`tr '\\r' '\\n'`)."
    return "", ""


def _every_other_nul(head: bytes) -> bool:
    return len(head) >= 4 and (head[0:4:2] == b"\0\0") != (head[1:4:2] == b"\0\0")
