"""What a request demands of an object before it is served: conditions and ranges.

Pure. AWS: "GetObject", "Conditional requests"; RFC 9110 §13 and §14, and S3's departures from them.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from penstock.control.neighbours.s3 import errors

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


def check_read(params: Mapping[str, Any], etag: str, modified: float) -> None:
    """If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, in the order of RFC 9110.

    Raises AwsError: PreconditionFailed (412), NotModified (304).
    """
    seconds = int(modified)
    if (wanted := params.get("IfMatch")) is not None:
        if not _named(wanted, etag):
            raise errors.precondition_failed("If-Match")
    elif (since := params.get("IfUnmodifiedSince")) is not None and seconds > _seconds(since):
        raise errors.precondition_failed("If-Unmodified-Since")
    if (unwanted := params.get("IfNoneMatch")) is not None:
        if _named(unwanted, etag):
            raise errors.not_modified()
    elif (since := params.get("IfModifiedSince")) is not None and seconds <= _seconds(since):
        raise errors.not_modified()


def check_copy(params: Mapping[str, Any], etag: str, modified: float) -> None:
    """The same of a copy's source, where every failure is a 412."""
    seconds = int(modified)
    if (wanted := params.get("CopySourceIfMatch")) is not None:
        if not _named(wanted, etag):
            raise errors.precondition_failed("x-amz-copy-source-If-Match")
    elif (since := params.get("CopySourceIfUnmodifiedSince")) is not None and seconds > _seconds(since):
        raise errors.precondition_failed("x-amz-copy-source-If-Unmodified-Since")
    if (unwanted := params.get("CopySourceIfNoneMatch")) is not None:
        if _named(unwanted, etag):
            raise errors.precondition_failed("x-amz-copy-source-If-None-Match")
    elif (since := params.get("CopySourceIfModifiedSince")) is not None and seconds <= _seconds(since):
        raise errors.precondition_failed("x-amz-copy-source-If-Modified-Since")


def check_write(params: Mapping[str, Any], key: str, etag: str | None) -> None:
    """The conditions of a write over what is there (`etag`, None where there is nothing). Raises AwsError: 404, 412."""
    if (wanted := params.get("IfMatch")) is not None:
        if etag is None:
            raise errors.no_such_key(key)
        if not _named(wanted, etag):
            raise errors.precondition_failed("If-Match")
    if (unwanted := params.get("IfNoneMatch")) is not None:
        if unwanted != "*":
            raise errors.not_implemented("If-None-Match")
        if etag is not None:
            raise errors.precondition_failed("If-None-Match")


def read_range(text: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length of the range that a `Range` header asks of `size` bytes.

    None where the whole is to be sent: no header, one that cannot be read, or several ranges, which S3 does not serve. Raises AwsError
    InvalidRange (416).
    """
    match = _RANGE.fullmatch(text.strip()) if text else None
    if match is None or match[0].endswith("=-"):
        return None
    first, last = match[1], match[2]
    if not first:
        length = min(int(last), size)
        if length == 0:
            raise errors.invalid_range(text or "", size)
        return size - length, length
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise errors.invalid_range(text or "", size)
    end = min(int(last), size - 1) if last else size - 1
    return start, end - start + 1


def _named(header: str, etag: str) -> bool:
    names = {name.strip().removeprefix("W/").strip('"') for name in header.split(",")}
    return "*" in names or etag in names


def _seconds(moment: dt.datetime) -> float:
    return moment.timestamp()
