"""The two values that every protocol module reads and makes.

Owns a request and a response as bytes with headers, whole. It must never know a socket, a framework or a protocol; bodies that are too
large to hold (S3 objects) travel beside these values, not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP request. `path` and `query` are as on the wire, still percent-encoded; header names are in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class WireResponse:
    """One HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
