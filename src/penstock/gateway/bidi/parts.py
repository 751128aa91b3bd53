"""A part of the conversation, as a message of the event stream and back.

Owns that mapping: one PayloadPart is one WebSocket frame, never joined and never split. It must never do I/O.
AWS's pages: "InvokeEndpointWithBidirectionalStream" (RequestPayloadPart, ResponsePayloadPart) and "Container Contract to Support
Bidirectional Streaming Capabilities".
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from penstock.errors import AwsError
from penstock.gateway.bidi.errors import invalid
from penstock.wire.eventstream import Decoder, FrameError, Message, encode_message

_TYPES = {"UTF8": True, "BINARY": False, None: None}
_STATES = {"PARTIAL": False, "COMPLETE": True, None: True}
_STRUCTURED_ERROR = b'{"ModelStreamError"'


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a message. `text` is None where the client does not say; `last` ends the message."""

    data: bytes
    text: bool | None
    last: bool = True


def read_part(message: Message) -> Part | None:
    """The part in a client's event; None where it is one of those that carry nothing for the container. Raises AwsError."""
    headers = message.headers
    kind = headers.get(":event-type")
    if headers.get(":message-type") != "event" or not isinstance(kind, str):
        raise invalid("A message of the request's stream is an event.")
    if kind == "initial-request":
        return None  # its members are headers of the request here
    if kind != "PayloadPart":
        raise invalid(f"Value '{kind[:64]}' at ':event-type' failed to satisfy constraint: Member must be PayloadPart")
    data_type, state = headers.get("DataType"), headers.get("CompletionState")
    if not (data_type is None or isinstance(data_type, str)) or data_type not in _TYPES:
        raise invalid(
            "Value at 'dataType' failed to satisfy constraint: Member must satisfy enum value set: [UTF8, BINARY]"
        )
    if not (state is None or isinstance(state, str)) or state not in _STATES:
        raise invalid(
            "Value at 'completionState' failed to satisfy constraint: Member must satisfy enum value set: [PARTIAL, COMPLETE]"
        )
    return Part(message.payload, _TYPES[data_type], _STATES[state])


def only_message(raw: bytes) -> Message:
    """The message that an envelope holds. Raises AwsError where it holds anything but one."""
    decoder = Decoder(len(raw))
    try:
        messages = decoder.feed(raw)
        decoder.finish()
    except FrameError as error:
        raise invalid(f"The event in a signed message cannot be read: {error}.") from None
    if len(messages) != 1:
        raise invalid("A signed message holds one event.")
    return messages[0]


def part_message(part: Part) -> bytes:
    """A container's part as an event for the client."""
    headers = {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        "DataType": "UTF8" if part.text else "BINARY",
        "CompletionState": "COMPLETE" if part.last else "PARTIAL",
    }
    return encode_message(headers, part.data)


def structured_error(part: Part) -> AwsError | None:
    """A container's `{"ModelStreamError": {"ErrorCode": …, "Message": …}}`, sent as a whole text message; None for any other part."""
    if not (part.text and part.last and part.data.startswith(_STRUCTURED_ERROR)):
        return None
    try:
        told = json.loads(part.data)
    except (ValueError, RecursionError):
        return None
    members = told["ModelStreamError"]
    if len(told) > 1 or not isinstance(members, dict):
        return None
    code, text = members.get("ErrorCode"), members.get("Message")
    if not isinstance(code, str) or not isinstance(text, str):
        return None
    return AwsError("ModelStreamError", text, members={"ErrorCode": code})
