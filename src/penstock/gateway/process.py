"""One gateway worker: sockets in, signals in, drained out.

Owns the process: the inherited listening sockets, the event loop, TLS, SIGTERM and SIGUSR2, and dying with the parent. It must never know
a request.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from dataclasses import dataclass

import uvloop

from penstock.config import Settings, socket_address
from penstock.gateway.bidi import alpn
from penstock.gateway.connection import ClientConnection
from penstock.gateway.dispatch import open_exchange
from penstock.gateway.door import Door
from penstock.gateway.handover import hand_over
from penstock.gateway.proxy import TLS_FAREWELL_S, ProxyConnection
from penstock.gateway.table import TableClient
from penstock.gateway.upstream import Target
from penstock.routes import GatewayEvent, RoutingTable

log = logging.getLogger("penstock.gateway")

BACKLOG = 4096
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Listeners:
    """Listening sockets by what is spoken on them; bound by the parent."""

    https: socket.socket
    proxy: socket.socket
    http: socket.socket | None = None

    def ports(self) -> dict[str, int]:
        named = {"https": self.https, "proxy": self.proxy, "http": self.http}
        return {name: sock.getsockname()[1] for name, sock in named.items() if sock is not None}


def die_with_parent() -> None:
    """The kernel sends us SIGTERM when the thread that started us ends, so that no gateway outlives its control process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def take_all_descriptors() -> None:
    """As many open files as we may have: a shell's usual 1,024 would be 500 streams."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tls_context(settings: Settings) -> ssl.SSLContext:
    """TLS 1.2 and up, with the certificate of `Paths.server_certificate`. Raises OSError (ssl.SSLError is one)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.paths.server_certificate, settings.paths.server_key)
    context.set_alpn_protocols(alpn.offered())
    return context


def run(settings: Settings, worker: int, listeners: Listeners) -> int:
    """Serves until SIGTERM, drains, and returns the exit status."""
    die_with_parent()
    take_all_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, worker, listeners))
    return 0


async def _serve(settings: Settings, worker: int, listeners: Listeners) -> None:
    loop = asyncio.get_running_loop()
    stop, relieved = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR2, relieved.set)
    context = tls_context(settings)
    control = Target(socket_address(settings.paths.control_socket))
    table = TableClient(socket_address(settings.paths.table_socket))
    door = Door(loop, settings, control=control, worker=worker, notify=table.send)
    first = asyncio.Event()

    def apply(received: RoutingTable) -> None:
        door.routes.apply(received)
        first.set()

    following = loop.create_task(table.run(apply))
    if not await _before(first, stop):  # a gateway that knows no key yet would turn everybody away
        following.cancel()
        return
    servers = await _listen(loop, door, listeners, context)
    door.start()
    table.announce(GatewayEvent("ready", worker, ports=listeners.ports()))
    gc.collect()
    gc.freeze()  # what exists now stays: the collector need not look at it again
    if await _before(relieved, stop):
        log.info("worker %d is relieved", worker)
        await hand_over(door, servers, stop)
    log.info("worker %d drains", worker)
    for server in servers:
        server.close()
    await door.drain()
    following.cancel()


async def _before(first: asyncio.Event, stop: asyncio.Event) -> bool:
    """Waits for either; whether `first` came."""
    waits = [asyncio.ensure_future(event.wait()) for event in (first, stop)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    return first.is_set() and not stop.is_set()


async def _listen(
    loop: asyncio.AbstractEventLoop, door: Door, listeners: Listeners, context: ssl.SSLContext
) -> list[asyncio.Server]:
    timeout = door.limits.header_timeout_s

    def plain() -> ClientConnection:
        return ClientConnection(door, open_exchange)

    def negotiated() -> asyncio.Protocol:
        return alpn.Negotiated(door, open_exchange) if alpn.AVAILABLE else plain()

    def proxied() -> ProxyConnection:
        return ProxyConnection(door, open_exchange, context)

    servers = [
        await loop.create_server(
            negotiated,
            sock=listeners.https,
            ssl=context,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=TLS_FAREWELL_S,
            backlog=BACKLOG,
        ),
        await loop.create_server(proxied, sock=listeners.proxy, backlog=BACKLOG),
    ]
    if listeners.http is not None:
        servers.append(await loop.create_server(plain, sock=listeners.http, backlog=BACKLOG))
    return servers


def configure_logging() -> None:
    """One line an event on standard error, which the parent reads into the log store."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s gateway[%(process)d] %(levelname)s %(message)s"))
    logging.basicConfig(level=os.environ.get("PENSTOCK_LOG_LEVEL", "INFO").upper(), handlers=[handler])
