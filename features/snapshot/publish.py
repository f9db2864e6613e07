"""How a snapshot becomes visible: data under a name of its own first, then the manifest by one atomic act.

    <snapshot>/lease-<attempt>.json     while a job works: who, and when it was last seen alive
    <snapshot>/data-<attempt>/          its data, visible to nobody until a manifest names it
    <snapshot>/dead-<attempt>/          data of a dead job, on its way out
    <snapshot>/manifest.json            created exclusively, or replaced atomically

Killed anywhere, a job leaves a lease that goes stale and data that nothing names; the next job removes both. A job that
only stood still may be taken for dead from another machine. Then one rename decides: either its manifest comes out of
its data directory first and the data stays, or the directory goes first and the job ends with an error.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, BusyError
from fieldwise.features.snapshot.manifest import MANIFEST, MOST_BYTES, Manifest, standing
from fieldwise.features.store import bounded
from fieldwise.features.store.lease import Lease, alive
from fieldwise.features.terminal import say

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
        self._lease.require()
        self._require_files(manifest)
        content = manifest.to_json()
        fix = "Raise snapshot.rows_per_file, or read fewer, larger files of the log: the manifest lists all of them."
        bounded.require_within(content, path, MOST_BYTES, fix)
        try:
            store.publish(path, content, content=self.data_dir, replace=replace)
        except FileNotFoundError:
            raise self._lost("its directory") from None
        except FileExistsError:
            winner = standing(self.directory)
            if winner is None:
                return self.publish(manifest, replace=False)
            if winner.request != manifest.request:
                raise other_request(winner, self.directory, "", "fieldwise features --replace") from None
            return winner
        self._published = True
        return manifest

    def _require_files(self, manifest: Manifest) -> None:
        """A manifest names no file that is gone."""
        sizes = store.list_sizes(self.data_dir)
        for entry in manifest.files:
            if sizes.get(entry.path) != entry.bytes:
                raise self._lost(entry.path)

    def _lost(self, what: str) -> BusyError:
        return BusyError(
            self.data_dir,
            expected="the data that this job wrote",
            found=f"{what} gone or changed: another job took this one for dead",
            fix="Run it again.",
        )


def other_request(found: Manifest, directory: str, differs: str, rebuild: str) -> ArtifactError:
    """Of a snapshot that stands and answers another request, which ``differs`` in what it says."""
    return ArtifactError(
        directory,
        expected="no snapshot, or one of the same sources, config and spec",
        found=f"snapshot {found.digest[:12]} built from another request{f' ({differs})' if differs else ''}",
        fix=f"Build it anew with `{rebuild}`, or choose another workspace.",
    )


@contextmanager
def reading(directories: Iterable[str]) -> Iterator[None]:
    """Hold a lease on snapshots that are read, so that nobody retires them; read-only stores retire nothing."""
    with ExitStack() as stack:
        for directory in directories:
            try:
                stack.enter_context(Lease(store.join(directory, f"lease-{uuid.uuid4().hex[:16]}.json")))
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) and not isinstance(
                    error, PermissionError
                ):
                    raise
        yield


def in_use(directory: str) -> bool:
    """Whether a living job has a lease on a snapshot."""
    leases = [name for name in store.list_sizes(directory) if name.startswith("lease-")]
    return any(alive(store.join(directory, name)) for name in leases)


def retire(directory: str) -> bool:
    """Take a snapshot out of sight as a whole, then delete it; False when a job began to read it meanwhile."""
    aside = store.move_aside(directory, f"{_RETIRED}{uuid.uuid4().hex}")
    if in_use(aside):
        store.move_back(aside, directory)
        return False
    store.remove_tree(aside)
    return True


def bury(place: str) -> None:
    """Delete what killed jobs had retired in a directory of snapshots."""
    for name in store.list_sizes(place):
        directory = store.join(place, name)
        if (name.startswith(_RETIRED) or store.is_aside(directory)) and not in_use(directory):
            store.remove_tree(directory)


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
    going = {name.removeprefix("dead-") for name in names if name.startswith("dead-")}
    doomed = ((data - leases) | (data & dead)) - {named}
    removed = [f"data-{attempt}" for attempt in sorted(doomed | going) if _take_away(directory, attempt)]
    for name in [f"lease-{attempt}.json" for attempt in dead] + [name for name in names if store.is_abandoned(name)]:
        store.remove(store.join(directory, name))
    return removed


def _take_away(directory: str, attempt: str) -> bool:
    """Delete a dead job's data; False when it was published after all, and stays, or cannot go yet."""
    data, dead = (store.join(directory, f"{name}-{attempt}") for name in ("data", "dead"))
    with suppress(FileNotFoundError):
        dead = store.move_aside(data, f"dead-{attempt}")
    manifest = standing(directory)  # after the rename: from now on nobody can publish this data
    try:
        if manifest is not None and manifest.data == f"data-{attempt}":
            store.move_back(dead, data)
            return False
        store.remove_tree(dead)
    except FileNotFoundError:  # another job is cleaning, too
        return False
    except OSError as error:  # a straggler of the dead job still writes: the next job will find it quiet
        say(f"could not remove {dead} yet: {error}")
        return False
    return True
