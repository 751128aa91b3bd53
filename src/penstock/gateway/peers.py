"""Who is at the other end of a client's connection.

Owns reading that off a transport. It must never decide what follows from it.
"""

from __future__ import annotations

import asyncio
import ipaddress


def _address(transport: asyncio.Transport) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return None
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def source_ip(transport: asyncio.Transport) -> str:
    """The client's address; empty where the connection is gone or has none."""
    address = _address(transport)
    return "" if address is None else str(address)


def is_local(transport: asyncio.Transport) -> bool:
    """Whether the client is on this machine."""
    address = _address(transport)
    return address is not None and address.is_loopback


def is_secure(transport: asyncio.Transport) -> bool:
    return transport.get_extra_info("ssl_object") is not None
