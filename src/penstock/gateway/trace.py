"""What is noted of one request while it is served: times, counts and names, for the access log and the metrics.

Owns the note and its line of JSON. It must never hold a secret or a byte of a body, nor do I/O.
"""

from __future__ import annotations

import time
from functools import lru_cache

import msgspec

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=1024)
def _text(value: str) -> str:
    """As JSON. Most values come again and again: names, keys, operations."""
    return _encode(value).decode()


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
        """The access log's line. `now` is an `instant`, `clock` epoch seconds. Written by hand: it runs once a request."""
        total = now - self.began
        when = clock - total
        second = int(when)
        of_endpoint = ""
        if self.endpoint:
            first = f"{(self.first - self.began) * 1e3:.3f}" if self.first else "null"
            of_endpoint = (
                f',"region":{_text(self.region)},"endpoint":{_text(self.endpoint)},"variant":{_text(self.variant)}'
                f',"parts":{self.parts},"first_chunk_ms":{first}'
            )
            if self.component:
                of_endpoint += f',"component":{_text(self.component)}'
        return (
            f'{{"time":"{_stamp(second)}.{int((when - second) * 1000):03d}Z","request_id":"{self.request_id}"'
            f',"operation":{_text(self.operation[:256])},"status":{self.status},"error":{_text(self.error)}'
            f',"access_key":{_text(self.key)},"bytes_in":{self.bytes_in},"bytes_out":{self.bytes_out}'
            f',"total_ms":{total * 1e3:.3f}{of_endpoint}}}\n'
        ).encode()
