"""How a snapshot becomes visible: data under a name of its own first, then the manifest by one atomic act.

    <snapshot>/lease-<attempt>.json     while a job works: who, and when it was last seen alive
    <snapshot>/data-<attempt>/          its data, visible to nobody until a manifest names it
    <snapshot>/manifest.json            created exclusively, or replaced atomically

Killed anywhere, a job leaves a lease that goes stale and data that nothing names; the next job removes both.
"""

from __future__ import annotations

import errno
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from features import store
from features.errors import ArtifactError
from features.lease import Lease, alive
from features.manifest import MANIFEST, Manifest, standing

_RETIRED = "retired-"


class Attempt:
    """One job's try at publishing a snapshot; a context manager that leaves either a manifest or nothing."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.id = uuid.uuid4().hex[:16]
        self.data = f"data-{self.id}"
        self.data_dir = store.join(directory, self.data)
        self._lease = Lease(store.join(directory, f"lease-{self.id}.json"))
        self._published = False

    def __enter__(self) -> Attempt:
        self._lease.__enter__()
        store.make_dir(self.data_dir)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._published:
            store.remove_tree(self.data_dir)
        self._lease.__exit__(kind, error, at)

    def publish(self, manifest: Manifest, *, replace: bool) -> Manifest:
        """Make ``manifest`` the snapshot's, and return the one that stands.

        Two jobs with the same request may publish at once: the first wins, the other returns the winner's manifest.
        Raises ArtifactError when another request's snapshot stands and ``replace`` is False.
        """
        path = store.join(self.directory, MANIFEST)
        if replace:
            store.write_atomic(path, manifest.to_json())
            self._published = True
            return manifest
        try:
            store.create_exclusive(path, manifest.to_json())
        except FileExistsError:
            winner = standing(self.directory)
            if winner is None:
                return self.publish(manifest, replace=False)
            return same_request(winner, manifest.request, self.directory)
        self._published = True
        return manifest


def same_request(found: Manifest, request: str, directory: str) -> Manifest:
    """``found`` if it answers ``request``; raises ArtifactError otherwise."""
    if found.request != request:
        raise ArtifactError(
            directory,
            expected="no snapshot, or one of the same sources, config and spec",
            found=f"snapshot {found.digest[:12]} built from another request",
            fix="Pass --replace to build it anew, or choose another workspace.",
        )
    return found


@contextmanager
def reading(directories: Iterable[str]) -> Iterator[None]:
    """Hold a lease on snapshots that are read, so that nobody retires them; read-only stores retire nothing."""
    with ExitStack() as stack:
        for directory in directories:
            try:
                stack.enter_context(Lease(store.join(directory, f"lease-{uuid.uuid4().hex[:16]}.json")))
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
        yield


def in_use(directory: str) -> bool:
    """Whether a living job has a lease on a snapshot."""
    leases = [name for name in store.list_sizes(directory) if name.startswith("lease-")]
    return any(alive(store.join(directory, name)) for name in leases)


def retire(directory: str) -> None:
    """Take a snapshot out of sight as a whole, then delete it."""
    store.remove_tree(store.move_aside(directory, f"{_RETIRED}{uuid.uuid4().hex}"))


def bury(place: str) -> None:
    """Delete what killed jobs had retired in a directory of snapshots."""
    for name in store.list_sizes(place):
        if name.startswith(_RETIRED):
            store.remove_tree(store.join(place, name))


def clean(directory: str) -> list[str]:
    """Remove what dead jobs left and data no manifest names; returns the names of removed data directories.

    Data is looked at before leases, and the manifest last: a job that publishes in between is either still leased or
    already named.
    """
    names = store.list_sizes(directory)
    data = {name.removeprefix("data-") for name in names if name.startswith("data-")}
    leases = {name[6:-5] for name in store.list_sizes(directory) if name.startswith("lease-")}
    dead = {attempt for attempt in leases if not alive(store.join(directory, f"lease-{attempt}.json"))}
    manifest = standing(directory)
    named = manifest.data.removeprefix("data-") if manifest else None
    removed = []
    for attempt in sorted((data - leases) | (data & dead)):
        if attempt == named:
            continue
        try:
            store.remove_tree(store.join(directory, f"data-{attempt}"))
        except OSError as error:  # a straggler of the dead job still writes: the next job will find it quiet
            print(f"could not remove data-{attempt} yet: {error}", file=sys.stderr)  # noqa: T201
            continue
        removed.append(f"data-{attempt}")
    for name in [f"lease-{attempt}.json" for attempt in dead] + [name for name in names if store.is_abandoned(name)]:
        store.remove(store.join(directory, name))
    return removed
