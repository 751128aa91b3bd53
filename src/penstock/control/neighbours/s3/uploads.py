"""Multipart uploads: parts that come in any order, joined at the end.

Owns `BUCKET/uploads/ID/`: `upload.json` and a record per part. It must never know a wire protocol. Blocking, like the store.
AWS: "Uploading and copying objects using multipart upload".
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from penstock.control.neighbours.s3 import checksums, errors
from penstock.control.neighbours.s3.checksums import Digests, Kind
from penstock.control.neighbours.s3.keys import key_path
from penstock.control.neighbours.s3.records import Metadata, Record, Writer, open_record, sync_directory, write_json
from penstock.control.neighbours.s3.store import Condition, ObjectStore

LEAST_PART_BYTES = 5 * 1024 * 1024
MOST_PARTS = 10_000
_ID = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1024 * 1024


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload in progress. `algorithm` is the checksum that its parts carry, empty for none."""

    id: str
    key: str
    initiated: float
    headers: dict[str, str] = {}
    user: dict[str, str] = {}
    algorithm: str = ""
    checksum_type: Kind = "COMPOSITE"


class Part(msgspec.Struct, frozen=True):
    """A part as the client names it when it completes the upload."""

    number: int
    etag: str
    checksums: dict[str, str] = {}


_decode = msgspec.json.Decoder(Upload).decode


