"""A directory of any URL, and where it is worked in: itself if it is local, else a copy on this machine.

    with Mirror(url, scratch) as mirror:    one process at a time; the copy is what the store has
        ... write below mirror.local ...
        mirror.push()                       what changed is on the store, for this machine or the next one

The store has the last word: what a killed process had not pushed is forgotten. Each file is one PUT. A file called
``model.json`` says that those beside it are whole: it goes last, and before them where they are replaced or removed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, known_error
from fieldwise.features.store.lock import locked
from fieldwise.features.store.scratch import scratch_dir
from fieldwise.features.terminal import say

_WHOLE = "model.json"
_ONE_PUT = 8 << 20
"""Bytes of a file that are sent at once; larger ones in parts, visible once all are there."""
Mark = tuple[int, int, int]


class Mirror:
    """Args:
    url: the directory, local or not.
    scratch: local directory for the copy; default, see `scratch_dir`.
    only: what to copy of it, as relative names; default all.
    patience: seconds to wait for another process that has it.

    Attributes: ``local``, the same on every process of a machine.
    """

    def __init__(
        self, url: str, scratch: str | None = None, *, only: Iterable[str] = (), patience: float = 60.0
    ) -> None:
        self.url, self._only, self._patience = url.rstrip("/"), set(only), patience
        self.remote = not store.is_local(url)
        self.local = Path(store.resolve(url)[1])
        if self.remote:
            digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
            self.local = scratch_dir(scratch) / "work" / f"{digest}-{self.url.rsplit('/', 1)[-1]}"
        self._known: dict[str, Mark] = {}
        self._held = ExitStack()

    def __enter__(self) -> Mirror:
        """Raises BusyError when another process has it for longer than ``patience`` seconds."""
        if self.remote:
            fix = "Wait for it, or set another workspace."
            self._held.enter_context(
                locked(f"{self.url}.lock", self.url, expected="one process at it", fix=fix, patience=self._patience)
            )
            try:
                self._pull()
            except BaseException:
                self._held.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.remote:
            return
        with self._held:
            self.push(sure=kind is None)
            shutil.rmtree(self.local, ignore_errors=True)

    def told(self, text: str) -> str:
        """``text`` for people: places in the copy are told as those on the store."""
        return text.replace(str(self.local), self.url) if self.remote else text

    def push(self, *, sure: bool = False) -> None:
        """Bring what was written, replaced or removed to the store.

        Args:
            sure: raise where the store does not take it; else that is said, and the next push brings it.
        """
        if not self.remote:
            return
        try:
            self._push()
        except Exception as error:
            told = known_error(error)
            if sure or told is None:
                raise
            say(f"not kept on the store yet, work goes on: {told}")

    def _pull(self) -> None:
        shutil.rmtree(self.local, ignore_errors=True)
        self.local.mkdir(parents=True)
        fs, root = store.resolve(self.url)
        root = root.rstrip("/")
        for path in fs.find(root):
            name = path[len(root) :].strip("/")
            if path.endswith("/") or (self._only and name not in self._only):
                continue
            parts = PurePosixPath(name).parts
            if not name or ".." in parts or "\0" in name:
                fix = "Remove it: it is none of ours."
                raise ArtifactError(store.join(self.url, name), expected="a file below", found="another name", fix=fix)
            place = self.local.joinpath(*parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(path, str(place))
            self._known[name] = _mark(place)

    def _push(self) -> None:
        fs, root = store.resolve(self.url)
        now = {
            path.relative_to(self.local).as_posix(): path
            for path in self.local.rglob("*")
            if path.is_file() and not path.name.startswith(".") and path.name != "lock"
        }
        marks = {name: _mark(path) for name, path in now.items()}
        changed = [name for name, mark in marks.items() if self._known.get(name) != mark]
        gone = self._known.keys() - marks.keys()
        for folder in {PurePosixPath(name).parent for name in (*changed, *gone)}:
            whole = (folder / _WHOLE).as_posix()
            if whole in self._known and (whole in changed or whole in gone):
                store.remove(store.join(self.url, whole))
                del self._known[whole]
        for name in sorted(changed, key=lambda name: (PurePosixPath(name).name == _WHOLE, name)):
            if marks[name][1] <= _ONE_PUT:
                fs.pipe_file(f"{root.rstrip('/')}/{name}", now[name].read_bytes())
            else:
                fs.put_file(str(now[name]), f"{root.rstrip('/')}/{name}")
            self._known[name] = marks[name]
        for name in sorted(gone & self._known.keys()):
            store.remove(store.join(self.url, name))
            del self._known[name]


def _mark(path: Path) -> Mark:
    """Differs for a file that was written again."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
