"""Operations on objects: put, get, head, delete, copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import anyio

from penstock.control.neighbours.s3 import conditions, errors
from penstock.control.neighbours.s3.body import receive
from penstock.control.neighbours.s3.checksums import Digests
from penstock.control.neighbours.s3.exchange import (
    HEADERS,
    Exchange,
    checksum_members,
    header_text,
    kept_headers,
    moment,
    quoted,
    user_metadata,
)
from penstock.control.neighbours.s3.keys import key_path
from penstock.control.neighbours.s3.records import Metadata, Record, Writer
from penstock.control.neighbours.s3.store import Bucket, Condition
from penstock.control.neighbours.s3.uploads import copy_range
from penstock.errors import AwsError

Output = dict[str, Any]
_MOST_DELETED = 1000


@dataclass(frozen=True, slots=True)
class Source:
    """An answer's body: bytes of an open record, which whoever sends them closes."""

    record: Record
    offset: int
    length: int


async def put_object(x: Exchange) -> Output:
    bucket, key = x.params["Bucket"], x.params["Key"]
    key_path(key)
    headers, user = kept_headers(x.params), user_metadata(x.params)
    writer = await receive(
        x.head,
        x.body,
        x.store,
        x.disk,
        secrets=x.secrets,
        limit=x.object_bytes,
        idle_s=x.idle_s,
        algorithm=x.params.get("ChecksumAlgorithm") or "",
    )
    digests = writer.digests
    metadata = Metadata(
        key=key,
        size=digests.size,
        etag=digests.md5.hex(),
        modified=x.store.clock(),
        headers=headers,
        user=user,
        checksums=digests.checksums(),
    )
    await _commit(x, bucket, writer, metadata, lambda etag: conditions.check_write(x.params, key, etag))
    return {"ETag": quoted(metadata.etag), **checksum_members(metadata)}


async def _commit(x: Exchange, bucket: str, writer: Writer, metadata: Metadata, condition: Condition | None) -> None:
    """From here on a client that leaves changes nothing any more."""

    def act() -> None:
        try:
            x.store.commit(bucket, writer, metadata, condition)
        finally:
            writer.discard()

    with anyio.CancelScope(shield=True):
        await x.disk(act)


async def get_object(x: Exchange) -> Output:
    record: Record = await x.disk(x.store.read, x.params["Bucket"], x.params["Key"])
    try:
        output, offset, length = _describe(x, record.metadata)
    except BaseException:
        record.close()
        raise
    return {**output, "Body": Source(record, offset, length)}


async def head_object(x: Exchange) -> Output:
    record: Record = await x.disk(x.store.read, x.params["Bucket"], x.params["Key"])
    with record:
        return _describe(x, record.metadata)[0]


def _describe(x: Exchange, metadata: Metadata) -> tuple[Output, int, int]:
    """The answer's members, and which bytes it holds."""
    conditions.check_read(x.params, metadata.etag, metadata.modified)
    offset, length, partial = 0, metadata.size, False
    output: Output = {name: metadata.headers.get(name) for name in (*HEADERS, "StorageClass")}
    if (number := x.params.get("PartNumber")) is not None:
        if x.params.get("Range"):
            raise errors.invalid_request("Cannot specify both Range header and partNumber query parameter")
        offset, length = _part_range(metadata, number)
        partial, output["PartsCount"] = True, len(metadata.parts) or None
    elif (found := conditions.read_range(x.params.get("Range"), metadata.size)) is not None:
        (offset, length), partial = found, True
    if partial and length:
        output["ContentRange"] = f"bytes {offset}-{offset + length - 1}/{metadata.size}"
    output |= {
        "AcceptRanges": "bytes",
        "ContentLength": length,
        "ETag": quoted(metadata.etag),
        "LastModified": moment(metadata.modified),
        "Metadata": metadata.user,
    }
    if x.params.get("ChecksumMode") == "ENABLED" and length == metadata.size:
        output |= checksum_members(metadata)
    for name in HEADERS:
        if (value := x.params.get(f"Response{name}")) is not None:
            output[name] = header_text(value)
    return output, offset, length


