"""Operations of multipart uploads."""

from __future__ import annotations

import re
from typing import Any

import anyio

from penstock.control.neighbours.s3 import checksums, conditions, errors
from penstock.control.neighbours.s3.body import receive
from penstock.control.neighbours.s3.checksums import ALGORITHMS, Digests, Kind
from penstock.control.neighbours.s3.exchange import (
    Exchange,
    checksum_members,
    kept_headers,
    moment,
    quoted,
    url_encoded,
    user_metadata,
)
from penstock.control.neighbours.s3.objects import copy_source, open_source
from penstock.control.neighbours.s3.records import Metadata, Writer
from penstock.control.neighbours.s3.uploads import MOST_PARTS, Part, Upload, copy_range

Output = dict[str, Any]
_MOST = 1000


async def create_multipart_upload(x: Exchange) -> Output:
    algorithm = x.params.get("ChecksumAlgorithm") or ""
    if algorithm and algorithm not in ALGORITHMS:
        raise errors.invalid_request("Checksum algorithm provided is unsupported.")
    kind: Kind = x.params.get("ChecksumType") or ("FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE")
    if (kind == "FULL_OBJECT" and algorithm.startswith("SHA")) or (kind == "COMPOSITE" and algorithm == "CRC64NVME"):
        raise errors.invalid_request(
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
        )
    headers, user = kept_headers(x.params), user_metadata(x.params)
    upload: Upload = await x.disk(
        lambda: x.uploads.create(
            x.params["Bucket"], x.params["Key"], headers=headers, user=user, algorithm=algorithm, kind=kind
        )
    )
    answer: Output = {"Bucket": x.params["Bucket"], "Key": upload.key, "UploadId": upload.id}
    return {**answer, "ChecksumAlgorithm": algorithm, "ChecksumType": kind} if algorithm else answer


async def upload_part(x: Exchange) -> Output:
    upload, number = await _upload(x), _part_number(x)
    writer = await receive(
        x.head,
        x.body,
        x.store,
        x.disk,
        secrets=x.secrets,
        limit=x.object_bytes,
        idle_s=x.idle_s,
        algorithm=upload.algorithm,
    )
    metadata = await _put_part(x, upload, number, writer)
    return {"ETag": quoted(metadata.etag), **_part_checksums(metadata)}


async def upload_part_copy(x: Exchange) -> Output:
    upload, number = await _upload(x), _part_number(x)
    record = await open_source(x, *copy_source(x.params["CopySource"]))
    with record:
        offset, length = _copy_range(x.params.get("CopySourceRange"), record.metadata.size)
        algorithms = [upload.algorithm] if upload.algorithm else []
        writer: Writer = await x.disk(x.store.writer, Digests(algorithms))
        try:
            await x.disk(copy_range, record, offset, length, writer)
            metadata = await _put_part(x, upload, number, writer)
        finally:
            with anyio.CancelScope(shield=True):
                await x.disk(writer.discard)
    result = {"ETag": quoted(metadata.etag), "LastModified": moment(metadata.modified), **_part_checksums(metadata)}
    return {"CopyPartResult": result}


def _copy_range(text: str | None, size: int) -> tuple[int, int]:
    if text is None:
        return 0, size
    match = re.fullmatch(r"bytes=(\d{1,19})-(\d{1,19})", text, re.ASCII)
    if match is None or int(match[1]) > int(match[2]):
        message = "The x-amz-copy-source-range value must be of the form bytes=first-last"
        raise errors.invalid_argument(message, "x-amz-copy-source-range", text)
    if int(match[2]) >= size:
        raise errors.invalid_argument(f"Range specified is not valid for source object of size: {size}", "range", text)
    return int(match[1]), int(match[2]) - int(match[1]) + 1


async def _upload(x: Exchange) -> Upload:
    upload: Upload = await x.disk(x.uploads.get, x.params["Bucket"], x.params["Key"], x.params["UploadId"])
    return upload


def _part_number(x: Exchange) -> int:
    number: int = x.params["PartNumber"]
    if not 1 <= number <= MOST_PARTS:
        message = f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive"
        raise errors.invalid_argument(message, "partNumber", number)
    return number


async def _put_part(x: Exchange, upload: Upload, number: int, writer: Writer) -> Metadata:
    def act() -> Metadata:
        try:
            return x.uploads.put_part(x.params["Bucket"], upload, number, writer)
        finally:
            writer.discard()

    with anyio.CancelScope(shield=True):
        metadata: Metadata = await x.disk(act)
    return metadata


def _part_checksums(metadata: Metadata) -> dict[str, str]:
    return {name: value for name, value in checksum_members(metadata).items() if name != "ChecksumType"}


