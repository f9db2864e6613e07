"""Where compiled kernels are kept: once for a user and machine, whichever copy of the sources compiled them.

numba keeps code beside its source, under the source's path, and watches only the file of the function itself: a model
that MLflow unpacks anew would compile anew, and an edited helper in another file would silently keep old code. So ours
lies in a directory ``kernels-<digest>`` of all sources of a room, the versions that compile and the CPU, which is
looked for in

1. ``NUMBA_CACHE_DIR``, where that is set;
2. ``fieldwise/compiled`` of the installation, which is only read: archives and images bring it (``fieldwise pack``);
3. ``$XDG_CACHE_HOME/fieldwise``, else ``~/.cache/fieldwise``;
4. ``<tmp>/fieldwise-<uid>``.

What is found nowhere is compiled, and kept in the first of 1, 3 and 4 that is this user's alone; else it is not kept.
Compiled code is a pickle: nothing is read from a directory that somebody else could have written to.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import llvmlite  # type: ignore[import-untyped,unused-ignore]
import llvmlite.binding as llvm  # type: ignore[import-untyped,unused-ignore]
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.event import Listener, register
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

import fieldwise
from fieldwise.features.private import cache_home, is_private, is_trusted
from fieldwise.features.terminal import doing, say, warn

GIVEN = "NUMBA_CACHE_DIR"
COMPILED = "compiled"
"""The directory beside ``fieldwise/__init__.py`` that holds what an installation brings."""
_SYMBOLS = "symbols of one process"
"""What is true of the code in files named with it; see `features.kernels.compile`."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_PATIENCE_SECONDS = 60.0
"""For a process that compiles a kernel, which takes ten: it may have been stopped."""
_UNUSED_SECONDS = 30 * 86400.0
"""Code of other versions that no process has looked for in this time goes when a directory is made."""


@lru_cache
def name_of(package: str) -> str:
    """``kernels-<digest>``: what a package's sources (with this one's, which say how) are compiled to by this Python on
    this CPU, wherever they lie."""
    digest = hashlib.sha256()
    cpu = (numba.config.CPU_NAME or llvm.get_host_cpu_name(), numba.config.CPU_FEATURES or _features())
    for part in (package, sys.implementation.cache_tag, numba.__version__, llvmlite.__version__, *cpu):
        digest.update(f"{part}\0".encode())
    rooms = dict.fromkeys((package, str(__package__)))
    sources = [each for room in rooms for each in files(room).iterdir() if each.name.endswith((".py", ".pyc"))]
    for source in sorted((each.name, each.read_bytes()) for each in sources):  # also those in a zip
        digest.update(f"{source[0]}\0".encode() + hashlib.sha256(source[1]).digest())
    return f"kernels-{digest.hexdigest()[:16]}"


def _features() -> str:
    try:
        return str(llvm.get_host_cpu_features().flatten())
    except RuntimeError:  # not known of every CPU
        return ""


class Shelf:
    """The directories that hold a package's compiled code, ``kernels-<digest>`` each."""

    def __init__(self, package: str) -> None:
        self._package, self._name = package, name_of(package)

    @cached_property
    def readable(self) -> list[Path]:
        """Those that can be trusted, in the order of looking."""
        own = [base / self._name for base in _bases()]
        own = [place for place in own if is_trusted(place, {os.getuid()}, _OTHERS)]
        for place in own:
            with suppress(OSError):  # one that can only be read
                os.utime(place)  # it is in use
        home = Path(fieldwise.__path__[0])
        brought = home / COMPILED / self._name
        with suppress(OSError):  # in a zip there is none
            if is_trusted(brought, {os.getuid(), 0, home.stat().st_uid}, stat.S_IWOTH):  # as its sources are
                own.append(brought)
        return own

    @cached_property
    def writable(self) -> Path | None:
        """Where new code is kept; who makes the directory says what is going on. None where there is no such place."""
        for base in _bases():
            place, new = base / self._name, not (base / self._name).exists()
            if is_private(place, {os.getuid()}, _OTHERS):
                if new:
                    _remove_unused(base)
                    say(f"compiling {self._package}, once for this user and machine: kept in {place} ...")
                return place
            if os.environ.get(GIVEN) == str(base):
                warn(f"{GIVEN}={base} cannot keep compiled code: it is not this user's alone, or not to be written")
        warn(f"every process compiles its kernels anew: set {GIVEN} to a directory that is this user's alone")
        return None


def _bases() -> Iterator[Path]:
    if given := os.environ.get(GIVEN):
        yield Path(given)
    with suppress(RuntimeError):  # no home directory
        yield cache_home()
    yield Path(tempfile.gettempdir()) / f"fieldwise-{os.getuid()}"


def _remove_unused(base: Path) -> None:
    for place in base.glob("kernels-*"):
        with suppress(OSError):
            if time.time() - place.lstat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(place, ignore_errors=True)


shelf_of = lru_cache(Shelf)


