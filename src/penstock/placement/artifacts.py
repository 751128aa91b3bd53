"""A model's artifact, from the object store to `/opt/ml/model`.

Owns unpacking and copying, and every reason for which an artifact is refused (AWS: "Deploying uncompressed models"). It must never know
replicas, and trusts no archive: files are created one by one below the destination, links and devices never.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from penstock.placement.base import ModelData, ObjectReader

CONTAINER = "container_1"
"""What AWS's messages call the first container."""

_PIECE_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_HEADER_BYTES = 4 * 1024 * 1024
"""What the headers of one archive member may take; a hostile one claims gigabytes."""
_TRAILER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """The largest artifact that is taken."""

    files: int = 100_000
    bytes: int = 1 << 40


class ArtifactError(Exception):
    """The artifact can't be had or used. The text is a FailureReason in AWS's wording."""


class NotThere(ArtifactError):
    """There is no object at the artifact's URL."""


class NotStored(ArtifactError):
    """It could not be read from the object store or written to the disk: nothing is said about the artifact itself."""


class Cancelled(Exception):
    """`stage` was told to stop."""


def stage(
    data: ModelData,
    destination: Path,
    reader: ObjectReader,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    bounds: Bounds | None = None,
) -> None:
    """Fill the empty directory `destination` with the artifact, then make it read-only. Blocking.

    `cancelled` is asked at least once a MiB. Raises ArtifactError or Cancelled; what was written until then is the caller's to remove.
    """
    filling = _Filling(data.url, destination, cancelled, bounds or Bounds())
    bucket, _, key = data.url.removeprefix("s3://").partition("/")
    try:
        match data.kind:
            case "tar.gz":
                with _open(reader, bucket, key, data.url) as file:
                    _unpack(file, filling)
            case "object":
                with _open(reader, bucket, key, data.url) as file:
                    filling.file(key.rsplit("/", 1)[-1], file)
            case "prefix":
                _copy_prefix(reader, bucket, key, filling)
    except OSError as error:
        raise NotStored(f"{_download_failed(data.url)} {error.strerror or error}.") from error
    make_read_only(destination)


def remove(directory: Path) -> None:
    """Delete a replica's directory, whatever it holds. Never raises: what can't be deleted stays."""
    for path, _, _ in os.walk(directory):
        with suppress(OSError):
            os.chmod(path, 0o700)
    shutil.rmtree(directory, ignore_errors=True)


def make_read_only(directory: Path) -> None:
    for path, _, files in os.walk(directory, topdown=False):
        for name in (*files, "."):
            full = os.path.join(path, name)
            os.chmod(full, os.stat(full).st_mode & 0o555)


def _download_failed(url: str) -> str:
    return f'Failed to download model data for container "{CONTAINER}" from URL: "{url}".'


def _open(reader: ObjectReader, bucket: str, key: str, url: str) -> IO[bytes]:
    try:
        return reader.open(bucket, key)
    except FileNotFoundError:
        raise NotThere(
            f"{_download_failed(url)} Please ensure that there is an object located at the URL and that the role passed to "
            "CreateModel has permissions to download the object."
        ) from None


class _Filling:
    """A destination being filled: names checked, bytes and files counted."""

    def __init__(self, url: str, destination: Path, cancelled: Callable[[], bool], bounds: Bounds) -> None:
        self.url = url
        self._destination = destination
        self._cancelled = cancelled
        self._bounds = bounds
        self._files = 0
        self._bytes = 0

    def directory(self, name: str) -> None:
        self._count()
        try:
            self._path(name).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise self._refused(name, "it is a file before") from None

    def file(self, name: str, source: IO[bytes], mode: int = 0o644) -> None:
        self._count()
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except (FileExistsError, NotADirectoryError):
            raise self._refused(name, "the name is taken before") from None
        with open(target, "wb") as file:
            while piece := source.read(_PIECE_BYTES):
                self._bytes += len(piece)
                if self._bytes > self._bounds.bytes:
                    raise ArtifactError(
                        f'The model data at URL "{self.url}" is larger than {self._bounds.bytes} bytes.'
                    )
                file.write(piece)
                self.check()
        if mode & 0o100:
            path.chmod(path.stat().st_mode | 0o111)

    def check(self) -> None:
        if self._cancelled():
            raise Cancelled

    def _count(self) -> None:
        self.check()
        self._files += 1
        if self._files > self._bounds.files:
            raise ArtifactError(f'The model data at URL "{self.url}" has more than {self._bounds.files} files.')

    def _path(self, name: str) -> Path:
        pure = PurePosixPath(name)
        if pure.is_absolute():
            raise self._refused(name, "its path is absolute")
        if ".." in pure.parts:
            raise self._refused(name, "its path leads upwards")
        if "\0" in name or len(os.fsencode(name)) > 1024 or any(len(os.fsencode(p)) > 255 for p in pure.parts):
            raise self._refused(name, "its path is not a file's name")
        return self._destination / pure

    def _refused(self, name: str, why: str) -> ArtifactError:
        return refused(self.url, f"{shown(name)} is refused: {why}")


def refused(url: str, why: str) -> ArtifactError:
    """An archive, or a set of objects, that is not taken."""
    return ArtifactError(
        f'Failed to extract model data archive for container "{CONTAINER}" from URL "{url}". Please ensure that the object located '
        f"at the URL is a valid tar.gz archive: {why}."
    )


def shown(name: str) -> str:
    """A name that someone else chose, fit for a message."""
    text = name.encode("utf-8", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return f'"{text[:200]}"' + ("…" if len(text) > 200 else "")


def _copy_prefix(reader: ObjectReader, bucket: str, prefix: str, filling: _Filling) -> None:
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    for key in reader.keys(bucket, prefix):
        name = key.removeprefix(prefix)
        if name.endswith("/"):
            filling.directory(name)
        elif name:
            try:
                with reader.open(bucket, key) as file:
                    filling.file(name, file)
            except FileNotFoundError:  # deleted since it was listed
                continue


def _unpack(file: IO[bytes], filling: _Filling) -> None:
    source = _Bounded(gzip.GzipFile(fileobj=file), filling)
    try:
        with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|", bufsize=_READ_BYTES) as archive:
            for member in _members(archive, source):
                content = archive.extractfile(member) if member.isreg() else None
                if member.isdir():
                    filling.directory(member.name)
                elif content is not None and not member.issparse():
                    source.allow(member.size)
                    filling.file(member.name, content, member.mode)
                else:
                    raise refused(filling.url, f"{shown(member.name)} is refused: it is {_kind(member)}")
        # To the end, so that the checksum is looked at: an archive cut off between two members has none.
        source.allow(_TRAILER_BYTES)
        while source.read(_PIECE_BYTES):
            filling.check()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, UnicodeError, ValueError) as error:
        raise refused(filling.url, str(error).rstrip(".") or type(error).__name__) from error


def _members(archive: tarfile.TarFile, source: _Bounded) -> Iterator[tarfile.TarInfo]:
    while True:
        source.allow(_HEADER_BYTES)
        member = archive.next()
        if member is None:
            return
        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        yield member


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    if member.isdev():
        return "a device or a pipe"
    return "of a kind that is not taken"


class _Bounded:
    """A gzip stream that hands out no more than was allowed: tarfile would read what a header claims into memory."""

    def __init__(self, source: gzip.GzipFile, filling: _Filling) -> None:
        self._source = source
        self._filling = filling
        self._left = _HEADER_BYTES

    def allow(self, size: int) -> None:
        """From here on `size` bytes, and what tarfile reads besides: headers and padding."""
        self._left = size + _HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise refused(self._filling.url, "a header in it is too large")
        return data
