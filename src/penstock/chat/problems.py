"""From an exception to something that helps.

Owns the wording of every error on the page: what happened, and what to do. It must never know Streamlit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from penstock.client import StreamError


@dataclass(frozen=True, slots=True)
class Problem:
    """One line that says what happened, and one that says what to do or what the other side said ("" for none)."""

    title: str
    detail: str = ""


_ENVIRONMENT = 'For Penstock, start the chat with `penstock chat`, or run `eval "$(penstock env)"` first'
_REFUSED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


def problem_of(error: Exception) -> Problem:
    """What to tell the reader about `error`."""
    if isinstance(error, StreamError):
        return _broken_stream(error)
    if isinstance(error, ClientError):
        return _refused(error)
    match error:
        case NoCredentialsError() | PartialCredentialsError():
            return Problem("No AWS credentials.", f"{_ENVIRONMENT}; for AWS, run `aws configure` or set AWS_PROFILE.")
        case NoRegionError():
            return Problem("No AWS region.", f"{_ENVIRONMENT}; for AWS, set AWS_REGION.")
        case SSLError():
            hint = "AWS_CA_BUNDLE must name the CA that signed it; `penstock env` prints the one of Penstock."
            return Problem("The server's certificate is not trusted.", hint)
        case EndpointConnectionError() | ConnectTimeoutError():
            return Problem(
                "Nothing answers there.", f"{error} Is it running (`penstock up`), and is AWS_ENDPOINT_URL right?"
            )
        case ReadTimeoutError():
            return Problem("The endpoint kept silent for too long.", str(error))
        case _:
            return Problem(f"The request failed: {type(error).__name__}.", str(error))


def _refused(error: ClientError) -> Problem:
    response: Mapping[str, object] = error.response
    details = response.get("Error")
    members = details if isinstance(details, Mapping) else {}
    code, message = str(members.get("Code", "")), str(members.get("Message", ""))
    if code == "ModelError":
        status = response.get("OriginalStatusCode")
        said = str(response.get("OriginalMessage") or message)
        if not status:
            return Problem("The endpoint's model server does not answer.", said)
        return Problem(f"The model server answered with status {status}.", said)
    if code in _REFUSED:
        return Problem("These AWS credentials are not accepted.", f"{message} ({code})")
    if code.startswith("AccessDenied"):
        return Problem("These AWS credentials may not do that.", message)
    if code in ("ThrottlingException", "ServiceUnavailable", "ModelNotReadyException"):
        return Problem("The endpoint is busy. Try again in a moment.", f"{message} ({code})")
    if "not found" in message or "Could not find" in message:
        return Problem("That endpoint is not there.", f"{message} Refresh the list and pick another.")
    return Problem(f"The endpoint refused the request: {code}.", message)


def _broken_stream(error: StreamError) -> Problem:
    match error.origin:
        case "aws":
            return Problem(f"The answer broke off: {error.code}.", error.message)
        case "container":
            return Problem(f"The model server reported an error: {error.code}.", error.message)
        case "connection":
            return Problem("The connection broke in the middle of the answer.", f"{error.message} ({error.code})")
        case _:
            return Problem("The answer is not complete.", f"{error.message} ({error.code})")
