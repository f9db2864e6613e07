"""Bytes at a URL: the one place that writes published files. Local paths, ``file://`` and whatever fsspec knows.

What is assumed of a store
--------------------------
- A file written whole becomes visible whole, and is then read as written (true of POSIX renames and of a single PUT
  on S3, GCS, Azure and HDFS's create-then-close as fsspec does it).
- ``create_exclusive`` is exclusive: a hard link cannot replace, nor can a PUT that is made on condition that nothing
  stands there (``If-None-Match``, as fsspec's ``mode="create"`` asks S3, GCS and Azure).
- Directories need not exist as objects; listing is strongly consistent. Nothing is taken from a cache of listings.
- Where directories cannot be renamed, a note inside says that one is on its way out (``move_aside``): who publishes
  writes first and then looks for the note, who takes away notes first and then looks for the manifest. So at least
  one of the two sees the other.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from fieldwise.features.errors import ConfigError
from fieldwise.features.process import machine, runs


def resolve(path: str) -> tuple[Any, str]:
    """The fsspec file system of ``path`` and the path inside it. Without ``://`` it is a local name, taken as written:
    fsspec itself would cut it at ``::``."""
    if "://" not in path or path.startswith("file://"):
        return fsspec.filesystem("file"), LocalFileSystem._strip_protocol(path)
    scheme = path.partition("://")[0].lower()
    try:
        fs, inner = fsspec.core.url_to_fs(path, use_listings_cache=False)
    except ImportError:
        extra = _EXTRAS.get(scheme)
        fix = f"pip install 'fieldwise[{extra}]'." if extra else "Install it with pip."
        raise ConfigError(path, expected=f"the package that reads {scheme}://", found="none", fix=fix) from None
    except ValueError as error:  # no such protocol
        raise ConfigError(path, expected="a URL that fsspec knows", found=str(error), fix="Correct it.") from None
    return fs, inner


_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Stores of objects, which have no directories, and the extra of this package that brings their library."""
_ASIDE = ".aside"
"""The note in a directory that is on its way out; it keeps the manifest, if there was one."""
_MANIFEST = "manifest.json"


def file_uri(path: str) -> str:
    """``file:///...`` of a local path, every character that means something in a URL quoted."""
    return Path(path).absolute().as_uri()


def is_local(path: str) -> bool:
    return isinstance(resolve(path)[0], LocalFileSystem)


def join(directory: str, *names: str) -> str:
    """``directory/name/...`` for paths and URLs alike."""
    return "/".join([directory.rstrip("/") or "/", *names])


def parent(path: str) -> str:
    """The directory that a path or URL lies in."""
    return path.rpartition("/")[0] if "://" in path else os.path.dirname(path)


def below(url: str, path: str) -> str:
    """The URL that a relative path leads to from the directory ``url``."""
    scheme, _, inner = url.partition("://")
    bucket, _, place = inner.partition("/")
    whole = posixpath.normpath(f"/{place}/{path}")
    return f"{scheme}://{bucket}{whole if whole != '/' else ''}"


def opened(path: str) -> Any:
    """The file, open for reading bytes. Raises FileNotFoundError."""
    fs, inner = resolve(path)
    return fs.open(inner, "rb")


def read_bytes(path: str) -> bytes:
    """Raises FileNotFoundError."""
    fs, inner = resolve(path)
    data: bytes = fs.cat_file(inner)
    return data


def exists(path: str) -> bool:
    fs, inner = resolve(path)
    return bool(fs.exists(inner))


def make_dir(path: str) -> None:
    """Raises ConfigError where none can be made. On stores of objects there is nothing to do, nor to ask leave for."""
    fs, inner = resolve(path)
    if path.partition("://")[0].lower() in _EXTRAS:
        return
    with _making(path):
        fs.makedirs(inner, exist_ok=True)


@contextmanager
def _making(path: str) -> Iterator[None]:
    """A file in the way, and file systems in which nothing is made (/proc), are for the user to mend."""
    try:
        yield
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        fix = "Set another workspace or output."
        found = f"{error.filename or path}: {os.strerror(error.errno) if error.errno else error}"
        raise ConfigError(path, expected="a directory, or a place to make one", found=found, fix=fix) from error


