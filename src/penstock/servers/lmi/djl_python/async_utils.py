"""Answers of an asynchronous handler, whole or chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from .outputs import Output


def create_non_stream_output(
    data: str | dict[str, Any],
    properties: dict[str, str] | None = None,
    error: str | None = None,
    code: int | None = None,
) -> Output:
    """A whole answer: text as it is, an object as JSON. An error is the answer of its code in its place."""
    output = _output(data, "application/json", error, code)
    for name, value in (properties or {}).items():
        output.add_property(name, value)
    return output


def create_stream_chunk_output(
    data: str | dict[str, Any], last_chunk: bool, error: str | None = None, code: int | None = None
) -> Output:
    """One line of a stream. What is the last chunk, the generator's own end says."""
    return _output(data, "application/jsonlines", error, code)


async def handle_streaming_response(
    response: AsyncGenerator[str, None],
    stream_output_formatter: Callable[..., Any],
    accumulate_chunks: bool = False,
    **kwargs: Any,
) -> AsyncGenerator[Output, None]:
    """Each chunk through the formatter, which gives a line and whether it is the last, and with `accumulate_chunks` its `history`, too.

    A formatter that raises ends the stream with its error.
    """
    history: Any = []
    async for chunk in response:
        try:
            if accumulate_chunks:
                data, last, history = stream_output_formatter(chunk, history=history, **kwargs)
            else:
                data, last = stream_output_formatter(chunk, **kwargs)
        except Exception as failure:
            yield create_stream_chunk_output("", True, error=str(failure), code=424)
            return
        yield create_stream_chunk_output(data, last)
        if last:
            return


def _output(data: str | dict[str, Any], content_type: str, error: str | None, code: int | None) -> Output:
    output = Output()
    if error:
        output.code = code or 424
        data = {"error": error, "code": output.code}
    elif code:
        output.code = code
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return output.add_property("Content-Type", content_type).add(text + "\n")
