"""Run a function in real ranks: spawned processes, gloo, a file as rendezvous (never a port)."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fieldwise.training.ranks.world import World, join_world


def forkserver() -> Any:
    """Processes start from one that has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fieldwise.training.loop.trainer"])
    return context


def run_ranks(size: int, folder: Path, function: Callable[..., Any], *args: Any, seconds: float = 200) -> list[Any]:
    """``function(world, *args)`` on every rank; its values (or errors, as values) in the order of ranks.

    ``function`` must be importable: defined at the top of a module. ``seconds`` is how long a rank waits for others.
    """
    context = forkserver()
    results = context.Queue()
    meeting = str(folder / f"rendezvous-{os.urandom(4).hex()}")
    ranks = [
        context.Process(target=_rank, args=(rank, size, meeting, results, seconds, function, args))
        for rank in range(size)
    ]
    for process in ranks:
        process.start()
    try:
        found = dict(results.get(timeout=250) for _ in ranks)
    finally:
        for process in ranks:
            process.join(timeout=10)
            process.kill()
    return [found[rank] for rank in range(size)]


def _rank(
    rank: int, size: int, meeting: str, results: Any, seconds: float, function: Callable[..., Any], args: Any
) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=timedelta(seconds=seconds)
    )
    try:
        with join_world() as world:
            results.put((rank, function(world, *args)))
    except Exception as error:
        error.add_note(traceback.format_exc())
        results.put((rank, error))
    finally:
        dist.destroy_process_group()


def only_world() -> World:
    """A world of this process alone."""
    return World()
