"""What asynchronous handlers make their answers of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from penstock.servers.lmi.djl_python import Output
from penstock.servers.lmi.djl_python.async_utils import (
    create_non_stream_output,
    create_stream_chunk_output,
    handle_streaming_response,
)


def body(output: Output) -> bytes:
    return b"".join(bytes(value) for value in output.content.get_values())


def test_a_whole_answer() -> None:
    output = create_non_stream_output({"generated_text": "hé"}, properties={"x-a": "b"})
    assert (output.code, body(output)) == (200, '{"generated_text": "hé"}\n'.encode())
    assert output.properties == {"Content-Type": "application/json", "x-a": "b"}
    assert body(create_non_stream_output("as it is")) == b"as it is\n"


def test_an_error_is_the_answer() -> None:
    output = create_non_stream_output("", error="no such thing", code=400)
    assert (output.code, body(output)) == (400, b'{"error": "no such thing", "code": 400}\n')
    assert create_non_stream_output("", error="why").code == 424


def test_a_line_of_a_stream() -> None:
    output = create_stream_chunk_output({"token": 1}, last_chunk=False)
    assert (output.properties, body(output)) == ({"Content-Type": "application/jsonlines"}, b'{"token": 1}\n')


def streamed(formatter: Any, **given: Any) -> list[bytes]:
    async def chunks() -> AsyncGenerator[str, None]:
        for word in ("a", "b", "end", "never"):
            yield word

    async def read() -> list[bytes]:
        return [body(each) async for each in handle_streaming_response(chunks(), formatter, **given)]

    return asyncio.run(read())


def test_a_stream_goes_through_its_formatter_until_that_says_it_is_over() -> None:
    assert streamed(lambda chunk, mark: (chunk + mark, chunk == "end"), mark="!") == [b"a!\n", b"b!\n", b"end!\n"]


def test_a_formatter_may_be_given_what_came_before() -> None:
    def whole(chunk: str, history: list[str]) -> tuple[str, bool, list[str]]:
        return "".join([*history, chunk]), chunk == "end", [*history, chunk]

    assert streamed(whole, accumulate_chunks=True) == [b"a\n", b"ab\n", b"abend\n"]


def test_a_formatter_that_raises_ends_the_stream_with_its_error() -> None:
    def fails(chunk: str) -> tuple[str, bool]:
        if chunk == "b":
            raise ValueError("not that")
        return chunk, False

    assert streamed(fails) == [b"a\n", b'{"error": "not that", "code": 424}\n']
