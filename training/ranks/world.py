"""The ranks that train together: one process alone, or what torchrun (or Spark's TorchDistributor) started."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from fieldwise.features.errors import RankLostError
from fieldwise.features.interrupt import PATIENCE_SECONDS, SIGNALS, Interrupted, Interruptible, quieten
from fieldwise.features.process import cores, die_with_parent, end_children, machine

STORE = "FIELDWISE_RANKS"
"""Environment variable: ranks of one machine meet through files of this name, in a directory of their user alone.
Without it they meet as torchrun says, through a port."""
NODES = "FIELDWISE_NODES"
"""Environment variable: ranks of several machines that fieldwise started meet as this JSON says. ``store``: host and
port of a store that serves this one start; ``first``: this machine's first rank; ``size``: ranks of all machines."""

_RESTARTS = "TORCHELASTIC_RESTART_COUNT"
_ROLL_CALL_SECONDS = 10.0
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process among the ranks. With one rank no process group exists and every exchange is a no-op."""

    rank: int = 0
    size: int = 1
    ranks_on_host: int = 1
    """Those whose processes this one can see, itself included."""
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        """Rank 0 alone writes files, talks to trackers and shows progress."""
        return self.rank == 0

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Element-wise sum over the ranks."""
        if self.size == 1:
            return values
        tensor = torch.from_numpy(values.copy())
        dist.all_reduce(tensor)
        return tensor.numpy()

    def meet(self) -> None:
        """Wait until every rank is here."""
        self.sum(np.zeros(1))

    def share(self, value: Any) -> Any:
        """Rank 0's (small) value on every rank."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def copy_from_first(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Overwrite every rank's tensors by rank 0's."""
        if self.size > 1:
            for _, tensor in sorted(tensors.items()):
                dist.broadcast(tensor, src=0)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's (small) value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def naming_silent_ranks(self) -> Iterator[None]:
        """RankLostError, naming ranks that do not answer, for a collective that failed or took too long."""
        watch = None
        try:
            if self.size > 1:
                watch = dist.new_group(backend="gloo", timeout=timedelta(seconds=_ROLL_CALL_SECONDS))
            yield
        except RuntimeError as error:
            if self.size == 1 or not _of_others(error):
                raise
            raise RankLostError(
                f"rank {self.rank}",
                expected="every rank to take part in each step",
                found=self._roll_call(watch) or _first_line(error),
                fix="See that rank's output; if it is only slow, raise training.timeout_seconds. Training can resume.",
            ) from error

    @staticmethod
    def _roll_call(watch: Any) -> str | None:
        try:
            if watch is not None:
                dist.monitored_barrier(group=watch, wait_all_ranks=True)
        except RuntimeError as error:
            return _first_line(error)
        return None

    def use_threads(self, threads: int | None) -> int:
        """Set the compute threads of this rank; default: the host's cores shared among its ranks."""
        count = threads or max(1, cores() // self.ranks_on_host)
        torch.set_num_threads(count)
        return count


class StopSignal:
    """SIGTERM or Ctrl-C, while used as a context manager in the main thread: raises `Interrupted`, but within
    ``remembered`` only remembers, so that a step is never cut in two and a checkpoint can follow.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of the signal that came."""
        self._at_once = True
        self._since = 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            ours = SIGNALS if Interruptible.active is not None else (signal.SIGTERM,)  # a notebook keeps its Ctrl-C
            self._former = {number: signal.signal(number, self._receive) for number in ours}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        if self.received and not isinstance(error, Interrupted):  # such as a collective whose other side has left
            raise Interrupted(self.received) from error

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Whoever is at work asks for ``received`` between steps."""
        self._at_once, former = False, self._at_once
        try:
            yield
        finally:
            self._at_once = former

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """The reverse, within: nothing here would be cut in two."""
        if self.received:
            raise Interrupted(self.received)
        self._at_once, former = True, self._at_once
        try:
            yield
        finally:
            self._at_once = former

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if time.monotonic() > self._since + PATIENCE_SECONDS:  # asked again: the last checkpoint has to do
                end_children()
                os._exit(128 + number)
            return
        self.received, self._since = number, time.monotonic()
        quieten()
        if self._at_once:
            raise Interrupted(number)


@contextmanager
def join_world(timeout_seconds: float = 300.0) -> Iterator[World]:
    """The world this process was started in; leaves it at the end.

    A rank that waits longer than ``timeout_seconds`` for the others raises RankLostError; one whose torchrun dies gets
    SIGTERM. GPUs are used where there are any.
    """
    if "LOCAL_RANK" in os.environ:
        die_with_parent()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = _CPU
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    nodes = json.loads(os.environ.get(NODES, "{}"))
    size = nodes.get("size") or int(os.environ.get("WORLD_SIZE", "1"))
    joined_here = size > 1 and not dist.is_initialized()
    if joined_here:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        _meet(backend, timedelta(seconds=timeout_seconds), nodes)
    try:
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        world = World(rank, size, device=device)
        with world.naming_silent_ranks():
            yield replace(world, ranks_on_host=world.gather(machine()).count(machine()))
    finally:
        if joined_here:
            dist.destroy_process_group()


def _meet(backend: str, timeout: timedelta, nodes: Mapping[str, Any]) -> None:
    """Join the other ranks of this start, each of which has a store, or names in a store, of its own: ranks would else
    find the addresses of those that died."""
    rank, size, start = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.environ.get(_RESTARTS, "0")
    own: Any
    try:
        if nodes:
            rank, size = nodes["first"] + rank, nodes["size"]
            host, port = nodes["store"]
            own = dist.TCPStore(host, port, is_master=False, timeout=timeout)  # type: ignore[attr-defined]
        elif file := os.environ.get(STORE):
            own = dist.FileStore(f"{file}-{start}", size)  # type: ignore[attr-defined]
            own.set_timeout(timeout)
        else:
            own, rank, size = next(rendezvous("env://", timeout=timeout))
            if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # else it serves this start alone
                own = dist.PrefixStore(f"start-{start}", own)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)
    except RuntimeError as error:
        if not _of_others(error):
            raise
        raise RankLostError(
            f"rank {rank}", expected=f"all {size} ranks to meet", found=_first_line(error),
            fix="See the other ranks' output; hosts must reach one another on all ports. Training can resume.",
        ) from error  # fmt: skip


def _of_others(error: RuntimeError) -> bool:
    """Whether a collective, or the store through which ranks meet, failed for want of another rank."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
