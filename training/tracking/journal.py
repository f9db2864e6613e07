"""What a training reports, on disk before it is sent: an MLflow server that does not answer costs no number.

    reports/journal.jsonl    one report a line, in order
    reports/answers.jsonl    one line for each report that the server has: what it answered
    reports/files/           what the run keeps as artifacts: plots, config, environment

Reports are sent in order. When one fails, it waits with all after it for the next report, the end of the run, the next
training in the workspace, or ``fieldwise send``. An answer may be lost: a sender looks first for what it sends again.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import (
    ArtifactError,
    BusyError,
    CredentialsError,
    FieldwiseError,
    TrackingError,
    known_error,
)
from fieldwise.features.redact import redacted
from fieldwise.features.store import bounded
from fieldwise.features.store.lock import locked
from fieldwise.features.store.mirror import Mirror
from fieldwise.features.terminal import say

Report = dict[str, Any]
Send = Callable[[Report, Mapping[str, Any]], Report]
"""``send(report, what was answered so far) -> answer``; any exception: not sent, or not known to be."""

REPORTS, JOURNAL, ANSWERS = "reports", "journal.jsonl", "answers.jsonl"
PAUSE_SECONDS, PAUSE_SHARE = 30.0, 20.0
"""After a failed try the next one waits: so long, and so many times what the failed one took (5 % of the time)."""


_MOST_BYTES = 64 << 20
_FIX = "Delete its directory: what it says is lost to MLflow, the bundle is not."
_HOLDS: dict[str, dict[str, type]] = {
    "open": {"id": str, "name": str}, "params": {"values": dict}, "metrics": {"values": dict, "step": int, "time": int},
    "finish": {"result": dict}, "register": {"name": str},
    "family": {"kinds": str},
}  # fmt: skip
"""What a report of each form has at least."""
_VALUES: dict[str, tuple[type, ...]] = {"params": (str,), "metrics": (int, float)}


def at_once() -> bool:
    """Of a server that need not begin."""
    return True


class Journal:
    """A training's reports, the ``Tracker`` of ``training.loop.run``. ``open_journal`` keeps other writers out.

    Args:
        ready: whether the server can be asked by now; until then reports wait for the next, or for ``deliver``.

    Attributes: ``training``, its directory; ``directory`` of the reports on this machine.
    """

    def __init__(
        self, directory: str | Path, send: Send, training: Mirror | None = None, ready: Callable[[], bool] = at_once
    ) -> None:
        self.training = training or Mirror(str(Path(directory).absolute().parent))
        self.directory, self._send, self._ready = Path(directory), send, ready
        store.make_dir(str(self.files))
        self._reports = _Lines(self.directory / JOURNAL, self.training.push)
        self._answers = _Lines(self.directory / ANSWERS, self.training.push)
        for report in self._reports.items:
            do = report.get("do") if isinstance(report.get("do"), str) else None
            if do not in _HOLDS or any(type(report.get(key)) is not kind for key, kind in _HOLDS[do].items()):
                raise _damaged(self._reports.path, f"{json.dumps(report)[:80]}")
            if do in _VALUES and not all(type(value) in _VALUES[do] for value in report["values"].values()):
                raise _damaged(self._reports.path, f"values {report['values']!r}"[:80])
        self._not_before = 0.0
        self.trouble: FieldwiseError | None = None
        """Why the last try failed: the server is silent, or refuses what its user must mend (exit code 2)."""

    @property
    def place(self) -> str:
        """Of the reports, as people are told."""
        return self.training.told(str(self.directory))

    @property
    def files(self) -> Path:
        """Directory of files that ``finish`` sends."""
        return self.directory / "files"

    @property
    def answers(self) -> Report:
        """All that the server answered."""
        return {key: value for answer in self._answers.items for key, value in answer.items()}

    @property
    def opening(self) -> Report:
        """The first report; empty for a new journal."""
        return self._reports.items[0] if self._reports.items else {}

    @property
    def waiting(self) -> int:
        """Reports not sent yet."""
        return len(self._reports.items) - len(self._answers.items)

    @property
    def result(self) -> Report | None:
        """What ``finish`` was told; None while the training is not done."""
        found = next((report["result"] for report in self._reports.items if report["do"] == "finish"), None)
        metrics = found.get("metrics", {}) if isinstance(found, dict) else None
        known = isinstance(metrics, dict) and all(isinstance(each, dict) for each in metrics.values())
        if found is not None and not known:  # edited, or none of ours
            raise _damaged(self._reports.path, "a result without metrics by split")
        return found

    @property
    def to_register(self) -> bool:
        """Whether the model has been, or waits to be, registered."""
        return any(report["do"] == "register" or report.get("register") for report in self._reports.items)

    def params(self, values: Mapping[str, Any]) -> None:
        """Nested mappings become dotted names. A name that was reported before keeps its value."""
        known = {name for report in self._reports.items if report["do"] == "params" for name in report["values"]}
        self._report("params", values={name: str(v) for name, v in flat(values) if name not in known})

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Each (name, step) once: a resumed training may come to it again."""
        told = [report for report in self._reports.items if report["do"] == "metrics" and report["step"] == step]
        known = {name for report in told for name in report["values"]}
        new = {name: float(value) for name, value in values.items() if name not in known}
        self._report("metrics", values=new, step=step or 0, time=int(1000 * time.time()))

    def open(self, **what: Any) -> None:
        """The first report, under an id of its own by which a sender finds the run it made."""
        if not self._reports.items:
            self._report("open", id=uuid.uuid4().hex, **what)

    def finish(self, result: Report, **what: Any) -> Report:
        """The training is done. See ``deliver``."""
        if self.result is None:
            self._report("finish", result=result, **what)
        return self.deliver()

    def register(
        self, name: str, *, may_lead: bool, tags: Mapping[str, str] | None = None, description: str = ""
    ) -> Report:
        """The model is to be registered, once, and its version to be told ``tags`` and what it is. See ``deliver``."""
        if not self.to_register:
            self._report("register", name=name, may_lead=may_lead, tags=dict(tags or {}), description=description)
        return self.deliver()

    def family(self, kinds: str) -> None:
        """The bundle has been given a file that tells among which kinds it was chosen."""
        if not any(report["do"] == "family" for report in self._reports.items):
            self._report("family", kinds=kinds)

    def amend(self, *, experiment: str, model: str) -> None:
        """Give reports that were never sent the names that the config has now: a refused one may be mended.

        Earlier versions registered with ``finish``; that is left to ``register``.
        """
        names = {"open": ("experiment", experiment), "register": ("name", model), "finish": ("register", None)}
        waiting = self._reports.items[len(self._answers.items) :]
        for report in waiting:
            key, name = names.get(report["do"], ("", None))
            if report.get(key):
                report[key] = name
        if waiting:
            self._reports.rewrite()

    def deliver(self) -> Report:
        """Send what waits; returns the training's result with what the server answered.

        Raises, with words on where everything is kept: TrackingError when the server is silent, ConfigError when it
        refuses.
        """
        self.send(now=True)
        if (found := self.trouble) is not None:
            again = "sends them" if found.exit_code == 1 else "with names that it takes sends them"
            fix = (
                f"{found.fix} Nothing is lost: {self.waiting} reports wait in {self.place}, and the same "
                f"`fieldwise train` {again} and trains nothing, or `fieldwise send`."
            )
            raise type(found)(found.where, expected=found.expected, found=found.found, fix=fix)
        return {**(self.result or {}), **self.answers}

    def send(self, *, now: bool = False) -> None:
        """Send what waits, in order, unless a try has just failed."""
        if not (now or time.monotonic() >= self._not_before):
            return
        started = time.monotonic()
        try:
            while self.waiting and (now or self._ready()):
                report = self._reports.items[len(self._answers.items)]
                self._answers.add(self._send(report, self.answers))
        except Exception as error:  # of whatever layer below: requests, SQLAlchemy, file systems
            found = known_error(error) or silence(error)
            if self.trouble is None:
                does = "does not answer" if found.exit_code == 1 else "refuses"
                does = "refuses the credentials" if isinstance(found, CredentialsError) else does
                say(f"MLflow {does}, reports are kept in {self.place}: expected {found.expected}, found {found.found}")
            self.trouble = found
            self._not_before = time.monotonic() + max(PAUSE_SECONDS, PAUSE_SHARE * (time.monotonic() - started))
            return
        if not self.waiting:  # for the server to be ready
            if self.trouble is not None:
                say("MLflow answers again, all reports are sent")
            self.trouble = None

    def send_again(self) -> None:
        """Forget all answers: another store, or one that lost the run, gets everything anew."""
        self._answers.clear()

    def clear(self) -> None:
        """Start a new run."""
        self._reports.clear()
        self._answers.clear()

    def _report(self, do: str, **what: Any) -> None:
        if what.get("values", True):
            self._reports.add({"do": do, **what})
            self.send()
        refused = self.trouble if do in ("open", "params", "metrics") and not self._answers.items else None
        if refused is not None and refused.exit_code == 2:
            raise refused  # the store refuses, and would after the last epoch, too


