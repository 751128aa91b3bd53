"""Server-sent events out of bytes.

Owns the event stream format of the WHATWG's HTML standard (section 9.2). It must never know what the data mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from penstock.client.errors import StreamError
from penstock.client.lines import LineSplitter


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event: `data` with its lines joined by LF, `event` ("message" when not named), the last `id`, `retry` in ms."""

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None

    def json(self) -> Any:
        """The data as JSON; ValueError where they are none."""
        return json.loads(self.data)


class SseParser:
    """Bytes in, events out. Comments are skipped. Data of more than `max_line` bytes raise StreamError `EventTooLong`.

    One point differs from the standard on purpose: an event that the end of the stream leaves without its blank line is
    yielded, since model servers exist that leave out the last one; browsers would drop it.
    """

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._lines = LineSplitter(max_line)
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self._id = ""
        self._retry: int | None = None

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """The events which `data` completes."""
        for line in self._lines.feed(data):
            if line:
                self._field(line)
            elif self._data:
                yield self._dispatch()
            else:
                self._event = b""

    def finish(self) -> Iterator[ServerSentEvent]:
        """The last event, where no blank line ended it."""
        for line in self._lines.finish():
            self._field(line)
        if self._data:
            yield self._dispatch()

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
            if self._size > self._max + 1:
                raise StreamError("EventTooLong", f"the data of an event are longer than {self._max} bytes")
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self._retry = int(value[:12])

    def _dispatch(self) -> ServerSentEvent:
        event = ServerSentEvent(
            b"\n".join(self._data).decode("utf-8", "replace"),
            self._event.decode("utf-8", "replace") or "message",
            self._id,
            self._retry,
        )
        self._data.clear()
        self._size, self._event, self._retry = 0, b"", None
        return event

    @property
    def rest(self) -> bytes:
        """The data of the event that is not complete yet, and the line that is not."""
        return b"".join(value + b"\n" for value in self._data) + self._lines.rest