def unfit(path: str) -> str | None:
    """Why nothing can be kept below a path, as far as its name and a look tell."""
    scheme = path.partition("://")[0].lower() if "://" in path else "file"
    if scheme in _EXTRAS and not path.partition("://")[2].strip("/"):
        return "a URL without a bucket"
    if scheme != "file":
        return _UNFIT.get(scheme)
    place = resolve(path)[1]
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    return None if os.path.isdir(place) else f"{place}, which is no directory"


_UNFIT = {
    "memory": "memory, which each process has for itself", "http": "a web address, which takes no files",
    "https": "a web address, which takes no files", "data": "data in place of a place",
}  # fmt: skip


def list_sizes(directory: str) -> dict[str, int]:
    """Name -> bytes of everything directly in ``directory``; empty when it does not exist.

    What is no file (a directory, a pipe) has 0 bytes, so it is never taken for one of a manifest's files.
    """
    fs, inner = resolve(directory)
    try:
        entries = fs.ls(inner, detail=True)
    except FileNotFoundError:
        return {}
    own = inner.rstrip("/")  # an empty object of that name may mark the directory
    return {
        entry["name"].rstrip("/").rsplit("/", 1)[-1]: int(entry.get("size") or 0) if entry["type"] == "file" else 0
        for entry in entries
        if entry["name"].rstrip("/") != own
    }


