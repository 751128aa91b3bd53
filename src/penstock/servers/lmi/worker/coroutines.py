"""A handler written with `async`: its coroutine awaited, its asynchronous generator made a stream.

Owns the process's event loop, which lives as long as the handler, since what a handler opens on it must go on working. Requests are still
one at a time: a process has one.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator
from typing import Any

_runner = asyncio.Runner()
_END = object()


def result(outputs: Any) -> Any:
    """What a handler returned, awaited where it has to be; a generator's items become a streamed Output. Raises what the handler raises."""
    if inspect.isawaitable(outputs):
        outputs = _runner.run(_awaited(outputs))
    return _streamed(outputs) if isinstance(outputs, AsyncGenerator) else outputs


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _streamed(items: AsyncGenerator[Any, None]) -> Any:
    """Its first item, if that is an Output, has the code and the headers; contents of Outputs and other items are the pieces."""
    from penstock.servers.lmi.worker.api import Output

    first = _next(items)
    head = Output()
    if isinstance(first, Output):
        head = Output(first.code, first.message)
        head.properties.update(first.properties)
    return head.add_stream_content(_pieces(first, items), output_formatter=None)


def _pieces(item: Any, items: AsyncGenerator[Any, None]) -> Generator[Any, None, None]:
    from penstock.servers.lmi.worker.api import Output

    try:
        while item is not _END:
            contents = item.content.get_values() if isinstance(item, Output) else [item]
            yield from (bytes(content) if isinstance(item, Output) else content for content in contents)
            item = _next(items)
    finally:
        _runner.run(_awaited(items.aclose()))


def _next(items: AsyncGenerator[Any, None]) -> Any:
    return _runner.run(_awaited(anext(items, _END)))
