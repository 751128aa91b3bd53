"""The words in which AWS turns a signature down, service by service.

Owns codes, statuses and texts of authentication errors. It must never decide whether a signature holds (`sigv4.py` does) nor render bytes.
AWS's pages: "Common Errors" of each service's API reference, "Error responses" of Amazon S3.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from penstock.errors import AwsError

Dialect = Literal["json", "query", "rest-json", "s3"]
"""In which spelling a service tells errors: AWS JSON, Query, REST-JSON (the runtime), S3's XML."""

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)
_S3_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your key and signing method."
)
_PRESIGNED_PARAMETERS = (
    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
    "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
)


def missing(dialect: Dialect) -> AwsError:
    if dialect == "s3":
        return AwsError("AccessDenied", "Access Denied", status=403)
    return _error(dialect, "MissingAuthenticationToken", "Request is missing Authentication Token")


def unknown_key(dialect: Dialect, access_key: str) -> AwsError:
    if dialect == "s3":
        text = "The AWS Access Key Id you provided does not exist in our records."
        return AwsError("InvalidAccessKeyId", text, status=403, members={"AWSAccessKeyId": access_key})
    text = "The security token included in the request is invalid."
    if dialect == "query":
        return AwsError("InvalidClientTokenId", text, status=403)
    return _error(dialect, "UnrecognizedClient", text)


def denied(dialect: Dialect, text: str) -> AwsError:
    """The caller is known, and its policies do not allow this."""
    if dialect in ("query", "s3"):
        return AwsError("AccessDenied", text, status=403)
    return _error(dialect, "AccessDenied", text)


def wrong_token(dialect: Dialect, access_key: str) -> AwsError:
    """The key exists, the session token that came with it is not the one it needs."""
    if dialect == "s3":
        return AwsError("InvalidToken", "The provided token is malformed or otherwise invalid.", status=400)
    return unknown_key(dialect, access_key)


def mismatch(dialect: Dialect, access_key: str, signature: str) -> AwsError:
    if dialect == "s3":
        members = {"AWSAccessKeyId": access_key, "SignatureProvided": signature}
        return AwsError("SignatureDoesNotMatch", _S3_MISMATCH, status=403, members=members)
    return _signature_error(dialect, _MISMATCH)


def wrong_body(dialect: Dialect) -> AwsError:
    """The signature holds, and the body is not the one it names."""
    if dialect == "s3":
        text = "The provided 'x-amz-content-sha256' header does not match what was computed."
        return AwsError("XAmzContentSHA256Mismatch", text, status=400)
    return _signature_error(dialect, _MISMATCH)


def expired(dialect: Dialect, time: str, now: float, skew: float) -> AwsError:
    if dialect == "s3":
        return _skewed(time, now, skew)
    text = f"Signature expired: {time} is now earlier than {stamp(now - skew)} ({stamp(now)} - {skew / 60:g} min.)"
    return _signature_error(dialect, text)


def not_yet(dialect: Dialect, time: str, now: float, skew: float) -> AwsError:
    if dialect == "s3":
        return _skewed(time, now, skew)
    text = (
        f"Signature not yet current: {time} is still later than {stamp(now + skew)} ({stamp(now)} + {skew / 60:g} min.)"
    )
    return _signature_error(dialect, text)


def presigned_expired(dialect: Dialect, ends: float, now: float, expires: int) -> AwsError:
    if dialect == "s3":
        members: dict[str, str | int] = {"X-Amz-Expires": expires, "Expires": _iso(ends), "ServerTime": _iso(now)}
        return AwsError("AccessDenied", "Request has expired", status=403, members=members)
    return _signature_error(dialect, f"Signature expired: {stamp(ends)} is now earlier than {stamp(now)}")


def malformed(dialect: Dialect, detail: str) -> AwsError:
    """An Authorization header that lacks a part or has one that cannot be read."""
    if dialect == "s3":
        return AwsError("AuthorizationHeaderMalformed", f"The authorization header is malformed; {detail}", status=400)
    code = "IncompleteSignature" if dialect == "query" else "IncompleteSignatureException"
    return AwsError(code, detail, status=400)


def malformed_query(dialect: Dialect, detail: str = _PRESIGNED_PARAMETERS) -> AwsError:
    if dialect == "s3":
        return AwsError("AuthorizationQueryParametersError", detail, status=400)
    return malformed(dialect, detail)


def wrong_algorithm(dialect: Dialect) -> AwsError:
    text = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
    return AwsError("InvalidRequest", text, status=400) if dialect == "s3" else malformed(dialect, text)


def wrong_scope(dialect: Dialect, date: str, time: str) -> AwsError:
    text = f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{date}' != '{time}'."
    return malformed(dialect, text) if dialect == "s3" else _signature_error(dialect, text)


def unsigned_header(dialect: Dialect, name: str) -> AwsError:
    if dialect == "s3":
        text = "There were headers present in the request which were not signed"
        return AwsError("AccessDenied", text, status=403, members={"HeadersNotSigned": name})
    shown = "'Host' or ':authority'" if name == "host" else f"'{name}'"
    return _signature_error(dialect, f"{shown} must be a 'SignedHeader' in the AWS Authorization.")


def stamp(seconds: float) -> str:
    """`20261123T074500Z`, the form of `X-Amz-Date`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _error(dialect: Dialect, name: str, text: str) -> AwsError:
    """JSON services add `Exception` to the name, and AWS JSON answers 400 where the others answer 403."""
    code = name if dialect == "query" else f"{name}Exception"
    return AwsError(code, text, status=400 if dialect == "json" else 403)


def _signature_error(dialect: Dialect, text: str) -> AwsError:
    if dialect in ("query", "s3"):
        return AwsError("SignatureDoesNotMatch", text, status=403)
    return _error(dialect, "InvalidSignature", text)


def _skewed(time: str, now: float, skew: float) -> AwsError:
    members: dict[str, str | int] = {
        "RequestTime": time,
        "ServerTime": _iso(now),
        "MaxAllowedSkewMilliseconds": int(skew * 1000),
    }
    text = "The difference between the request time and the current time is too large."
    return AwsError("RequestTimeTooSkewed", text, status=403, members=members)
