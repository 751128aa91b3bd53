"""Operations on buckets: create, look, list, delete, and the two listings of keys."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from penstock.control.neighbours.s3 import errors
from penstock.control.neighbours.s3.exchange import Exchange, moment, quoted, url_encoded
from penstock.control.neighbours.s3.listing import Page
from penstock.control.neighbours.s3.store import Bucket
from penstock.errors import AwsError

_MOST = 1000
Output = dict[str, Any]


async def create_bucket(x: Exchange) -> Output:
    name = x.params["Bucket"]
    constraint = x.params.get("CreateBucketConfiguration", {}).get("LocationConstraint")
    region = {"EU": "eu-west-1"}.get(constraint, constraint) or x.caller.region or "us-east-1"
    try:
        await x.disk(lambda: x.store.create_bucket(name, account=x.caller.account, region=region))
    except AwsError as error:
        # In us-east-1 alone, S3 lets an owner create a bucket again.
        if error.code != "BucketAlreadyOwnedByYou" or region != "us-east-1":
            raise
    return {"Location": f"/{name}"}


async def head_bucket(x: Exchange) -> Output:
    bucket: Bucket = await x.disk(x.store.bucket, x.params["Bucket"])
    return {"BucketRegion": bucket.region, "AccessPointAlias": False}


async def get_bucket_location(x: Exchange) -> Output:
    bucket: Bucket = await x.disk(x.store.bucket, x.params["Bucket"])
    return {"LocationConstraint": None if bucket.region == "us-east-1" else bucket.region}


async def delete_bucket(x: Exchange) -> Output:
    await x.disk(x.store.delete_bucket, x.params["Bucket"])
    return {}


async def list_buckets(x: Exchange) -> Output:
    found: list[Bucket] = await x.disk(x.store.buckets)
    prefix, region = x.params.get("Prefix") or "", x.params.get("BucketRegion")
    after, most = _token(x.params.get("ContinuationToken")), _count(x, "MaxBuckets", 10_000)
    mine = [
        bucket
        for bucket in found
        if bucket.account == x.caller.account
        and bucket.name.startswith(prefix)
        and bucket.name > after
        and region in (None, bucket.region)
    ]
    return {
        "Buckets": [
            {"Name": bucket.name, "CreationDate": moment(bucket.created), "BucketRegion": bucket.region}
            for bucket in mine[:most]
        ],
        "Owner": _owner(x),
        "Prefix": x.params.get("Prefix"),
        "ContinuationToken": _opaque(mine[most - 1].name) if len(mine) > most else None,
    }


async def list_objects(x: Exchange) -> Output:
    marker, most = x.params.get("Marker") or "", _count(x, "MaxKeys", _MOST)
    page = await _page(x, marker, most)
    encoding, delimiter = x.params.get("EncodingType"), x.params.get("Delimiter")
    return {
        **await _entries(x, page, most, owner=True),
        "Marker": url_encoded(marker, encoding),
        "NextMarker": url_encoded(page.last, encoding) if page.truncated and delimiter else None,
    }


async def list_objects_v2(x: Exchange) -> Output:
    most, encoding = _count(x, "MaxKeys", _MOST), x.params.get("EncodingType")
    token, start = x.params.get("ContinuationToken"), x.params.get("StartAfter") or ""
    page = await _page(x, _token(token) if token else start, most)
    return {
        **await _entries(x, page, most, owner=bool(x.params.get("FetchOwner"))),
        "KeyCount": len(page.keys) + len(page.prefixes),
        "ContinuationToken": token,
        "NextContinuationToken": _opaque(page.last) if page.truncated else None,
        "StartAfter": url_encoded(start or None, encoding),
    }


async def _page(x: Exchange, after: str, most: int) -> Page:
    prefix, delimiter = x.params.get("Prefix") or "", x.params.get("Delimiter") or ""
    page: Page = await x.disk(
        lambda: x.store.page(x.params["Bucket"], prefix=prefix, delimiter=delimiter, after=after, most=most)
    )
    return page


async def _entries(x: Exchange, page: Page, most: int, *, owner: bool) -> Output:
    encoding = x.params.get("EncodingType")
    if encoding not in (None, "url"):
        raise errors.invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", encoding)
    contents = await x.disk(_contents, x, page, encoding)
    if owner:
        contents = [{**entry, "Owner": _owner(x)} for entry in contents]
    return {
        "Name": x.params["Bucket"],
        "Prefix": url_encoded(x.params.get("Prefix") or "", encoding),
        "Delimiter": url_encoded(x.params.get("Delimiter"), encoding),
        "MaxKeys": most,
        "EncodingType": encoding,
        "IsTruncated": page.truncated,
        "Contents": contents,
        "CommonPrefixes": [{"Prefix": url_encoded(prefix, encoding)} for prefix in page.prefixes],
    }


def _contents(x: Exchange, page: Page, encoding: str | None) -> list[Output]:
    found: list[Output] = []
    for key in page.keys:
        try:
            with x.store.read(x.params["Bucket"], key) as record:
                metadata = record.metadata
        except AwsError:  # deleted since the page was made
            continue
        entry: Output = {
            "Key": url_encoded(key, encoding),
            "LastModified": moment(metadata.modified),
            "ETag": quoted(metadata.etag),
            "Size": metadata.size,
            "StorageClass": metadata.headers.get("StorageClass", "STANDARD"),
        }
        if metadata.checksums:
            entry |= {"ChecksumAlgorithm": list(metadata.checksums), "ChecksumType": metadata.checksum_type}
        found.append(entry)
    return found


def _owner(x: Exchange) -> dict[str, str]:
    return {"DisplayName": x.caller.account, "ID": x.caller.account}


def _count(x: Exchange, name: str, most: int) -> int:
    asked = x.params.get(name)
    if asked is not None and not 0 <= asked < 2**31:
        raise errors.invalid_argument("Argument maxKeys must be an integer between 0 and 2147483647", "max-keys", asked)
    return most if asked is None else min(int(asked), most)


def _opaque(text: str) -> str:
    """A token that nobody mistakes for a key."""
    return base64.urlsafe_b64encode(text.encode("utf-8")).decode("ascii")


def _token(token: str | None) -> str:
    try:
        return base64.b64decode((token or "").encode("ascii"), altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        message = "The continuation token provided is incorrect"
        raise errors.invalid_argument(message, "continuation-token", token or "") from None
