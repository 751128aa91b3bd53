"""Errors that a fault plan answers with, in AWS's words.

Owns which error a rule stands for. It must never decide when one strikes.
"""

from __future__ import annotations

from penstock.errors import AwsError
from penstock.faultplan import Fault
from penstock.gateway import failures
from penstock.routes import Endpoint

_INJECTED = "injected by a fault plan"


def refusal(fault: Fault, endpoint: Endpoint, container: str, session: str = "") -> AwsError:
    """What a request gets that a rule before the first byte has struck."""
    if fault.kind == "ModelError":
        return failures.from_container(endpoint, container, fault.status, (fault.message or _INJECTED).encode())
    error = _of(fault, endpoint, session)
    return AwsError(error.code, fault.message or error.message, status=error.status, members=error.members)


def _of(fault: Fault, endpoint: Endpoint, session: str) -> AwsError:
    match fault.kind:
        case "dead-instance":
            return failures.no_response(endpoint)
        case "InternalFailure":
            return failures.internal()
        case "ServiceUnavailable":
            return failures.unavailable("The service is unavailable. Send the request again.")
        case "ModelNotReady":
            return failures.model_not_ready()
        case "Throttling":
            return AwsError("ThrottlingException", "Rate exceeded", status=400)
        case _:
            return failures.no_such_session(session, endpoint.name)
