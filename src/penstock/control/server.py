"""The control process from its start to its end: what is opened in which order, and closed in the other.

Owns signals, the announcement, and the lives of gateways and machinery. It must never know what any of them does.
Ready means: a gateway worker serves, and the API answers. Endpoints come back afterwards, by themselves.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import json
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast

import uvloop

import penstock
from penstock.config import Settings
from penstock.control import journal, sockets
from penstock.control.gateways import Gateways, NotRelieved, command
from penstock.control.keyring import Keyring
from penstock.control.keys import read_keys
from penstock.control.start import CannotStart
from penstock.control.table import TableServer
from penstock.routes import GatewayEvent

if TYPE_CHECKING:
    from penstock.control.machinery import Machinery

log = logging.getLogger(__name__)
GATEWAY_MARGIN_S = 5.0
ABRUPT_GRACE_S = 2.0


def serve(settings: Settings, listening: dict[str, int]) -> int:
    """Until SIGTERM or SIGINT. Returns the exit code; what went wrong is one plain line on stderr."""
    try:
        journal.open_journal(settings.paths.logs)
        uvloop.run(_Control(settings, listening).run())
    except (CannotStart, OSError) as error:
        log.info("ended: %s", error)
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    return 0


class _Control:
    def __init__(self, settings: Settings, listening: dict[str, int]) -> None:
        self._settings, self._paths, self._listening = settings, settings.paths, listening
        self._told_to_end = asyncio.Event()
        self._told_to_reload = asyncio.Event()
        self._machinery: Machinery | None = None

    async def run(self) -> None:
        paths = self._paths
        settings = self._settings
        root = read_keys(paths.credentials, settings.account, settings.caller_arn)
        keys = Keyring(root, paths.access_keys, settings.account, settings.role_session)
        self._clear()
        async with AsyncExitStack() as closing:
            closing.callback(self._clear)
            api_socket, table_socket = sockets.listen(paths.control_socket), sockets.listen(paths.table_socket)
            self._gateways = Gateways(
                self._settings.workers, self._worker, tuple(self._listening.values()), self._ended
            )
            self._table = TableServer(keys.keys, self._heard, self._gateways.has)
            closing.push_async_callback(self._table.close)
            await self._table.start(table_socket)
            closing.push_async_callback(self._gateways.drain, ABRUPT_GRACE_S)
            self._listen_to_signals()
            try:
                async with asyncio.TaskGroup() as parts:
                    parts.create_task(self._gateways.run())
                    tasks = [parts.create_task(keys.follow(self._table.publish_keys))]
                    # In a thread, so that the gateway gets its table, and is ready, while this takes its time.
                    module = await asyncio.to_thread(importlib.import_module, "penstock.control.machinery")
                    machinery = cast(
                        "Machinery",
                        module.Machinery(
                            self._settings,
                            keys,
                            self._table.publish,
                            lambda: self._table.table,
                            self._listening["https"],
                        ),
                    )
                    self._machinery = machinery
                    closing.push_async_callback(machinery.close)
                    tasks += [parts.create_task(machinery.run(api_socket)), parts.create_task(self._announce())]
                    await self._told_to_end.wait()
                    # The gateways first: their streams need the replicas, and their requests the API.
                    await self._gateways.drain(self._settings.limits.drain_s + GATEWAY_MARGIN_S)
                    for task in tasks:
                        task.cancel()
            except BaseExceptionGroup as group:
                raise _first(group) from group

    def _worker(self, number: int) -> list[str]:
        return command(self._settings.home, number, self._listening)

    def _ended(self, worker: int) -> None:
        if self._machinery:
            self._machinery.metrics.forget(worker)

    async def _announce(self) -> None:
        """The state file and the ready line, once a worker serves; then whatever is reloaded."""
        event = await self._gateways.ready
        state: dict[str, object] = {"pid": os.getpid(), "ports": event.ports, "version": penstock.__version__}
        self._write(state)
        gc.collect()
        gc.freeze()  # what a start made stays: the collector need not look at it again
        plain = f" and http://{self._settings.host}:{event.ports['http']}" if "http" in event.ports else ""
        print(f"Penstock is ready on https://{self._settings.host}:{event.ports.get('https')}{plain}", flush=True)
        log.info("ready", extra={"fields": state})
        await self._reload_when_told(state)

    async def _reload_when_told(self, state: dict[str, object]) -> None:
        """On SIGUSR2 new workers take the old ones' places. `reloads` in the state file counts it, `reload_failed` says why not."""
        for count in itertools.count(1):
            await self._told_to_reload.wait()
            self._told_to_reload.clear()
            failed = ""
            try:
                await self._gateways.relieve()
            except NotRelieved as error:
                failed = str(error)
                log.error("%s", failed)
            self._write({**state, "reloads": count, "reload_failed": failed})

    def _write(self, state: dict[str, object]) -> None:
        fresh = self._paths.server_state.with_suffix(".new")
        fresh.write_text(json.dumps(state) + "\n")
        fresh.replace(self._paths.server_state)

    def _heard(self, event: GatewayEvent) -> None:
        self._gateways.heard(event)
        if self._machinery:
            self._machinery.heard(event)
        if event.kind == "unreachable":
            log.warning("gateway worker %d can't reach replica %s, epoch %d", event.worker, event.replica, event.epoch)
            if self._machinery:
                self._machinery.poke()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGUSR2, self._told_to_reload.set)

    def _signalled(self) -> None:
        if self._told_to_end.is_set():  # told twice: at once, and rudely
            self._gateways.kill()
            self._clear()
            os._exit(1)
        log.info("told to end")
        self._told_to_end.set()

    def _clear(self) -> None:
        """Remove the run files: ours, or an earlier life's."""
        for path in (self._paths.server_state, self._paths.control_socket, self._paths.table_socket):
            path.unlink(missing_ok=True)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
