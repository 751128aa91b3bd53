"""The scripted server over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Pong, Request, TextMessage

from tests.unit.servers.scripted.test_server import raw, serving


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    def send(self, event: Event) -> None:
        self._writer.write(self._wire.send(event))

    async def event(self) -> Event:
        """The next event. Raises EOFError at the end of the connection."""
        async with asyncio.timeout(10):
            while not self._events:
                if not (data := await self._reader.read(65536)):
                    raise EOFError
                self._wire.receive_data(data)
                self._events += self._wire.events()
        return self._events.pop(0)


@asynccontextmanager
async def conversing(script: dict[str, Any]) -> AsyncIterator[Client]:
    async with serving(script) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Client(reader, writer)
        client.send(Request(host="localhost", target="/invocations-bidirectional-stream"))
        assert isinstance(await client.event(), AcceptConnection)
        try:
            yield client
        finally:
            writer.close()


def text(event: Event) -> str:
    assert isinstance(event, TextMessage), event
    return event.data


async def test_each_message_is_played_to_in_its_own_type() -> None:
    async with conversing(
        {"steps": [{"echo": "body", "pieces": 2}, {"base64": "/w=="}, {"send": "x", "times": 2}]}
    ) as it:
        it.send(TextMessage(data="ab"))
        assert [text(await it.event()) for _ in range(2)] == ["a", "b"]
        assert await it.event() == BytesMessage(data=b"\xff"), "no text"
        assert [text(await it.event()) for _ in range(2)] == ["x", "x"]
        it.send(BytesMessage(data=b"c", message_finished=False))
        it.send(BytesMessage(data=b"d"))
        assert [await it.event() for _ in range(2)] == [BytesMessage(data=b"c"), BytesMessage(data=b"d")]


async def test_choices_pings_and_the_close() -> None:
    script = {"choose": "say", "scripts": {"hi": [{"send": "hello"}]}, "steps": [{"send": "what?"}]}
    async with conversing(script) as it:
        it.send(Ping(payload=b"1"))
        assert await it.event() == Pong(payload=b"1")
        it.send(TextMessage(data=json.dumps({"say": "hi"})))
        assert text(await it.event()) == "hello"
        it.send(CloseConnection(code=1000))
        assert isinstance(await it.event(), CloseConnection)
        with pytest.raises(EOFError):
            await it.event()


@pytest.mark.parametrize(
    ("steps", "code"), [([{"status": 507}, {"send": "x"}], 1011), ([{"send": "x"}, {"end": "close"}], None)]
)
async def test_bad_ends(steps: list[dict[str, Any]], code: int | None) -> None:
    async with conversing({"steps": steps}) as it:
        it.send(TextMessage(data="go"))
        event = await it.event()
        if code is None:
            assert text(event) == "x"
        else:
            assert isinstance(event, CloseConnection)
            assert event.code == code
        with pytest.raises((EOFError, ConnectionError)):
            await it.event()


async def test_a_wrong_choice_closes() -> None:
    async with conversing({"choose": "say"}) as it:
        it.send(TextMessage(data='{"say": "nothing"}'))
        event = await it.event()
        assert isinstance(event, CloseConnection)
        assert (event.code, "no script is named" in (event.reason or "")) == (1008, True)


async def test_a_handshake_that_is_none() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with serving({}) as (port, _):
        assert (await raw(port, head)).startswith(b"HTTP/1.1 400")
