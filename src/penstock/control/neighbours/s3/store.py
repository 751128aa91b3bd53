"""Buckets and objects on disk.

Owns the directory `Paths.buckets` and every change in it; one process at a time. It must never know a wire protocol. All of it blocks:
call it in a thread from an event loop.

    BUCKET/bucket.json      whose it is, where, since when
    BUCKET/objects/…        a record per object (`records.py`), named by its key (`keys.py`)
    BUCKET/uploads/ID/…     multipart uploads in progress (`uploads.py`)
    .spare/                 what is being written; emptied at start
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from penstock.control.neighbours.s3 import errors
from penstock.control.neighbours.s3.checksums import Digests
from penstock.control.neighbours.s3.keys import check_bucket, key_path, path_key
from penstock.control.neighbours.s3.listing import Page, page
from penstock.control.neighbours.s3.records import Metadata, Record, Writer, open_record, sync_directory, write_json
from penstock.errors import AwsError

_CACHED_BUCKETS = 4


class Bucket(msgspec.Struct, frozen=True):
    """`created` is seconds since 1970."""

    name: str
    account: str
    region: str
    created: float


_decode_bucket = msgspec.json.Decoder(Bucket).decode
Condition = Callable[[str | None], None]
"""Looks at the ETag of what is there (None: nothing) and raises AwsError where it may not be replaced."""


class ObjectStore:
    """All buckets. Also the `ObjectReader` that placements fetch models through."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.clock = clock
        self.spare = root / ".spare"
        self._lock = threading.RLock()
        self._names: dict[str, list[str]] = {}

    def prepare(self) -> None:
        """Makes the directories, and clears away what a killed server left half-written. Call it once, before all else."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.spare.exists():
            shutil.rmtree(self.spare)
        self.spare.mkdir(mode=0o700)

    # Buckets.

    def create_bucket(self, name: str, *, account: str, region: str) -> None:
        """Raises AwsError: InvalidBucketName, BucketAlreadyOwnedByYou, BucketAlreadyExists."""
        check_bucket(name)
        fresh = self.spare / secrets.token_hex(16)
        try:
            (fresh / "objects").mkdir(parents=True)
            (fresh / "uploads").mkdir()
            bucket = Bucket(name, account, region, self.clock())
            write_json(fresh / "bucket.json", msgspec.to_builtins(bucket), self.spare)
            with self._lock:
                if (there := self._find(name)) is not None:
                    mine = there.account == account
                    raise errors.bucket_already_owned(name) if mine else errors.bucket_already_exists(name)
                os.rename(fresh, self.root / name)
                sync_directory(self.root)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def bucket(self, name: str) -> Bucket:
        """Raises AwsError: InvalidBucketName, NoSuchBucket."""
        check_bucket(name)
        if (found := self._find(name)) is None:
            raise errors.no_such_bucket(name)
        return found

    def buckets(self) -> list[Bucket]:
        """By name."""
        found = [self._find(path.name) for path in self.root.iterdir()]
        return sorted((b for b in found if b is not None), key=lambda bucket: bucket.name)

    def delete_bucket(self, name: str) -> None:
        """Raises AwsError: NoSuchBucket, BucketNotEmpty."""
        with self._lock:
            self.bucket(name)
            if self._keys(name):
                raise errors.bucket_not_empty(name)
            doomed = self.spare / secrets.token_hex(16)
            os.rename(self.root / name, doomed)
            sync_directory(self.root)
            self._names.pop(name, None)
        shutil.rmtree(doomed, ignore_errors=True)

    # Objects.

    def writer(self, digests: Digests) -> Writer:
        """A record to write an object into; end it with `commit` or `discard`."""
        return Writer(self.spare, digests)

    def commit(self, bucket: str, writer: Writer, metadata: Metadata, condition: Condition | None = None) -> None:
        """Makes what was written the object `metadata.key`. Raises AwsError: NoSuchBucket, KeyTooLongError, the condition's."""
        objects = self.root / bucket / "objects"
        target = objects / key_path(metadata.key)
        writer.seal(metadata)
        with self._lock:
            self.bucket(bucket)
            if condition is not None:
                condition(self.etag(bucket, metadata.key))
            for directory in reversed(target.relative_to(objects).parents[:-1]):
                with suppress(FileExistsError):
                    (objects / directory).mkdir()
                    sync_directory((objects / directory).parent)
            writer.publish(target)
            if (names := self._names.get(bucket)) is not None and not _holds(names, metadata.key):
                insort(names, metadata.key)

    def put(
        self, bucket: str, key: str, chunks: Iterable[bytes], *, content_type: str = "binary/octet-stream"
    ) -> Metadata:
        """Writes an object whole, for callers inside the server. Raises AwsError as `commit` does, OSError."""
        writer = self.writer(Digests())
        try:
            for chunk in chunks:
                writer.write(chunk)
            metadata = Metadata(
                key=key,
                size=writer.digests.size,
                etag=writer.digests.md5.hex(),
                modified=self.clock(),
                headers={"ContentType": content_type},
            )
            self.commit(bucket, writer, metadata)
        finally:
            writer.discard()
        return metadata

    def read(self, bucket: str, key: str) -> Record:
        """Raises AwsError: NoSuchBucket, NoSuchKey, KeyTooLongError."""
        path = self._path(bucket, key)
        try:
            return open_record(path)
        except FileNotFoundError:
            self.bucket(bucket)
            raise errors.no_such_key(key) from None

    def etag(self, bucket: str, key: str) -> str | None:
        """Of the object that is there, None where there is none."""
        try:
            with open_record(self._path(bucket, key)) as record:
                return record.metadata.etag
        except FileNotFoundError:
            return None

    def delete(self, bucket: str, key: str, condition: Condition | None = None) -> None:
        """Deleting what is not there is nothing. Raises AwsError NoSuchBucket."""
        path = self._path(bucket, key)
        with self._lock:
            self.bucket(bucket)
            if condition is not None:
                condition(self.etag(bucket, key))
            try:
                path.unlink()
            except FileNotFoundError:
                return
            sync_directory(path.parent)
            if (names := self._names.get(bucket)) is not None and _holds(names, key):
                del names[bisect_left(names, key)]
            objects, directory = self.root / bucket / "objects", path.parent
            with suppress(OSError):  # a directory that holds more stays
                while directory != objects:
                    directory.rmdir()
                    directory = directory.parent

    def page(self, bucket: str, *, prefix: str, delimiter: str, after: str, most: int) -> Page:
        """See `listing.page`. Raises AwsError NoSuchBucket."""
        with self._lock:
            self.bucket(bucket)
            return page(self._keys(bucket), prefix=prefix, delimiter=delimiter, after=after, most=most)

    # What placements call (`placement.base.ObjectReader`).

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Raises FileNotFoundError."""
        try:
            return self.read(bucket, key).stream()
        except AwsError as error:
            raise FileNotFoundError(f"s3://{bucket}/{key}: {error.message}") from None

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """Keys below `prefix`, in order; none where the bucket is missing."""
        after = ""
        while True:
            try:
                found = self.page(bucket, prefix=prefix, delimiter="", after=after, most=1000)
            except AwsError:
                return
            yield from found.keys
            if not found.truncated:
                return
            after = found.last

    def _find(self, name: str) -> Bucket | None:
        try:
            return _decode_bucket((self.root / name / "bucket.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _path(self, bucket: str, key: str) -> Path:
        check_bucket(bucket)
        return self.root / bucket / "objects" / key_path(key)

    def _keys(self, bucket: str) -> list[str]:
        """All keys in order: read from the directory once, then kept up to date, for the buckets that were listed last."""
        names = self._names.pop(bucket, None)
        if names is None:
            names = sorted(_walk(self.root / bucket / "objects", ""))
            while len(self._names) >= _CACHED_BUCKETS:
                del self._names[next(iter(self._names))]
        self._names[bucket] = names
        return names


def _walk(directory: Path, relative: str) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(directory / entry.name, f"{relative}{entry.name}/")
            elif (key := path_key(relative + entry.name)) is not None:
                yield key


def _holds(names: list[str], key: str) -> bool:
    at = bisect_left(names, key)
    return at < len(names) and names[at] == key
