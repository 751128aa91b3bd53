"""The file that holds an object (or a part): its bytes, then what is known of them, then a mark.

Owns that form and how it comes to be: written beside, forced to disk, renamed into place. One file and one rename, so that whoever
looks, and whatever dies, there is the old object or the new one, data and metadata of the same. Blocking: call it in a thread.

    data … | metadata (JSON) | its length, 8 bytes, big-endian | b"penstock"
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self, cast

import msgspec

from penstock.control.neighbours.s3.checksums import Digests, Kind

_MARK = b"penstock"
_TAIL = 16
_JSON_BYTES = 1 << 20


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an object. `modified` is seconds since 1970, `headers` are by S3's member names (`ContentType` …)."""

    key: str
    size: int
    etag: str
    """Without its quotes."""
    modified: float
    headers: dict[str, str] = {}
    user: dict[str, str] = {}
    """`x-amz-meta-…`, names in lower case."""
    checksums: dict[str, str] = {}
    checksum_type: Kind = "FULL_OBJECT"
    parts: list[int] = []
    """The parts' sizes, of an object that was uploaded in parts."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Metadata).decode


class Writer:
    """A record that is being written. Exactly one of `publish` and `discard` ends it; `discard` after `publish` is nothing."""

    def __init__(self, directory: Path, digests: Digests) -> None:
        self.digests = digests
        self._path = directory / secrets.token_hex(16)
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115 - lives as long as the writer

    def write(self, data: bytes) -> None:
        """Raises OSError, ENOSPC among them."""
        self.digests.update(data)
        self._write(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def seal(self, metadata: Metadata) -> None:
        """Adds the metadata and forces all of it to the disk."""
        text = _encode(metadata)
        self._write(text + len(text).to_bytes(8, "big") + _MARK)
        os.fsync(self._file.fileno())
        self._file.close()

    def publish(self, target: Path) -> None:
        """Puts the sealed record in its place, whatever was there before. The target's directory must be there."""
        os.rename(self._path, target)
        sync_directory(target.parent)

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


@dataclass(slots=True)
class Record:
    """An open record: stays what it was, though the object be replaced or deleted meanwhile. Close it."""

    metadata: Metadata
    _file: IO[bytes]

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes of the data."""
        return os.pread(self._file.fileno(), max(0, min(length, self.metadata.size - offset)), offset)

    def stream(self) -> BinaryIO:
        """The data as a seekable file, which closes the record when it is closed."""
        return cast("BinaryIO", io.BufferedReader(_Data(self), 256 * 1024))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Data(io.RawIOBase):
    def __init__(self, record: Record) -> None:
        self._record, self._at = record, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._record.metadata.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._record.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._record.close()
        super().close()


def open_record(path: Path) -> Record:
    """Raises FileNotFoundError where there is none, OSError where the file is damaged."""
    file = open(path, "rb", buffering=0)  # noqa: SIM115 - the record closes it
    try:
        return Record(_read_metadata(file), file)
    except BaseException:
        file.close()
        raise


def _read_metadata(file: IO[bytes]) -> Metadata:
    descriptor = file.fileno()
    whole = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL, max(0, whole - _TAIL))
    length = int.from_bytes(tail[:8], "big")
    if len(tail) != _TAIL or tail[8:] != _MARK or length > min(_JSON_BYTES, whole - _TAIL):
        raise OSError(f"damaged record: {file.name}")
    try:
        metadata = _decode(os.pread(descriptor, length, whole - _TAIL - length))
    except msgspec.MsgspecError as error:
        raise OSError(f"damaged record: {file.name}: {error}") from error
    if metadata.size != whole - _TAIL - length:
        raise OSError(f"damaged record: {file.name}")
    return metadata


def write_json(path: Path, value: Mapping[str, object], spare: Path) -> None:
    """A small JSON file, replaced in one step. `spare` is a directory on the same disk."""
    temporary = spare / secrets.token_hex(16)
    try:
        with open(temporary, "xb") as file:
            file.write(_encode(value))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Forces a directory's entries to the disk: a rename is durable only then."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
