"""A file that one process of this machine holds at a time; the kernel lets go of it however its holder ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fieldwise.features.errors import ArtifactError, BusyError


@contextmanager
def locked(
    path: str | os.PathLike[str], where: str, *, expected: str, fix: str, patience: float = 60.0
) -> Iterator[None]:
    """Hold a local file, whose directory is there. Raises BusyError, with these words and the holder's number, when
    another process has it for longer than ``patience`` seconds."""
    try:
        lock = open(path, "a+", opener=_no_link)  # noqa: SIM115  closed below
    except OSError as error:
        found = {errno.ELOOP: "a link", errno.EISDIR: "a directory"}.get(error.errno or 0)
        if found is None:
            raise
        raise ArtifactError(str(path), expected="a lock of ours", found=found, fix="Remove it.") from None
    with lock:
        deadline = time.monotonic() + patience
        while not _taken(lock.fileno()):
            if time.monotonic() > deadline:
                lock.seek(0)
                raise BusyError(where, expected=expected, found=f"process {lock.read().strip()} at it", fix=fix)
            time.sleep(0.1)
        try:  # past any buffer, which would be written again when it is closed
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        except OSError as error:  # a full disk, which does not tell the name of what is open
            error.filename = str(path)
            raise
        yield


def _no_link(path: str, flags: int) -> int:
    """What a link of another's names would be overwritten."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
