"""MLflow in a process of its own, beside this one: its import takes as long as torch's, and waits for nothing of ours.

Commands that train once start it first; what they ask of the registry, and what a `Journal` sends, goes there then, a
JSON line each, and comes back so, errors whole. Where it was not started, or MLflow is imported here already, the same
functions are called in this process. It ends with this one, whatever ends that.

    -> {"call": "send", "with": {...}}        <- {"answer": ...}   or   {"error": {...}}   or   {"trouble": "..."}
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldwise.features.errors import FieldwiseError, TrackingError, retold, told
from fieldwise.features.process import die_with_parent
from fieldwise.features.redact import remember_urls
from fieldwise.training.tracking.journal import JOURNAL, Report, Send
from fieldwise.training.tracking.own_database import Registered

if TYPE_CHECKING:
    from fieldwise.training.tracking.registry import Registry
    from fieldwise.training.tracking.sender import Sender

_started: list[_Other] = []
_numbers = count()
"""Of senders: each begins with what it is told, and then knows what it has sent."""


@dataclass(frozen=True)
class Store:
    """MLflow, as a config names it: its ``uri``, if any, and the ``workspace`` that has a store of its own.

    Each call raises ConfigError where MLflow refuses what it is told, TrackingError where it is silent.
    """

    uri: str | None
    workspace: str

    def connect(self) -> None:
        """Open the store; a later call may write to it."""
        self._call("connect")

    def is_made(self) -> bool:
        """See ``runs.is_made``."""
        return bool(self._call("is_made"))

    def registry(self, name: str) -> Registry:
        """A registered model of it. In the other process where that was started: what its methods take and give is
        JSON then."""
        other = _other()
        found: Any = _registry(self, name) if other is None else _There(partial(self._call, "registry", name=name))
        return found

    def experiment_id(self, name: str) -> str:
        """See ``runs.experiment_id``."""
        return str(self._call("experiment_id", name=name))

    def find(self, reference: str) -> Registered | None:
        """See ``registry.find``."""
        found = self._call("find", reference=reference)
        return None if found is None else Registered(*found)

    def bundle_of(self, reference: str) -> str:
        """See ``fetch.bundle_of``; a copy stays as long as the process that made it."""
        return str(self._call("bundle_of", reference=reference))

    def sender(self, place: Path, workspace: str) -> Send:
        """What sends the reports that lie in a directory; see ``sender.Sender``."""
        resumed = (place / JOURNAL).exists()
        if _other() is None:
            return _sender(str(place), resumed, workspace)
        one = {"number": next(_numbers), "place": str(place), "resumed": resumed, "workspace": workspace}

        def send(report: Report, answers: Mapping[str, Any]) -> Report:
            answer: Report = self._call("send", **one, report=report, answers=dict(answers))
            return answer

        return send

    def reopen(self, run: str, *, running: bool) -> bool:
        """See ``sender.reopen``."""
        return bool(self._call("reopen", run=run, running=running))

    def end(self, run: str, status: str) -> None:
        """See ``sender.end``."""
        self._call("end", run=run, status=status)

    def _call(self, function: str, **arguments: Any) -> Any:
        other = _other()
        if other is None:
            return _FUNCTIONS[function](self, **arguments)
        remember_urls(self.uri or "")  # what the other process knows as secret comes back in its words
        return other.ask(function, {"store": asdict(self), **arguments})


@contextmanager
def beside(wanted: bool = True) -> Iterator[None]:
    """Start the other process, for what is called within."""
    if not wanted or _other() is not None or "mlflow" in sys.modules:
        yield
        return
    _started.append(_Other())
    try:
        yield
    finally:
        _started.pop().close()


def _other() -> _Other | None:
    return _started[-1] if _started else None


class _There:
    """Methods of an object of the other process."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *positional, **named: self._call(method=method, positional=positional, named=named)


