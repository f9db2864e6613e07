"""Who of some processes listens where."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import psutil


def beyond_loopback(pids: Iterable[int]) -> list[str]:
    """``name pid address:port`` of every listening socket that other machines can reach."""
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            for socket in process.net_connections("inet"):
                address = ipaddress.ip_address(socket.laddr.ip)
                mapped = getattr(address, "ipv4_mapped", None) or address
                if socket.status == psutil.CONN_LISTEN and not mapped.is_loopback:
                    found.append(f"{process.name()} {pid} {address}:{socket.laddr.port}")
        except psutil.NoSuchProcess:
            continue
    return found
