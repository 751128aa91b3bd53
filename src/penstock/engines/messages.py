"""The bytes between a server's front and its engine process.

Owns the framing: four bytes of length, big-endian, then a MessagePack array of `[kind, message]` pairs. Several messages that arise in
one step travel in one frame. It must never know what the messages are for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from penstock.engines.base import (
    AdapterChanged,
    AddAdapter,
    Cancel,
    EngineInfo,
    Finish,
    PromptLogprobs,
    RemoveAdapter,
    Submit,
    Token,
)

MAX_FRAME = 64 * 1024 * 1024
"""A longer frame is a broken peer. A prompt of a million tokens takes 5 MB."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not start: the first and last message of its process. Or a step failed: only the ends of its requests follow."""

    reason: str


@dataclass(frozen=True, slots=True)
class Took:
    """What the tokens of this frame cost the engine's process, in seconds: the last message of a step's frame."""

    forward: float
    """The model's own time."""
    decode: float
    """From its numbers to these messages."""


Message = (
    Submit
    | Cancel
    | Token
    | Finish
    | PromptLogprobs
    | EngineInfo
    | Failed
    | AddAdapter
    | RemoveAdapter
    | AdapterChanged
    | Took
)

_KINDS: tuple[type[Message], ...] = (
    Submit,
    Cancel,
    Token,
    Finish,
    PromptLogprobs,
    EngineInfo,
    Failed,
    AddAdapter,
    RemoveAdapter,
    AdapterChanged,
    Took,
)
_NUMBER = {kind: number for number, kind in enumerate(_KINDS)}
_ENCODER = msgspec.msgpack.Encoder()
_FRAME = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])
_MESSAGES = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_LENGTH = struct.Struct(">I")
HEADER_BYTES = _LENGTH.size


class BrokenFrame(Exception):
    """The peer sent bytes that are no frame."""


def encode(messages: Iterable[Message]) -> bytes:
    """One frame. An empty one is a sign of life."""
    body = _ENCODER.encode([(_NUMBER[type(message)], message) for message in messages])
    return _LENGTH.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """How many bytes follow the header. Raises BrokenFrame when it is absurd."""
    length: int = _LENGTH.unpack(header)[0]
    if length > MAX_FRAME:
        raise BrokenFrame(f"a frame of {length} bytes")
    return length


def decode(body: bytes) -> list[Message]:
    """The messages of one frame's body. Raises BrokenFrame."""
    try:
        return [_MESSAGES[kind].decode(raw) for kind, raw in _FRAME.decode(body)]
    except (msgspec.MsgspecError, IndexError) as error:
        raise BrokenFrame(str(error)) from error


class Frames:
    """Cuts a byte stream into messages, however it was sliced."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises BrokenFrame."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= HEADER_BYTES:
            end = HEADER_BYTES + body_length(bytes(self._buffer[:HEADER_BYTES]))
            if len(self._buffer) < end:
                break
            messages += decode(bytes(self._buffer[HEADER_BYTES:end]))
            del self._buffer[:end]
        return messages
