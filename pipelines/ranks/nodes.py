"""Train on several machines (nodes): ``fieldwise train --nnodes 2 --rdzv HOST:PORT`` on each of them.

Each node starts its own ranks when all nodes are here (see `meeting`). Where a node or a rank is lost, all ranks are
ended, and once the node is back they start again from the last checkpoint. Node 0 has rank 0, which alone writes
checkpoints, bundle and reports.
"""

from __future__ import annotations

import json
import platform
import socket
from contextlib import ExitStack
from typing import Any

from fieldwise.features.errors import ConfigError
from fieldwise.features.process import machine
from fieldwise.features.terminal import warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.alike import traits_of
from fieldwise.pipelines.ranks.launch import Days, rank_arguments, run_ranks
from fieldwise.pipelines.ranks.meeting import Hello, Meeting, listen
from fieldwise.pipelines.ranks.network import interface_of
from fieldwise.pipelines.ranks.node import Node, Nodes, unknown
from fieldwise.pipelines.registry import open_model
from fieldwise.training.data.splits import TrainData
from fieldwise.training.ranks.world import NODES


def train_nodes(
    config: Config,
    nodes: Nodes,
    ranks: int,
    days: Days,
    data: TrainData,
    *,
    init: str | None = None,
    register: bool = True,
    force: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """``train_model`` in ``ranks`` processes of every node; the same result on each of them.

    Args:
        data: what ``days`` are, opened on this node.

    Raises, on every node:
        RankLostError: a node has not come within ``training.timeout_seconds``, or has left, or ranks were lost more
            often than ``training.restarts``. Training can resume.
        ConfigError: this node does not have what node 0 has, or does not find it. The others go on waiting.
        FieldwiseError: the error that any rank met, of its own class.
    """
    origin = open_model(init, config) if init else None
    traits = dict(traits_of(config, data, origin.bundle if origin else None))
    arguments, told_ranks = rank_arguments(config, days, origin, register=register, force=force, name=name)
    patience = config.training.timeout_seconds
    listener, number = _seat(nodes)
    hello = Hello(
        number=number, nodes=nodes.count, ranks=ranks, host=platform.node(), machine=machine(), traits=traits
    )  # fmt: skip
    with ExitStack() as stack:
        if listener is not None:
            meeting = Meeting(listener, hello, restarts=config.training.restarts, patience=patience)
            stack.callback(meeting.close)
        node = stack.enter_context(Node(nodes, hello, patience))
        while (start := node.next_start()) is not None:
            facts = {"store": start.store, "first": start.first, "size": start.size}
            own = {NODES: json.dumps(facts), **interface_of(node.address), **told_ranks}
            ended = run_ranks(arguments, ranks, own, meanwhile=node.while_running, on_signal=node.stopped)
            node.conclude(start, ended)
        return node.result()


def _seat(nodes: Nodes) -> tuple[socket.socket | None, int | None]:
    """Listen, if this is node 0; and the number to ask for."""
    if nodes.number:
        return None, nodes.number
    try:
        listener = listen(nodes.host, nodes.port)
    except socket.gaierror as error:
        raise unknown(nodes, error) from None
    except OSError as error:
        if nodes.number is None:
            return None, None
        raise ConfigError(
            f"--rdzv {nodes.place}", expected="an address of this machine, node 0, and a free port",
            found=str(error.strerror),
            fix="Is another training there already? Name the host that runs node 0 (--node-rank 0), and a port of each "
            "training's own.",
        ) from None  # fmt: skip
    if listener.getsockname()[0].startswith("127.") or listener.getsockname()[0] == "::1":
        warn(f"{nodes.place} is this machine's loopback: nodes elsewhere cannot reach it")
    return listener, 0