def stamp(path: str) -> str:
    """What changes when a file's bytes are replaced: size with the store's ETag, or size with modification time."""
    fs, inner = resolve(path)
    info = fs.info(inner)
    marks = (info.get(key) for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated"))
    return f"{info['size']}:{next(filter(None, marks), '')}"


def age(path: str) -> float | None:
    """Seconds since a file was written, by the store's own clock, which a new file beside it tells; negative after that
    clock was set back. None where the store cannot say, or lets nobody write.
    """
    fs, inner = resolve(path)
    probe = f"{path.rpartition('/')[0]}/.clock.{_writers()}{os.getpid()}.{uuid.uuid4().hex}.tmp"
    try:
        write_new(probe, b"")
        try:
            present = fs.modified(resolve(probe)[1])
        finally:
            remove(probe)
        return float((present - fs.modified(inner)).total_seconds())
    except (OSError, NotImplementedError):
        return None


def copy(source: str, target: str) -> None:
    """A file of a store beside itself, by the store."""
    fs, inner = resolve(source)
    fs.cp_file(inner, resolve(target)[1])


def remove(path: str) -> None:
    """Remove a file; nothing happens when it is gone already."""
    fs, inner = resolve(path)
    try:
        fs.rm_file(inner)
    except FileNotFoundError:
        return


def remove_tree(path: str) -> None:
    """Remove a directory with all it holds; nothing happens when it is gone already, or going. A note of
    ``move_aside`` goes last: what is half removed must not be published."""
    fs, inner = resolve(path)
    try:
        if not isinstance(fs, LocalFileSystem) and (names := list_sizes(path)).pop(_ASIDE, None) is not None and names:
            fs.rm([f"{inner.rstrip('/')}/{name}" for name in names], recursive=True)
        fs.rm(inner, recursive=True)
    except FileNotFoundError:
        return


def move_aside(directory: str, name: str) -> str:
    """Take a directory out of sight in one act; returns where it is then. FileNotFoundError when it is gone.

    It is renamed beside itself where the store has directories. Where it has none, it stays with a note inside that
    keeps its manifest, and loses the manifest: then nobody sees the rest, nor publishes it (``publish``).
    """
    fs, inner = resolve(directory)
    parent = directory.rstrip("/").rsplit("/", 1)[0]
    if isinstance(fs, LocalFileSystem):
        os.rename(inner, os.path.join(os.path.dirname(inner), name))
        return join(parent, name)
    there = list_sizes(directory)
    if not there:
        raise FileNotFoundError(directory)
    if _MANIFEST in there or _ASIDE not in there:
        kept = read_bytes(join(directory, _MANIFEST)) if _MANIFEST in there else b""
        write_atomic(join(directory, _ASIDE), kept)
        remove(join(directory, _MANIFEST))
    return directory


def move_back(aside: str, directory: str) -> None:
    """Undo ``move_aside``. FileNotFoundError when it is gone."""
    fs, inner = resolve(aside)
    if isinstance(fs, LocalFileSystem):
        os.rename(inner, resolve(directory)[1])
        return
    if kept := read_bytes(join(directory, _ASIDE)):
        with suppress(FileExistsError):  # another one was published meanwhile
            create_exclusive(join(directory, _MANIFEST), kept)
    remove(join(directory, _ASIDE))


def is_aside(directory: str) -> bool:
    """Whether a directory has been moved aside where it could not be renamed, and not back."""
    there = {} if is_local(directory) else list_sizes(directory)
    return _ASIDE in there and _MANIFEST not in there


def write_new(path: str, data: bytes) -> None:
    """Create ``path``, a name nobody else knows yet, so one plain write will do.

    The directory must exist where the store has directories: a straggler must not revive a removed one.
    """
    fs, inner = resolve(path)
    if isinstance(fs, LocalFileSystem):
        _create(inner, data, sync=False)
    else:
        fs.pipe_file(inner, bytes(data))


def write_atomic(path: str, data: bytes) -> None:
    """Create or replace ``path``; a reader sees the old bytes or all of the new ones."""
    fs, inner = resolve(path)
    if isinstance(fs, LocalFileSystem):
        temporary = _write_beside(inner, data)
        os.replace(temporary, inner)
        sync_directory(inner)
    else:
        fs.pipe_file(inner, data)


def create_exclusive(path: str, data: bytes) -> None:
    """Create ``path`` with all of ``data``, or raise FileExistsError and leave the standing file alone."""
    fs, inner = resolve(path)
    if not isinstance(fs, LocalFileSystem):
        _put_new(fs, inner, data)
        return
    temporary = _write_beside(inner, data)
    try:
        os.link(temporary, inner)
    finally:
        os.unlink(temporary)
    sync_directory(inner)


def publish(path: str, data: bytes, *, content: str, replace: bool) -> None:
    """Create ``path`` (or replace it) by one act that cannot succeed once the directory ``content`` was moved aside.

    Raises FileExistsError when ``path`` stands and ``replace`` is False, FileNotFoundError when ``content`` is gone.
    Where the store renames no directories, ``content`` is looked at before and after; what was taken away between is
    not published any more: ``path`` then has its former bytes, or none.
    """
    fs, inner = resolve(path)
    if not isinstance(fs, LocalFileSystem):
        before = list_sizes(content)
        if not before or _ASIDE in before:
            raise FileNotFoundError(content)
        former = fs.cat_file(inner) if replace and fs.exists(inner) else None
        write_atomic(path, data) if replace else create_exclusive(path, data)
        if list_sizes(content) != before:
            remove(path) if former is None else write_atomic(path, former)
            raise FileNotFoundError(content)
        return
    # the draft lies inside, so that it leaves with the directory: whoever renames first wins
    draft = os.path.join(resolve(content)[1], f".{os.path.basename(inner)}.draft")
    _create(draft, data, sync=True)
    try:
        os.rename(draft, inner) if replace else os.link(draft, inner)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
    sync_directory(inner)


def _put_new(fs: Any, inner: str, data: bytes) -> None:
    """One PUT on condition that nothing stands there. Of one whose answer was lost, the second try finds the first."""
    try:
        fs.pipe_file(inner, bytes(data), mode="create")
    except OSError as error:
        if not isinstance(error, FileExistsError) and "PreconditionFailed" not in str(error.__cause__):
            raise
        if fs.cat_file(inner) != data:
            raise FileExistsError(inner) from error


def is_abandoned(name: str) -> bool:
    """Whether a file is what a killed process of this machine had not finished writing."""
    before, mark, rest = name.partition(f".{_writers()}")
    return before.startswith(".") and name.endswith(".tmp") and bool(mark) and not runs(int(rest.split(".")[0]))


def _writers() -> str:
    """Begins the writer's process id in names of temporaries of this machine."""
    return f"writer-{hashlib.sha256(machine().encode()).hexdigest()[:8]}-"


def _write_beside(inner: str, data: bytes) -> str:
    directory, name = os.path.split(inner)
    with _making(directory):
        os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, f".{name}.{_writers()}{os.getpid()}.{uuid.uuid4().hex}.tmp")
    _create(temporary, data, sync=True)
    return temporary


def _create(path: str, data: bytes, *, sync: bool) -> None:
    """A new file, whole or not at all; an error names it."""
    try:
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except FileExistsError:
        raise
    except OSError as error:
        with suppress(FileNotFoundError):
            os.unlink(path)
        error.filename = error.filename or path
        raise


def sync_directory(inner: str) -> None:
    """Put a local file's name in its directory on disk."""
    descriptor = os.open(os.path.dirname(inner), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
