"""MLflow in a process of its own, beside this one: its import takes as long as torch's, and waits for nothing of ours.

Commands that train once start it first; what they ask of the registry, and what a `Journal` sends, goes there then, a
JSON line each, and comes back so, errors whole. Where it was not started, or MLflow is imported here already, the same
methods are called in this process. It ends with this one, whatever ends that.

    -> [store, method, arguments, named ones]      <- {"answer": ...}   or   {"error": {...}}
"""

from __future__ import annotations

import gc
import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import partial, wraps
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast

from fieldwise.features.errors import TrackingError, known_error, retold, told
from fieldwise.features.process import die_with_parent
from fieldwise.features.redact import remember_urls
from fieldwise.training.tracking.journal import JOURNAL, Report, Send, silence
from fieldwise.training.tracking.own_database import Registered

if TYPE_CHECKING:
    from fieldwise.training.tracking.registry import Registry
    from fieldwise.training.tracking.sender import Sender

P = ParamSpec("P")
T = TypeVar("T")
_started: list[_Other] = []
_numbers = count()
"""Of senders: each begins with what it is told, and then knows what it has sent."""
_senders: dict[int, Sender] = {}
"""Of this process, by number."""


def _wherever(method: Callable[P, T]) -> Callable[P, T]:
    """Decorator of what `Store` does with MLflow: in the other process where that was started, else in this one.
    Arguments and answers are JSON."""

    @wraps(method)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        if (other := _other()) is None:
            return method(*arguments, **named)
        store, *rest = arguments
        assert isinstance(store, Store)
        remember_urls(store.uri or "")  # what the other process knows as secret comes back in its words
        found: T = other.ask(store, method.__name__, rest, named)
        return found

    return call


