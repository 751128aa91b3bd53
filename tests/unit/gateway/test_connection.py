"""A client's connection over a transport that only remembers: what no socket can provoke."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from penstock.config import Settings
from penstock.gateway.connection import ClientConnection
from penstock.gateway.door import Door
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import Head
from penstock.gateway.upstream import Target


class Memory:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int) -> None:
        assert high

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class Faulty(Exchange):
    """An exchange with a bug."""

    left = 0

    def body(self, data: bytes) -> None:
        raise ZeroDivisionError

    def body_end(self) -> None:
        self.client.write(b"HTTP/1.1 200 OK\r\n")
        raise ZeroDivisionError

    def gone(self) -> None:
        Faulty.left += 1


@pytest.fixture
async def connected() -> tuple[ClientConnection, Memory]:
    def opener(client: Client, head: Head, request_id: str) -> Exchange:
        return Faulty(client, head, request_id)

    door = Door(asyncio.get_running_loop(), Settings(), control=Target("/nowhere"), notify=lambda event: None)
    client, memory = ClientConnection(door, opener), Memory()
    client.connection_made(cast(asyncio.Transport, memory))
    return client, memory


async def test_a_fault_of_ours_is_a_500_where_nothing_was_said(connected: tuple[ClientConnection, Memory]) -> None:
    client, memory = connected
    before = Faulty.left
    client.data_received(b"POST /endpoints/x/invocations HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
    assert memory.written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"x-amzn-errortype: InternalFailure\r\n" in memory.written
    assert Faulty.left == before + 1


async def test_and_a_broken_connection_where_an_answer_had_begun(connected: tuple[ClientConnection, Memory]) -> None:
    client, memory = connected
    client.data_received(b"GET /endpoints/x/invocations HTTP/1.1\r\nHost: h\r\n\r\n")
    assert memory.written == b"HTTP/1.1 200 OK\r\n"
    assert memory.aborted