class Uploads:
    """The multipart uploads of all buckets of a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def create(
        self, bucket: str, key: str, *, headers: dict[str, str], user: dict[str, str], algorithm: str, kind: Kind
    ) -> Upload:
        """Raises AwsError: NoSuchBucket, KeyTooLongError."""
        key_path(key)
        self._store.bucket(bucket)
        upload = Upload(
            id=secrets.token_hex(32),
            key=key,
            initiated=self._store.clock(),
            headers=headers,
            user=user,
            algorithm=algorithm,
            checksum_type=kind,
        )
        fresh = self._store.spare / upload.id
        try:
            fresh.mkdir()
            write_json(fresh / "upload.json", msgspec.to_builtins(upload), self._store.spare)
            os.rename(fresh, self._uploads(bucket) / upload.id)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        sync_directory(self._uploads(bucket))
        return upload

    def get(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Raises AwsError: NoSuchBucket, NoSuchUpload."""
        self._store.bucket(bucket)
        upload = self._load(bucket, upload_id)
        if upload is None or upload.key != key:
            raise errors.no_such_upload(upload_id)
        return upload

    def all(self, bucket: str) -> list[Upload]:
        """By key, then by the time they began."""
        self._store.bucket(bucket)
        found = [self._load(bucket, path.name) for path in self._uploads(bucket).iterdir()]
        return sorted((u for u in found if u is not None), key=lambda u: (u.key, u.initiated, u.id))

    def put_part(self, bucket: str, upload: Upload, number: int, writer: Writer) -> Metadata:
        """Makes what was written part `number`, in place of an earlier one. Raises AwsError NoSuchUpload."""
        digests = writer.digests
        metadata = Metadata(
            key=str(number),
            size=digests.size,
            etag=digests.md5.hex(),
            modified=self._store.clock(),
            checksums=digests.checksums(),
        )
        writer.seal(metadata)
        try:
            writer.publish(self._part(bucket, upload.id, number))
        except FileNotFoundError:  # aborted or completed meanwhile
            raise errors.no_such_upload(upload.id) from None
        return metadata

    def parts(self, bucket: str, upload: Upload) -> list[Metadata]:
        """By number; a part's `key` is its number."""
        found = []
        for path in sorted(self._directory(bucket, upload.id).glob("part-*")):
            with suppress(FileNotFoundError), open_record(path) as record:
                found.append(record.metadata)
        return found

    def abort(self, bucket: str, upload: Upload) -> None:
        """Drops the upload and its parts."""
        doomed = self._store.spare / secrets.token_hex(16)
        with suppress(FileNotFoundError):
            os.rename(self._directory(bucket, upload.id), doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def complete(
        self, bucket: str, upload: Upload, wanted: Sequence[Part], condition: Condition, *, expected: dict[str, str]
    ) -> Metadata:
        """Joins `wanted` into the object, then drops the upload.

        `expected` are checksums of the whole that the client states. Raises AwsError: InvalidPart, InvalidPartOrder, EntityTooSmall,
        BadDigest, the condition's.
        """
        records: list[Record] = []
        writer: Writer | None = None
        try:
            self._open_parts(bucket, upload, wanted, records)
            whole = upload.algorithm if upload.algorithm and upload.checksum_type == "FULL_OBJECT" else ""
            writer = self._store.writer(Digests([whole] if whole else []))
            for record in records:
                _copy(record, 0, record.metadata.size, writer.write)
            found = writer.digests.checksums() if whole else _joined(upload, records)
            for algorithm, value in expected.items():
                if found.get(algorithm, value).partition("-")[0] != value.partition("-")[0]:
                    raise errors.bad_digest(algorithm)
            etags = b"".join(bytes.fromhex(record.metadata.etag) for record in records)
            metadata = Metadata(
                key=upload.key,
                size=writer.digests.size,
                etag=f"{hashlib.md5(etags, usedforsecurity=False).hexdigest()}-{len(records)}",
                modified=self._store.clock(),
                headers=upload.headers,
                user=upload.user,
                checksums=found,
                checksum_type=upload.checksum_type,
                parts=[record.metadata.size for record in records],
            )
            self._store.commit(bucket, writer, metadata, condition)
        finally:
            if writer is not None:
                writer.discard()
            for record in records:
                record.close()
        self.abort(bucket, upload)
        return metadata

    def _open_parts(self, bucket: str, upload: Upload, wanted: Sequence[Part], records: list[Record]) -> None:
        if not wanted:
            raise errors.malformed_xml()
        if [part.number for part in wanted] != sorted({part.number for part in wanted}):
            raise errors.invalid_part_order()
        for i, part in enumerate(wanted, start=1):
            try:
                record = open_record(self._part(bucket, upload.id, part.number))
            except FileNotFoundError:
                raise errors.invalid_part(part.number) from None
            records.append(record)
            there = record.metadata
            if there.etag != part.etag.strip('"'):
                raise errors.invalid_part(part.number)
            if any(there.checksums.get(algorithm, value) != value for algorithm, value in part.checksums.items()):
                raise errors.invalid_part(part.number)
            if i < len(wanted) and there.size < LEAST_PART_BYTES:
                raise errors.entity_too_small(part.number, there.size, LEAST_PART_BYTES)

    def _load(self, bucket: str, upload_id: str) -> Upload | None:
        if not _ID.fullmatch(upload_id):
            return None
        try:
            return _decode((self._directory(bucket, upload_id) / "upload.json").read_bytes())
        except FileNotFoundError:
            return None

    def _uploads(self, bucket: str) -> Path:
        return self._store.root / bucket / "uploads"

    def _directory(self, bucket: str, upload_id: str) -> Path:
        return self._uploads(bucket) / upload_id

    def _part(self, bucket: str, upload_id: str, number: int) -> Path:
        return self._directory(bucket, upload_id) / f"part-{number:05d}"


def copy_range(source: Record, offset: int, length: int, writer: Writer) -> None:
    """Copies bytes of an open object into one that is written."""
    _copy(source, offset, length, writer.write)


def _copy(source: Record, offset: int, length: int, write: Callable[[bytes], None]) -> None:
    end = offset + length
    while offset < end:
        data = source.read(offset, min(_COPY_BYTES, end - offset))
        if not data:
            raise OSError("a record is shorter than its metadata say")
        write(data)
        offset += len(data)


def _joined(upload: Upload, records: Sequence[Record]) -> dict[str, str]:
    """The composite checksum, where every part has one."""
    found = [record.metadata.checksums.get(upload.algorithm, "") for record in records]
    return {upload.algorithm: checksums.composite(upload.algorithm, found)} if upload.algorithm and all(found) else {}