@dataclass(frozen=True)
class Store:
    """MLflow, as a config names it: its ``uri``, if any, and the ``workspace`` that has a store of its own.

    Each call raises ConfigError where MLflow refuses what it is told, TrackingError where it is silent.
    """

    uri: str | None
    workspace: str

    def connect(self) -> None:
        """Open the store; a later call may write to it. In the other process nobody waits for that: what is wrong with
        the store is raised by the next call."""
        if (other := _other()) is not None:
            other.post(self, "connect")
            return
        from fieldwise.training.tracking import runs

        runs.connect(self.uri, self.workspace)

    @staticmethod
    def ready() -> bool:
        """Whether a call is answered at once: false while the other process still begins. Raises what it could not."""
        return (other := _other()) is None or other.ready()

    @_wherever
    def is_made(self) -> bool:
        """See ``runs.is_made``."""
        from fieldwise.training.tracking.runs import is_made

        return is_made(self.uri, self.workspace)

    @_wherever
    def experiment_id(self, name: str) -> str:
        """See ``runs.experiment_id``."""
        from fieldwise.training.tracking.runs import experiment_id

        return experiment_id(name, self.workspace)

    def find(self, reference: str) -> Registered | None:
        """See ``registry.find``."""
        found = self.found(reference)
        return None if found is None else Registered(*found)

    @_wherever
    def found(self, reference: str) -> Any:
        """What ``find`` is made of."""
        from fieldwise.training.tracking.registry import find

        return find(reference)

    @_wherever
    def bundle_of(self, reference: str) -> str:
        """See ``fetch.bundle_of``; a copy stays as long as the process that made it."""
        from fieldwise.training.tracking.fetch import bundle_of

        return bundle_of(reference)

    def registry(self, name: str) -> Registry:
        """A registered model of it. In the other process where that was started: what its methods take and give is
        JSON then."""
        found: Any = self._registry(name) if _other() is None else _There(partial(self.of_registry, name))
        return found

    def _registry(self, name: str) -> Registry:
        from fieldwise.training.tracking.registry import Registry

        return Registry(name, self.workspace)

    @_wherever
    def of_registry(self, name: str, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """What a method of a registered model answers."""
        self.connect()
        return getattr(self._registry(name), method)(*arguments, **named)

    def sender(self, place: Path, workspace: str) -> Send:
        """What sends the reports that lie in a directory; see ``sender.Sender``."""
        return partial(self.send, next(_numbers), str(place), (place / JOURNAL).exists(), workspace)

    @_wherever
    def send(
        self, number: int, place: str, resumed: bool, workspace: str, report: Report, answers: Mapping[str, Any]
    ) -> Report:
        """What a sender answers to a report, the sender of this number."""
        from fieldwise.training.tracking.sender import Sender

        self.connect()  # the one before may have failed: MLflow's own store is none of ours
        if number not in _senders:
            _senders[number] = Sender(place, resumed=resumed, workspace=workspace)
        return _senders[number](report, answers)

    @_wherever
    def reopen(self, run: str, *, running: bool) -> bool:
        """See ``sender.reopen``."""
        from fieldwise.training.tracking.sender import reopen

        return reopen(run, running=running)

    @_wherever
    def end(self, run: str, status: str) -> None:
        """See ``sender.end``."""
        from fieldwise.training.tracking.sender import end

        end(run, status)


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
        return lambda *arguments, **named: self._call(method, arguments, named)


class _Other:
    """The other process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=die_with_parent, start_new_session=True,  # a terminal's Ctrl-C is ours to answer
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asks = self._process.stdin
        self._answers = cast(io.BufferedReader, self._process.stdout).detach()  # no answer hides in a buffer
        self._owed = 0

    def ask(self, store: Store, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """What a method of a store answers there. Raises the FieldwiseError that it raises, TrackingError for another
        error; but first what was raised by one that was posted before."""
        self.post(store, method, arguments, named)
        found = [self._answer() for _ in range(self._owed)]
        return [_answer_in(each) for each in found][-1]  # the first that raised does

    def post(
        self, store: Store, method: str, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> None:
        """Have a method called; who asks next waits for it."""
        with suppress(BrokenPipeError, ValueError):  # it has ended, or was given up below: there will be no answer
            self._asks.write(json.dumps([astuple(store), method, arguments, named or {}]).encode() + b"\n")
            self._asks.flush()
        self._owed += 1

    def ready(self) -> bool:
        """Whether all is answered that it was asked. Raises as ``ask`` does."""
        while self._owed and select.select([self._answers], [], [], 0)[0]:
            _answer_in(self._answer())
        return not self._owed

    def _answer(self) -> bytes:
        self._owed -= 1
        with suppress(ValueError):  # given up
            try:
                return self._answers.readline()
            except BaseException:  # a signal: what is answered later would be taken for the answer to another call
                self.close()
                raise
        return b""

    def close(self) -> None:
        """It ends by itself, once it has nothing to read; one at rest has removed what it fetched when this returns."""
        with suppress(BrokenPipeError):  # it has ended already
            self._asks.close()
        self._answers.close()
        if not self._owed:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)


def _answer_in(line: bytes) -> Any:
    """What a line answers, or raises."""
    if not line.endswith(b"\n"):
        found, fix = "one that has ended", "Run the same command again."
        raise TrackingError("MLflow's client", expected="a process that runs", found=found, fix=fix)
    answer = json.loads(line)
    if "error" in answer:
        raise retold(answer["error"])
    return answer["answer"]


def _serve() -> None:
    """Answer until the other end is closed. A call that has begun is finished: half a database would refuse every later
    command."""
    busy, asked_to_end = False, False

    def end(*_: object) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        if not busy:
            _leave()

    signal.signal(signal.SIGTERM, end)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever libraries print
    gc.set_threshold(50_000)  # as of commands
    from fieldwise.training.tracking import sender  # noqa: F401  the import that is waited for

    while not asked_to_end:
        busy = False
        line = sys.stdin.buffer.readline()
        busy = True
        if not line:
            break
        store, method, arguments, named = json.loads(line)
        try:
            found: dict[str, Any] = {"answer": getattr(Store(*store), method)(*arguments, **named)}
        except Exception as error:  # of whatever layer below, as `Journal` tells it
            found = {"error": told(known_error(error) or silence(error))}
        try:
            answers.write(json.dumps(found).encode() + b"\n")
        except BrokenPipeError:
            break  # the one that asked has ended
    _leave()


def _leave() -> NoReturn:
    """At once, but without the copies of models that were fetched."""
    if (fetch := sys.modules.get("fieldwise.training.tracking.fetch")) is not None:
        fetch.remove_copies()
    os._exit(0)


if __name__ == "__main__":
    _serve()
