"""One machine's side of a meeting: in line with node 0, it starts ranks when all are ready, and ends them when others
are lost."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from fieldwise.features.errors import (
    ArtifactError,
    ConfigError,
    FieldwiseError,
    IntegrityError,
    RankLostError,
    known_error,
    retold,
    told,
)
from fieldwise.features.interrupt import Interrupted
from fieldwise.features.process import end_at_once
from fieldwise.features.terminal import say
from fieldwise.pipelines.ranks.launch import Ended
from fieldwise.pipelines.ranks.line import BEAT_SECONDS, SILENT_SECONDS, Line
from fieldwise.pipelines.ranks.meeting import RESUME, Hello, Message, missing

CONNECT_SECONDS = 5.0
UNREACHED_SECONDS = 30.0
"""A host that gives no answer at all, not even that nobody listens, is taken for a wrong one."""
_GRACE_SECONDS = 20.0
"""For ranks that write a last checkpoint."""
_SHORT_SECONDS = 5.0
"""For ranks that have lost others and notice it by themselves."""


@dataclass(frozen=True)
class Nodes:
    """How many machines train together, and where they meet."""

    count: int
    host: str
    port: int
    number: int | None = None
    """Of this one. None: 0 if ``host`` is this machine, else any that is free."""

    @staticmethod
    def parse(count: int | None, place: str | None, number: int | None) -> Nodes | None:
        """As the command line has them; None where it has none. Raises ConfigError."""
        if count is None and place is None and number is None:
            return None
        if count is None or place is None:
            given, lacks = ("--rdzv", "--nnodes") if count is None else ("--nnodes", "--rdzv")
            fix = "Give both, the same on every node, or neither for this machine alone."
            raise ConfigError("train", expected=f"{lacks} beside {given}", found="none", fix=fix)
        if count < 2:
            fix = "Leave --nnodes and --rdzv out for this machine alone."
            raise ConfigError("--nnodes", expected="at least 2", found=str(count), fix=fix)
        if number is not None and number >= count:
            expected = f"a number from 0 to {count - 1}"
            raise ConfigError("--node-rank", expected=expected, found=str(number), fix="Nodes are counted from 0.")
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})", place)
        if found is None or not 0 < int(found[3]) < 65536:
            raise ConfigError(
                "--rdzv", expected="HOST:PORT of node 0, such as 10.0.0.7:29500 or [fd00::7]:29500", found=place,
                fix="The port is any free one on node 0.",
            )  # fmt: skip
        return Nodes(count, found[1] or found[2], int(found[3]), number)

    @property
    def place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Start:
    """One start of all ranks."""

    number: int
    store: list[Any]
    first: int
    size: int


class Node:
    """This machine among the nodes; a context manager, at whose end it leaves.

    Args:
        hello: what it says to node 0.
        patience: seconds to wait for node 0.
    """

    def __init__(self, nodes: Nodes, hello: Hello, patience: float) -> None:
        self._nodes, self._hello, self._patience = nodes, hello, patience
        self._who = "node 0" if hello.number is None else f"node {hello.number}"
        self._changed = threading.Condition()
        self._line: Line | None = None
        self._start: Start | None = None
        self._given_up = 0
        """Ranks of starts up to this one are ended."""
        self._outcome: Message | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._signal: int | None = None
        self._met = False
        self.address = ""
        """Of this machine, towards node 0."""

    def __enter__(self) -> Node:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._outcome is None:
            if isinstance(error, Interrupted):
                self.stopped(error.number)
            elif isinstance(error, Exception):
                self._say("end", error=told(known_error(error) or _defect(error)))
        if (line := self._line) is not None:
            line.close()

    def next_start(self) -> Start | None:
        """Say that ranks may start here, and wait until all nodes do; None once the training has ended."""
        while self._outcome is None:
            self._connect(time.monotonic())
            with self._changed:
                self._start = None
            self._say("ready")
            start = self._awaited()
            if start is not None:
                say(f"{self._who} of {self._nodes.count}: start {start.number} of {start.size} ranks")
                return start
        return None

    def _awaited(self) -> Start | None:
        """The next start; None where node 0 is lost, or the training has ended, before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._start or self._line is None or self._outcome is not None)
            return self._start if self._line is not None and self._outcome is None else None

    def conclude(self, start: Start, ended: Ended) -> None:
        """Tell node 0 how the ranks of this node have ended; where they are done, wait for what becomes of the others.

        Raises the error that one of them met, unless another start may mend it.
        """
        final = next((error for error in ended.failures if not isinstance(error, RankLostError)), None)
        if final is not None:
            self._say("end", error=told(final))
            raise final
        if ended.status != 0:
            lost = [str(error) for error in ended.failures]
            self._say("lost", start=start.number, why=(lost or [f"a rank ended with exit status {ended.status}"])[0])
            return
        if ended.result is not None:
            self._say("end", result=ended.result)
        with self._changed:
            self._changed.wait_for(
                lambda: self._outcome is not None or self._line is None or self._given_up >= start.number
            )

    def result(self) -> dict[str, Any]:
        """Of the training, once it has ended. Raises what ended it."""
        outcome = self._outcome or {}
        if "result" in outcome:
            return dict(outcome["result"])
        who = outcome["who"]
        if "error" in outcome:
            mine = who is None or who.startswith(f"{self._who} ")
            raise retold(outcome["error"], None if mine else who)
        raise RankLostError(who, expected="to train on", found=f"it was stopped by {outcome['stopped']}", fix=RESUME)

    def stopped(self, number: int) -> None:
        """A signal came: the others are told before our ranks stop."""
        self._signal = number
        self._say("end", stopped=signal.Signals(number).name)

    @contextmanager
    def while_running(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Ranks end with this start, whoever gives it up."""
        with self._changed:
            self._process, start = process, self._start
            if start is None or self._line is None or self._given_up >= start.number or self._outcome is not None:
                end_at_once(process.pid)
        try:
            yield
        finally:
            with self._changed:
                self._process = None

    def _connect(self, since: float) -> None:
        """Be in line with node 0. Raises where it is not there, or does not take this node."""
        last = ""
        while self._line is None and self._outcome is None:
            waited = time.monotonic() - since
            try:
                connection = socket.create_connection((self._nodes.host, self._nodes.port), CONNECT_SECONDS)
            except OSError as error:
                if isinstance(error, socket.gaierror) and not self._met:
                    raise unknown(self._nodes, error) from None
                words = error.strerror or str(error)
                silent = not isinstance(error, ConnectionRefusedError) and not self._met
                if waited > (min(UNREACHED_SECONDS, self._patience) if silent else self._patience):
                    raise self._nobody(words, waited) from None
                if words != last:
                    left = "" if silent else f", waiting {self._patience - waited:.0f} s for it"
                    say(f"node 0 is not at {self._nodes.place} ({words}){left}")
                    last = words
                time.sleep(1.0)
                continue
            reason = self._greet(Line(connection))
            if reason is None:
                return
            if time.monotonic() - since > (self._patience if self._met else SILENT_SECONDS + BEAT_SECONDS):
                raise ConfigError(
                    f"--rdzv {self._nodes.place}", expected="node 0 to take this node", found=reason,
                    fix="Give every node a number of its own, or leave --node-rank out, each training its own port.",
                )  # fmt: skip
            if reason != last:
                say(f"{reason}: waiting")
                last = reason
            time.sleep(1.0)

    def _nobody(self, words: str, waited: float) -> FieldwiseError:
        if self._met:
            return missing(["node 0"], self._patience)
        return RankLostError(
            f"--rdzv {self._nodes.place}", expected=f"node 0 to answer within {waited:.0f} s", found=words,
            fix="Start it with --node-rank 0 on that host, or mend the address or the firewall; if its training has "
            "ended, nothing is left to do.",
        )  # fmt: skip

    def _greet(self, line: Line) -> str | None:
        """Say who this is; None when that is taken, else why not yet. Raises where it is refused."""
        line.send("hello", **self._hello.model_dump())
        messages = line.messages(CONNECT_SECONDS + BEAT_SECONDS)
        try:
            answer: Message = next(messages, {"say": None})
        except ArtifactError:
            line.close()
            raise ConfigError(
                f"--rdzv {self._nodes.place}", expected="node 0 of a training", found="another program there",
                fix="Choose a free port, the same on every node.",
            ) from None  # fmt: skip
        word = answer.get("say")
        if word == "welcome":
            self._met = True
            self._who = f"node {int(answer['number'])}"
            self._hello = self._hello.model_copy(update={"number": int(answer["number"])})
            with self._changed:
                self._line, self._given_up, self.address = line, 0, line.address
            threading.Thread(target=self._hear, args=(line, messages), name="node", daemon=True).start()
            threading.Thread(target=self._beat, args=(line,), name="node-beat", daemon=True).start()
            return None
        line.close()
        if word == "end":
            self._outcome = answer
            return None
        if word == "refused":
            raise retold(answer["error"])
        return f"{answer['who']} is here already" if word == "busy" else "it does not answer"

    def _hear(self, line: Line, messages: Iterator[Message]) -> None:
        with suppress(ArtifactError, KeyError, TypeError):
            for message in messages:
                with self._changed:
                    self._take(message)
                    self._changed.notify_all()
        with self._changed:
            self._line = None
            if self._outcome is None:
                say(f"{self._who} has lost node 0")
                self._end_ranks()
            self._changed.notify_all()
        line.close()

    def _take(self, message: Message) -> None:
        if message["say"] == "start":
            self._start = Start(*(message[key] for key in ("start", "store", "first", "size")))
        elif message["say"] == "again":
            self._given_up = message["start"]
            say(f"start {self._given_up} is given up: {message['why']}; all start again from the last checkpoint")
            self._end_ranks()
        elif message["say"] == "end":
            self._outcome = message
            self._end_ranks(_GRACE_SECONDS if "stopped" in message else _SHORT_SECONDS)

    def _end_ranks(self, grace_seconds: float = 0.0) -> None:
        process = self._process
        if process is None or process.poll() is not None or self._signal is not None:
            return
        if not grace_seconds:
            end_at_once(process.pid)
            return
        process.terminate()

        def insist() -> None:
            if process.poll() is None:
                end_at_once(process.pid)

        later = threading.Timer(grace_seconds, insist)
        later.daemon = True
        later.start()

    def _beat(self, line: Line) -> None:
        while self._line is line:
            line.send("beat")
            time.sleep(BEAT_SECONDS / 3)

    def _say(self, word: str, **more: Any) -> None:
        if (line := self._line) is not None:
            line.send(word, **more)


def unknown(nodes: Nodes, error: OSError) -> ConfigError:
    fix = "Mend the name, or give the address of node 0."
    return ConfigError(f"--rdzv {nodes.place}", expected="a host that is known", found=str(error.strerror), fix=fix)


def _defect(error: Exception) -> FieldwiseError:
    return IntegrityError("a defect", expected="none", found=repr(error), fix="See that node's output.")
