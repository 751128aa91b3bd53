"""Messages to bytes.

Owns how a frame is laid out, and the short cut that makes a `PayloadPart` cheap: everything before the payload depends on the payload's
length alone, so it is built once a length. It must never know a socket.
"""

from __future__ import annotations

import json
from functools import lru_cache
from struct import Struct
from zlib import crc32

from penstock.errors import AwsError

MAX_HEADERS = 128 * 1024
"""Bytes of headers that AWS's SDKs accept in one message."""
MAX_PAYLOAD = 16 * 1024 * 1024
"""Bytes of payload that every AWS SDK accepts in one message."""

_PRELUDE = Struct("!II")
_CRC = Struct("!I")
_STRING = Struct("!B")
_LENGTH = Struct("!H")


def _encode_headers(headers: dict[str, str]) -> bytes:
    """String headers (type 7) in the order given."""
    out = bytearray()
    for name, value in headers.items():
        raw_name, raw_value = name.encode(), value.encode()
        out += _STRING.pack(len(raw_name)) + raw_name + b"\x07" + _LENGTH.pack(len(raw_value)) + raw_value
    return bytes(out)


def _head(headers: bytes, payload_length: int) -> tuple[bytes, int]:
    """What precedes a payload of that length, and the running CRC over it."""
    if payload_length > MAX_PAYLOAD:
        raise ValueError(f"an event-stream payload holds at most {MAX_PAYLOAD} bytes, not {payload_length}")
    prelude = _PRELUDE.pack(12 + len(headers) + payload_length + 4, len(headers))
    head = prelude + _CRC.pack(crc32(prelude)) + headers
    return head, crc32(head)


def encode_message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message with string headers. Raises ValueError on a payload or headers that no reader would take."""
    raw = _encode_headers(headers)
    if len(raw) > MAX_HEADERS:
        raise ValueError(f"event-stream headers hold at most {MAX_HEADERS} bytes, not {len(raw)}")
    head, crc = _head(raw, len(payload))
    return head + payload + _CRC.pack(crc32(payload, crc))


_PART = _encode_headers(
    {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}
)


@lru_cache(maxsize=8192)
def part_head(payload_length: int) -> tuple[bytes, int]:
    """The bytes before a `PayloadPart`'s payload of that length, and the CRC over them to go on from."""
    return _head(_PART, payload_length)


def part_frame(payload: bytes) -> bytes:
    """A `PayloadPart` event that carries `payload` (InvokeEndpointWithResponseStream, ResponseStream)."""
    head, crc = part_head(len(payload))
    return b"".join((head, payload, _CRC.pack(crc32(payload, crc))))


def exception_frame(error: AwsError) -> bytes:
    """The frame that ends a broken stream: `ModelStreamError` (with its `ErrorCode`) or `InternalStreamFailure`."""
    members: dict[str, str | int] = {"Message": error.message}
    if error.code == "ModelStreamError":
        members["ErrorCode"] = error.members.get("ErrorCode", "StreamBroken")
    headers = {":exception-type": error.code, ":content-type": "application/json", ":message-type": "exception"}
    return encode_message(headers, json.dumps(members).encode())
