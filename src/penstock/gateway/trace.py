"""What is noted of one request while it is served: times, counts and names, for the access log and the metrics.

Owns the note and its two renderings, one line of JSON and the latencies that AWS defines. It must never hold a secret or a byte of a body,
nor do I/O. AWS's page: "Monitor Amazon SageMaker endpoints with Amazon CloudWatch", invocation and streaming metrics.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

_encode = msgspec.json.Encoder().encode
LEFT = "ClientLeft"


class Trace:
    """Times are the loop's, in seconds; 0 is "it never came to that"."""

    __slots__ = (
        "account",
        "answered",
        "began",
        "bytes_in",
        "bytes_out",
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
        self.account = self.region = self.endpoint = self.variant = self.key = self.error = ""
        self.status = self.model_status = self.bytes_in = self.bytes_out = self.parts = 0

    def line(self, now: float, clock: float) -> bytes:
        """The access log's line. `now` is loop time, `clock` epoch seconds."""
        when = datetime.fromtimestamp(clock - (now - self.began), UTC)
        told = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request_id": self.request_id,
            "operation": self.operation,
            "status": self.status,
            "error": self.error,
            "access_key": self.key,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "total_ms": round((now - self.began) * 1000, 3),
        }
        if self.endpoint:
            told |= {
                "region": self.region,
                "endpoint": self.endpoint,
                "variant": self.variant,
                "parts": self.parts,
                "first_chunk_ms": round((self.first - self.began) * 1000, 3) if self.first else None,
            }
        return _encode(told) + b"\n"

    def latencies(self, now: float) -> dict[str, float]:
        """By CloudWatch's names, microseconds: those that this request has."""
        found: dict[str, float] = {}
        if not self.sent:
            return found
        if self.answered:
            found["ModelLatency"] = (self.answered - self.sent) * 1e6
            found["OverheadLatency"] = (now - self.began) * 1e6 - found["ModelLatency"]
        if self.first and self.operation == "InvokeEndpointWithResponseStream":
            found["FirstChunkLatency"] = (self.first - self.began) * 1e6
            found["FirstChunkModelLatency"] = (self.first - self.sent) * 1e6
            found["FirstChunkOverheadLatency"] = (self.sent - self.began) * 1e6
        return found

    def counts(self, *, broken: bool) -> dict[str, int]:
        """By CloudWatch's names: what this request adds. `broken`: its stream had begun and did not end cleanly."""
        added = {"Invocations": 1}
        if 400 <= self.model_status < 500:
            added["Invocation4XXErrors"] = 1
        elif self.model_status >= 500:
            added["Invocation5XXErrors"] = 1
        if self.sent and self.error != LEFT and not 200 <= self.model_status < 300:
            added["InvocationModelErrors"] = 1
        if broken:
            added["MidStreamErrors"] = 1
        return added