class _Lines:
    """A file of JSON lines that only grows; a last line cut off by a kill is dropped."""

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self.path, self._changed = path, changed
        if path.is_symlink():  # what it names would be written to
            raise _damaged(path, "a link")
        content = bounded.read(str(path), _MOST_BYTES, _FIX) if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        try:
            self.items: list[Report] = [bounded.parse(line, str(path)) for line in whole.splitlines()]
        except ArtifactError as error:
            raise _damaged(path, error.found) from error

    def add(self, item: Report) -> None:
        with open(self.path, "ab") as file:
            file.write(json.dumps(item).encode() + b"\n")
        self.items.append(item)
        self._changed()

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
        self.items = []
        self._changed()

    def rewrite(self) -> None:
        """Write what ``items`` are now, whole or not at all."""
        store.write_atomic(str(self.path), b"".join(json.dumps(item).encode() + b"\n" for item in self.items))
        self._changed()


def _damaged(path: Path, found: str) -> ArtifactError:
    return ArtifactError(str(path), expected="a report of known form on every line", found=found, fix=_FIX)


@contextmanager
def open_journal(
    directory: str | Path,
    send: Send,
    *,
    training: Mirror | None = None,
    patience: float = 60.0,
    ready: Callable[[], bool] = at_once,
) -> Iterator[Journal]:
    """The journal kept in a local directory; one process at a time has it, and a dead one does not.

    Raises BusyError when another process has it for longer than ``patience`` seconds, ArtifactError and ConfigError for
    what is no directory of reports.
    """
    store.make_dir(str(directory))
    expected, fix = "one training of this config and data at a time", "Wait for it, or set another workspace."
    with locked(Path(directory, "lock"), str(directory), expected=expected, fix=fix, patience=patience):
        yield Journal(directory, send, training, ready)


