"""Bodies of very many small values, read in a process of their own.

Python's JSON reader holds the interpreter's lock until its end, in whatever thread it runs: twenty-five megabytes of small values are a
second in which a front answers nothing, no health check either. Owns which bodies those are, and the process. It must never know what is
read: each server names a function of its own.

Run as a module (`python -m penstock.servers.apart MODULE:FUNCTION`) it is that process.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import os
import pickle
import sys
from typing import Any

from penstock.engines.process import die_with_parent

MANY = 200_000
"""Values. So many take some hundredths of a second to read, or to hand over."""
DEADLINE_S = 60.0


class NotRead(Exception):
    """The process died or took too long: the body is too much for this machine."""


def heavy(body: bytes) -> bool:
    """Whether JSON may hold more than MANY values: before each of them but the first there is a comma or an opening bracket."""
    return len(body) > MANY and len(body) - len(body.translate(None, b",[{")) > MANY


def many(value: object) -> bool:
    """Whether there are more than MANY values in it, of documents and of what was made of them."""
    count, found = 0, [value]
    while found:
        each = found.pop()
        inside: list[object] = []
        if isinstance(each, dict):
            inside = list(each.values())
        elif isinstance(each, list | tuple):
            inside = list(each)
        elif dataclasses.is_dataclass(each):
            inside = [getattr(each, field.name) for field in dataclasses.fields(each)]
        count += len(inside)
        if count > MANY:
            return True
        found += inside
    return False


class Apart:
    """Reads one body at a time, so that several together take no more memory than one."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._lock = asyncio.Lock()

    async def read(self, function: str, *arguments: object) -> Any:
        """What `MODULE:FUNCTION` makes of the arguments. Raises NotRead."""
        async with self._lock:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", __name__, function, str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(self._deadline_s):
                    answer, _ = await process.communicate(pickle.dumps(arguments))
            except TimeoutError:
                raise NotRead(f"it was not read within {self._deadline_s:g} s") from None
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await asyncio.shield(process.wait())
        if process.returncode:
            raise NotRead(f"its reader ended with {process.returncode}")
        return pickle.loads(answer)  # noqa: S301  (our own process wrote it)


def main() -> int:
    function, parent = sys.argv[1:]
    die_with_parent()
    if os.getppid() != int(parent):
        return 1
    module, _, name = function.partition(":")
    arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  (our front wrote it)
    answer = getattr(importlib.import_module(module), name)(*arguments)
    sys.stdout.buffer.write(pickle.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
