"""What an S3 operation is given, and the values that every one of them reads or makes.

Owns the passage between S3's member names and the store's values. It must never know HTTP beyond the request's head.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from penstock.control.neighbours.s3 import errors
from penstock.control.neighbours.s3.body import DiskThreads, Secrets, Stream
from penstock.control.neighbours.s3.records import Metadata
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.control.neighbours.s3.uploads import Uploads
from penstock.control.service import Caller
from penstock.wire.messages import WireRequest
from penstock.wire.timestamps import to_http

HEADERS = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires")
"""Members that are kept with an object and come back with it."""
USER_BYTES = 2048
_UNSERVED = {
    "Tagging": "x-amz-tagging",
    "WebsiteRedirectLocation": "x-amz-website-redirect-location",
    "SSECustomerKey": "x-amz-server-side-encryption-customer-key",
    "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
    "ObjectLockLegalHoldStatus": "x-amz-object-lock-legal-hold",
    "ObjectLockEnabledForBucket": "x-amz-bucket-object-lock-enabled",
    "WriteOffsetBytes": "x-amz-write-offset-bytes",
    "GrantFullControl": "x-amz-grant-full-control",
    "GrantRead": "x-amz-grant-read",
    "GrantReadACP": "x-amz-grant-read-acp",
    "GrantWrite": "x-amz-grant-write",
    "GrantWriteACP": "x-amz-grant-write-acp",
    "CopySourceSSECustomerKey": "x-amz-copy-source-server-side-encryption-customer-key",
}
_ACLS = (None, "private", "bucket-owner-full-control")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request: who asks, what for, and where things are kept."""

    caller: Caller
    params: Mapping[str, Any]
    head: WireRequest
    body: Stream
    """An object's bytes, of the operations that stream; at its end for others."""
    store: ObjectStore
    uploads: Uploads
    disk: DiskThreads
    secrets: Secrets
    object_bytes: int
    idle_s: float


S3Operation = Callable[[Exchange], Awaitable[dict[str, Any]]]


def refuse_unserved(params: Mapping[str, Any]) -> None:
    """Raises AwsError for what a request asks for and would silently not get. Encryption with S3's or KMS's keys has no effect here."""
    for member, header in _UNSERVED.items():
        if params.get(member) not in (None, False):
            raise errors.not_implemented(header)
    if params.get("ACL") not in _ACLS:
        raise errors.acl_not_supported()
    if params.get("VersionId") not in (None, "null"):
        raise errors.no_such_version(params["VersionId"])


def kept_headers(params: Mapping[str, Any]) -> dict[str, str]:
    """The headers to keep with an object."""
    found = {name: header_text(params[name]) for name in HEADERS if params.get(name) is not None}
    encodings = [part.strip() for part in found.pop("ContentEncoding", "").split(",")]
    if encodings := [part for part in encodings if part and part != "aws-chunked"]:
        found["ContentEncoding"] = ", ".join(encodings)
    if params.get("StorageClass") not in (None, "STANDARD"):
        found["StorageClass"] = params["StorageClass"]
    found.setdefault("ContentType", "binary/octet-stream")
    return found


def header_text(value: str | dt.datetime) -> str:
    """A kept header's value, as it goes over the wire."""
    return to_http(value) if isinstance(value, dt.datetime) else value


def user_metadata(params: Mapping[str, Any]) -> dict[str, str]:
    """The `x-amz-meta-` headers. Raises AwsError MetadataTooLarge."""
    found: dict[str, str] = dict(params.get("Metadata", {}))
    size = sum(len(name) + len(value) for name, value in found.items())
    if size > USER_BYTES:
        raise errors.metadata_too_large(size, USER_BYTES)
    return found


def moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def quoted(etag: str) -> str:
    return f'"{etag}"'


def checksum_members(metadata: Metadata) -> dict[str, str]:
    """`ChecksumCRC32` and its like, as answers hold them."""
    found = {f"Checksum{algorithm}": value for algorithm, value in metadata.checksums.items()}
    return {**found, "ChecksumType": metadata.checksum_type} if found else {}


def url_encoded(text: str | None, encoding: str | None) -> str | None:
    """A key as `encoding-type=url` writes it."""
    return quote(text, safe="/") if text and encoding == "url" else text