@contextmanager
def open_training(
    training: str,
    sender: Callable[[Path], Send],
    *,
    scratch: str | None = None,
    reports_alone: bool = False,
    patience: float = 60.0,
    ready: Callable[[], bool] = at_once,
) -> Iterator[Journal]:
    """The journal of a training whose directory may be a URL; errors as of ``open_journal``.

    Args:
        sender: makes what sends, of the local directory of the reports.
        scratch: where a copy is worked in if it is a URL, see ``Mirror``.
        reports_alone: copy no bundle, checkpoints and files, where nothing is sent.
        ready: see ``Journal``.
    """
    only = (f"{REPORTS}/{JOURNAL}", f"{REPORTS}/{ANSWERS}") if reports_alone else ()
    with Mirror(training, scratch, only=only, patience=patience) as mirror:
        reports = mirror.local / REPORTS
        with open_journal(reports, sender(reports), training=mirror, patience=patience, ready=ready) as journal:
            yield journal


@dataclass(frozen=True)
class Kept:
    """What was sent of all that trainings of a workspace kept, and what was not."""

    sent: int
    left: int
    troubles: dict[str, FieldwiseError]
    """By directory of reports: why they could not be sent."""


def send_kept(workspace: str | Path, sender: Callable[[Path], Send], scratch: str | None = None) -> Kept:
    """Send what trainings of a workspace could not; those at work are left alone."""
    sent, left, troubles = 0, 0, {}
    for training in trainings(str(workspace)):
        try:
            if not _may_wait(training):
                continue
            with open_training(training, sender, scratch=scratch, patience=0) as journal:
                waiting = journal.waiting
                journal.send(now=True)
                sent += waiting - journal.waiting
                left += journal.waiting
                if journal.trouble is not None:
                    troubles[journal.place] = journal.trouble
        except BusyError:
            continue
        except (OSError, FieldwiseError) as error:
            trouble = known_error(error)
            if trouble is None:
                raise
            troubles[store.join(training, REPORTS)] = trouble
    return Kept(sent, left, troubles)


def trainings(workspace: str) -> list[str]:
    """Directories of a workspace's trainings that have reports."""
    place = store.join(workspace, "training")
    found = (store.join(place, name) for name, size in sorted(store.list_sizes(place).items()) if size == 0)
    return [training for training in found if store.exists(store.join(training, REPORTS))]


def _may_wait(training: str) -> bool:
    """Whether some reports have no answer yet; where that is nothing to ask, it is found out later."""
    if store.is_local(training):
        return True
    told, answered = (
        store.read_bytes(path) if store.exists(path := store.join(training, REPORTS, name)) else b""
        for name in (JOURNAL, ANSWERS)
    )
    return told.count(b"\n") != answered.count(b"\n")


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names and values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def silence(error: Exception) -> TrackingError:
    """What is told of an error that no other words are known for."""
    found = redacted(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")[:300]
    return TrackingError("MLflow", expected="an answer", found=found, fix="See that it runs.")
