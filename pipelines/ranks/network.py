"""Which of a machine's networks leads to the others."""

from __future__ import annotations

import os
import socket

import psutil


def interface_of(address: str) -> dict[str, str]:
    """For the environment of ranks: the interface of this machine's address. gloo would take what the machine's name
    stands for, which is the loopback on many. What is set stays."""
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return {}
    for name, addresses in psutil.net_if_addrs().items():
        if address in (each.address.partition("%")[0] for each in addresses):
            return {"GLOO_SOCKET_IFNAME": name}
    return {"GLOO_SOCKET_IFNAME": ""}


def interface_towards(host: str) -> dict[str, str]:
    """That through which packets to a host would leave; nothing is sent."""
    family, kind, protocol, _, place = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(place)
        return interface_of(str(probe.getsockname()[0]))
