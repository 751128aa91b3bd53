"""The checksums that S3 takes: computed as bytes pass, compared, and joined over the parts of an upload.

It must never do I/O. AWS: "Checking object integrity for data uploads in Amazon S3".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol

from penstock.control.neighbours.s3 import errors

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
LENGTHS = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
Kind = Literal["COMPOSITE", "FULL_OBJECT"]


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    def __init__(self, compute: Callable[[bytes, int], int], length: int) -> None:
        self._compute, self._length, self._value = compute, length, 0

    def update(self, data: bytes, /) -> None:
        self._value = self._compute(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._length, "big")


def new(algorithm: str) -> Digest:
    """A fresh digest of one of `ALGORITHMS`."""
    match algorithm:
        case "CRC32":
            return _Crc(zlib.crc32, 4)
        case "SHA1":
            return hashlib.sha1(usedforsecurity=False)
        case "SHA256":
            return hashlib.sha256()
        case _:
            # Loaded when first needed: 8 MB that most servers never use.
            from awscrt import checksums

            return _Crc(checksums.crc32c, 4) if algorithm == "CRC32C" else _Crc(checksums.crc64nvme, 8)


class Digests:
    """MD5 and SHA-256 of what passes, and each of `algorithms`."""

    def __init__(self, algorithms: Iterable[str] = (), *, sha256: bool = False) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._named = {algorithm: new(algorithm) for algorithm in algorithms}
        self._sha256 = hashlib.sha256() if sha256 else None
        self.size = 0

    def update(self, data: bytes) -> None:
        self.size += len(data)
        self._md5.update(data)
        for digest in self._named.values():
            digest.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    @property
    def sha256(self) -> str:
        """Hex. Only where it was asked for."""
        assert self._sha256 is not None
        return self._sha256.hexdigest()

    def checksums(self) -> dict[str, str]:
        """Base64, by algorithm."""
        return {name: base64.b64encode(digest.digest()).decode("ascii") for name, digest in self._named.items()}


def given(headers: Mapping[str, str]) -> dict[str, str]:
    """The checksums that headers (or trailers) state, by algorithm. Raises AwsError InvalidRequest on one of the wrong form."""
    found = {}
    for name, value in headers.items():
        algorithm = name.removeprefix("x-amz-checksum-").upper()
        if not name.startswith("x-amz-checksum-") or algorithm in ("ALGORITHM", "TYPE", "MODE"):
            continue
        if algorithm not in ALGORITHMS:
            raise errors.not_implemented(name)
        _decode(name, value, LENGTHS[algorithm])
        found[algorithm] = value
    if len(found) > 1:
        raise errors.invalid_request(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    return found


def content_md5(headers: Mapping[str, str]) -> bytes | None:
    """The MD5 that `Content-MD5` states. Raises AwsError InvalidDigest."""
    if (value := headers.get("content-md5")) is None:
        return None
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise errors.invalid_digest() from None
    if len(digest) != 16:
        raise errors.invalid_digest()
    return digest


def announced(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The algorithms whose checksum comes, in a header or a trailer, or that the client merely asks for."""
    names = set(given(headers))
    for trailer in headers.get("x-amz-trailer", "").split(","):
        name = trailer.strip().lower()
        if name.startswith("x-amz-checksum-"):
            if (algorithm := name.removeprefix("x-amz-checksum-").upper()) not in ALGORITHMS:
                raise errors.not_implemented(name)
            names.add(algorithm)
    return tuple(sorted(names))


def _decode(name: str, value: str, length: int) -> bytes:
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != length:
        raise errors.invalid_request(f"Value for {name} header is invalid.")
    return digest


def composite(algorithm: str, parts: Iterable[str]) -> str:
    """The checksum of the parts' checksums, as S3 writes it: `BASE64-N`."""
    digest, count = new(algorithm), 0
    for part in parts:
        digest.update(base64.b64decode(part))
        count += 1
    return f"{base64.b64encode(digest.digest()).decode('ascii')}-{count}"