def _part_range(metadata: Metadata, number: int) -> tuple[int, int]:
    sizes = metadata.parts or [metadata.size]
    if not 1 <= number <= len(sizes):
        raise AwsError("InvalidPartNumber", "The requested partnumber is not satisfiable", status=416)
    return sum(sizes[: number - 1]), sizes[number - 1]


async def delete_object(x: Exchange) -> Output:
    await _delete(x, x.params["Key"], x.params.get("IfMatch"))
    return {}


async def _delete(x: Exchange, key: str, if_match: str | None) -> None:
    def check(etag: str | None) -> None:
        if if_match is not None:
            conditions.check_write({"IfMatch": if_match}, key, etag)

    await x.disk(x.store.delete, x.params["Bucket"], key, check)


async def delete_objects(x: Exchange) -> Output:
    asked = x.params["Delete"]
    if not 0 < len(asked["Objects"]) <= _MOST_DELETED:
        raise errors.malformed_xml()
    deleted: list[Output] = []
    failed: list[Output] = []
    for entry in asked["Objects"]:
        key = entry["Key"]
        try:
            if entry.get("VersionId") not in (None, "null"):
                raise errors.no_such_version(entry["VersionId"])
            await _delete(x, key, entry.get("ETag"))
        except AwsError as error:
            failed.append({"Key": key, "Code": error.code, "Message": error.message})
        else:
            deleted.append({"Key": key})
    return {"Deleted": [] if asked.get("Quiet") else deleted, "Errors": failed}


async def copy_object(x: Exchange) -> Output:
    key = x.params["Key"]
    key_path(key)
    source_bucket, source_key = copy_source(x.params["CopySource"])
    replace = x.params.get("MetadataDirective") == "REPLACE"
    if (source_bucket, source_key) == (x.params["Bucket"], key) and not replace and not x.params.get("StorageClass"):
        raise errors.invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
            "metadata, storage class, website redirect location or encryption attributes."
        )
    record = await open_source(x, source_bucket, source_key)
    with record:
        algorithm = x.params.get("ChecksumAlgorithm")
        algorithms = [algorithm] if algorithm else list(record.metadata.checksums)
        writer: Writer = await x.disk(x.store.writer, Digests(algorithms))
        try:
            await x.disk(copy_range, record, 0, record.metadata.size, writer)
            headers, user = record.metadata.headers, record.metadata.user
            if replace:
                headers, user = kept_headers(x.params), user_metadata(x.params)
            elif x.params.get("StorageClass"):
                headers = {**headers, "StorageClass": x.params["StorageClass"]}
            metadata = Metadata(
                key=key,
                size=writer.digests.size,
                etag=writer.digests.md5.hex(),
                modified=x.store.clock(),
                headers=headers,
                user=user,
                checksums=writer.digests.checksums(),
            )
            await _commit(x, x.params["Bucket"], writer, metadata, lambda e: conditions.check_write(x.params, key, e))
        finally:
            with anyio.CancelScope(shield=True):
                await x.disk(writer.discard)
    result = {"ETag": quoted(metadata.etag), "LastModified": moment(metadata.modified), **checksum_members(metadata)}
    return {"CopyObjectResult": result}


def copy_source(text: str) -> tuple[str, str]:
    """Bucket and key of `x-amz-copy-source`. Raises AwsError InvalidArgument."""
    path, _, version = text.partition("?versionId=")
    if version not in ("", "null"):
        raise errors.no_such_version(version)
    bucket, slash, key = path.removeprefix("/").partition("/")
    try:
        bucket, key = unquote(bucket, errors="strict"), unquote(key, errors="strict")
    except UnicodeDecodeError:
        key = ""
    if not (bucket and slash and key):
        message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise errors.invalid_argument(message, "x-amz-copy-source", text)
    return bucket, key


async def open_source(x: Exchange, bucket: str, key: str) -> Record:
    """A copy's source, when the caller may read it and its conditions hold."""
    owner: Bucket = await x.disk(x.store.bucket, bucket)
    if x.params.get("ExpectedSourceBucketOwner") not in (None, owner.account) or owner.account != x.caller.account:
        raise errors.access_denied()
    record: Record = await x.disk(x.store.read, bucket, key)
    try:
        conditions.check_copy(x.params, record.metadata.etag, record.metadata.modified)
    except AwsError:
        record.close()
        raise
    return record
