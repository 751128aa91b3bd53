"""The one error type that crosses rooms.

Owns what an AWS error is: a code, an HTTP status, a message and whose fault it was. It must never know a wire protocol:
each protocol renders an `AwsError` in exactly one place (`wire/awsjson.py`, `wire/awsquery.py`, `wire/restxml.py`, the gateway).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Fault = Literal["client", "server"]


class AwsError(Exception):
    """An error that a client sees in AWS's shape.

    `code` is AWS's error type ("ValidationException"), `status` the HTTP status, `message` AWS's wording where one is known.
    `members` are further members of the error's body, in AWS's spelling (`ErrorCode`, `OriginalStatusCode`, `Resource` …).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 400,
        fault: Fault | None = None,
        members: Mapping[str, str | int] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.fault: Fault = fault or ("client" if status < 500 else "server")
        self.members: Mapping[str, str | int] = members or {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r}, status={self.status})"


class ValidationException(AwsError):
    """What the control plane answers to a request that breaks a rule, a missing resource included (400)."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)


class AccessDenied(AwsError):
    """The caller is known, and may not do this (403)."""

    def __init__(self, message: str) -> None:
        super().__init__("AccessDeniedException", message, status=403)