async def complete_multipart_upload(x: Exchange) -> Output:
    upload = await _upload(x)
    asked = [_part(entry) for entry in x.params.get("MultipartUpload", {}).get("Parts", [])]

    def act() -> Metadata:
        return x.uploads.complete(
            x.params["Bucket"],
            upload,
            asked,
            lambda etag: conditions.check_write(x.params, upload.key, etag),
            expected=checksums.given(x.head.headers),
        )

    with anyio.CancelScope(shield=True):
        metadata: Metadata = await x.disk(act)
    return {
        "Location": f"/{x.params['Bucket']}/{upload.key}",
        "Bucket": x.params["Bucket"],
        "Key": upload.key,
        "ETag": quoted(metadata.etag),
        **checksum_members(metadata),
    }


def _part(entry: dict[str, Any]) -> Part:
    if "PartNumber" not in entry or "ETag" not in entry:
        raise errors.malformed_xml()
    found = {algorithm: entry[f"Checksum{algorithm}"] for algorithm in ALGORITHMS if f"Checksum{algorithm}" in entry}
    return Part(entry["PartNumber"], entry["ETag"], found)


async def abort_multipart_upload(x: Exchange) -> Output:
    await x.disk(x.uploads.abort, x.params["Bucket"], await _upload(x))
    return {}


async def list_parts(x: Exchange) -> Output:
    upload = await _upload(x)
    parts: list[Metadata] = await x.disk(x.uploads.parts, x.params["Bucket"], upload)
    after, most = x.params.get("PartNumberMarker") or 0, _most(x.params.get("MaxParts"))
    rest = [part for part in parts if int(part.key) > int(after)]
    shown = rest[:most]
    return {
        "Bucket": x.params["Bucket"],
        "Key": upload.key,
        "UploadId": upload.id,
        "PartNumberMarker": after,
        "NextPartNumberMarker": int(shown[-1].key) if shown else None,
        "MaxParts": most,
        "IsTruncated": len(rest) > len(shown) > 0,
        "Parts": [
            {
                "PartNumber": int(part.key),
                "LastModified": moment(part.modified),
                "ETag": quoted(part.etag),
                "Size": part.size,
                **_part_checksums(part),
            }
            for part in shown
        ],
        "Owner": _owner(x),
        "Initiator": _owner(x),
        "StorageClass": upload.headers.get("StorageClass", "STANDARD"),
        **({"ChecksumAlgorithm": upload.algorithm, "ChecksumType": upload.checksum_type} if upload.algorithm else {}),
    }


async def list_multipart_uploads(x: Exchange) -> Output:
    uploads: list[Upload] = await x.disk(x.uploads.all, x.params["Bucket"])
    prefix, most = x.params.get("Prefix") or "", _most(x.params.get("MaxUploads"))
    encoding = x.params.get("EncodingType")
    after, after_id = x.params.get("KeyMarker") or "", x.params.get("UploadIdMarker") or ""
    if x.params.get("Delimiter"):
        raise errors.not_implemented("delimiter")
    ids = [upload.id for upload in uploads if upload.key == after]
    behind = set(ids[: ids.index(after_id) + 1]) if after_id in ids else set(ids)
    rest = [
        u for u in uploads if u.key.startswith(prefix) and (u.key > after or (u.key == after and u.id not in behind))
    ]
    shown = rest[:most]
    truncated = len(rest) > len(shown) > 0
    return {
        "Bucket": x.params["Bucket"],
        "KeyMarker": url_encoded(after, encoding),
        "UploadIdMarker": after_id,
        "NextKeyMarker": url_encoded(shown[-1].key, encoding) if truncated else None,
        "NextUploadIdMarker": shown[-1].id if truncated else None,
        "Prefix": url_encoded(prefix, encoding),
        "EncodingType": encoding,
        "MaxUploads": most,
        "IsTruncated": truncated,
        "Uploads": [
            {
                "UploadId": upload.id,
                "Key": url_encoded(upload.key, encoding),
                "Initiated": moment(upload.initiated),
                "StorageClass": upload.headers.get("StorageClass", "STANDARD"),
                "Owner": _owner(x),
                "Initiator": _owner(x),
            }
            for upload in shown
        ],
    }


def _most(asked: int | None) -> int:
    if asked is not None and not 0 <= asked < 2**31:
        raise errors.invalid_argument("Argument must be an integer between 0 and 2147483647", "max", asked)
    return _MOST if asked is None else min(asked, _MOST)


def _owner(x: Exchange) -> dict[str, str]:
    return {"DisplayName": x.caller.account, "ID": x.caller.account}
