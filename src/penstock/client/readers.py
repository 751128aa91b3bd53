"""The readers: any stream in, whole items out.

Owns the loop that joins a source to a parser, in its two forms, and what an error carries. It must never know a format.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

from penstock.client.errors import StreamError, from_exception
from penstock.client.jsons import JsonParser
from penstock.client.lines import LineSplitter
from penstock.client.shapes import Token
from penstock.client.source import AsyncStream, Stream, Tail, parts_of, payload
from penstock.client.sse import ServerSentEvent, SseParser
from penstock.client.tokens import TokenParser

MAX_LINE = 16 * 1024 * 1024
"""The longest line, event or JSON value, in bytes, unless told otherwise."""
KEEP = 1024 * 1024
"""How much of the text so far an error carries, in bytes, unless told otherwise."""

_SHORT = 4096
"""Bytes of a part and of a line that `iter_lines` deals with on the spot."""
_BATCH = 256
"""Such parts between two looks at how much is kept."""

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class _Parser(Protocol[T_co]):
    def feed(self, data: bytes) -> Iterable[T_co]: ...
    def finish(self) -> Iterable[T_co]: ...
    @property
    def rest(self) -> bytes: ...


def _read(stream: Stream, parser: _Parser[T], keep: int) -> Iterator[T]:
    received = Tail(keep)
    source = iter(parts_of(stream))
    try:
        while True:
            try:
                part = next(source)
            except StopIteration:
                break
            except Exception as error:
                raise from_exception(error) from error
            if data := payload(part):
                received.add(data)
                yield from parser.feed(data)
        yield from parser.finish()
    except StreamError as error:
        error.text, error.rest = received.text(), parser.rest
        raise


async def _read_async(stream: AsyncStream, parser: _Parser[T], keep: int) -> AsyncGenerator[T, None]:
    received = Tail(keep)
    source = aiter(stream)
    try:
        while True:
            try:
                part = await anext(source)
            except StopAsyncIteration:
                break
            except Exception as error:
                raise from_exception(error) from error
            if data := payload(part):
                received.add(data)
                for item in parser.feed(data):
                    yield item
        for item in parser.finish():
            yield item
    except StreamError as error:
        error.text, error.rest = received.text(), parser.rest
        raise


def iter_lines(stream: Stream, *, max_line: int = MAX_LINE, keep: int = KEEP) -> Iterator[bytes]:
    """The stream's lines as bytes, without their ends (LF, CR or CRLF); the last one also where nothing ends it.

    Raises StreamError when the stream breaks, or a line is longer than `max_line` bytes.
    """
    # `chain` hands the lines of a part out one by one, and costs a fraction of a `yield` each.
    return chain.from_iterable(_lines_of_parts(stream, max_line, keep))


def _lines_of_parts(stream: Stream, max_line: int, keep: int) -> Iterator[Iterable[bytes]]:
    """The same as `_read(stream, LineSplitter(max_line), keep)`, which the tests hold it to, one list for each part.

    This loop runs once a token, so it takes care of the usual part on the spot: short bytes in a dictionary, with no CR at the
    end. The splitter has the others.
    """
    splitter, received = LineSplitter(max_line), Tail(keep)
    source = iter(parts_of(stream))
    most = min(max_line, _SHORT)
    fresh: list[bytes] = []
    remember = fresh.append
    pending: bytes | None = (
        None  # the line that is not complete yet, while the splitter holds nothing; None while it does
    )
    reading = True
    try:
        while True:
            for part in islice(source, _BATCH if pending is not None else 1):
                try:
                    data = piece = part["PayloadPart"]["Bytes"]  # type: ignore[call-overload]
                    if pending:
                        data = pending + piece
                    last = piece[-1]
                except (KeyError, TypeError, IndexError):
                    break
                if last == 13 or len(data) > most or pending is None:
                    break
                remember(piece)
                lines = data.splitlines()
                pending = b"" if last == 10 else lines.pop()
                yield lines
            else:
                if len(fresh) < _BATCH:
                    break
                received.add_all(fresh)
                fresh.clear()
                continue
            reading = False
            data = payload(part)
            reading = True
            received.add_all(fresh)
            fresh.clear()
            received.add(data)
            if pending:
                splitter.take_back(pending)
            pending = None
            yield from _passed_on(splitter.feed(data))
            pending = splitter.hand_over(most)
        if pending:
            splitter.take_back(pending)
            pending = None
        yield splitter.finish()
    except Exception as error:
        if not reading and not isinstance(error, StreamError):
            raise  # not a stream of parts at all
        broken = from_exception(error)
        received.add_all(fresh)
        broken.text, broken.rest = received.text(), pending or splitter.rest
        if broken is error:
            raise
        raise broken from error


def _passed_on(lines: Iterable[bytes]) -> Iterator[Iterable[bytes]]:
    """One by one where the splitter may yet raise: the caller adds to its error what it knows."""
    if isinstance(lines, (list, tuple)):
        yield lines
    else:
        for line in lines:
            yield (line,)


def aiter_lines(stream: AsyncStream, *, max_line: int = MAX_LINE, keep: int = KEEP) -> AsyncGenerator[bytes, None]:
    """`iter_lines` for async streams (aiobotocore, httpx, aiohttp)."""
    return _read_async(stream, LineSplitter(max_line), keep)


def iter_sse(stream: Stream, *, max_line: int = MAX_LINE, keep: int = KEEP) -> Iterator[ServerSentEvent]:
    """The stream's server-sent events. Raises StreamError when it breaks, or an event is longer than `max_line` bytes."""
    return _read(stream, SseParser(max_line), keep)


