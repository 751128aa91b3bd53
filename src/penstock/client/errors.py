"""What a reader raises when a stream breaks.

Owns the one error type of `penstock.client`, and the turning of other libraries' errors into it. It must never know a
format or a transport: errors of botocore, urllib3 or aiohttp are told apart by their looks, since none is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Origin = Literal["aws", "container", "connection", "reader"]


class StreamError(Exception):
    """A stream that broke: what came before the break is in `text`, what broke it in `code` and `message`.

    `code`: AWS's name for an error in the stream (`ModelStreamError`, `InternalStreamFailure`), the model server's own code
    or error type, the class name of a transport error, or the reader's own (`Truncated`, `InvalidJson`, `LineTooLong`,
    `EventTooLong`, `ValueTooLong`, `UnknownFormat`).
    `error_code`: AWS's ErrorCode (`ModelInvocationTimeExceeded`, `StreamBroken`) where the SDK hands it on; boto3 does not.
    `origin`: who reported it: "aws" (an exception frame), "container" (the model server, inside its body), "connection" or
    "reader" (the bytes themselves are wrong).
    `text`: everything received so far (for token readers: the generated text of sequence 0), at most the last `keep` bytes.
    `rest`: the received bytes which did not form a whole item yet; the items yielded plus `rest` are all that came.
    AWS page: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_ResponseStream.html
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        origin: Origin = "reader",
        error_code: str | None = None,
        text: str = "",
        rest: bytes = b"",
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.origin: Origin = origin
        self.error_code = error_code
        self.text = text
        self.rest = rest

    def __str__(self) -> str:
        detail = f" ({self.error_code})" if self.error_code else ""
        return f"{self.code}{detail}: {self.message}"


def from_exception(error: Exception) -> StreamError:
    """The StreamError for what iterating a stream raised: botocore's EventStreamError keeps AWS's code."""
    if isinstance(error, StreamError):
        return error
    response = getattr(error, "response", None)
    details = response.get("Error") if isinstance(response, Mapping) else None
    if isinstance(response, Mapping) and isinstance(details, Mapping):
        error_code = response.get("ErrorCode") or details.get("ErrorCode")
        return StreamError(
            str(details.get("Code") or type(error).__name__),
            str(details.get("Message") or error),
            origin="aws",
            error_code=str(error_code) if error_code else None,
        )
    return StreamError(type(error).__name__, str(error) or repr(error), origin="connection")


def from_event(name: str, members: Mapping[str, object]) -> StreamError:
    """The StreamError for an exception that an SDK hands on as an event: `{"ModelStreamError": {"Message": …}}`."""
    message = members.get("Message", members.get("message", ""))
    error_code = members.get("ErrorCode")
    return StreamError(name, str(message), origin="aws", error_code=str(error_code) if error_code else None)
