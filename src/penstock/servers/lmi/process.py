"""One handler process, seen from the server.

Owns starting it, its first call, and one exchange at a time with it. It must never decide what becomes of a request: `workers.py` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.servers.lmi.missing import advice
from penstock.servers.lmi.output import Lines, Output
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.worker import frames
from penstock.servers.lmi.worker.frames import BrokenFrame, Frame

BOOT = (
    "import sys; sys.path += [p for p in sys.argv.pop(1).split(chr(10)) if p not in sys.path]; "
    "from penstock.servers.lmi.worker.main import main; main()"
)
"""Our own packages come last on the path, so that what a model's requirements brought comes first."""


LAST_WORDS_S = 0.2
"""How long what a dead process has written may take to arrive."""


class WorkerLost(Exception):
    """The process died, hung or spoke nonsense; it must be replaced."""


class HandlerFailed(Exception):
    """The handler can't be loaded or its first call failed; the message says why."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a handler: the interpreter, the environment it gets, who reads what it says, if anybody does, and where libraries lie
    that come before ours.
    """

    python: str
    environ: Mapping[str, str]
    lines: Lines | None = None
    libraries: tuple[str, ...] = ()


class Worker:
    """A running handler process. Not for two tasks at once."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._reading = False
        self._frames_read = 0
        self._output: Output | None = None
        self._watch = asyncio.create_task(self._see_death())
        self.adapts = False
        """Whether the script has functions for adapters."""
        self.greeting: Mapping[str, object] = {}
        """What it answered to its first call."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, settings: ModelSettings, command: Command, properties: Mapping[str, str]) -> Worker:
        """Start it and make the first call, an empty Input with `properties`. Raises HandlerFailed, with the process gone."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        output, stdout = await Output.open(command.lines) if command.lines is not None else (None, None)
        with theirs, contextlib.ExitStack() as undo:
            if stdout is not None:
                undo.callback(os.close, stdout)
            try:
                process = await asyncio.create_subprocess_exec(
                    *_arguments(settings, command, theirs.fileno()),
                    env=dict(command.environ),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stdout,
                )
            except OSError as error:
                writer.close()
                if output is not None:
                    await output.end(0)
                raise HandlerFailed(f"{command.python} can't be started: {error.strerror}") from error
        worker = cls(process, reader, writer)
        worker._output = output
        try:
            await worker._begin(properties, settings.model_loading_timeout_s)
        except WorkerLost as error:
            raise HandlerFailed(f"the handler could not be loaded: {error}") from error
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def ask(self, header: Mapping[str, object], blobs: list[bytes], timeout_s: float) -> Frame:
        """Send a request and wait for its reply, or its stream's head. Raises WorkerLost, with the process killed."""
        return await self._read(timeout_s, frames.encode({"kind": "request", **header}, blobs))

    async def next(self, timeout_s: float) -> Frame:
        """The stream's next frame: a piece or the end. Raises WorkerLost, with the process killed."""
        return await self._read(timeout_s)

    def stop(self) -> None:
        """Ask for the stream's end."""
        self._writer.write(frames.encode({"kind": "stop"}))

    async def kill(self) -> None:
        """End it and whatever it started, at once."""
        self._watch.cancel()
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()  # Where it has not yet come to make its group.
        await self._process.wait()
        if self._output is not None:
            await self._output.end(LAST_WORDS_S)

    async def _begin(self, properties: Mapping[str, str], timeout_s: float) -> None:
        first = await self._read(timeout_s)
        if first.kind != "ready":
            await self.kill()
            raise HandlerFailed(advice(f"the handler could not be loaded: {first.header.get('reason', first.kind)}"))
        self.adapts = bool(first.header.get("adapts"))
        reply = await self.ask({"properties": properties, "keys": []}, [], timeout_s)
        if reply.header["code"] >= 300:
            await self.kill()
            raise HandlerFailed(advice(_first_call(reply)))
        self.greeting = reply.header

    async def _read(self, timeout_s: float, request: bytes = b"") -> Frame:
        try:
            async with asyncio.timeout(timeout_s):
                if request:
                    self._writer.write(request)
                    await self._writer.drain()
                return await self._next_frame()
        except TimeoutError:
            await self.kill()
            raise WorkerLost(f"the handler did not answer within {timeout_s:g} s and was killed") from None
        except (asyncio.IncompleteReadError, ConnectionError, BrokenFrame) as error:
            # A process that dies closes its socket a little before its status can be had.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._process.wait()
            status = self._process.returncode
            await self.kill()
            raise WorkerLost(f"the handler's process {_death(status)}") from error

    async def _see_death(self) -> None:
        """Close the socket of a process that has died: a child of its own may hold the other end open long after."""
        await self._process.wait()
        frames_read = -1
        while frames_read != self._frames_read or not self._reading:  # what it wrote before it died is read first
            frames_read = self._frames_read
            await asyncio.sleep(LAST_WORDS_S)
        self._writer.transport.abort()

    async def _next_frame(self) -> Frame:
        self._reading = True
        try:
            return await self._frame()
        finally:
            self._reading = False
            self._frames_read += 1

    async def _frame(self) -> Frame:
        size = frames.header_size(await self._reader.readexactly(frames.LENGTH.size))
        header = frames.header(await self._reader.readexactly(size))
        return Frame(header, tuple([await self._reader.readexactly(length) for length in header["sizes"]]))


def _arguments(settings: ModelSettings, command: Command, fd: int) -> list[str]:
    paths = [path for path in sys.path if path and Path(path).is_dir() and "site-packages" in path]
    own = str(Path(__file__).parents[3])
    return [
        command.python, "-c", BOOT, "\n".join([own, *command.libraries, *paths]),
        f"--fd={fd}", f"--parent={os.getpid()}", f"--model-dir={settings.directory}",
        f"--entry-point={settings.entry_point or settings.formatters}", f"--handler={settings.handler}",
        *([] if settings.entry_point else [f"--formats={settings.version[0]}.{settings.version[1]}"]),
    ]  # fmt: skip


def _first_call(reply: Frame) -> str:
    if reply.header["code"] == 507:
        return f"there is not enough memory to load the model: {reply.header['message']}"
    body = b"".join(reply.blobs).decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):  # as Output.error writes it
        body = str(json.loads(body)["error"])
    return f"the handler's first call failed with {reply.header['code']}: {' '.join(body.split()) or reply.header['message']}"


def _death(status: int | None) -> str:
    if status is None:
        return "broke off"
    if status < 0:
        return f"was killed ({signal.Signals(-status).name})"
    return f"ended with status {status}"
