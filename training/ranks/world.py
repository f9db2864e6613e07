"""The ranks that train together: one process alone, or what torchrun (or Spark's TorchDistributor) started."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from fieldwise.features.process import die_with_parent, end_children

STORE = "FIELDWISE_RANKS"
"""Environment variable: ranks of one machine meet through files of this name, in a directory of their user alone.
Without it they meet as torchrun says, through a port."""

_ROLL_CALL_SECONDS = 10.0
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process among the ranks. With one rank no process group exists and every exchange is a no-op."""

    rank: int = 0
    size: int = 1
    ranks_on_host: int = 1
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
        if self.size == 1:
            yield
            return
        watch = dist.new_group(backend="gloo", timeout=timedelta(seconds=_ROLL_CALL_SECONDS))
        try:
            yield
        except RuntimeError as error:
            if "gloo" not in str(error) and not isinstance(error, dist.DistBackendError):
                raise
            raise RankLostError(
                f"rank {self.rank}",
                expected="every rank to take part in each step",
                found=self._roll_call(watch) or str(error).splitlines()[0],
                fix="See that rank's output; if it is only slow, raise training.timeout_seconds. Training can resume.",
            ) from error

    @staticmethod
    def _roll_call(watch: Any) -> str | None:
        try:
            dist.monitored_barrier(group=watch, wait_all_ranks=True)
        except RuntimeError as error:
            return str(error).splitlines()[0]
        return None

    def use_threads(self, threads: int | None) -> int:
        """Set the compute threads of this rank; default: the host's cores shared among its ranks."""
        count = threads or max(1, len(os.sched_getaffinity(0)) // self.ranks_on_host)
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

    A rank that waits longer than ``timeout_seconds`` for the others raises; one whose torchrun dies gets SIGTERM. GPUs
    are used where there are any.
    """
    if "LOCAL_RANK" in os.environ:
        die_with_parent()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = _CPU
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    joined_here = size > 1 and not dist.is_initialized()
    if joined_here:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        _meet(backend, timedelta(seconds=timeout_seconds))
    try:
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        yield World(rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", size)), device)
    finally:
        if joined_here:
            dist.destroy_process_group()


def _meet(backend: str, timeout: timedelta) -> None:
    """Join the other ranks of this start. A store serves all restarts of a training: without names of their own, ranks
    would find the addresses of those that died."""
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if file := os.environ.get(STORE):
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        own: Any = dist.FileStore(f"{file}-{start}", size)  # type: ignore[attr-defined]
        own.set_timeout(timeout)
    else:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        own = dist.PrefixStore(f"start-{start}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)
