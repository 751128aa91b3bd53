"""What the server answers when it can't: DJL Serving's error types, codes and body.

Owns the mapping from a failure to a status. It must never write to a socket; `replies.py` renders.
"""

from __future__ import annotations


class LmiError(Exception):
    """An error with DJL Serving's body: `{"code", "type", "message"}`. The type is a Java class's name, as clients see it."""

    status = 500
    type = "InternalServerException"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(LmiError):
    status = 400
    type = "BadRequestException"


class Untranslatable(LmiError):
    """A request that the model's side could not take up, a time-out included."""

    status = 400
    type = "TranslateException"


class TimedOut(Untranslatable):
    """No answer within `predict_timeout`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Time out in: {seconds:g}")


class ModelNotFound(LmiError):
    status = 404
    type = "ModelNotFoundException"


class ResourceNotFound(LmiError):
    status = 404
    type = "ResourceNotFoundException"

    def __init__(self) -> None:
        super().__init__("Requested resource is not found, please refer to API document.")


class MethodNotAllowed(LmiError):
    status = 405
    type = "MethodNotAllowedException"

    def __init__(self) -> None:
        super().__init__("Requested method is not allowed, please refer to API document.")


class Conflict(LmiError):
    """A model of that name is registered already."""

    status = 409
    type = "BadRequestException"


class TooLarge(LmiError):
    status = 413
    type = "TooLongHttpContentException"


class CapacityExceeded(LmiError):
    status = 503
    type = "WlmCapacityException"


class WorkerFailure(LmiError):
    """The process of a request died or ran into its time-out."""

    status = 503
    type = "WlmException"


class Unavailable(LmiError):
    """The model is loading, or its workers are gone for good."""

    status = 503
    type = "WlmShutdownException"


class OutOfMemory(LmiError):
    status = 507
    type = "WlmOutOfMemoryException"


class StreamBroken(Exception):
    """A stream that can't be ended truthfully: the connection must be cut, never closed as if all were said."""
