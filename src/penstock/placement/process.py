"""Replicas as processes of this machine, of the built-in servers.

Owns which replicas there are, and what they share. It must never know how one lives (`replica.py`), nor import a server: they are
started by command line.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import penstock
from penstock.config import Paths
from penstock.placement import orphans
from penstock.placement.artifacts import remove
from penstock.placement.base import ModelData, ObjectReader, ReplicaSpec, ReplicaStatus
from penstock.placement.environment import replica_environment
from penstock.placement.health import Probing
from penstock.placement.logsink import LogPump
from penstock.placement.replica import Replica, Surroundings

STAGING_THREADS = 8
"""So many artifacts are fetched at a time; others wait."""
CHORE_THREADS = 4
"""Short work on files, which no download holds up."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ProcessPlacement:
    """The placement that runs processes. Make it where an event loop runs, in the process that holds the home's lock.

    `reader` reads our own object store; `aws` is the environment in which a replica reaches it; `command` is what a replica's process
    executes, the image's built-in server unless given. Making it first kills what an earlier run on the same home left behind, and clears
    its directories away.
    """

    def __init__(
        self,
        paths: Paths,
        reader: ObjectReader,
        aws: Mapping[str, str] | None = None,
        *,
        probing: Probing | None = None,
        command: Callable[[ReplicaSpec], list[str]] | None = None,
    ) -> None:
        paths = Paths(paths.home.absolute())
        self._models = paths.models
        self._aws = dict(aws or {})
        self._replicas: dict[str, Replica] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._change = asyncio.Event()
        self._closed = False
        self._staging = ThreadPoolExecutor(STAGING_THREADS, thread_name_prefix="penstock-staging")
        self._chores = ThreadPoolExecutor(CHORE_THREADS, thread_name_prefix="penstock-chores")
        self._pump = LogPump()
        self._around = Surroundings(
            replicas=paths.replicas,
            logs=paths.logs,
            reader=reader,
            staging=self._staging,
            chores=self._chores,
            pump=self._pump,
            probing=probing or Probing(),
            command=command or built_in,
            environment=self._environment,
        )
        for left in orphans.sweep(paths.replicas):
            self._chores.submit(remove, left)

    async def start(self, spec: ReplicaSpec) -> None:
        """Begin to run it. Raises ValueError on an id or a name that can be no path, RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the placement is closed")
        if spec.id in self._replicas:
            return
        if not _ID.fullmatch(spec.id):
            raise ValueError(f"not a replica's id: {spec.id!r}")
        replica = Replica(spec, self._around, self._change.set)
        self._replicas[spec.id] = replica
        self._tasks[spec.id] = asyncio.create_task(replica.run(), name=f"replica {spec.id}")
        self._change.set()

    async def stop(self, replica_id: str, *, grace_s: float = 30.0) -> None:
        """SIGTERM, wait `grace_s`, SIGKILL, remove its directory. Returns when it is gone; cancelled, the stopping goes on."""
        replica = self._replicas.get(replica_id)
        if replica is None:
            return
        task = self._tasks[replica_id]
        if not task.done() and not task.cancelling():
            replica.grace_s = grace_s
            task.cancel()
        await asyncio.wait({task})
        if self._replicas.pop(replica_id, None) is replica:
            del self._tasks[replica_id]
            self._change.set()

    def observe(self) -> tuple[ReplicaStatus, ...]:
        """What is known now. A replica that exited or failed is shown until it is stopped."""
        return tuple(replica.status for replica in self._replicas.values())

    async def changed(self) -> None:
        """Return when something in `observe` has changed since this was last called."""
        await self._change.wait()
        self._change.clear()

    async def add_model(self, replica_id: str, name: str, data: ModelData) -> str:
        """See `Placement.add_model`. Cancelled, it leaves nothing behind."""
        return await self._replicas[replica_id].further.add(name, data)

    async def remove_model(self, replica_id: str, name: str) -> None:
        """See `Placement.remove_model`."""
        if replica := self._replicas.get(replica_id):
            await replica.further.remove(name)

    async def close(self, *, grace_s: float = 30.0) -> None:
        """Stop everything, all at once. Nothing can be started any more."""
        self._closed = True
        await asyncio.gather(*(self.stop(replica_id, grace_s=grace_s) for replica_id in list(self._replicas)))
        self._staging.shutdown()
        self._chores.shutdown()
        self._pump.close()

    def _environment(self, spec: ReplicaSpec, directory: Path, port: int) -> Mapping[str, str]:
        return replica_environment(
            spec,
            directory=directory,
            port=port,
            models=self._models,
            aws=self._aws,
            parent=os.environ,
            package_root=_package_root(),
        )


def built_in(spec: ReplicaSpec) -> list[str]:
    """The command line of the built-in server that the image names."""
    return [sys.executable, "-P", "-m", f"penstock.servers.{spec.image.server}"]


def _package_root() -> Path | None:
    """Where this package lies, unless that is where every interpreter of this environment looks."""
    root = Path(penstock.__file__).resolve().parents[1]
    return None if root.is_relative_to(Path(sys.prefix).resolve()) else root