class _Other:
    """The other process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=die_with_parent, start_new_session=True,  # a terminal's Ctrl-C is ours to answer
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asks, self._answers = self._process.stdin, self._process.stdout

    def ask(self, function: str, arguments: Mapping[str, Any]) -> Any:
        """What a function answers. Raises the FieldwiseError that it raises, TrackingError for any other."""
        line = b""
        with suppress(BrokenPipeError, ValueError):  # it has ended, or was given up below
            self._asks.write(json.dumps({"call": function, "with": arguments}).encode() + b"\n")
            self._asks.flush()
            try:
                line = self._answers.readline()
            except BaseException:  # a signal: what is answered later would be taken for the answer to another call
                self.close()
                raise
        if not line.endswith(b"\n"):
            found, fix = "one that has ended", "Run the same command again."
            raise TrackingError("MLflow's client", expected="a process that runs", found=found, fix=fix)
        answer = json.loads(line)
        if "error" in answer:
            raise retold(answer["error"])
        if "trouble" in answer:
            raise TrackingError("MLflow", expected="an answer", found=answer["trouble"], fix="See that it runs.")
        return answer["answer"]

    def close(self) -> None:
        """It ends by itself, once it has nothing to read."""
        with suppress(BrokenPipeError):  # it has ended already
            self._asks.close()
        self._answers.close()


def _connect(store: Store) -> None:
    from fieldwise.training.tracking import runs

    runs.connect(store.uri, store.workspace)


def _registry(store: Store, name: str) -> Registry:
    from fieldwise.training.tracking.registry import Registry

    return Registry(name, store.workspace)


def _is_made(store: Store) -> bool:
    from fieldwise.training.tracking.runs import is_made

    return is_made(store.uri, store.workspace)


def _experiment_id(store: Store, name: str) -> str:
    from fieldwise.training.tracking.runs import experiment_id

    return experiment_id(name, store.workspace)


def _find(store: Store, reference: str) -> Registered | None:
    from fieldwise.training.tracking.registry import find

    return find(reference)


def _bundle_of(store: Store, reference: str) -> str:
    from fieldwise.training.tracking.fetch import bundle_of

    return bundle_of(reference)


def _of_registry(store: Store, name: str, method: str, positional: list[Any], named: dict[str, Any]) -> Any:
    _connect(store)
    return getattr(_registry(store, name), method)(*positional, **named)


def _sender(place: str, resumed: bool, workspace: str) -> Sender:
    from fieldwise.training.tracking.sender import Sender

    return Sender(place, resumed=resumed, workspace=workspace)


_senders: dict[int, Sender] = {}


def _send(
    store: Store, number: int, place: str, resumed: bool, workspace: str, report: Report, answers: Report
) -> Report:
    if number not in _senders:
        _senders[number] = _sender(place, resumed, workspace)
    return _senders[number](report, answers)


def _reopen(store: Store, run: str, running: bool) -> bool:
    from fieldwise.training.tracking.sender import reopen

    return reopen(run, running=running)


def _end(store: Store, run: str, status: str) -> None:
    from fieldwise.training.tracking.sender import end

    end(run, status)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "connect": _connect,
    "is_made": _is_made,
    "experiment_id": _experiment_id,
    "find": _find,
    "bundle_of": _bundle_of,
    "registry": _of_registry,
    "send": _send,
    "reopen": _reopen,
    "end": _end,
}


def _serve() -> None:
    """Answer until the other end is closed. A call that has begun is finished: half a database would refuse every later
    command."""
    busy, asked_to_end = True, False

    def end(*_: object) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        if not busy:
            os._exit(0)

    signal.signal(signal.SIGTERM, end)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever libraries print
    from fieldwise.training.tracking import sender  # noqa: F401  the import that is waited for

    while not asked_to_end:
        busy = False
        line = sys.stdin.buffer.readline()
        busy = True
        if not line:
            break
        asked = json.loads(line)
        arguments = asked["with"]
        try:
            store = Store(**arguments.pop("store"))
            found: dict[str, Any] = {"answer": _FUNCTIONS[asked["call"]](store, **arguments)}
        except FieldwiseError as error:
            found = {"error": told(error)}
        except Exception as error:  # of whatever layer below, as `Journal` tells it
            found = {"trouble": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
        answers.write(json.dumps(found).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    _serve()
