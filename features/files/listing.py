"""Which files a source means: paths, directories and patterns, on the local disk or any store that fsspec knows.

A name that exists as written is taken as written, whatever characters it has; else ``*``, ``?`` and ``[...]`` match
names (not those that begin with a dot) and ``**`` any directories. The directory that relative paths start from is
never part of a pattern. Links are followed, and a file that several of them lead to is read once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from fsspec.implementations.local import LocalFileSystem

from fieldwise.features import store
from fieldwise.features.columns.day import day_of
from fieldwise.features.errors import InputError, store_error
from fieldwise.features.files.compression import require_known_suffix

if TYPE_CHECKING:  # it takes a second to import, and who only asks for a file should not wait for it
    from fieldwise.features.config import SourceConfig

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


class SourceFile(NamedTuple):
    path: str
    """Absolute path, or URL."""
    size: int


def list_files(config: SourceConfig, base: str, date: str | None = None) -> list[SourceFile]:
    """Files of the source, sorted by path. Relative paths start at ``base``; ``{date}`` is the day, or any day.

    Directories stand for all files below them but names that begin with ``_`` or ``.`` (``_column=value`` excepted).
    InputError when there is none, for a link to nothing, and for compressions that cannot be read.
    """
    found: dict[str, int] = {}
    for pattern in config.path:
        written = pattern.replace("{date}", "*" if date is None else str(day_of(date)))
        files = dict(_matching(written, base))
        if not files:
            where = written if _is_absolute(written) else f"{base.rstrip('/')}/{written}"
            raise InputError(
                f"source path {pattern!r}", expected="at least one file", found=f"none at {where}",
                fix="Check the path; it is relative to the config file.",
            )  # fmt: skip
        found |= files
    files_once = _once(sorted(found))
    for path in files_once:
        _require_utf8(path)
    if config.format != "parquet":
        for path in files_once:
            require_known_suffix(path)
    return [SourceFile(path, found[path]) for path in files_once]


def means_files(path: str) -> bool:
    """Whether an absolute path or URL means at least one file."""
    return next(_matching(path, "/"), None) is not None


def directory_columns(path: str) -> dict[str, str | None]:
    """Columns that the directories above a file tell (``date=2024-01-31/part.csv``), as Hive and Spark write them:
    names and values URL-encoded, ``__HIVE_DEFAULT_PARTITION__`` for null. Values are texts as written."""
    pairs = [part.split("=", 1) for part in path.split("/")[:-1] if "=" in part]
    return {unquote(name): None if value == _NO_VALUE else unquote(value) for name, value in pairs if name}


def _matching(written: str, base: str) -> Iterator[tuple[str, int]]:
    """(path or URL, size) of the files that one path of a config means."""
    relative = not _is_absolute(written)
    while "://" in base and relative and written.startswith(("../", "./")):  # no name on a store
        if written.startswith("../"):
            base = store.parent(base.rstrip("/"))
        written = written.partition("/")[2]
    fs, inner = store.resolve(f"{base.rstrip('/')}/{written}" if relative else written)
    local = isinstance(fs, LocalFileSystem)
    pattern = written if relative else inner
    if "://" in inner and "*" in pattern:
        raise InputError(
            f"source path {written!r}", expected="web addresses of files",
            found="a pattern, and web servers list no files",
            fix="Write each address, `path` takes a list of them; where {date} stands in one, name a day by --date.",
        )  # fmt: skip
    # of a web address, ? begins its parameters
    if not _is_pattern(pattern) or ("*" not in pattern and ("://" in inner or fs.exists(inner))):
        places = [inner]
    else:
        root = store.resolve(base)[1] if relative else "/" if inner.startswith("/") else ""
        places = list(_expand(fs, root, [part for part in pattern.split("/") if part]))
    for place in places:
        for path, size in _files(fs, place):
            yield (path if local else str(fs.unstrip_protocol(path))), size


def _is_absolute(written: str) -> bool:
    return "://" in written or os.path.isabs(written)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _expand(fs: Any, place: str, parts: list[str]) -> Iterator[str]:
    """Paths below ``place`` that the remaining parts of a pattern match."""
    if not parts or parts == ["**"]:  # a directory stands for all below it
        yield place
        return
    part, rest = parts[0], parts[1:]
    literal = f"{place.rstrip('/')}/{part}" if place else part
    # A star is always a pattern: a file that a slip of the shell called `*` must not hide its neighbours.
    if not _is_pattern(part) or ("*" not in part and fs.exists(literal)):
        if rest or fs.exists(literal) or os.path.islink(literal):
            yield from _expand(fs, literal, rest)
    elif part == "**":
        for directory, _ in _walk(fs, place, lambda name: name.startswith(".")):
            yield from _expand(fs, directory, rest)
    else:
        named = part.startswith((".", "_"))  # else `out/*` would read Spark's _SUCCESS
        for name, path, info in _entries(fs, place):
            if fnmatchcase(name, part.replace("[^", "[!")) and (named or not _hidden(name)):
                if info.get("islink"):
                    _info(fs, path)  # a link to nothing is told, not passed over
                yield from _expand(fs, path, rest)


def _entries(fs: Any, place: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, path, info) of all in a directory, sorted; nothing of what is none."""
    try:
        listed = fs.ls(place, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise _unreadable(place, error.strerror or str(error)) from error
    entries = [(info["name"].rstrip("/"), info) for info in listed]
    return sorted((path.rsplit("/", 1)[-1], path, info) for path, info in entries if path != place.rstrip("/"))


def _info(fs: Any, path: str) -> dict[str, Any] | None:
    """What a path leads to; None when there is nothing. InputError for a link to nothing."""
    try:
        info: dict[str, Any] = fs.info(path)
        return info
    except FileNotFoundError:
        if isinstance(fs, LocalFileSystem) and os.path.islink(path):
            raise _unreadable(path, f"a link to nothing ({os.readlink(path)})") from None
        return None
    except OSError as error:  # a link to itself, a directory that may not be entered
        if store_error(error) is not None:
            raise
        raise _unreadable(path, error.strerror or str(error)) from error


def _unreadable(path: str, found: str) -> InputError:
    return InputError(path, expected="a file or directory to read", found=found, fix="Mend it, or narrow the path.")


def _require_utf8(path: str) -> None:
    """Reports, quarantine and manifests name files; what is no text has no name there."""
    try:
        path.encode()
    except UnicodeEncodeError:
        fix = "Rename the file or its directory."
        raise InputError(path, expected="a name in UTF-8", found="bytes that are none", fix=fix) from None


def _files(fs: Any, place: str) -> Iterator[tuple[str, int]]:
    """(path, size) of a file, or of all files below a directory."""
    info = _info(fs, place)
    if info is None:
        return
    if info["type"] == "file":
        yield info["name"], int(info["size"])
    elif info["type"] == "directory" and isinstance(fs, LocalFileSystem):
        for _, entries in _walk(fs, place, _hidden):
            yield from ((path, int(found["size"])) for path, found in entries if found["type"] == "file")
    elif info["type"] == "directory":  # one listing of all, where a store can do that
        for path, found in fs.find(place, detail=True).items():
            marker = path.endswith("/")  # an empty object that stands for a directory
            if not marker and not any(_hidden(part) for part in path[len(place) :].strip("/").split("/")):
                yield path, int(found["size"])


def _walk(fs: Any, top: str, hidden: Callable[[str], bool]) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """(directory, its [path, info]) of ``top`` and all below it, links followed. Each local directory once, links last:
    they may form loops."""
    local = isinstance(fs, LocalFileSystem)
    waiting, seen = deque([top]), set()
    while waiting:
        directory = waiting.popleft()
        real = os.path.realpath(directory) if local else directory
        if real in seen:
            continue
        seen.add(real)
        entries: list[tuple[str, dict[str, Any]]] = []
        links: list[str] = []
        for name, path, info in _entries(fs, directory):
            found = None if hidden(name) else _info(fs, path) if info.get("islink") else info
            if found is not None:
                entries.append((path, found))
            if found is not None and found["type"] == "directory":
                (links.append if info.get("islink") else waiting.appendleft)(path)
        waiting.extend(links)
        yield directory, entries


def _hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _once(paths: list[str]) -> list[str]:
    """The paths, but one for each local file: that with the fewest links in it, then the plainest, then the first."""
    real: dict[str, str] = {}
    best: dict[str, tuple[int, bool, str]] = {}
    for path in paths:
        if "://" in path:
            best[path] = (0, False, path)
            continue
        directory, name = os.path.split(path)
        if directory not in real:
            real[directory] = os.path.realpath(directory)
        own = os.path.join(real[directory], name)
        own = os.path.realpath(own) if os.path.islink(own) else own
        ranked = (0 if own == path else _links(path), os.path.normpath(path) != path, path)
        best[own] = min(best.get(own, ranked), ranked)
    return sorted(path for *_, path in best.values())


def _links(path: str) -> int:
    """Links among a path's parts."""
    parts = path.split("/")
    return sum(os.path.islink("/".join(parts[:n])) for n in range(2, len(parts) + 1))
