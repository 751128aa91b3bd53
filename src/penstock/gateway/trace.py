"""What is noted of one request while it is served: times, counts and names, for the access log and the metrics.

Owns the note and its line of JSON. It must never hold a secret or a byte of a body, nor do I/O.
"""

from __future__ import annotations

import time
from functools import lru_cache

import msgspec


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    """As JSON. Cached: few texts come again and again."""
    return msgspec.json.encode(text).decode()


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
        text = (
            f'{{"time":"{_stamp(second)}.{int((when - second) * 1000):03d}Z","request_id":"{self.request_id}",'
            f'"operation":{_quoted(self.operation[:256])},"status":{self.status},"error":{_quoted(self.error)},'
            f'"access_key":{_quoted(self.key)},"bytes_in":{self.bytes_in},"bytes_out":{self.bytes_out},"total_ms":{total * 1e3:.3f}'
        )
        if self.endpoint:  # one that found its endpoint
            first = f"{(self.first - self.began) * 1e3:.3f}" if self.first else "null"
            text += (
                f',"region":{_quoted(self.region)},"endpoint":{_quoted(self.endpoint)},"variant":{_quoted(self.variant)},'
                f'"parts":{self.parts},"first_chunk_ms":{first}'
            )
            if self.component:
                text += f',"component":{_quoted(self.component)}'
        return f"{text}}}\n".encode()
