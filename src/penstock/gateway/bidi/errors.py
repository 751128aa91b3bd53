"""This operation's own names for what can go wrong.

Owns the translation: the service "SageMaker Runtime HTTP2" calls some of the runtime's errors otherwise, and tells an error in the middle
of a stream as a message of its own kind. It must never decide what went wrong.
"""

from __future__ import annotations

from penstock.errors import AwsError
from penstock.wire.eventstream import encode_message, exception_frame

_NAMES = {
    "ValidationError": "InputValidationError",
    "InternalFailure": "InternalServerError",
    "ServiceUnavailable": "ServiceUnavailableError",
}
_MODELED = ("ModelStreamError", "InternalStreamFailure")
"""Errors that are members of the response's stream."""
LONGEST = 2048
"""Characters of a message that AWS allows."""


def renamed(error: AwsError) -> AwsError:
    """The same error under this service's name for it."""
    code = _NAMES.get(error.code, error.code)
    return AwsError(code, error.message, status=error.status, fault=error.fault, members=error.members)


def error_message(error: AwsError) -> bytes:
    """What ends a stream that has begun: an exception where the stream's model has it, else an error in the event stream's general form."""
    error = renamed(error)
    if error.code in _MODELED:
        return exception_frame(error)
    headers = {":message-type": "error", ":error-code": error.code, ":error-message": error.message[:LONGEST]}
    return encode_message(headers, b"")


def invalid(text: str) -> AwsError:
    return AwsError(
        "InputValidationError", f"1 validation error detected: {text}", members={"ErrorCode": "VALIDATION_ERROR"}
    )


def container_closed(container: str, code: int, reason: str) -> AwsError:
    """A container closed its WebSocket with a code that is no success."""
    text = f"Your model {container} closed the connection with code {code}"
    text += f": {reason[:LONGEST]}" if reason else "."
    return AwsError("ModelStreamError", text, members={"ErrorCode": "StreamBroken"})


def container_silent(container: str) -> AwsError:
    text = f"Your model {container} did not answer the WebSocket's pings."
    return AwsError("ModelStreamError", text, members={"ErrorCode": "StreamBroken"})