def aiter_sse(
    stream: AsyncStream, *, max_line: int = MAX_LINE, keep: int = KEEP
) -> AsyncGenerator[ServerSentEvent, None]:
    """`iter_sse` for async streams."""
    return _read_async(stream, SseParser(max_line), keep)


def iter_json(stream: Stream, *, max_line: int = MAX_LINE, keep: int = KEEP) -> Iterator[Any]:
    """The stream's JSON values: JSON lines, values one after the other, or pretty-printed ones.

    Raises StreamError when the stream breaks, ends inside a value or is no JSON, or a value is longer than `max_line` bytes.
    """
    return _read(stream, JsonParser(max_line), keep)


def aiter_json(stream: AsyncStream, *, max_line: int = MAX_LINE, keep: int = KEEP) -> AsyncGenerator[Any, None]:
    """`iter_json` for async streams."""
    return _read_async(stream, JsonParser(max_line), keep)


def iter_tokens(stream: Stream, *, max_line: int = MAX_LINE, keep: int = KEEP) -> Iterator[Token]:
    """The generated tokens, from LMI, TGI or an OpenAI-style server: the format is told from the bytes.

    Raises StreamError, with the generated text so far, when the stream breaks, is cut short, or carries the model server's
    own error.
    """
    text = Tail(keep)
    try:
        for token in _read(stream, TokenParser(max_line), 0):
            _remember(text, token)
            yield token
    except StreamError as error:
        error.text = text.text()
        raise


async def aiter_tokens(
    stream: AsyncStream, *, max_line: int = MAX_LINE, keep: int = KEEP
) -> AsyncGenerator[Token, None]:
    """`iter_tokens` for async streams."""
    text = Tail(keep)
    try:
        async with aclosing(_read_async(stream, TokenParser(max_line), 0)) as tokens:
            async for token in tokens:
                _remember(text, token)
                yield token
    except StreamError as error:
        error.text = text.text()
        raise


def _remember(text: Tail, token: Token) -> None:
    if token.sequence == 0:
        text.add(token.text.encode("utf-8", "replace"))


class LineIterator:
    """Lines of an event stream as bytes: the interface of the `LineIterator` in AWS's streaming examples.

    Put it in that class's place: `for line in LineIterator(response["Body"])`. It yields the last line also where no line
    end follows, takes any slicing, needs linear time, and raises StreamError when the stream breaks.
    """

    def __init__(self, stream: Stream) -> None:
        self._lines = iter_lines(stream)

    def __iter__(self) -> Iterator[bytes]:
        return self._lines  # and not self: a loop then has no call of ours in every turn

    def __next__(self) -> bytes:
        return next(self._lines)
