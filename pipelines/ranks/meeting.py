"""Where machines that train together (nodes) meet: node 0 listens, and every node, itself included, has a line to it.

A line is a connection that carries a JSON object a line. Who dies loses it at once; who falls silent is given up.

    node -> node 0      hello   who it is, and what it would train     once, answered by welcome, busy or refused
                        ready                                          its ranks may start
                        lost    start, why                             its ranks of that start ended, but may go on
                        end     result, error or stopped               of the whole training
                        beat
    node 0 -> node      welcome number
                        start   start, store, first, size              all are ready: ranks meet in that store
                        again   start, why                             ranks of that start are given up
                        end     result, error or stopped, who
                        beat

docs/protocols.md works it through.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from pydantic import ValidationError

from fieldwise.features.errors import ConfigError, FieldwiseError, RankLostError, told
from fieldwise.features.schema import Strict
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.ranks.alike import difference
from fieldwise.pipelines.ranks.line import BEAT_SECONDS, Line

Message = dict[str, Any]
RESUME = "Training can resume: give every node its command again."


class Hello(Strict):
    """What a node says first."""

    number: int | None
    """None: any that is free."""
    nodes: int
    ranks: int
    host: str
    machine: str
    traits: dict[str, str]


class _Seat:
    """A node that is here."""

    def __init__(self, line: Line, hello: Hello, number: int) -> None:
        self.line, self.number, self.ready = line, number, False
        self.who = f"node {number} ({hello.host})"


class Meeting:
    """Node 0's side: who is here, when ranks start, and how it all ended.

    Args:
        listener: listens already.
        own: what node 0 itself will say; other nodes must have its traits.
        restarts: how often ranks may start again.
        patience: seconds a node may be missing, at the beginning or later.
    """

    def __init__(self, listener: socket.socket, own: Hello, *, restarts: int, patience: float) -> None:
        self._listener, self._own, self._restarts, self._patience = listener, own, restarts, patience
        self._changed = threading.Condition()
        self._seats: dict[int, _Seat] = {}
        self._names = {number: f"node {number}" for number in range(own.nodes)}
        self._away = dict.fromkeys(range(own.nodes), time.monotonic())
        self._start, self._running, self._lost = 0, False, 0
        self._store: Any = None
        self._ended: Message | None = None
        self._closed = False
        for name, work in (("meeting", self._accept), ("meeting-clock", self._watch)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def close(self, seconds: float = 10.0) -> None:
        """Stop listening once every node has heard of the end and left, or after a while."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._seats and time.monotonic() < deadline:
                self._changed.wait(0.1)
            self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `_accept`, which would hold the port
        self._listener.close()
        self._store = None

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(Line(connection),), name="meeting-line", daemon=True).start()

    def _serve(self, line: Line) -> None:
        """One node's line, until it ends. Strangers get no answer."""
        seat = None
        with closing(line), suppress(KeyError, TypeError, ValueError):
            for message in line.messages(first_within=BEAT_SECONDS):
                if seat is None:
                    seat = self._welcome(line, message)
                    if seat is None:
                        break
                else:
                    self._hear(seat, message)
        if seat is not None:
            self._gone(seat)

    def _welcome(self, line: Line, message: Message) -> _Seat | None:
        if message.pop("say") != "hello":
            return None
        try:
            hello = Hello.model_validate(message)
        except ValidationError:  # another version
            line.send("refused", error=told(_other_version()))
            return None
        with self._changed:
            if self._ended is not None:
                line.send("end", **self._ended)
                return None
            refusal = self._refusal(hello)
            if refusal is not None:
                say(f"node of {hello.host} is refused: {refusal}")
                line.send("refused", error=told(refusal))
                return None
            free = [number for number in sorted(self._away) if number > 0]
            number = hello.number if hello.number is not None else next(iter(free), 1)
            if number in self._seats:
                line.send("busy", number=number, who=self._seats[number].who)
                return None
            seat = self._seats[number] = _Seat(line, hello, number)
            self._names[number] = seat.who
            del self._away[number]
            line.send("welcome", number=number)
            if number:
                say(f"{seat.who} is here{self._missing()}")
                if hello.machine == self._own.machine:
                    warn(f"{seat.who} is on this machine, too: more --ranks do the same without nodes")
            return seat

    def _refusal(self, hello: Hello) -> FieldwiseError | None:
        """Why a node cannot take part; it alone is told, and ends."""
        own = self._own
        for key, theirs, ours in (("--nnodes", hello.nodes, own.nodes), ("--ranks", hello.ranks, own.ranks)):
            if theirs != ours:
                fix = "Give every node the same."
                return ConfigError(key, expected=f"{ours} as node 0 ({own.host}) has it", found=str(theirs), fix=fix)
        if hello.number is not None and not 0 <= hello.number < own.nodes:
            expected = f"a number from 0 to {own.nodes - 1}"
            return ConfigError("--node-rank", expected=expected, found=str(hello.number), fix="Count from 0.")
        return difference(hello.traits, f"the node on {hello.host}", own.traits, f"node 0 ({own.host})")

    def _missing(self) -> str:
        return f", waiting for {', '.join(self._names[number] for number in sorted(self._away))}" if self._away else ""

    def _hear(self, seat: _Seat, message: Message) -> None:
        with self._changed:
            if message["say"] == "ready":
                seat.ready = True
                self._start_if_all_are_ready()
            elif message["say"] == "lost" and message["start"] == self._start:
                self._break(f"{seat.who}: {message['why']}")
            elif message["say"] == "end":
                kind = next(key for key in ("result", "error", "stopped") if key in message)
                self._end(**{kind: message[kind]}, who=seat.who)

    def _gone(self, seat: _Seat) -> None:
        with self._changed:
            del self._seats[seat.number]
            self._away[seat.number] = time.monotonic()
            self._changed.notify_all()
            if self._ended is None:
                say(f"{seat.who} is gone; it may come back within {self._patience:.0f} s")
                self._break(f"{seat.who} is gone")

    def _start_if_all_are_ready(self) -> None:
        if self._ended or self._running or self._away or not all(seat.ready for seat in self._seats.values()):
            return
        self._start, self._running = self._start + 1, True
        address = self._listener.getsockname()[0]
        listener = listen(address, 0)
        port = listener.getsockname()[1]
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach(),
            timeout=timedelta(seconds=self._patience),
        )  # fmt: skip
        for seat in self._seats.values():
            seat.ready = False
            first, size = seat.number * self._own.ranks, self._own.nodes * self._own.ranks
            seat.line.send("start", start=self._start, store=[address, port], first=first, size=size)

    def _break(self, why: str) -> None:
        """Ranks of this start cannot go on together."""
        if not self._running or self._ended:
            return
        self._running, self._lost = False, self._lost + 1
        if self._lost > self._restarts:
            expected = f"ranks to be lost at most {self._restarts} times (training.restarts)"
            self._fail(RankLostError("nodes", expected=expected, found=why, fix=RESUME))
            return
        self._tell("again", start=self._start, why=why)

    def _fail(self, error: FieldwiseError) -> None:
        self._end(error=told(error), who=None)

    def _end(self, **how: Any) -> None:
        if self._ended is None:
            self._ended, self._running = how, False
            self._tell("end", **how)

    def _tell(self, word: str, **more: Any) -> None:
        for seat in self._seats.values():
            seat.line.send(word, **more)

    def _watch(self) -> None:
        """Beats, and an end of patience with who is missing."""
        while self._ended is None and not self._closed:
            time.sleep(BEAT_SECONDS / 3)
            with self._changed:
                self._tell("beat")
                if any(time.monotonic() - since > self._patience for since in self._away.values()):
                    self._fail(missing([self._names[number] for number in sorted(self._away)], self._patience))


def missing(who: list[str], patience: float) -> RankLostError:
    return RankLostError(
        ", ".join(who), expected=f"to be here within {patience:.0f} s (training.timeout_seconds)",
        found="no sign of life", fix=RESUME,
    )  # fmt: skip


def _other_version() -> ConfigError:
    fix = "Install the same on every node."
    return ConfigError("fieldwise", expected="one version on all nodes", found="another one on node 0", fix=fix)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of this machine, and at no other. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
