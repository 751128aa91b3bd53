"""A handler's output on its way to the server's own: passed on as it is, and shown line by line to whoever reads it.

Owns the pipe and the cutting into lines. It must never know what a line means.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable

LONGEST_LINE = 64 * 1024
"""Of a longer one nobody is shown anything."""
_PIECE = 64 * 1024

Lines = Callable[[str], None]


class Output:
    """One process's. Made by `open`; `descriptor` is the end for the process, to be closed here once it has it."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.BaseTransport, lines: Lines) -> None:
        self._reader = reader
        self._transport = transport
        self._lines = lines
        self._begun = b""
        self._long = False
        self._task = asyncio.create_task(self._pass_on(), name="output of a handler")

    @classmethod
    async def open(cls, lines: Lines) -> tuple[Output, int]:
        """The output, and the descriptor to be given to a process."""
        ours, theirs = os.pipe()
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        try:
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
            )
        except BaseException:
            os.close(theirs)
            raise
        return cls(reader, transport, lines), theirs

    async def end(self, patience_s: float) -> None:
        """The process is gone: take what it still said. A child of its own that holds the pipe is not waited for longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await asyncio.wait([self._task])
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._transport.close()

    async def _pass_on(self) -> None:
        # No deadline: a handler may say nothing for days.
        while piece := await self._reader.read(_PIECE):
            with contextlib.suppress(OSError):  # Nobody reads the log any more, which must not stop the handler.
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            self._cut(piece)
        self._cut(b"\n")

    def _cut(self, piece: bytes) -> None:
        *whole, rest = (self._begun + piece).split(b"\n")
        for line in whole:
            if not self._long and line:
                self._lines(line.decode("utf-8", "replace"))
            self._long = False
        if len(rest) > LONGEST_LINE:
            self._long, rest = True, b""
        self._begun = rest
