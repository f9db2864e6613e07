"""Published directories of Parquet: invisible while written, then there all at once.

    <parent>/_<name>.<attempt>.lease    while a job works: who, and when it was last seen alive
    <parent>/_<name>.<attempt>/         its files; readers of partitioned Parquet skip names that begin with _
    <parent>/_<name>.<attempt>.dead/    those of a killed job, on their way out
    <parent>/_<name>.<attempt>.old/     the former output, for the instant in which the new one takes its place
    <parent>/<name>/                    part files, _manifest.json, and _report.html for people

On local file systems publishing is one rename; where another output stands, it makes room by a rename first, so a
reader finds the old one, for an instant none, then the new one, and never a mixture. Killed anywhere, a job leaves
what the next job for the same target clears away: an output that had made room comes back.

Object stores know no rename of directories: there the parts are copied under their own names, then one PUT of
``_manifest.json`` names them in place of the former ones, and these go last. Who reads by the manifest never sees a
mixture; one publisher at a time is at it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, BusyError, ConfigError
from fieldwise.features.store.kept import digest_of, read_record, sealed
from fieldwise.features.store.lease import Lease, alive
from fieldwise.features.store.lock import locked
from fieldwise.pipelines.config.schema import Config, resolve

MANIFEST, QUARANTINE, PAGE = "_manifest.json", "_quarantine.parquet", "_report.html"
_AT_ONCE = 16
"""Files that a store copies together."""
_PART = re.compile(r"part-\d+-[0-9a-f]{12}\.parquet")
"""As `write_part` names them; other files are not ours to remove."""


class Output:
    """One try at publishing ``target``; leaves nothing behind unless ``publish`` was reached.

    Args:
        request: what was asked for; an output of the same request is not made twice.
    """

    def __init__(self, target: str, request: Any) -> None:
        self.target = target.rstrip("/")
        if (found := store.unfit(self.target)) is not None:
            raise ConfigError(target, expected="a place to write", found=found, fix="Name another output.")
        self.request = digest_of(request)
        self._parent, _, name = self.target.rpartition("/")
        self._hidden = f"_{name}."
        self.attempt = uuid.uuid4().hex[:16]
        self.staging = self._beside(self.attempt)
        self._lease = Lease(self._beside(self.attempt, ".lease"))
        self._local = store.is_local(self.target)

    def _beside(self, attempt: str, suffix: str = "") -> str:
        return store.join(self._parent or ".", self._hidden + attempt + suffix)

    def standing(self) -> dict[str, Any] | None:
        """The manifest of a published output of the same request, once killed jobs' remains are cleared away.

        Raises ArtifactError for one that is damaged, or names files that are gone: readers of it must be told.
        """
        self._clear()
        place, fix = store.join(self.target, MANIFEST), f"Remove {self.target} to make it anew."
        found = read_record(place, "the manifest of published scores", fix)
        if found is None or found.get("request") != self.request:
            return None
        sizes = store.list_sizes(self.target)
        for part in found["files"]:
            if sizes.get(part["path"]) != part["bytes"]:
                there = f"{sizes[part['path']]} bytes" if part["path"] in sizes else "no such file"
                where = store.join(self.target, part["path"])
                raise ArtifactError(where, expected=f"{part['bytes']} bytes as its manifest says", found=there, fix=fix)
        return found

    def _clear(self) -> None:
        """Remove what killed jobs left. A job's lease is there before its files and goes after them."""
        if not self._local:
            with self._alone():
                self._unnamed_go()
        names = [name for name in store.list_sizes(self._parent or ".") if name.startswith(self._hidden)]
        for attempt in {name.removeprefix(self._hidden).partition(".")[0] for name in names} - {"publish"}:
            if not alive(self._beside(attempt, ".lease")):
                self._remove(attempt)

    def _remove(self, attempt: str) -> None:
        """All that is left of an attempt, the lease last."""
        retired = self._beside(attempt, ".old")
        if self._local:
            with suppress(OSError):  # nothing had made room, or another output stands there now
                os.rename(store.resolve(retired)[1], store.resolve(self.target)[1])
        store.remove_tree(retired)
        staging, dead = self._beside(attempt), self._beside(attempt, ".dead")
        with suppress(FileNotFoundError):  # renamed first: what is half deleted must not be published
            dead = store.move_aside(staging, dead.rpartition("/")[2])
        store.remove_tree(dead)
        store.remove(self._beside(attempt, ".lease"))

    def __enter__(self) -> Output:
        self._lease.__enter__()
        store.make_dir(self.staging)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._remove(self.attempt)
        self._lease.__exit__(kind, error, at)

    def publish(self, parts: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
        """Make the reported ``parts`` (of ``write_part``, in order) the output, with the quarantine and the page if
        there are any.

        Other files are of lost attempts and go.

        Returns the manifest.
        """
        self._lease.require()
        kept = {part["path"] for part in parts} | {QUARANTINE, PAGE}
        sizes = store.list_sizes(self.staging)
        for part in parts:
            if sizes.get(part["path"]) != part["bytes"]:
                raise BusyError(
                    self.staging, expected="the files that this job wrote", found=f"{part['path']} gone or changed",
                    fix="Run it again.",
                )  # fmt: skip
        for name in sizes:
            if name not in kept:
                store.remove(store.join(self.staging, name))
        digest = hashlib.sha256("\n".join(part["sha256"] for part in parts).encode()).hexdigest()
        manifest = {"request": self.request, "digest": digest, **more, "files": parts}
        data = sealed(manifest)
        if self._local:
            store.write_atomic(store.join(self.staging, MANIFEST), data)
            self._swap()
            return manifest
        with self._alone():
            # of names that are no attempt's, the former manifest would tell other bytes
            if store.list_sizes(self.target).keys() & {part["path"] for part in parts}:
                store.remove(store.join(self.target, MANIFEST))
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._copy, sorted(kept & sizes.keys())))
            self._lease.require()
            store.write_atomic(store.join(self.target, MANIFEST), data)
            if QUARANTINE not in sizes:
                store.remove(store.join(self.target, QUARANTINE))
            self._unnamed_go()
        return manifest

    def _copy(self, name: str) -> None:
        store.copy(store.join(self.staging, name), store.join(self.target, name))

    def _alone(self) -> AbstractContextManager[None]:
        """One job at a time changes what stands, on stores of objects."""
        fix = "Wait for it, or name another output."
        return locked(self._beside("publish"), self.target, expected="one job that publishes", fix=fix)

    def _unnamed_go(self) -> None:
        """Remove parts that the manifest does not name: of a former output, of a job that was killed here."""
        there = [name for name in store.list_sizes(self.target) if _PART.fullmatch(name)]
        if not there:
            return
        fix = f"Remove {self.target} to make it anew."
        found = read_record(store.join(self.target, MANIFEST), "the manifest of published scores", fix)
        named = {part["path"] for part in found["files"]} if found else set()
        for name in sorted(set(there) - named):
            store.remove(store.join(self.target, name))

    def _swap(self) -> None:
        retired = store.resolve(self._beside(self.attempt, ".old"))[1]
        staging, target = (store.resolve(path)[1] for path in (self.staging, self.target))
        while True:
            if os.path.isdir(target):
                os.rename(target, retired)
            try:
                os.rename(staging, target)
                return
            except OSError:
                if not os.path.isdir(target):
                    raise
                shutil.rmtree(retired, ignore_errors=True)  # another job published in between: the later one stands


def target_of(config: Config, out: str | None, date: str | None, *usual: str) -> str:
    """``<out>/date=<date or all>``; ``usual`` is the directory in the workspace without ``out``."""
    directory = resolve(out, config.base) if out else store.join(config.workspace_dir, *usual)
    return store.join(directory, f"date={date or 'all'}")


def write_part(
    directory: str, number: int, table: pa.Table, *, dictionary: Sequence[str], statistics: Sequence[str] = ()
) -> dict[str, Any]:
    """One Parquet file under a name no other attempt uses, and what to tell the driver of it.

    Args:
        dictionary: columns whose values repeat; dictionaries of others would cost time and space.
        statistics: columns by which files are looked up.
    """
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression="zstd", use_dictionary=list(dictionary), write_statistics=list(statistics) or False,
        row_group_size=1 << 17, store_schema=False,
    )  # fmt: skip
    data = sink.getvalue()
    name = f"part-{number:05d}-{uuid.uuid4().hex[:12]}.parquet"
    store.write_new(store.join(directory, name), data)
    checksum = hashlib.sha256(data).hexdigest()
    return {"number": number, "path": name, "rows": table.num_rows, "bytes": len(data), "sha256": checksum}
