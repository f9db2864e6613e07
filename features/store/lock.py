"""What one process holds at a time. On this machine a file, of which the kernel lets go however its holder ends.

On a store, where nothing can be locked, each writes a lease of its own first and looks for others' then: so of two at
least one sees the other, and whoever sees a living one withdraws. A dead one's is removed, see ``lease.alive``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, BusyError
from fieldwise.features.store.lease import LEASE_SECONDS, Lease, alive


@contextmanager
def locked(
    path: str | os.PathLike[str], where: str, *, expected: str, fix: str, patience: float = 60.0
) -> Iterator[None]:
    """Hold a local file, whose directory is there, or a name on a store. Raises BusyError, with these words and the
    holder's number or lease, when another process has it for longer than ``patience`` seconds."""
    if not store.is_local(str(path)):
        with _leased(str(path), where, expected, fix, patience):
            yield
        return
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


@contextmanager
def _leased(path: str, where: str, expected: str, fix: str, patience: float) -> Iterator[None]:
    folder, _, name = path.rpartition("/")
    own = f"{name}.{uuid.uuid4().hex[:16]}"
    deadline = time.monotonic() + patience
    while True:
        held = _living(folder, name, own)
        if not held:
            with Lease(store.join(folder, own)):
                held = _living(folder, name, own)
                if not held:
                    yield
                    return
        if time.monotonic() > deadline:
            fix = f"{fix} A job elsewhere counts as alive for {LEASE_SECONDS:.0f} s after its last word; where it is "
            fix += "known to be gone, remove that file."
            raise BusyError(where, expected=expected, found=f"the lease {store.join(folder, held[0])}", fix=fix)
        time.sleep(random.uniform(0.1, 1.0))  # noqa: S311  two who withdraw alike would meet again


def _living(folder: str, name: str, own: str) -> list[str]:
    """Names of others' leases on it; those of dead ones are removed."""
    there = [each for each in store.list_sizes(folder) if each.startswith(f"{name}.") and each != own]
    living = [each for each in there if alive(store.join(folder, each))]
    for each in set(there) - set(living):
        store.remove(store.join(folder, each))
    return living


def _no_link(path: str, flags: int) -> int:
    """What a link of another's names would be overwritten."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
