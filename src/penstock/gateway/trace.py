"""What is noted of one request while it is served: times, counts and names, for the access log and the metrics.

Owns the note and its line of JSON. It must never hold a secret or a byte of a body, nor do I/O.
"""

from __future__ import annotations

import time
from functools import lru_cache

import msgspec

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct):
    """Of any request, in the order of the log."""

    time: str
    request_id: str
    operation: str
    status: int
    error: str
    access_key: str
    bytes_in: int
    bytes_out: int
    total_ms: float


class _InvocationLine(_Line):
    """Of one that found its endpoint."""

    region: str
    endpoint: str
    variant: str
    parts: int
    first_chunk_ms: float | None
    component: str | msgspec.UnsetType = msgspec.UNSET


@lru_cache(maxsize=8)
def _stamp(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


LEFT = "ClientLeft"
instant = time.perf_counter
"""The clock of every time in a note. The loop's own stands still within a turn and counts in whole milliseconds."""


class Trace:
    """Times are `instant`'s, in seconds; 0 is "it never came to that"."""

    __slots__ = (
        "account",
        "answered",
        "began",
        "bytes_in",
        "bytes_out",
        "component",
        "endpoint",
        "error",
        "first",
        "key",
        "model_status",
        "operation",
        "parts",
        "region",
        "request_id",
        "sent",
        "status",
        "variant",
    )

    def __init__(self, request_id: str, operation: str, began: float) -> None:
        self.request_id = request_id
        self.operation = operation
        self.began = began
        self.sent = self.first = self.answered = 0.0
        """When the container was sent the request, began its answer, and ended it."""
        self.account = self.region = self.endpoint = self.variant = self.component = self.key = self.error = ""
        self.status = self.model_status = self.bytes_in = self.bytes_out = self.parts = 0

    def line(self, now: float, clock: float) -> bytes:
        """The access log's line. `now` is an `instant`, `clock` epoch seconds."""
        total = now - self.began
        when = clock - total
        second = int(when)
        of_any = (
            f"{_stamp(second)}.{int((when - second) * 1000):03d}Z",
            self.request_id,
            self.operation[:256],
            self.status,
            self.error,
            self.key,
            self.bytes_in,
            self.bytes_out,
            round(total * 1e3, 3),
        )
        if not self.endpoint:
            return _encode(_Line(*of_any)) + b"\n"
        first = round((self.first - self.began) * 1e3, 3) if self.first else None
        component = self.component or msgspec.UNSET
        return (
            _encode(_InvocationLine(*of_any, self.region, self.endpoint, self.variant, self.parts, first, component))
            + b"\n"
        )
