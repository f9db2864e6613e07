"""Nodes that meet on the loopback: real lines, no ranks yet. Who may come, when ranks start, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch.distributed as dist

from fieldwise.features.errors import ConfigError, DivergedError, FieldwiseError, RankLostError
from fieldwise.features.interrupt import Interrupted
from fieldwise.pipelines.ranks import node as node_side
from fieldwise.pipelines.ranks.launch import Ended
from fieldwise.pipelines.ranks.meeting import Hello, Meeting, listen
from fieldwise.pipelines.ranks.node import Node, Nodes, Start
from fieldwise.pipelines.ranks.nodes import _seat
from tests.clusters import wait_for

TRAITS = {"training.batch_size": "64", "feature spec": "abc"}
LOST = Ended(1, None, [RankLostError("rank 3", expected="every rank", found="silence", fix="Wait.")])


def hello(number: int | None, nodes: int = 2, ranks: int = 2, **traits: str) -> Hello:
    return Hello(
        number=number, nodes=nodes, ranks=ranks, host=f"host-{number}", machine=f"boot-{number}", traits=TRAITS | traits
    )


class Table:
    """A meeting at some port of the loopback."""

    def __init__(self, size: int, restarts: int, patience: float) -> None:
        listener = listen("127.0.0.1", 0)
        self.place = Nodes(size, "127.0.0.1", listener.getsockname()[1])
        self.patience = patience
        self.meeting = Meeting(listener, hello(0, size), restarts=restarts, patience=patience)
        self.threads = ThreadPoolExecutor(8)

    def node(self, number: int | None, patience: float | None = None, **more: Any) -> Node:
        nodes = more.pop("nodes", self.place.count)
        return Node(self.place, hello(number, nodes, **more), patience or self.patience)

    def starts(self, *nodes: Node) -> list[Start]:
        """What all of them hear when they are ready."""
        waiting: list[Future[Start | None]] = [self.threads.submit(node.next_start) for node in nodes]
        found = [each.result(20) for each in waiting]
        assert None not in found
        return [start for start in found if start is not None]


@contextmanager
def table(size: int = 2, restarts: int = 3, patience: float = 20.0) -> Iterator[Table]:
    made = Table(size, restarts, patience)
    try:
        yield made
    finally:
        made.meeting.close(0)
        made.threads.shutdown(wait=False)


def raised(kind: type[FieldwiseError], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as found:
        call()
    return str(found.value)


def test_all_start_together_in_one_store_and_share_the_result() -> None:
    with table(3) as here, here.node(0) as first, here.node(None) as some, here.node(None) as other:
        starts = here.starts(first, some, other)
        assert sorted(start.first for start in starts) == [0, 2, 4]
        assert {(start.number, tuple(start.store), start.size) for start in starts} == {(1, tuple(starts[0].store), 6)}
        host, port = starts[0].store
        store = dist.TCPStore(host, port, is_master=False)
        store.set("key", "value")
        done = Ended(0, None, [])
        waiting = [here.threads.submit(node.conclude, starts[0], done) for node in (some, other)]
        first.conclude(starts[0], Ended(0, {"bundle": "b"}, []))
        for each in waiting:
            each.result(20)
        assert [node.result() for node in (first, some, other)] == [{"bundle": "b"}] * 3


def test_a_node_that_dies_takes_the_start_with_it_and_may_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    with table() as here, here.node(0) as first:
        node = here.node(1)
        before = here.starts(first, node)[0]
        ranks = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        with first.while_running(ranks):
            node.__exit__(None, None, None)  # as the kernel does for one that is killed
            assert ranks.wait(20) == -signal.SIGKILL
        first.conclude(before, Ended(-signal.SIGKILL, None, []))
        with here.node(1) as back:
            again = here.starts(first, back)
            assert [(start.number, start.first) for start in again] == [(2, 0), (2, 2)]
            assert again[0].store != before.store  # nobody finds addresses of those that died
    assert "start 1 is given up: node 1 (host-1) is gone" in capsys.readouterr().err


def test_ranks_lost_here_start_again_everywhere_and_not_for_ever() -> None:
    with table(restarts=1) as here, here.node(0) as first, here.node(1) as node:
        for start in (1, 2):
            starts = here.starts(first, node)
            assert starts[0].number == start
            node.conclude(starts[1], LOST)
            first.conclude(starts[0], LOST)
        assert [here.threads.submit(each.next_start).result(20) for each in (first, node)] == [None, None]
        for each in (first, node):
            assert raised(RankLostError, each.result).startswith(
                "nodes: expected ranks to be lost at most 1 times (training.restarts), found node"
            )


def test_a_node_that_does_not_come_is_named_in_time() -> None:
    with table(3, patience=2.0) as here, here.node(0) as first, here.node(2) as node:
        since = time.monotonic()
        waiting = [here.threads.submit(each.next_start) for each in (first, node)]
        assert [each.result(20) for each in waiting] == [None, None]
        assert time.monotonic() - since < 15
        for each in (first, node):
            assert raised(RankLostError, each.result) == (
                "node 1: expected to be here within 2 s (training.timeout_seconds), found no sign of life. "
                "Training can resume: give every node its command again."
            )


def test_what_differs_is_refused_by_name_and_the_others_wait_on() -> None:
    with table() as here, here.node(0) as first:
        waiting = here.threads.submit(first.next_start)
        found = raised(ConfigError, here.node(1, **{"training.batch_size": "128"}).next_start)
        assert found.startswith(
            "training.batch_size of the node on host-1: expected 64 as node 0 (host-0) has it, found 128."
        )
        assert "--nnodes: expected 2 as node 0" in raised(ConfigError, here.node(1, nodes=3).next_start)
        assert "--ranks: expected 2 as node 0" in raised(ConfigError, here.node(1, ranks=4).next_start)
        assert "expected a number from 0 to 1, found 5" in raised(ConfigError, here.node(5).next_start)
        assert not waiting.done()
        with here.node(1) as node:
            assert here.starts(node)[0].first == 2
            assert waiting.result(20)


def test_a_number_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_side, "SILENT_SECONDS", -4.0)
    with table(3) as here, here.node(0) as first, here.node(1) as node:
        waiting = [here.threads.submit(each.next_start) for each in (first, node)]
        wait_for("node 1 to be taken", lambda: node._met)
        found = raised(ConfigError, here.node(1).next_start)
        assert "expected node 0 to take this node, found node 1 (host-1) is here already. Give every node" in found
        assert not any(each.done() for each in waiting)
        here.node(2).next_start()


def test_who_is_stopped_and_who_errs_ends_all_with_a_line() -> None:
    with table() as here, here.node(0) as first:
        waiting = here.threads.submit(first.next_start)
        node = here.node(1)
        starts = here.starts(node)
        waiting.result(20)
        ranks = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        with first.while_running(ranks):
            interrupted = Interrupted(signal.SIGINT)
            node.__exit__(Interrupted, interrupted, None)
            assert ranks.wait(20) == -signal.SIGTERM  # they may write a checkpoint
        assert raised(RankLostError, first.result).startswith(
            "node 1 (host-1): expected to train on, found it was stopped by SIGINT. Training can resume"
        )
    diverged = DivergedError("epoch 1", expected="a finite loss", found="nan", fix="Lower it.")
    with table() as here, here.node(0) as first, here.node(1) as node:
        starts = here.starts(first, node)
        assert "epoch 1" in raised(DivergedError, lambda: node.conclude(starts[1], Ended(1, None, [diverged])))
        first.conclude(starts[0], LOST)
        assert first.next_start() is None
        assert raised(DivergedError, first.result).startswith("node 1 (host-1): epoch 1: expected a finite loss")


def test_nobody_waits_for_a_wrong_host_or_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Node(Nodes(2, "no-such-host.invalid", 29500), hello(1), 60)
    assert "--rdzv no-such-host.invalid:29500: expected a host that is known" in raised(ConfigError, unknown.next_start)
    with listen("127.0.0.1", 0) as nobody:
        port = nobody.getsockname()[1]
    found = raised(RankLostError, Node(Nodes(2, "127.0.0.1", port), hello(1), 1.0).next_start)
    assert f"--rdzv 127.0.0.1:{port}: expected node 0 to answer within" in found
    assert "found Connection refused" in found
    with listen("127.0.0.1", 0) as other:
        place = Nodes(2, "127.0.0.1", other.getsockname()[1])

        def answer() -> None:
            connection, _ = other.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        threading.Thread(target=answer).start()
        assert "expected node 0 of a training, found another program there" in raised(
            ConfigError, Node(place, hello(1), 60).next_start
        )


def test_strangers_change_nothing() -> None:
    with table() as here, here.node(0) as first:
        waiting = here.threads.submit(first.next_start)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"[" * 100_000 + b"\n", b'{"say": "end", "result": {}}\n', b"\0" * 99):
            with socket.create_connection(("127.0.0.1", here.place.port)) as stranger:
                stranger.sendall(words)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(99) == b""
        assert not waiting.done()
        here.node(1).next_start()
        assert waiting.result(20)


def test_node_0_listens_at_its_own_address_alone() -> None:
    with table() as here:
        taken = here.place
        assert "expected an address of this machine, node 0, and a free port, found Address already in use" in raised(
            ConfigError, lambda: _seat(Nodes(2, "127.0.0.1", taken.port, 0))
        )
        assert _seat(taken) == (None, None)  # without a number it is some other node
    assert "found Cannot assign requested address" in raised(
        ConfigError, lambda: _seat(Nodes(2, "192.0.2.1", 29500, 0))
    )
    assert _seat(Nodes(2, "192.0.2.1", 29500, 1)) == (None, 1)
    with listen("::1", 0) as six:
        assert six.getsockname()[0] == "::1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((2, None, None), r"train: expected --rdzv beside --nnodes"),
        ((None, "a:1", 0), r"train: expected --nnodes beside --rdzv"),
        ((1, "a:1", None), r"--nnodes: expected at least 2, found 1"),
        ((2, "a:1", 2), r"--node-rank: expected a number from 0 to 1, found 2"),
        ((2, "a", None), r"--rdzv: expected HOST:PORT of node 0, such as .*, found a\."),
        ((2, "::1:29500", None), r"--rdzv: .*\[fd00::7\]:29500, found ::1:29500"),
        ((2, "a:0", None), r"--rdzv: .*found a:0"),
        ((2, "a:70000", None), r"--rdzv: .*found a:70000"),
    ],
)
def test_mistakes_on_the_command_line(given: tuple[int | None, str | None, int | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Nodes.parse(*given)


def test_places_are_read() -> None:
    assert Nodes.parse(None, None, None) is None
    assert Nodes.parse(2, "head.example:29500", 1) == Nodes(2, "head.example", 29500, 1)
    found = Nodes.parse(2, "[fd00::7]:29500", None)
    assert found == Nodes(2, "fd00::7", 29500)
    assert found.place == "[fd00::7]:29500"
