"""The life of one replica that is a process: artifact, start, health, end.

Owns the order of these and the replica's private directory. It must never know of other replicas, nor when to start or stop.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.placement import orphans, reasons
from penstock.placement.artifacts import ArtifactError, make_read_only, remove, stage
from penstock.placement.base import ObjectReader, ReplicaSpec, ReplicaState, ReplicaStatus
from penstock.placement.child import Child, SpawnError
from penstock.placement.environment import (
    home_directory,
    model_directory,
    models_directory,
    temporary_directory,
    termination_log,
)
from penstock.placement.further import FurtherModels
from penstock.placement.health import Probing, until_healthy, watch
from penstock.placement.logs import group_of_component, stream_directory
from penstock.placement.logsink import LogPump, LogSink
from penstock.placement.ports import ReservedPort

_LAST_WORDS_BYTES = 4096
_LOG_DRAIN_S = 2.0
"""How long to wait for the last of a dead process's output: someone may have taken the pipe out of its tree."""
_PIPE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all replicas of a placement share."""

    replicas: Path
    logs: Path
    reader: ObjectReader
    staging: Executor
    chores: Executor
    pump: LogPump
    probing: Probing
    command: Callable[[ReplicaSpec], list[str]]
    environment: Callable[[ReplicaSpec, Path, int], Mapping[str, str]]


_log = logging.getLogger(__name__)


class _Failed(Exception):
    """It will never come up; the text is the reason."""


class Replica:
    """One replica. `run` is its whole life; cancel the task that runs it to stop it, with `grace_s` set before."""

    def __init__(self, spec: ReplicaSpec, surroundings: Surroundings, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.grace_s = 30.0
        self.status = ReplicaStatus(spec.id, spec.epoch, "preparing")
        self._around = surroundings
        self._changed = changed
        self._directory = surroundings.replicas / spec.id
        models = models_directory(self._directory)
        self.further = FurtherModels(models, surroundings.reader, surroundings.staging, surroundings.chores)
        group = group_of_component(spec.component) if spec.component else spec.endpoint
        self._sink = LogSink(stream_directory(surroundings.logs, spec.account, spec.region, group, _stream(spec)))
        self._logged = asyncio.Event()

    async def run(self) -> None:
        """Live until the process is gone, and leave nothing but the log. `status` tells the rest."""
        state: ReplicaState = "exited"
        reason = ""
        try:
            await self._live()
        except _Failed as error:
            state, reason = "failed", str(error)
        except OSError as error:
            state = "failed"
            reason = reasons.not_healthy(self.spec, f"It could not be started: {error.strerror or error}.")
        except Exception as error:
            # A replica about which nothing is known must not look as if it were starting for ever.
            _log.exception("replica %s", self.spec.id)
            state = "failed"
            reason = reasons.not_healthy(self.spec, f"Internal error: {type(error).__name__}: {error}.")
        finally:
            await asyncio.shield(self.further.close())
            await asyncio.shield(self._thread(self._around.chores, remove, self._directory))
        if state == "failed":
            self._become(state, reason=reason)

    async def _live(self) -> None:
        if self.spec.image.server == "container":
            raise _Failed(reasons.no_engine(self.spec))
        await self._prepare()
        port = ReservedPort()
        try:
            child = await self._start(port.number)
            try:
                await self._come_up(child, port.number)
                await self._stay(child, port.number)
            finally:
                await self._end(child)
        finally:
            port.release()

    async def _prepare(self) -> None:
        """Lay the private directory out and fill `/opt/ml/model`."""
        cancelled = threading.Event()
        executor = self._around.staging if self.spec.model_data else self._around.chores
        work = asyncio.ensure_future(self._thread(executor, self._fill, cancelled))
        try:
            done, _ = await asyncio.wait({work}, timeout=self.spec.download_timeout_s)
            late = not done
        finally:
            cancelled.set()
            await asyncio.wait({work})
            work.exception()  # seen, also where a cancellation goes before it
        if late and self.spec.model_data:
            raise _Failed(reasons.download_timed_out(self.spec, self.spec.model_data.url))
        try:
            work.result()
        except ArtifactError as error:
            raise _Failed(reasons.bounded(str(error))) from error

    def _fill(self, cancelled: threading.Event) -> None:
        self._directory.mkdir(parents=True, mode=0o700)
        model = model_directory(self._directory)
        for path in (model, home_directory(self._directory), temporary_directory(self._directory)):
            path.mkdir()
        if self.spec.model_data:
            stage(self.spec.model_data, model, self._around.reader, cancelled=cancelled.is_set)
        else:
            make_read_only(model)

    async def _start(self, port: int) -> Child:
        around = self._around
        (out, stdout), (err, stderr) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        for fd in (stdout, stderr):
            with suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._logged.set)

        around.pump.attach(self._sink, out, err, ended)
        try:
            child = await Child.spawn(
                around.command(self.spec),
                environment=around.environment(self.spec, self._directory, port),
                cwd=home_directory(self._directory),
                stdout=stdout,
                stderr=stderr,
                minder_lost=self._kill_marked,
            )
        except SpawnError as error:
            raise _Failed(reasons.not_healthy(self.spec, f"It could not be started: {error}.")) from error
        finally:
            for fd in (stdout, stderr):
                os.close(fd)
        with suppress(OSError):  # only the sweep of a later run would miss it, and that looks at the environment too
            orphans.record(self._directory, (child.pid, child.minder_pid))
        self._become("starting", port=port, pid=child.pid)
        return child

    def _kill_marked(self) -> None:
        orphans.kill(lambda: orphans.marked(self._directory))

    async def _come_up(self, child: Child, port: int) -> None:
        """The gate: return at the first 200, raise _Failed when there will be none."""
        gone = asyncio.ensure_future(child.wait())
        well = asyncio.ensure_future(until_healthy("127.0.0.1", port, self._around.probing))
        try:
            await asyncio.wait({gone, well}, timeout=self.spec.startup_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise _Failed(reasons.not_healthy(self.spec, reasons.exited(gone.result(), await self._last_words())))
            if not well.done():
                await child.kill()
                raise _Failed(reasons.timed_out(self.spec))
        finally:
            await _drop(gone, well)
        self._become("healthy")

    async def _stay(self, child: Child, port: int) -> None:
        """Watch until the process is gone."""
        watching = asyncio.ensure_future(self._watch(port))
        try:
            status = await child.wait()
        finally:
            await _drop(watching)
        self._become("exited", reason=reasons.bounded(reasons.exited(status, await self._last_words())))

    async def _watch(self, port: int) -> None:
        async for well in watch("127.0.0.1", port, self._around.probing):
            self._become("healthy" if well else "unhealthy")

    async def _end(self, child: Child) -> None:
        await child.stop(self.grace_s)
        await self._drained()

    async def _drained(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOG_DRAIN_S):
                await self._logged.wait()

    async def _last_words(self) -> str:
        """What the replica wrote to its termination log, else the last line of its output."""
        await self._drained()
        try:
            with termination_log(self._directory).open("rb") as file:
                said = file.read(_LAST_WORDS_BYTES).decode(errors="replace").strip()
        except OSError:
            said = ""
        return said or self._sink.last_words.strip()

    def _become(self, state: ReplicaState, *, port: int = 0, pid: int = 0, reason: str = "") -> None:
        status = replace(self.status, state=state, reason=reason)
        if port:
            status = replace(status, host="127.0.0.1", port=port, pid=pid)
        if status != self.status:
            self.status = status
            self._changed()

    async def _thread(self, executor: Executor, function: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)


def _stream(spec: ReplicaSpec) -> str:
    """As AWS names it: "Log groups and streams that Amazon SageMaker AI logs"."""
    if "/" in spec.variant + spec.instance_id:
        raise ValueError(f"not a variant and an instance: {spec.variant!r}, {spec.instance_id!r}")
    instance = f"{spec.variant}/{spec.instance_id}"
    return f"{instance}/{spec.container}" if spec.several else instance


async def _drop(*tasks: asyncio.Future[object] | asyncio.Task[None] | asyncio.Task[int]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
