"""What a connection asks of whoever answers one request.

Owns the interface between a client's connection and the several ways of answering. It must never do anything itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from penstock.errors import AwsError
from penstock.gateway.door import Door
from penstock.gateway.head import Head
from penstock.gateway.trace import Trace


class Client(Protocol):
    """The side of a client's connection that an exchange sees."""

    @property
    def door(self) -> Door: ...
    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on after the present answer: its head must say so."""
        ...

    trace: Trace
    """The note of the present request."""
    transport: asyncio.Transport
    write_paused: bool
    answer_by: float
    """Loop time at which `Exchange.expired` is called; infinity for never."""

    def proceed(self) -> None:
        """Tells a client that waits for it to send the body."""

    def write(self, data: bytes) -> None: ...
    def done(self) -> None:
        """The present answer is complete."""

    def refuse(self, head: Head, error: AwsError, request_id: str, marks: Iterable[tuple[str, str]] = ()) -> None:
        """Answers the present request with an error; `marks` are further headers."""

    def break_off(self) -> None:
        """Ends the connection so that no client can take what it got for a whole answer."""

    def close_early(self) -> None:
        """Ends the connection in order in the middle of an answer, once all that was written is out."""

    def reset(self) -> None:
        """Ends the connection with a TCP reset, once all that was written has arrived."""

    def pause_body(self) -> None:
        """Reads no more from the client until `resume_body`."""

    def resume_body(self) -> None: ...


class Exchange:
    """One request and its answer. The connection calls these; an exchange calls the connection's `write`, `done` and `break_off`.

    After `done`, `break_off` or `gone` nothing more is called.
    """

    __slots__ = ("client", "head", "request_id", "trace")

    def __init__(self, client: Client, head: Head, request_id: str) -> None:
        self.client = client
        self.head = head
        self.request_id = request_id
        self.trace = client.trace

    def start(self) -> None:
        """The head has been read. Raises AwsError where that alone is reason to refuse; the connection tells it."""

    def body(self, data: bytes) -> None:
        """A piece of the request's body."""
        raise NotImplementedError

    def body_end(self) -> None:
        """The request's body is whole."""
        raise NotImplementedError

    def gone(self) -> None:
        """The client has left: give everything back at once."""
        raise NotImplementedError

    def pause(self) -> None:
        """The client reads slower than we write."""

    def resume(self) -> None:
        """The client has caught up."""

    def expired(self) -> None:
        """`client.answer_by` has passed."""

    def shut(self) -> None:
        """The drain time is over: end now, so that the client knows it was cut short."""
        self.gone()
        self.client.break_off()
