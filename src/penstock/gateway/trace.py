"""What is noted of one request while it is served: times, counts and names, for the access log and the metrics.

Owns the note and its line of JSON. It must never hold a secret or a byte of a body, nor do I/O.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import msgspec

from penstock._speed import COMPILED

if COMPILED:
    from penstock._speed import native

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


class Trace(msgspec.Struct, gc=False):
    """Times are `instant`'s, in seconds; 0 is "it never came to that"."""

    request_id: str
    operation: str
    began: float
    sent: float = 0.0
    """When the container was sent the request, began its answer, and ended it."""
    first: float = 0.0
    answered: float = 0.0
    account: str = ""
    region: str = ""
    endpoint: str = ""
    variant: str = ""
    component: str = ""
    key: str = ""
    error: str = ""
    status: int = 0
    model_status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    parts: int = 0

    def line(self, now: float, clock: float) -> bytes:
        """The access log's line. `now` is an `instant`, `clock` epoch seconds."""
        total = now - self.began
        when = clock - total
        second = int(when)
        values: tuple[Any, ...] = (
            f"{_stamp(second)}.{int((when - second) * 1000):03d}Z",
            self.request_id,
            self.operation[:256],
            self.status,
            self.error,
            self.key,
            self.bytes_in,
            self.bytes_out,
            total * 1e3,
        )
        if self.endpoint:
            first = (self.first - self.began) * 1e3 if self.first else None
            values += (self.region, self.endpoint, self.variant, self.parts, first, self.component)
        return (native.access_line(*values) if COMPILED else None) or line_here(*values)


def line_here(*values: Any) -> bytes:
    """The line in Python: nine values of any request, six more of one that found its endpoint."""
    told: list[Any] = [round(value, 3) if isinstance(value, float) else value for value in values]
    if len(told) == 9:
        return _encode(_Line(*told)) + b"\n"
    told[14] = told[14] or msgspec.UNSET
    return _encode(_InvocationLine(*told)) + b"\n"