class CodeFiles:
    """Compiled code of one function on disk, a file for every signature, named after it.

    numba's own takes the next number that is free in an index: processes that save different signatures at once take
    the same one, and a third then loads code that was compiled for something else.
    """

    def __init__(self, shelf: Shelf, function: str) -> None:
        self._shelf, self._function = shelf, function
        self._claim: IO[bytes] | None = None

    def save(self, key: Any, data: Any) -> None:
        """Nothing is kept where there is no room: the process has its code."""
        place = self._shelf.writable
        if place is None:
            return
        body = dumps((key, data))
        with suppress(OSError):
            descriptor, draft = tempfile.mkstemp(dir=place, prefix=".draft-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(hashlib.sha256(body).digest() + body)
                os.replace(draft, place / self._name_of(key))
            except BaseException:
                os.unlink(draft)
                raise

    def load(self, key: Any) -> Any:
        """None where it must be compiled."""
        name, readable = self._name_of(key), self._shelf.readable
        for place in readable:
            if (found := _read(place / name, key)) is not None:
                return found
        own = self._shelf.writable  # another process may have made it meanwhile
        return None if own is None or own in readable else _read(own / name, key)

    def claim(self) -> None:
        """Wait while another process compiles the function, and then have others wait. None need to: after a while, or
        where there is no place for a lock, each compiles its own."""
        place = self._shelf.writable
        if place is None:
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with suppress(OSError):
            self._claim = open(place / f".compiling-{self._function}", "wb")  # noqa: SIM115  held until released
            while time.monotonic() < deadline:
                with suppress(BlockingIOError):
                    return fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                time.sleep(0.02)

    def release(self) -> None:
        """What `claim` took; a process that ends does it, too."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def is_kept(self) -> bool:
        """Whether code for some signature is on disk."""
        return any(next(place.glob(f"{self._function}.*"), None) for place in self._shelf.readable)

    def _name_of(self, key: Any) -> str:
        return f"{self._function}.{hashlib.sha256(f'{_SYMBOLS} {key!r}'.encode()).hexdigest()[:32]}"


def _read(file: Path, key: Any) -> Any:
    """None where a file is not there, not whole, or another key's."""
    try:
        written = file.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(written[32:]).digest() != written[:32]:
        return None
    found, data = pickle.loads(written[32:])  # noqa: S301  from a directory that is ours alone
    return data if found == key else None


class _Locator:
    """What numba asks about the place of a cache, none of which ours needs."""

    def __init__(self, function: Any, file: str) -> None:
        self._py_file, self._line = file, function.__code__.co_firstlineno

    from_function = classmethod(lambda cls, function, file: cls(function, file))

    def get_cache_path(self) -> str:
        return ""

    def get_source_stamp(self) -> None: ...

    def ensure_cache_path(self) -> None: ...

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Kept(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012  numba's


def package_of(function: Any) -> str:
    """Empty for a script's, whose code is kept nowhere: it has no room whose sources would name it."""
    return sys.modules[function.__module__].__package__ or ""


class KernelCache(FunctionCache):
    """numba's cache of a function's compiled code, with files and directories of ours."""

    _impl_class = _Kept

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = CodeFiles(shelf_of(package_of(function)), self._impl.filename_base)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Without numba's look at all that could be compiled: it takes a second, imports scipy, and what is found was
        compiled. Who compiles after all has it done (``CompilerBase``). Kernels call symbols of its runtime alone."""
        rtsys.initialize(target_context)
        found = self._load_overload(sig, target_context)
        if found is None:
            self._cache_file.claim()
            found = self._load_overload(sig, target_context)  # whoever had it may have compiled this
        if found is not None:
            self._cache_file.release()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """See `CodeFiles.save`."""
        try:
            super().save_overload(sig, data)
        finally:
            self._cache_file.release()

    @property
    def files(self) -> CodeFiles:
        """What it keeps."""
        found: CodeFiles = self._cache_file
        return found


class _Compiling(Listener):
    """Measures the compiling of kernels, and tells terminals of it."""

    def __init__(self) -> None:
        self.seconds, self._depth, self._count = 0.0, 0, 0

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if self._depth or isinstance(dispatcher._cache, KernelCache):
            self._depth += 1
        if self._depth == 1:
            self._began, self._count = time.perf_counter(), self._count + 1
            doing(f"compiling kernel {self._count}, {dispatcher.py_func.__name__}")

    def on_end(self, event: Any) -> None:
        if self._depth == 1:
            self.seconds += time.perf_counter() - self._began
            doing("")
        cache = event.data["dispatcher"]._cache
        if sys.exc_info()[0] is not None and isinstance(cache, KernelCache):  # nothing will be saved
            cache.files.release()
        self._depth = max(self._depth - 1, 0)


_compiling = _Compiling()
register("numba:compile", _compiling)


def compile_seconds() -> float:
    """For how long this process, and those that it was forked from, have compiled kernels; 0 where all were found."""
    return _compiling.seconds
